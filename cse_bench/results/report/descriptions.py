"""The tables that describe: scores by task, geometry, cost, setup, overlap of the tests, all runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cse_bench.evaluation.sts_overlap import OVERLAP, Copy
from cse_bench.results.collect import Block, Group, Run
from cse_bench.results.report.tables import (
    Cell,
    Column,
    Table,
    method_column,
    of_count,
    of_group,
    of_spread,
    of_text,
    of_value,
)
from cse_bench.results.report.vocabulary import COST, FAMILIES, GEOMETRY, Metric, family, metric, task_title

_TRAINING_TIME = ("cost/train_time_s", "cost/preparation_time_s", "cost/prerequisites_time_s")


def families(block: Block) -> dict[str, list[str]]:
    """Family of scores -> its metrics in the block, in the order of the runs, the average last."""
    found: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for group in block.groups for run in group.runs for path in run.metrics):
        if prefix := family(path):
            found.setdefault(prefix, []).append(path)
    ordered = {prefix: found[prefix] for prefix in FAMILIES if prefix in found}
    return {prefix: sorted(paths, key=lambda path: path.endswith("/avg")) for prefix, paths in ordered.items()}


def task_tables(block: Block, groups: Sequence[Group], name: str) -> Iterator[Table]:
    """One table per family of scores, one row per group.

    Args:
        block: the groups' block.
        groups: in the order of the rows.
        name: start of the names of the files.
    """
    for prefix, paths in families(block).items():
        title, term = FAMILIES[prefix]
        columns = [method_column(), *(_column(metric(path), title=task_title(path), term=term) for path in paths)]
        rows = [[of_group(group), *(_spread(group, path) for path in paths)] for group in groups]
        notes = _meanings(groups, paths)
        yield Table(f"{name}{prefix.replace('/', '_')}", f"{title}, by task", "task_table", columns, rows, notes)


def _meanings(groups: Sequence[Group], paths: Sequence[str]) -> list[str]:
    """What the runs themselves say that some metrics are."""
    said: dict[str, None] = {}
    for group in groups:
        for run in group.runs:
            for prefix, meaning in run.results["evaluation"].get("labels", {}).items():
                if any(f"{path}/".startswith(f"{prefix.rstrip('/')}/") for path in paths):
                    said[f"{prefix.rstrip('/')}: {meaning}."] = None
    return list(said)


def _column(shown: Metric, *, title: str | None = None, term: str | None = None) -> Column:
    key = shown.path.replace("/", "_")
    return Column(key, title or shown.title, term or shown.term, numbers=(f"{key}_mean", f"{key}_sd"))


def _spread(group: Group, path: str) -> Cell:
    return of_spread(metric(path), list(group.values(path).values()))


def geometry_table(groups: Sequence[Group], name: str) -> Table | None:
    """Geometry of the selected encoders, or None where no run has it."""
    return _metric_table(groups, GEOMETRY, name, title="Geometry of the embeddings", term="geometry")


def cost_table(groups: Sequence[Group], name: str) -> Table | None:
    """Cost by group, or None where no run has it."""
    return _metric_table(groups, COST, name, title="Cost", term="cost")


def _metric_table(
    groups: Sequence[Group], metrics: Sequence[Metric], name: str, *, title: str, term: str
) -> Table | None:
    present = [shown for shown in metrics if _is_measured(groups, shown.path)]
    if not present:
        return None
    columns = [method_column(), *(_column(shown) for shown in present)]
    rows = [
        [of_group(group), *(of_spread(shown, cost_values(group, shown.path)) for shown in present)] for group in groups
    ]
    return Table(name, title, term, columns, rows, _meanings(groups, [shown.path for shown in present]))


def _is_measured(groups: Sequence[Group], path: str) -> bool:
    if path == "cost/total_time_s":
        return any(cost_values(group, path) for group in groups)
    return any(group.values(path) and cost_values(group, path) for group in groups)


def cost_values(group: Group, path: str) -> list[float]:
    """A metric of a group's runs; also the total training time, with preparation and prerequisites."""
    if path == "cost/total_time_s":
        trained = [run.metrics for run in group.runs if "cost/train_time_s" in run.metrics]
        return [sum(one.get(part, 0.0) for part in _TRAINING_TIME) for one in trained]
    if path == "cost/preparation_time_s" and group.is_trained:  # a method that prepares nothing does not say so
        return [run.metrics.get(path, 0.0) for run in group.runs]
    if path == "cost/prerequisites_time_s" and not group.values("cost/train_time_s"):
        return []
    return list(group.values(path).values())


