"""The progress bar of a run: step of all steps, rate, loss, dev score and the best so far."""

import sys
from typing import Any

import lightning
from tqdm import tqdm

from cse_bench.evaluation.callback import EvaluationCallback
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.training.bars import progress_bar
from cse_bench.training.cost import CostMeter


class ProgressBar(lightning.Callback):
    """One bar over the optimiser steps of the whole run, resumed parts included.

    Args:
        cost: gives the rate.
        evaluation: gives the dev score and the best so far.
    """

    def __init__(self, cost: CostMeter, evaluation: EvaluationCallback) -> None:
        self._cost = cost
        self._evaluation = evaluation
        self._bar: tqdm[Any] | None = None
        self._refresh_steps = 5 if sys.stderr.isatty() else 100

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Opens the bar at the step where the run goes on."""
        if trainer.is_global_zero:
            steps = int(trainer.estimated_stepping_batches)
            self._bar = progress_bar("training", unit="step", total=steps, done=trainer.global_step)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar; the loss is read only now and then, since reading it makes a GPU wait."""
        if self._bar is None:
            return
        if trainer.global_step % self._refresh_steps == 0:
            assert isinstance(pl_module, ContrastiveMethod)
            rate = self._cost.sentences_per_s(pl_module.tokens)
            items = {"loss": f"{float(outputs['loss']):.4f}", "sentences/s": f"{rate:.0f}"}
            metric, latest = self._evaluation.selection_metric, self._evaluation.latest
            if metric is not None and metric in latest:
                items |= {"dev": f"{latest[metric]:.2f}", "best": f"{self._evaluation.best_value:.2f}"}
            self._bar.set_postfix(items, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar: Lightning calls no `teardown` then."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
