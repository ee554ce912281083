"""`python -m cse_bench.evaluate model=...`: scores a run, a local model or a Hub model."""

from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import EvaluateConfig


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="evaluate")
def compose_and_evaluate(config: DictConfig) -> None:
    """Composes, checks, evaluates, prints."""
    from cse_bench.config.validate import validate_evaluate
    from cse_bench.results.tables import print_lines, print_table, run_table

    with past_hydra():
        settings = validate_evaluate(config)
        results = evaluate(settings)
        print_table(run_table(results, None))
        if settings.output:
            print_lines([f"results: {settings.output}"])


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Metrics of a model, in the form of a run's results.

    Raises:
        CSEBenchError: the data, the model, or the way it is to be read.
    """
    from cse_bench.encoders.loading import open_encoder
    from cse_bench.evaluation.suite import Evaluator, build_tasks
    from cse_bench.results.environment import environment
    from cse_bench.training.cost import peak_memory_bytes
    from cse_bench.training.precision import device_type, resolve_precision

    tasks = build_tasks({f"dev/{name}": task for name, task in config.evaluation.dev.items()} | config.evaluation.test)
    encoder = open_encoder(
        config.model,
        pooling=config.pooling,
        prompt=config.prompt,
        padding_side=config.padding_side,
        dtype=config.dtype,
        attention=config.attention,
        trust_remote_code=config.trust_remote_code,
    )
    encoder.to(device_type(config.accelerator))
    precision = resolve_precision(config.evaluation.precision, accelerator=config.accelerator)
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
