"""Exact resume: the state of a run on disk, written atomically, and an interrupt that loses nothing.

What is restored is everything that decides the next step: parameters, optimiser, schedule, random states of every rank, and the step
count, from which the sampler knows where it is.
"""

import os
import random
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist

from cse_bench.training.gather import world_size


_RANKS_AGREE_EVERY_STEPS = 10


class Interrupted(BaseException):
    """The run was asked to stop, has written its state, and can be resumed.

    Args:
        signal_number: what asked for it.
        step: optimiser steps taken.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step} by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.step = step


class ResumeCheckpoint(lightning.Callback):
    """Writes `last.ckpt` every few steps and when the run is asked to stop (Ctrl-C, SIGTERM).

    A signal is answered at the end of the step in progress, when parameters and optimiser agree. A second Ctrl-C stops at once.

    Args:
        path: the checkpoint file; replaced atomically.
        every_steps: 0: only when asked to stop.
    """

    def __init__(self, path: Path, *, every_steps: int) -> None:
        self.path = path
        self.every_steps = every_steps
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._random: dict[str, Any] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes over Ctrl-C and SIGTERM."""

        def remember(number: int, frame: FrameType | None) -> None:
            if self._signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = number
            print(f"\n{signal.Signals(number).name}: finishing this step and saving; Ctrl-C again stops at once", flush=True)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, remember)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """After a restore: random states as they were, now that nothing else draws before the step."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the checkpoint when it is due, or asked for."""
        due = self.every_steps > 0 and trainer.global_step % self.every_steps == 0
        asked = self._asked(trainer.global_step)
        if due or asked is not None:
            self.save(trainer)
        if asked is not None:
            raise Interrupted(asked, trainer.global_step)

    def _asked(self, step: int) -> int | None:
        """The signal that any rank received; ranks must stop together, so they ask each other now and then."""
        if world_size() == 1:
            return self._signal
        if step % _RANKS_AGREE_EVERY_STEPS:
            return None
        signals: list[int | None] = [None] * world_size()
        dist.all_gather_object(signals, self._signal)
        return next((number for number in signals if number is not None), None)

    def save(self, trainer: lightning.Trainer) -> None:
        """Writes the state of the run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.path)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the random states of all ranks."""
        states: list[Any] = [random_state()]
        if world_size() > 1:
            states = [None] * world_size()
            dist.all_gather_object(states, random_state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps this rank's random state until the first step."""
        self._random = checkpoint["random_states"][trainer.global_rank]


def random_state() -> dict[str, Any]:
    """The state of every global generator, in types that `torch.load(weights_only=True)` reads."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


