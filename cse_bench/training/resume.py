"""Exact resume: the state of a run on disk, written atomically, and an interrupt that loses nothing.

What is restored is everything that decides the next step: parameters, optimiser, schedule, random states of every
rank, and the step count, from which the sampler knows where it is.
"""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch

from cse_bench.errors import TrainingError
from cse_bench.training.checkpoint_file import previous
from cse_bench.training.finite import check_parameters
from cse_bench.training.gather import objects_of_ranks, world_size

_RANKS_AGREE_EVERY_STEPS = 10


class Interrupted(BaseException):
    """The run was asked to stop, has written its state, and can be resumed.

    Args:
        signal_number: what asked for it.
        step: optimiser steps taken; None: outside of the steps, where there is nothing new to save.
    """

    def __init__(self, signal_number: int, step: int | None) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped at step {step} by {name}; saved, the same command goes on from here"
            if step is not None
            else f"stopped by {name} outside of the steps; the same command goes on from what is there"
        )
        self.signal_number = signal_number
        self.step = step

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, int | None]]:
        """Launchers send it to another process; by itself an exception is made anew from its message alone."""
        return type(self), (int(self.signal_number), self.step)


class _StopAtOnce(BaseException):
    """The second Ctrl-C. A KeyboardInterrupt would not do: Lightning exits on it and ignores Ctrl-C from then on."""


@contextmanager
def signals_to(
    handler: Callable[[int], None], *, numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM call `handler` with their number; afterwards they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in numbers}

    def answer(number: int, frame: FrameType | None) -> None:
        handler(number)

    try:
        for number in before:
            signal.signal(number, answer)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """While inside, and where no `ResumeCheckpoint` answers instead, SIGTERM raises `Interrupted`.

    So tokenising, mining and the evaluation of a finished training end as Ctrl-C ends them: what is half done is
    cleaned up, the result says "interrupted", and the exit code is that of a pre-empted job (128 + 15).
    """

    def stop(number: int) -> None:
        raise Interrupted(number, None)

    with signals_to(stop, numbers=(signal.SIGTERM,)):
        yield


class ResumeCheckpoint(lightning.Callback):
    """Writes `last.ckpt` every few steps, after the last one, and when the run is asked to stop (Ctrl-C, SIGTERM).

    The one before is kept beside it until the next is written, see `cse_bench.training.checkpoint_file`. A signal is
    answered at the end of the step in progress, when parameters and optimiser agree. A second Ctrl-C stops at once.

    Args:
        path: the checkpoint file; replaced atomically.
        every_steps: 0: only when asked to stop.
        stop_file: when this file appears, which holds the number of a signal, ranks stop as if they had received it.
        resumed_from: the checkpoint that the run goes on from, if any: a damaged last one is not kept in its place.
    """

    def __init__(
        self, path: Path, *, every_steps: int, stop_file: Path | None = None, resumed_from: Path | None = None
    ) -> None:
        self.path = path
        self.every_steps = every_steps
        self.stop_file = stop_file
        self._last_is_whole = resumed_from == path
        self._signal: int | None = None
        self._is_saved = resumed_from is not None
        self._random: dict[str, Any] | None = None

    @contextmanager
    def answering_signals(self) -> Iterator[None]:
        """Training happens inside.

        Raises:
            KeyboardInterrupt: Ctrl-C a second time.
            Interrupted: asked to stop after the last step.
        """
        try:
            with signals_to(self._remember):
                yield
        except _StopAtOnce:
            raise KeyboardInterrupt from None
        if self._signal is not None and self._is_saved and world_size() == 1:
            raise Interrupted(self._signal, None)

    def _remember(self, number: int) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise _StopAtOnce
        self._signal = number
        print(
            f"\n{signal.Signals(number).name}: finishing this step and saving; Ctrl-C again stops at once", flush=True
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes SIGTERM back: Lightning's handler would end the run without saving it.

        Raises:
            Interrupted: the run was asked to stop while it was made ready.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: self._remember(number))
        if (asked := self._agreed()) is not None:
            raise Interrupted(asked, trainer.global_step)

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

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Training is not repeated when what follows it, the final evaluation, is interrupted or fails.

        Raises:
            Interrupted: a rank was asked to stop since they last agreed.
        """
        # Ranks look at some steps only, see `_asked`; the last one need not be among them.
        asked = self._agreed() if world_size() > 1 else None
        is_written = self.every_steps > 0 and trainer.global_step % self.every_steps == 0
        if not is_written and (self.every_steps > 0 or asked is not None):
            self.save(trainer)
        self._is_saved = self.every_steps > 0
        if asked is not None:
            raise Interrupted(asked, trainer.global_step)

    def _asked(self, step: int) -> int | None:
        """The signal that any rank received; ranks must stop together, so they ask each other now and then.

        After the last step they ask once more, see `on_train_end`.
        """
        if world_size() == 1:
            return self._signal
        return None if step % _RANKS_AGREE_EVERY_STEPS else self._agreed()

    def _agreed(self) -> int | None:
        if self._signal is None and self.stop_file is not None and self.stop_file.is_file():
            self._signal = int(self.stop_file.read_text() or signal.SIGTERM)
        return next((number for number in objects_of_ranks(self._signal) if number is not None), None)

    def save(self, trainer: lightning.Trainer) -> None:
        """Writes the state of the run.

        Raises:
            TrainingError: the disk is full or not writable, or a parameter is not finite; an earlier checkpoint stays
                as it is.
        """
        check_parameters(trainer.lightning_module, step=trainer.global_step)
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                if self._last_is_whole and self.path.is_file():
                    os.replace(self.path, previous(self.path))
                os.replace(temporary, self.path)
            self._last_is_whole = True
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"cannot write {self.path} ({error}); free some space and run the same command"
            ) from error

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the random states of all ranks."""
        checkpoint["random_states"] = objects_of_ranks(random_state())

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
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
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
