"""One run, read from top to bottom: find its directory, make the encoder, evaluate it as saved, write results."""

import contextlib
from pathlib import Path
from typing import Any

import torch

from cse_bench.config.bind import build, locate
from cse_bench.config.identity import corpus_fingerprint, identity
from cse_bench.config.schema import Component, RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.encoders.artifact import is_saved_encoder, load_encoder
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.errors import ConfigError, CSEBenchError, DataError
from cse_bench.evaluation.suite import Evaluator, build_tasks, check_selection_metric
from cse_bench.evaluation.task import Evaluation
from cse_bench.methods.untrained import Untrained
from cse_bench.results.loggers import close_loggers, extra_loggers
from cse_bench.results.results_json import earlier_environments, failure, final_results, first_results
from cse_bench.results.run_directory import RunDirectory, method_name
from cse_bench.training.cost import reset_peak_memory
from cse_bench.training.fit import fit
from cse_bench.training.launch import number_of_ranks, train_on_ranks
from cse_bench.training.precision import device_type
from cse_bench.training.resume import stopping_on_sigterm
from cse_bench.training.train import TrainingSummary, train


def run(config: RunConfig, *, wait: bool = False) -> dict[str, Any]:
    """Does one run, or finds it done.

    Args:
        config: checked config (see `cse_bench.config.validate`).
        wait: when another process is at this run, wait for it instead of refusing.

    Returns:
        The content of the run's `results.json`, plus its `directory`, whether it was `reused`, and for a trained run
        the `baseline` metrics and `baseline_directory` (else None).

    Raises:
        CSEBenchError: the data, the weights or the machine are not what the config needs.
        Interrupted: the run was asked to stop; its state is saved and the same command goes on.
    """
    if (answer := finished(config)) is not None:
        return answer
    # Data first: what is missing or damaged is told before any weights are loaded.
    fingerprint = _check_corpus(config) if locate(config.method.target).reads_corpus(config) else None
    dev_tasks = build_tasks(config.evaluation.dev)
    check_selection_metric(config.evaluation.selection_metric, dev_tasks)
    tasks = dev_tasks + build_tasks(config.evaluation.test)
    directory = _directory(config, fingerprint)
    # Runs of a parallel sweep need the same baseline at the same time: one does it, the others wait.
    baseline = run(_baseline(config), wait=True) if _has_baseline(config) else None
    prerequisites = run_prerequisites(config)
    with directory.locked(wait=wait), stopping_on_sigterm():
        if directory.is_complete() and not config.overwrite:  # done by another process in the meantime
            return _answer(directory, directory.results(), baseline, reused=True)
        reset_peak_memory()
        results = first_results(config, directory, fingerprint) | earlier_environments(directory)
        directory.start(config, results)
        loggers: list[Any] = []
        try:
            loggers = extra_loggers(config, directory)
            training, encoder = _make_encoder(config, directory, loggers, prerequisites)
            evaluation = _evaluate(config, encoder, tasks) if tasks else None
            if evaluation:
                directory.write_pair_scores(evaluation.arrays)
            results |= final_results(training, evaluation, encoder, prerequisites, device=_device(config))
            results["method"]["notes"] = training.notes
            directory.write(results)
            for logger in loggers:
                final = {f"final/{metric}": value for metric, value in results["metrics"].items()}
                logger.log_metrics(final, step=results["steps"])
        except BaseException as error:
            with contextlib.suppress(ConfigError):  # a full disk: the first error says more than this one
                directory.write(results | failure(error))
            close_loggers(loggers, failed=True)
            raise
        close_loggers(loggers)
        directory.clear()  # a complete run does not resume
    return _answer(directory, directory.results(), baseline, reused=False)


def finished(config: RunConfig) -> dict[str, Any] | None:
    """What `run` returns where nothing is left to do, neither for the run nor for its baseline; else None.

    Reads no data but the corpus's fingerprint, which is part of the run's identity.

    Raises:
        DataError: the corpus is missing or another one than was asked for.
    """
    if config.overwrite:
        return None
    directory = run_directory(config)
    results = directory.results()
    if results.get("status") != "complete":
        return None
    if not _has_baseline(config):
        return _answer(directory, results, None, reused=True)
    baseline = finished(_baseline(config))
    return None if baseline is None else _answer(directory, results, baseline, reused=True)


def run_directory(config: RunConfig) -> RunDirectory:
    """Where a run lies, or would.

    Raises:
        DataError: as for `finished`.
    """
    return _directory(config, corpus_fingerprint(config))


