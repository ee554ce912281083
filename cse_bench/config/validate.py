"""From Hydra's composed config to a checked one: every problem found before anything is loaded, all told at once."""

from collections.abc import Iterator
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from cse_bench.config.bind import bind, locate
from cse_bench.config.messages import Problem, problems_of, refuse
from cse_bench.config.schema import (
    Component,
    DashboardConfig,
    EncodeConfig,
    EvaluateConfig,
    ExportConfig,
    QLoraAdapter,
    ReportConfig,
    RunConfig,
    SearchConfig,
)
from cse_bench.config.strategy import sharding_problems, unshardable_problems
from cse_bench.encoders.adapters import quantisation_problem
from cse_bench.errors import ConfigError, EncoderError
from cse_bench.methods.method import STATUSES, Shared
from cse_bench.training.devices import device_problems
from cse_bench.training.precision import has_bfloat16, resolve_precision

M = TypeVar("M", bound=BaseModel)

# What the framework passes itself, by the config path of the component.
SUPPLIED = {
    "method": frozenset(Shared.__annotations__),  # as a rule through `**shared: Unpack[Shared]`
    "data.corpus": frozenset(),
    "trainer": frozenset(
        {
            "precision",
            "logger",
            "callbacks",
            "enable_checkpointing",
            "use_distributed_sampler",
            "default_root_dir",
            "barebones",
        }
        | {"num_sanity_val_steps", "accumulate_grad_batches", "fast_dev_run", "overfit_batches"}
    ),
    "logger": frozenset({"directory", "name", "group", "config", "method"}),
}


def validate_run(config: DictConfig, *, here: bool = True) -> RunConfig:
    """The checked config of a run, precisions resolved.

    Args:
        config: as composed.
        here: whether it runs on this machine. If not, `auto` stays open and nothing is asked of the devices.

    Raises:
        ConfigError: with every problem found.
    """
    content = _resolved(config)
    run = _parsed(RunConfig, content, components=_run_components)
    here = here and not run.dry_run  # a plan says itself what `auto` would be on the devices it plans for
    if here:
        run = run.model_copy(update=_resolved_precisions(run))
    refuse(_combination_problems(run, here=here))
    if locate(run.method.target).trains:
        refuse(unshardable_problems(run))
    return run


def validate_evaluate(config: DictConfig) -> EvaluateConfig:
    """The checked config of `python -m cse_bench.evaluate`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(EvaluateConfig, _resolved(config), components=_evaluation_components)


def validate_report(config: DictConfig) -> ReportConfig:
    """The checked config of `python -m cse_bench.report`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(ReportConfig, _resolved(config), components=lambda content: ())


def validate_encode(config: DictConfig) -> EncodeConfig:
    """The checked config of `python -m cse_bench.encode`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(EncodeConfig, _resolved(config), components=lambda content: ())


def validate_search(config: DictConfig) -> SearchConfig:
    """The checked config of `python -m cse_bench.search`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(SearchConfig, _resolved(config), components=lambda content: ())


