"""What a run's `results.json` says: at the start, at the end, and when it fails."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from cse_bench.config.bind import locate
from cse_bench.config.identity import group_identity, identity
from cse_bench.config.schema import RunConfig
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.errors import CSEBenchError
from cse_bench.evaluation.task import Evaluation
from cse_bench.results.environment import differences, environment
from cse_bench.results.run_directory import RunDirectory, method_name
from cse_bench.results.tables import print_lines
from cse_bench.training.cost import inference_flops, peak_memory_bytes
from cse_bench.training.resume import Interrupted
from cse_bench.training.train import TrainingSummary

RESULT_FORMAT = 1


def first_results(config: RunConfig, directory: RunDirectory, corpus_fingerprint: str | None) -> dict[str, Any]:
    """What is known before the run: what it is, and with what it is done."""
    method = locate(config.method.target)
    return {
        "format": RESULT_FORMAT,
        "name": directory.name,
        "status": "running",
        "identity": identity(config, corpus_fingerprint=corpus_fingerprint),
        "group": group_identity(config, corpus_fingerprint=corpus_fingerprint),
        "study": config.study,
        "method": {
            "name": method_name(config),
            "status": method.status,
            "citation": method.citation,
            "version": method.version,
            "is_backbone": method.is_backbone,
        },
        "backbone": config.backbone.name,
        "pooling": config.backbone.pooling,
        "seed": config.seed,
        "precision": {
            "training": config.precision if method.trains else None,
            "evaluation": config.evaluation.precision,
        },
        "started": _now(),
        "config": config.model_dump(mode="json", by_alias=True),
        "environment": environment(),
    }


def earlier_environments(directory: RunDirectory) -> dict[str, Any]:
    """What the steps were taken with that a run goes on from, where that is otherwise now; told and kept."""
    earlier = directory.results()
    if earlier.get("status") == "complete" or not any(directory.checkpoint.parent.glob("*.ckpt")):
        return {}  # starts over
    environments = list(earlier.get("earlier_environments", []))
    if "environment" in earlier and (changes := differences(earlier["environment"])):
        environments.append(earlier["environment"])
        print_lines(f"note: {directory.name} goes on from steps that were taken with other {one}" for one in changes)
    return {"earlier_environments": environments} if environments else {}


def final_results(
    training: TrainingSummary,
    evaluation: Evaluation | None,
    encoder: SentenceEncoder,
    prerequisites: Mapping[str, Mapping[str, Any]],
    *,
    device: torch.device,
) -> dict[str, Any]:
    """What a run found, and what it cost.

    Args:
        training: what training left.
        evaluation: of the encoder as it was saved; None: no tasks.
        encoder: that encoder.
        prerequisites: results of the runs that came before, by name.
        device: where the run was done.
    """
    metrics: dict[str, float] = (dict(evaluation.metrics) if evaluation else {}) | training.metrics
    metrics["cost/peak_memory_bytes"] = max(
        metrics.get("cost/peak_memory_bytes", 0.0), float(peak_memory_bytes(device))
    )
    metrics["cost/eval_time_s"] = (evaluation.time_s if evaluation else 0.0) + metrics.pop("cost/dev_eval_time_s", 0.0)
    metrics["cost/inference_flops"] = float(inference_flops(encoder))
    metrics["cost/inference_parameters"] = float(sum(parameter.numel() for parameter in encoder.parameters()))
    metrics["cost/prerequisites_time_s"] = _time_before(prerequisites)
    return {
        "status": "complete",
        "finished": _now(),
        "pooling": encoder.pooling,
        "selection": training.selection,
        "steps": training.steps,
        "data": {
            "corpus": training.corpus,
            "evaluation": evaluation.sources if evaluation else {},
        },
        "encoder": {"provenance": encoder.provenance, "parameters": training.parameters},
        "evaluation": {
            "task_versions": evaluation.task_versions if evaluation else {},
            "labels": evaluation.labels if evaluation else {},
            "notes": evaluation.notes if evaluation else {},
            "distinct_sentences": evaluation.num_sentences if evaluation else 0,
            "time_s": evaluation.time_s if evaluation else 0.0,
        },
        "prerequisites": {name: done["name"] for name, done in prerequisites.items()},
        "metrics": metrics,
    }


def failure(error: BaseException) -> dict[str, Any]:
    """How a run ended that did not finish."""
    if isinstance(error, Interrupted | KeyboardInterrupt | SystemExit):  # submitit exits when it puts a job back
        return {"status": "interrupted", "finished": _now()}
    reason = str(error) if isinstance(error, CSEBenchError) else f"{type(error).__name__}: {error}"
    return {"status": "failed", "finished": _now(), "error": reason}


def _time_before(prerequisites: Mapping[str, Mapping[str, Any]]) -> float:
    """What it took to train the runs that this one needs, and those that they need."""
    metrics = [done["metrics"] for done in prerequisites.values()]
    return sum(
        one.get("cost/train_time_s", 0.0) + one.get("cost/preparation_time_s", 0.0) + one["cost/prerequisites_time_s"]
        for one in metrics
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