def _directory(config: RunConfig, fingerprint: str | None) -> RunDirectory:
    return RunDirectory(Path(config.paths.output_dir).expanduser() / run_name(config, fingerprint))


def _answer(
    directory: RunDirectory, results: dict[str, Any], baseline: dict[str, Any] | None, *, reused: bool
) -> dict[str, Any]:
    return results | {
        "directory": str(directory.path),
        "baseline": baseline["metrics"] if baseline else None,
        "baseline_directory": baseline["directory"] if baseline else None,
        "reused": reused,
    }


def run_name(config: RunConfig, corpus_fingerprint: str | None) -> str:
    """Readable prefix and identity, e.g. `simcse-bert_tiny-s42-1f0c9a3e2b`."""
    seed = f"-s{config.seed}" if locate(config.method.target).trains else f"-{config.backbone.pooling}"
    digest = identity(config, corpus_fingerprint=corpus_fingerprint)[:10]
    return f"{method_name(config)}-{config.backbone.name}{seed}-{digest}"


def _check_corpus(config: RunConfig) -> str:
    """The corpus fingerprint, after every line was read once: a damaged corpus is told before weights load.

    Raises:
        DataError: the corpus is damaged, or too small for the method.
    """
    corpus: Corpus = build(config.data.corpus)
    fingerprint = corpus.fingerprint()
    count = sum(1 for _ in corpus.lines())
    locate(config.method.target).check_corpus(config, name=corpus.name, sentences=count)
    return fingerprint


def _has_baseline(config: RunConfig) -> bool:
    evaluation = config.evaluation
    backbone_itself = locate(config.method.target).is_backbone
    return not backbone_itself and evaluation.baseline and bool(evaluation.dev or evaluation.test)


def _baseline(config: RunConfig) -> RunConfig:
    """The untrained backbone under the same evaluation: a run of its own, done once and found again."""
    untrained = Component.model_validate({"_target_": f"{Untrained.__module__}.{Untrained.__qualname__}"})
    evaluation = config.evaluation.model_copy(update={"baseline": False})
    update: dict[str, Any] = {"method": untrained, "evaluation": evaluation, "overwrite": False}
    if config.backbone.adapter is not None and config.backbone.adapter.type == "lora":
        update["backbone"] = config.backbone.model_copy(update={"adapter": None})  # its updates start at zero
    return config.model_copy(update=update)


def run_prerequisites(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Does the runs that a run's method asks for, or finds them done; their results, by name."""
    evaluation = config.evaluation.model_copy(update={"baseline": False})
    alone = {"evaluation": evaluation, "overwrite": False, "dry_run": False}
    done = {}
    for name, before in locate(config.method.target).prerequisites(config).items():
        try:
            done[name] = run(before.model_copy(update=alone), wait=True)
        except CSEBenchError as error:
            raise type(error)(
                f"the run that comes before this one, '{name}' ({method_name(before)}): {error}"
            ) from error
    return done


def saved_encoders(prerequisites: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Where the encoders of finished runs lie.

    Raises:
        DataError: one was deleted.
    """
    encoders = {name: Path(done["directory"]) / "model" for name, done in prerequisites.items()}
    for name, path in encoders.items():
        if not is_saved_encoder(path):
            raise DataError(
                f"the run of '{name}' is finished, but its encoder {path} is gone; delete {path.parent} and it is done "
                "again"
            )
    return encoders


def _make_encoder(
    config: RunConfig, directory: RunDirectory, loggers: list[Any], prerequisites: dict[str, dict[str, Any]]
) -> tuple[TrainingSummary, SentenceEncoder]:
    """The encoder to evaluate, and what it took to make it."""
    if not locate(config.method.target).trains:
        return fit(config, directory)
    encoders = saved_encoders(prerequisites)
    if number_of_ranks(config) > 1:
        summary = train_on_ranks(config, directory, prerequisites=encoders)
    else:
        summary = train(config, directory, loggers=loggers, prerequisites=encoders)
    return summary, load_encoder(directory.model)


def _device(config: RunConfig) -> torch.device:
    return torch.device(device_type(config.trainer.arguments().get("accelerator", "auto")))


def _evaluate(config: RunConfig, encoder: SentenceEncoder, tasks: list[Any]) -> Evaluation:
    """Dev and test tasks, once, with the encoder as it was saved."""
    encoder.to(_device(config))
    evaluator = Evaluator(
        module=encoder,
        embed=encoder,
        tokenizer=encoder.tokenizer,
        precision=config.evaluation.precision,
        batch_tokens=config.evaluation.batch_tokens,
    )
    return evaluator(tasks)
