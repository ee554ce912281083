"""A Weights & Biases workspace for the runs of a project, from code: the same command makes the same dashboard again.

Every panel names a metric that runs log (`tests/results/test_wandb_workspace.py` compares them with those of a real
run). Runs are grouped by study, then method, then by what differs in nothing but the seed; curves and bars show the
mean of such repetitions and their standard deviation.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import category
from urllib.parse import parse_qs, unquote, urlsplit

from cse_bench.config.messages import Problem
from cse_bench.config.schema import DashboardConfig
from cse_bench.errors import ConfigError, first_line
from cse_bench.results.wandb_names import FINAL, STEP

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

# Per name in `scores` of the config: what is scored during training, and what at the end, the headline first.
_STS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
_TRANSFER = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")
DEV_SCORES = {"sts": ["sts/dev/stsb"], "transfer": ["sts/dev/stsb"], "sample": ["wiki_sections/dev/accuracy"]}
FINAL_SCORES = {
    "sts": ["sts/test/avg", "sts/test_clean/avg", *(f"sts/test/{task}" for task in _STS)],
    "transfer": ["transfer/test/avg", *(f"transfer/test/{task}" for task in _TRANSFER)],
    "sample": ["wiki_sections/test/accuracy", "lee/spearman"],
}
PLANE = ("geometry/alignment", "geometry/uniformity")
GEOMETRY = (
    "geometry/align_uniform_ratio",
    "geometry/align_dispersion_ratio",
    "geometry/dispersion",
    "geometry/mean_cosine",
    "geometry/effective_rank",
    "geometry/largest_variance_share",
)
COSTS = (
    "cost/train_time_s",
    "cost/preparation_time_s",
    "cost/prerequisites_time_s",
    "cost/eval_time_s",
    "cost/peak_memory_bytes",
    "cost/train_sentences_per_s",
    "cost/inference_parameters",
    "cost/inference_flops",
)
_RUNS_SHOWN = 100  # lines and bars in a panel; wandb's own limit is 10
_NOT_IN_NAMES = "/\\#?%:"  # of a project, says wandb's `Settings`; all of them mean something in a URL


def problems(config: DashboardConfig) -> Iterator[Problem]:
    """What wandb would refuse or misread; found without the network, so that a dry run finds it too."""
    for key in ("entity", "project"):
        name = getattr(config, key)
        if not name.strip() or set(name) & set(_NOT_IN_NAMES):
            what = "your user or team name" if key == "entity" else "a project"
            yield Problem(key, f"must be {what} in wandb, without any of {' '.join(_NOT_IN_NAMES)}; got '{name}'")
    if not config.name.strip() or any(category(character).startswith("S") for character in config.name):
        yield Problem("name", f"must be text, without symbols like + = $ or emojis (wandb's rule); got '{config.name}'")
    if len(set(config.scores)) < len(config.scores):
        yield Problem("scores", f"must be different ones of {', '.join(FINAL_SCORES)}; got {', '.join(config.scores)}")
    if config.study is not None and not config.study.strip():
        yield Problem("study", "must be the name of a study, or null for all runs of the project; got ''")
    if config.output is not None and not config.output.strip():
        yield Problem("output", "must be a file, or null for none; got ''")
    if config.url is not None and not _is_saved_workspace(config.url, of=(config.entity, config.project)):
        yield Problem(
            "url",
            "must be that of a saved workspace of this project, as this command printed it "
            f"(https://wandb.ai/{config.entity}/{config.project}?nw=ID; a user's own one, nw=nwuser..., cannot be "
            f"replaced), or null for a new one; got '{config.url}'",
        )


def _is_saved_workspace(url: str, *, of: tuple[str, str]) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    views = parse_qs(parts.query).get("nw", [])
    return (
        parts.scheme in ("http", "https")
        and bool(parts.netloc)
        and tuple(unquote(name) for name in parts.path.split("/")[1:]) == of
        and len(views) == 1
        and not views[0].startswith("nwuser")
    )


def build_workspace(config: DashboardConfig) -> "Workspace":
    """The workspace of a config; asks nothing of the network.

    Raises:
        ConfigError: the package that describes workspaces is not installed.
    """
    ws, wr = _packages()
    from wandb_workspaces import expr

    scores = [metric for name in config.scores for metric in FINAL_SCORES[name]]
    dev = list(dict.fromkeys(metric for name in config.scores for metric in DEV_SCORES[name]))
    shown = [
        scores[0],
        *(metric for metric in scores[1:] if metric.endswith("/avg")),
        *dev,
        *PLANE,
        "cost/train_time_s",
    ]
    return ws.Workspace(
        entity=config.entity,
        project=config.project,
        name=config.name,
        sections=[
            _section("Scores over training", [*map(_curve, dev), _curve("train/loss")]),
            _section("Alignment and uniformity (lower is better)", [*map(_curve, PLANE), _plane(wr)]),
            _section("Geometry (ratios: cse_bench definition)", [_curve(metric) for metric in GEOMETRY]),
            _section("Cost", [_bars(metric) for metric in COSTS]),
            _section("Final scores, of the selected checkpoint", [_bars(metric) for metric in scores]),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=_RUNS_SHOWN, smoothing_type="none"),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == config.study) if config.study else "",
            groupby=[expr.Metric("Group"), expr.Metric("JobType"), expr.Config("run.repetitions")],
            order=[expr.Ordering(expr.Summary(f"{FINAL}{scores[0]}"), ascending=False)],
            # The runs themselves are the final table: mean over the runs of a group.
            pinned_columns=["run:displayName", "run:tags", *(f"summary:{FINAL}{metric}" for metric in shown)],
        ),
    )


def save_workspace(config: DashboardConfig) -> str:
    """Saves the workspace and says where it is.

    Returns:
        Its URL.

    Raises:
        ConfigError: wandb does not take it.
    """
    import wandb

    ws, _ = _packages()
    workspace = build_workspace(config)
    try:
        if config.url:
            workspace = replaced(ws.Workspace.from_url(config.url), by=workspace)
        workspace.save()
        return str(workspace.url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise ConfigError(
            f"wandb does not take the workspace ({first_line(error)}). Log in with `wandb login` (or WANDB_API_KEY), "
            f"check the network and that {config.entity}/{config.project} holds a run; dry_run=true needs none of these"
        ) from error


def replaced(saved: "Workspace", *, by: "Workspace") -> "Workspace":
    """A saved workspace with the content of another one; its URL stays."""
    for part in ("name", "sections", "settings", "runset_settings"):
        setattr(saved, part, getattr(by, part))
    return saved


def specification(workspace: "Workspace") -> dict[str, Any]:
    """What would be sent to wandb, as JSON."""
    specification: dict[str, Any] = workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return specification


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs wandb-workspaces ({first_line(error)}): pip install 'cse_bench[dashboard]'"
        ) from error
    return ws, wr


def _section(name: str, panels: Sequence[Any]) -> "Section":
    ws, _ = _packages()
    section: Section = ws.Section(name=name, panels=list(panels), is_open=True)
    return section


def _curve(metric: str) -> Any:
    """A metric over the optimiser steps, a line per group."""
    _, wr = _packages()
    return wr.LinePlot(
        title=metric,
        x=STEP,
        y=[metric],
        title_x="optimiser step",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_RUNS_SHOWN,
    )


def _bars(metric: str) -> Any:
    """A final metric, a bar per group."""
    _, wr = _packages()
    return wr.BarPlot(
        title=metric,
        metrics=[f"{FINAL}{metric}"],
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_RUNS_SHOWN,
        max_bars_to_show=_RUNS_SHOWN,
    )


def _plane(wr: Any) -> Any:
    """The selected encoders in the plane of alignment and uniformity."""
    alignment, uniformity = PLANE
    return wr.ScatterPlot(
        title="selected encoders: alignment against uniformity", x=f"{FINAL}{uniformity}", y=f"{FINAL}{alignment}"
    )
