"""The training loss in the metrics log, under the number of optimiser steps taken when it was computed."""

from typing import Any

import lightning


def is_logged(trainer: lightning.Trainer, step: int) -> bool:
    """Whether the loss of this step (counted from 1) is written: every `log_every_n_steps`, the first and the last."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # its logger connector sets it
    return step == 1 or step % interval == 0 or step == trainer.estimated_stepping_batches


class LossLog(lightning.Callback):
    """Writes `train/<part>` for every part of the loss.

    Lightning's own logging counts from 0 and writes after the callbacks: the rows would lie one step beside the dev
    scores, and the row of a step at which the run is interrupted would be lost.
    """

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes when it is due."""
        step = trainer.global_step
        if is_logged(trainer, step):
            metrics = {f"train/{name}": float(value) for name, value in outputs.items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)
