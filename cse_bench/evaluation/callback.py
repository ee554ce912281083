"""Evaluation during training: score the dev tasks every few steps, keep the strictly best encoder."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities.seed import isolate_rng

from cse_bench.errors import EncoderError, TrainingError
from cse_bench.evaluation.suite import Evaluator
from cse_bench.evaluation.task import Task
from cse_bench.training.cost import CostMeter
from cse_bench.training.gather import objects_of_ranks


class EvaluationCallback(lightning.Callback):
    """Evaluates the dev tasks every `every_steps` optimiser steps and saves whenever the selection metric is best.

    As in the official SimCSE trainer: nothing is evaluated at step 0, only a strictly better score is saved (the first
    of equal ones is kept), and the last step counts only when it is a multiple of the interval (unless `at_last_step`).
    A metric that is NaN (a collapsed encoder) never wins. Training goes on as if nothing had been evaluated: the random
    generators are put back.

    Args:
        tasks: dev tasks; never a test split.
        evaluator: runs them on the method in training.
        every_steps: interval in optimiser steps.
        at_last_step: also evaluate at the last step.
        selection_metric: path of the metric that selects, or None: nothing is selected.
        save: writes the encoder as it is now; given the step and the metric's value.
        kept: step and value of the encoder that is on disk; raises EncoderError when there is none, or a damaged one.
        on_every_rank: all ranks encode the same sentences, as they must where each holds a part of the weights; else
            rank 0 does it alone, and `save` is called there only.
        cost: evaluation time is not training time.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        evaluator: Evaluator,
        *,
        every_steps: int,
        at_last_step: bool,
        selection_metric: str | None,
        save: Callable[[int, float], None],
        kept: Callable[[], tuple[int, float | None]],
        on_every_rank: bool = False,
        cost: CostMeter,
    ) -> None:
        self.tasks = tasks
        self.evaluator = evaluator
        self.every_steps = every_steps
        self.at_last_step = at_last_step
        self.selection_metric = selection_metric
        self.save = save
        self.kept = kept
        self.on_every_rank = on_every_rank
        self.cost = cost
        self.best_value = -math.inf
        self.best_step: int | None = None
        self.latest: dict[str, float] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After a resume: the encoder on disk may be newer than the checkpoint, whose steps are taken again.

        Raises:
            TrainingError: it is gone or damaged; no checkpoint holds another one.
        """
        if trainer.ckpt_path is None or self.selection_metric is None:
            return
        try:
            step, value = self.kept()
        except EncoderError as error:
            if self.best_step is None:
                return  # nothing was selected yet
            raise TrainingError(
                f"the encoder that was selected at step {self.best_step} is gone or damaged ({error}), and no "
                f"checkpoint holds it; delete the folder {Path(trainer.ckpt_path).parent}, and the run starts over"
            ) from error
        if value is not None and step > (self.best_step or 0):
            self.best_value, self.best_step = value, step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates when it is due."""
        step = trainer.global_step
        last = self.at_last_step and step >= trainer.estimated_stepping_batches
        if not self.tasks or (step % self.every_steps and not last):
            return
        with self.cost.evaluating(), isolate_rng():
            self._evaluate(trainer, step)
        trainer.strategy.barrier()  # ranks wait for the one that evaluates

    def _evaluate(self, trainer: lightning.Trainer, step: int) -> None:
        if not (trainer.is_global_zero or self.on_every_rank):
            return
        self.latest = self.evaluator(self.tasks).metrics
        if self.on_every_rank:  # one decision: rank 0's, which alone knows what is on disk
            known = (self.latest, self.best_value, self.best_step)
            self.latest, self.best_value, self.best_step = objects_of_ranks(known)[0]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(self.latest, step=step)
        if self.selection_metric is None:
            return
        if self.selection_metric not in self.latest:
            raise TrainingError(
                f"evaluation.selection_metric='{self.selection_metric}' is not among the dev metrics: "
                f"{', '.join(sorted(self.latest))}"
            )
        value = self.latest[self.selection_metric]
        if value > self.best_value:
            self.best_value, self.best_step = value, step
            self.save(step, value)

    def state_dict(self) -> dict[str, Any]:
        """Best so far, for the checkpoint."""
        return {"best_value": self.best_value, "best_step": self.best_step, "latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]
        self.latest = state_dict["latest"]
