"""Training, in one process or as one rank of several: build, fit, keep the selected encoder."""

import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins import DoublePrecision

from cse_bench.config.bind import build, locate
from cse_bench.config.identity import encoders_by_path, identity
from cse_bench.config.schema import RunConfig
from cse_bench.config.strategy import FSDP
from cse_bench.data.corpora import Corpus
from cse_bench.data.module import SentenceData
from cse_bench.data.token_store import TokenStore, token_store
from cse_bench.encoders.artifact import check_saved, save_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import DataError, TrainingError
from cse_bench.evaluation.callback import EvaluationCallback
from cse_bench.evaluation.suite import Evaluator, build_tasks
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.method import Shared
from cse_bench.methods.preparation import Preparation
from cse_bench.results.metrics_log import MetricsLog
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.allocator import give_back_large_blocks
from cse_bench.training.bars import progress_bar
from cse_bench.training.checkpoint_file import CheckpointFile, newest_whole, step_of
from cse_bench.training.cost import CostMeter, TokenCount, peak_memory_bytes
from cse_bench.training.gather import objects_of_ranks
from cse_bench.training.loss_log import LossLog
from cse_bench.training.progress import ProgressBar
from cse_bench.training.resume import ResumeCheckpoint
from cse_bench.training.sharding import ShardedStrategy, is_sharded, whole_weights


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a finished training leaves beside the encoder.

    Attributes:
        steps: optimiser steps taken, resumed parts included; 0: the method does not train.
        selection: metric, value and step of the kept encoder; `metric` is None when nothing selected and the last
            weights were kept; None: without steps there is no choice.
        corpus: source, checksum and size of the text that was read; None: none was.
        metrics: costs.
        parameters: number of parameters: `total` and `trainable` in training, `inference` in the kept encoder.
        notes: facts about the method that the config does not tell.
    """

    steps: int
    selection: dict[str, Any] | None
    corpus: dict[str, Any] | None
    metrics: dict[str, float]
    parameters: dict[str, int]
    notes: dict[str, Any]


def train(
    config: RunConfig,
    directory: RunDirectory,
    *,
    loggers: list[Any],
    prerequisites: dict[str, Path] | None = None,
    stop_file: Path | None = None,
) -> TrainingSummary:
    """Trains and leaves the selected encoder in `directory.model`.

    Goes on from `directory.checkpoint` when there is one.

    Args:
        config: checked config.
        directory: of the run.
        loggers: Lightning loggers beside the metrics log.
        prerequisites: the saved encoders of the runs that the method asked for.
        stop_file: tells the ranks of a run to save and stop, see `ResumeCheckpoint`.
    """
    needed = locate(config.method.target).prerequisites(config).keys() - (prerequisites or {}).keys()
    if needed:
        raise TrainingError(
            f"this run needs others to be done before: {', '.join(sorted(needed))}. python -m cse_bench does them; a "
            "worker that is started by itself has none"
        )
    quiet_lightning()
    corpus: Corpus = build(config.data.corpus)
    _check_unchanged(config, directory, corpus)
    method, data, prepared = method_and_data(config, corpus, prerequisites=prerequisites or {})
    store, encoder = data.store, method.encoder
    if config.data.gradient_cache_rows is not None:
        give_back_large_blocks()
    if config.precision == "64-true":
        method.double()  # Lightning would do so after it has restored a checkpoint, into float32

    def save(step: int, value: float | None) -> None:
        training = {
            "method": config.method.model_dump(mode="json", by_alias=True),
            "status": method.status,
            "citation": method.citation,
            "max_length": config.data.max_length,
            "step": step,
            "selection_metric": config.evaluation.selection_metric,
            "selection_value": value,
            "seed": config.seed,
        }
        # A frozen body that came from somewhere is named, not copied; see `save_encoder`.
        with whole_weights(method, frozen=config.backbone.adapter is None or config.backbone.source == "random"):
            if trainer.is_global_zero:
                save_encoder(
                    method.sentence_encoder,
                    directory.model,
                    backbone=config.backbone,
                    training=training,
                    training_only=method.training_only_state(),
                )

    def kept() -> tuple[int, float | None]:
        training = check_saved(directory.model)["training"]
        return training["step"], training["selection_value"]

    cost = CostMeter()
    evaluation = EvaluationCallback(
        build_tasks(config.evaluation.dev),
        Evaluator(
            module=method,
            embed=method.embed,
            tokenizer=encoder.tokenizer,
            precision=config.evaluation.precision,
            batch_tokens=config.evaluation.batch_tokens,
        ),
        every_steps=config.evaluation.eval_every_steps,
        at_last_step=config.evaluation.eval_last_step,
        selection_metric=config.evaluation.selection_metric,
        save=save,
        kept=kept,
        on_every_rank=config.trainer.arguments().get("strategy") == FSDP,
        cost=cost,
    )
    resume_from = newest_whole(directory.checkpoint)
    # The order matters: what a step gave, its loss and dev score, is written before the checkpoint of that step.
    callbacks: list[Any] = [cost, LossLog(), evaluation]
    if config.trainer.arguments().get("enable_progress_bar", True):
        callbacks.append(ProgressBar(cost, evaluation))
    resume = ResumeCheckpoint(
        directory.checkpoint,
        every_steps=config.checkpoint_every_steps,
        stop_file=stop_file,
        resumed_from=resume_from,
    )
    callbacks.append(resume)
    trainer = _trainer(config, directory, loggers, resume_from, callbacks=callbacks)
    # Weights are drawn alike on every rank, dropout masks are not: ranks hold different sentences.
    torch.manual_seed(config.seed * 1000 + trainer.global_rank)
    with resume.answering_signals():
        trainer.fit(method, datamodule=data, ckpt_path=resume_from, weights_only=True)
    if objects_of_ranks(evaluation.best_step)[0] is None and (trainer.is_global_zero or is_sharded(method)):
        save(trainer.global_step, None)
    # Collective: every rank says what went through it, and how much memory that took.
    tokens = TokenCount.sum(objects_of_ranks(method.tokens))
    peak_memory = max(objects_of_ranks(peak_memory_bytes(trainer.strategy.root_device)))
    return TrainingSummary(
        steps=trainer.global_step,
        selection=_selection(config, evaluation, trainer.global_step),
        corpus={"name": corpus.name, **corpus.describe(), "sentences": len(store), "tokens": store.num_tokens},
        metrics=prepared
        | cost.metrics(tokens)
        | {"cost/dev_eval_time_s": cost.eval_time_s, "cost/peak_memory_bytes": float(peak_memory)},
        parameters={
            "total": sum(p.numel() for p in method.parameters()),
            "trainable": sum(p.numel() for p in method.parameters() if p.requires_grad),
            "inference": sum(p.numel() for p in method.sentence_encoder.parameters()),
        },
        notes=method.notes,
    )


def method_and_data(
    config: RunConfig,
    corpus: Corpus,
    *,
    prerequisites: dict[str, Path],
    kind: type[ContrastiveMethod] | None = None,
) -> tuple[ContrastiveMethod, SentenceData, dict[str, float]]:
    """What a trainer needs: the method, prepared and in train mode, and its batches; and what the preparation found.

    Args:
        config: checked config.
        corpus: the sentences.
        prerequisites: the saved encoders of the runs that the method asked for.
        kind: a class to take in the place of the config's, with the config's arguments.
    """
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    encoder = build_encoder(config.backbone)
    store = open_store(config, corpus, encoder.tokenizer)
    data = SentenceData(
        store,
        global_batch_size=config.data.global_batch_size,
        seed=config.seed,
        drop_last=config.data.drop_last,
        num_workers=config.data.num_workers,
        padding=config.data.padding,
    )
    shared: Shared = {
        "encoder": encoder,
        "optimizer": config.optimizer,
        "seed": config.seed,
        "split_rows_by_length": config.data.split_rows_by_length,
        "gradient_cache_rows": config.data.gradient_cache_rows,
    }
    method: ContrastiveMethod = kind(**config.method.arguments(), **shared) if kind else build(config.method, **shared)
    preparation = Preparation(
        config=config,
        corpus=corpus,
        store=store,
        prerequisites=prerequisites,
        cache=Path(config.paths.cache).expanduser(),
    )
    prepared = method.prepare(preparation)
    method.train()  # Transformers loads models in eval mode, and Lightning keeps what it finds
    return method, data, prepared


def _selection(config: RunConfig, evaluation: EvaluationCallback, last_step: int) -> dict[str, Any]:
    if evaluation.best_step is None:
        return {"metric": None, "value": None, "step": last_step, "rule": "last weights: no dev evaluation selected"}
    value = evaluation.best_value if math.isfinite(evaluation.best_value) else None
    return {
        "metric": config.evaluation.selection_metric,
        "value": value,
        "step": evaluation.best_step,
        "rule": "strictly best",
    }


def _check_unchanged(config: RunConfig, directory: RunDirectory, corpus: Corpus) -> None:
    """What is read is still that by which the run was named: ranks, and waiting runs, start later than that.

    Raises:
        DataError: it is something else.
    """
    stated = directory.results().get("identity")
    if stated is None or stated == identity(config, corpus_fingerprint=corpus.fingerprint()):
        return
    # The identity is a hash, which does not tell which of them it was.
    encoders = [f"the encoder {path} ({key})" for key, path in encoders_by_path(config).items()]
    own = [] if config.method.target.startswith("cse_bench.") else [f"the file of {config.method.target}"]
    what = " or ".join([f"the corpus '{corpus.name}'", *encoders, *own])
    raise DataError(
        f"{what} was changed after this run had started; run the same command again, and what was changed gets a run "
        "of its own, or put the old one back"
    )


def open_store(config: RunConfig, corpus: Corpus, tokenizer: SentenceTokenizer) -> TokenStore:
    """The token store of the run, with a progress bar while it is built."""
    with progress_bar(f"tokenising {corpus.name}", unit=" sentences", delay_s=2.0) as bar:
        return token_store(
            corpus,
            tokenizer,
            max_length=config.data.max_length,
            cache=Path(config.paths.cache).expanduser(),
            on_progress=lambda done: bar.update(done - bar.n) and None,
        )


def _trainer(
    config: RunConfig, directory: RunDirectory, loggers: list[Any], resume_from: Path | None, *, callbacks: list[Any]
) -> lightning.Trainer:
    arguments = config.trainer.arguments()
    if arguments.get("max_steps", -1) > 0:
        arguments["max_epochs"] = -1  # the corpus is read as often as the steps need
    if arguments.get("strategy") == FSDP:
        arguments["strategy"] = ShardedStrategy()
    resume_step = step_of(resume_from) if resume_from else 0
    return lightning.Trainer(
        **{"enable_model_summary": False, **arguments, "enable_progress_bar": False},
        **_precision_and_plugins(config.precision),
        callbacks=callbacks,
        logger=[MetricsLog(directory.metrics, resume_step=resume_step), *loggers],
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=directory.path,
    )


class _DoubleWeights(DoublePrecision):
    """64-true for token rows, which hold no floating-point numbers and, being frozen, cannot be rewritten."""

    def convert_input(self, data: Any) -> Any:
        return data


def _precision_and_plugins(precision: str) -> dict[str, Any]:
    if precision == "64-true":
        return {"plugins": [CheckpointFile(), _DoubleWeights()]}
    return {"plugins": [CheckpointFile()], "precision": precision}


def quiet_lightning() -> None:
    """Lightning's advice on things decided here on purpose; its warnings about anything else stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*smaller than the logging interval.*",  # the first and the last step are logged whatever the interval
        ".*does not have many workers.*",  # reading the token store costs less than a worker
        ".*module\\(s\\) in eval mode.*",  # momentum encoders and teachers stay so on purpose
        ".*your dataloader is not resumable.*",  # the sampler follows the step count
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message=message)