def setup_table(groups: Sequence[Group], name: str) -> Table:
    """What each group was trained with."""
    columns = [
        method_column(),
        Column("pooling", "pooling", "pooling", text=True),
        Column("steps", "steps", "steps"),
        Column("batch", "sentences per step", "batch"),
        Column("lr", "learning rate", "lr"),
        Column("source", "source", "source", text=True),
    ]
    rows = []
    for group in groups:
        results = group.runs[0].results
        config = results.get("config", {})
        trained = bool(results["steps"])
        rate = config.get("optimizer", {}).get("lr") if trained else None
        rows.append(
            [
                of_group(group),
                of_text(str(results.get("pooling", ""))),
                of_count(results["steps"] if trained else None),
                of_count(config.get("data", {}).get("global_batch_size") if trained else None),
                Cell("" if rate is None else f"{rate:g}", (rate,)),
                of_text(str(results["method"].get("citation", ""))),
            ]
        )
    return Table(name, "What each group was trained with", "setup", columns, rows)


def overlap_table(block: Block, name: str) -> Table | None:
    """The rows behind the leak-free score, or None without STS tests."""
    tested = {path for group in block.groups for run in group.runs for path in run.metrics}
    tasks = [task for task in OVERLAP if f"sts/test/{task}" in tested]
    if not tasks:
        return None
    columns = [
        Column("task", "task", "sts", text=True),
        Column("scored", "scored rows", "overlap_scored"),
        Column("in_dev", "also in dev", "overlap_dev"),
        Column("repeated", "repeated", "overlap_repeated"),
        Column("elsewhere", "counted elsewhere", "overlap_elsewhere"),
        Column("kept", "kept", "overlap_kept"),
        Column("kept_share", "kept, %", "overlap_kept"),
    ]
    counts = {task_title(f"sts/test/{task}"): OVERLAP[task] for task in tasks}
    counts["all"] = {copy: sum(OVERLAP[task][copy] for task in tasks) for copy in Copy}
    rows = [[of_text(title), *_overlap_cells(count)] for title, count in counts.items()]
    return Table(name, "Rows of the STS tests behind the leak-free score", "overlap", columns, rows)


def _overlap_cells(count: Mapping[Copy, int]) -> list[Cell]:
    scored = sum(count.values())
    share = 100 * count[Copy.KEPT] / scored
    shown = [scored, count[Copy.IN_DEV], count[Copy.REPEATED], count[Copy.ELSEWHERE], count[Copy.KEPT]]
    return [*(of_count(number) for number in shown), Cell(f"{share:.1f}", (share,))]


def run_table(block: Block, path: str, name: str) -> Table:
    """One row per run.

    Args:
        block: the runs.
        path: metric of the score column.
        name: of the files.
    """
    shown = metric(path)
    columns = [
        method_column(),
        Column("seed", "seed", "seed"),
        Column("score", shown.title, shown.term),
        Column("selected_step", "selected step", "selected_step"),
        Column("total_time_s", "total (s)", "total_time"),
        Column("finished", "finished", "finished", text=True),
        Column("revision", "revision", "revision", text=True),
        Column("directory", "directory", "directory", text=True),
    ]
    rows = [_run_cells(group, run, shown) for group in block.groups for run in group.runs]
    return Table(name, "All runs", "runs", columns, rows)


def _run_cells(group: Group, run: Run, shown: Metric) -> list[Cell]:
    selection = run.results.get("selection") or {}
    git: Mapping[str, Any] = run.results.get("environment", {}).get("git") or {}
    commit = str(git.get("commit") or "")
    total = cost_values(Group(group.key, [run], group.label), "cost/total_time_s")
    return [
        of_group(group),
        of_count(run.seed) if run.seed is None else Cell(str(run.seed), (run.seed,)),
        of_value(shown, run.metrics.get(shown.path)),
        of_count(selection.get("step")),
        of_value(metric("cost/total_time_s"), total[0] if total else None),
        of_text(str(run.results.get("finished", ""))[:16].replace("T", " ")),
        of_text(commit[:10] + ("+" if git.get("dirty") else ""), sort=commit),
        of_text(run.directory.name),
    ]
