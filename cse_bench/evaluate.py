"""`python -m cse_bench.evaluate model=...`: scores a run, a local model or a Hub model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import EvaluateConfig

if TYPE_CHECKING:
    from cse_bench.encoders.encoder import SentenceEncoder


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="evaluate")
def compose_and_evaluate(config: DictConfig) -> None:
    """Composes, checks, evaluates, prints."""
    from cse_bench.config.validate import validate_evaluate
    from cse_bench.results.tables import print_lines, print_table, run_table

    with past_hydra():
        settings = validate_evaluate(config)
        if is_mteb(settings):
            _print_mteb(evaluate_mteb(settings), settings)
            return
        results = evaluate(settings)
        print_table(run_table(results, None))
        if settings.output:
            print_lines([f"results: {settings.output}"])


def is_mteb(config: EvaluateConfig) -> bool:
    """Whether mteb is to evaluate, instead of the tasks here.

    Raises:
        ConfigError: tasks of mteb without mteb, or mteb without tasks, or nothing at all.
    """
    from cse_bench.config.bind import locate
    from cse_bench.errors import ConfigError
    from cse_bench.evaluation.mteb_task import MTEBTasks

    components = [*config.evaluation.dev.values(), *config.evaluation.test.values()]
    if not components:
        raise ConfigError("evaluation: nothing is measured; choose evaluation=sts, transfer, sample or mteb")
    chosen = any(locate(component.target) is MTEBTasks for component in components)
    if chosen and config.tasks is None:
        raise ConfigError("tasks: evaluation=mteb needs their names, e.g. tasks=[STS12,STSBenchmark]")
    if not chosen and config.tasks is not None:
        raise ConfigError("tasks: names tasks of mteb; add evaluation=mteb, or leave it out")
    return chosen


def evaluate_mteb(config: EvaluateConfig) -> dict[str, float]:
    """Main scores x100 of mteb's tasks on a model, by name; mteb's result files are below `mteb_output`.

    Raises:
        CSEBenchError: mteb is missing, a task, its data, or the model.
    """
    from cse_bench.errors import ConfigError
    from cse_bench.training.precision import resolve_precision

    try:
        from cse_bench.evaluation.mteb_run import MTEBEncoder, run_mteb, tasks_named
    except ImportError as error:
        raise ConfigError("evaluation=mteb needs the package mteb: pip install 'cse_bench[mteb]'") from error
    assert config.tasks is not None
    tasks = tasks_named(config.tasks)
    encoder = MTEBEncoder(
        _open(config),
        name=_name(config.model),
        precision=resolve_precision(config.evaluation.precision, accelerator=config.accelerator),
        batch_tokens=config.evaluation.batch_tokens,
    )
    return run_mteb(encoder, tasks, folder=Path(config.mteb_output).expanduser(), overwrite=config.overwrite)


def _name(model: str) -> str:
    """What mteb calls a model: a Hub id, or the name of a local directory, without the way to it."""
    local = Path(model).expanduser()
    return local.resolve().name if local.is_dir() else model


def _print_mteb(scores: dict[str, float], config: EvaluateConfig) -> None:
    from rich.table import Table

    from cse_bench.results.tables import print_lines, print_table

    table = Table("task", "main score of mteb x 100", title=config.model)
    for name, score in scores.items():
        table.add_row(name, f"{score:.2f}")
    print_table(table)
    print_lines([f"results: {config.mteb_output}/results"])


def _open(config: EvaluateConfig) -> "SentenceEncoder":
    """The encoder, on its device."""
    from cse_bench.encoders.loading import open_encoder
    from cse_bench.training.precision import device_type

    encoder = open_encoder(
        config.model,
        pooling=config.pooling,
        prompt=config.prompt,
        padding_side=config.padding_side,
        dtype=config.dtype,
        attention=config.attention,
        trust_remote_code=config.trust_remote_code,
    )
    return encoder.to(device_type(config.accelerator))


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Metrics of a model, in the form of a run's results.

    Raises:
        CSEBenchError: the data, the model, or the way it is to be read.
    """
    from cse_bench.evaluation.suite import Evaluator, build_tasks
    from cse_bench.results.environment import environment
    from cse_bench.training.cost import peak_memory_bytes

    tasks = build_tasks({f"dev/{name}": task for name, task in config.evaluation.dev.items()} | config.evaluation.test)
    encoder = _open(config)
    precision = _precision(config)
    evaluation = Evaluator(
        module=encoder,
        embed=encoder,
        tokenizer=encoder.tokenizer,
        precision=precision,
        batch_tokens=config.evaluation.batch_tokens,
    )(tasks)
    costs = {
        "cost/eval_time_s": evaluation.time_s,
        "cost/peak_memory_bytes": float(peak_memory_bytes(next(encoder.parameters()).device)),
    }
    results = {
        "model": config.model,
        "pooling": encoder.pooling,
        "prompt": encoder.tokenizer.prompt,
        "provenance": encoder.provenance,
        "precision": precision,
        "evaluation": {
            "task_versions": evaluation.task_versions,
            "labels": evaluation.labels,
            "notes": evaluation.notes,
            "sources": evaluation.sources,
        },
        "environment": environment(),
        "metrics": evaluation.metrics | costs,
    }
    if config.output:
        _write(Path(config.output).expanduser(), results, evaluation.arrays)
    return results


def _precision(config: EvaluateConfig) -> str:
    """Of the embeddings. `auto` is what a run was scored in; of any other model, what the hardware has."""
    from cse_bench.results.run_directory import RunDirectory
    from cse_bench.training.precision import resolve_precision

    asked = config.evaluation.precision
    recorded = RunDirectory(Path(config.model).expanduser()).results().get("precision", {}) if asked == "auto" else {}
    return str(recorded.get("evaluation") or resolve_precision(asked, accelerator=config.accelerator))


def _write(path: Path, results: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    from cse_bench.results.run_directory import replacing, write_json

    write_json(path, results, key="output")
    with replacing(path.with_suffix(".npz"), key="output") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def main() -> None:
    """The command line."""
    command_line(compose_and_evaluate, config_name="evaluate")


if __name__ == "__main__":
    main()