def validate_export(config: DictConfig) -> ExportConfig:
    """The checked config of `python -m cse_bench.export`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(ExportConfig, _resolved(config), components=lambda content: ())


def validate_dashboard(config: DictConfig) -> DashboardConfig:
    """The checked config of `python -m cse_bench.dashboard`.

    Raises:
        ConfigError: with every problem found.
    """
    return _parsed(DashboardConfig, _resolved(config), components=lambda content: ())


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, with every reference resolved and no key left open."""
    refuse(Problem(key, f"this key is required; set {key}=VALUE") for key in _missing(config))
    try:
        content = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _missing(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted paths of keys that a config leaves to the user (`???`)."""
    for key in map(str, config):
        if OmegaConf.is_missing(config, key):
            yield f"{prefix}{key}"
        elif not OmegaConf.is_interpolation(config, key) and isinstance(node := config._get_node(key), DictConfig):
            yield from _missing(node, f"{prefix}{key}.")


def _parsed(schema: type[M], content: dict[str, Any], *, components: Any) -> M:
    problems: list[Problem] = []
    parsed: M | None = None
    try:
        parsed = schema.model_validate(content)
    except ValidationError as error:
        problems += problems_of(error, at="", known=list(schema.model_fields))
    # Components are bound even if other groups are wrong: the user fixes a command once, not key by key.
    for path, value, supplied in components(content):
        if isinstance(value, dict) and isinstance(value.get("_target_"), str):
            problems += bind(Component.model_validate(value), at=path, supplied=supplied)
    refuse(problems)
    assert parsed is not None
    return parsed


def _run_components(content: dict[str, Any]) -> Iterator[tuple[str, Any, frozenset[str]]]:
    yield "method", content.get("method"), SUPPLIED["method"]
    data = content.get("data")
    yield "data.corpus", data.get("corpus") if isinstance(data, dict) else None, SUPPLIED["data.corpus"]
    yield "trainer", content.get("trainer"), SUPPLIED["trainer"]
    for name, component in _items(content.get("logger")):
        yield f"logger.{name}", component, SUPPLIED["logger"]
    yield from _evaluation_components(content)


def _evaluation_components(content: dict[str, Any]) -> Iterator[tuple[str, Any, frozenset[str]]]:
    evaluation = content.get("evaluation")
    if isinstance(evaluation, dict):
        for split in ("dev", "test"):
            for name, component in _items(evaluation.get(split)):
                yield f"evaluation.{split}.{name}", component, frozenset()


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _resolved_precisions(run: RunConfig) -> dict[str, Any]:
    accelerator = run.trainer.arguments().get("accelerator", "auto")
    evaluation = resolve_precision(run.evaluation.precision, accelerator=accelerator)
    return {
        "precision": resolve_precision(run.precision, accelerator=accelerator),
        "evaluation": run.evaluation.model_copy(update={"precision": evaluation}),
    }


def _combination_problems(run: RunConfig, *, here: bool) -> Iterator[Problem]:
    """Impossible combinations, each valid by itself."""
    method = locate(run.method.target)
    trainer = run.trainer.arguments()
    if (status := getattr(method, "status", None)) not in STATUSES:
        yield Problem("method", f"{method.__name__}.status is {status!r}; it has to be one of {', '.join(STATUSES)}")
    if here and method.trains:
        yield from device_problems(trainer, global_batch_size=run.data.global_batch_size)
    if method.trains:
        yield from sharding_problems(run)
    half = run.backbone.dtype in ("bfloat16", "float16") and run.precision != "64-true"  # which widens all weights
    if method.trains and half and run.backbone.adapter is None:
        # Two or three decimal digits: most steps of AdamW are smaller than half the last one.
        yield Problem(
            "backbone.dtype",
            f"{run.backbone.dtype} weights cannot be trained, most updates would be rounded away; set "
            "backbone.dtype=float32 (precision=bf16-mixed still computes in bfloat16), or adapter=lora, which trains "
            "float32 adapters on them",
        )
    is_constant = run.data.padding == "max_length" and not run.data.split_rows_by_length
    if method.trains and run.backbone.compile not in (None, "default") and not is_constant:
        yield Problem(
            "backbone.compile",
            f"{run.backbone.compile} records CUDA graphs, one for every shape; set data.padding=max_length and "
            "data.split_rows_by_length=false, or backbone.compile=default",
        )
    if trainer.get("accelerator") == "cpu" and run.precision == "16-mixed":
        yield Problem("precision", "16-mixed needs a GPU; use bf16-mixed, 32-true or auto")
    if trainer.get("accelerator") == "gpu" and run.precision == "bf16-mixed" and here and not has_bfloat16("cuda"):
        yield Problem("precision", "this GPU does not multiply bfloat16; use 16-mixed or 32-true")
    if isinstance(run.backbone.adapter, QLoraAdapter):
        if run.backbone.source not in ("hub", "local"):
            yield Problem(
                "backbone.adapter",
                f"qlora quantises as it loads, from the Hub or a directory, not "
                f"source={run.backbone.source}; use adapter=lora",
            )
        elif here and (problem := quantisation_problem(accelerator=trainer.get("accelerator", "auto"))):
            yield Problem("backbone.adapter", f"{problem}; use adapter=lora")
    if run.backbone.pooling == "cls" and run.backbone.family == "decoder":
        yield Problem(
            "backbone.pooling",
            f"cls reads the first token, which sees nothing in the decoder {run.backbone.name}; use last_token",
        )
    if run.evaluation.selection_metric is not None and not run.evaluation.dev:
        yield Problem(
            "evaluation.selection_metric", "selects by a dev metric, but evaluation.dev has no task; set it to null"
        )
    if method.is_backbone and not (run.evaluation.dev or run.evaluation.test):
        yield Problem(
            "evaluation", "nothing is trained and nothing is measured; choose evaluation=sts or evaluation=sample"
        )
    try:
        yield from method.problems(run)
    except EncoderError as error:
        yield Problem("backbone", str(error))
