"""Exact resume: the state of a run on disk, written atomically, and an interrupt that loses nothing.

What is restored is everything that decides the next step: parameters, optimiser, schedule, random states of every
rank, and the step count, from which the sampler knows where it is.
"""

import contextlib
import logging
import os
import random
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch

from cse_bench.errors import TrainingError
from cse_bench.training.gather import objects_of_ranks, world_size

logger = logging.getLogger(__name__)

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


class _StopAtOnce(BaseException):
    """The second Ctrl-C. A KeyboardInterrupt would not do: Lightning exits on it and ignores Ctrl-C from then on."""


@contextmanager
def signals_to(handler: Callable[[int], None]) -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM call `handler` with their number; afterwards they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def answer(number: int, frame: FrameType | None) -> None:
        handler(number)

    try:
        for number in before:
            signal.signal(number, answer)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


class ResumeCheckpoint(lightning.Callback):
    """Writes `last.ckpt` every few steps, after the last one, and when the run is asked to stop (Ctrl-C, SIGTERM).

    The one before is kept beside it until the next is written: see `newest_whole`. A signal is answered at the end of
    the step in progress, when parameters and optimiser agree. A second Ctrl-C stops at once.

    Args:
        path: the checkpoint file; replaced atomically.
        every_steps: 0: only when asked to stop.
        stop_file: when this file appears, which holds the number of a signal, ranks stop as if they had received it.
    """

    def __init__(self, path: Path, *, every_steps: int, stop_file: Path | None = None) -> None:
        self.path = path
        self.every_steps = every_steps
        self.stop_file = stop_file
        self._signal: int | None = None
        self._random: dict[str, Any] | None = None

    @contextmanager
    def answering_signals(self) -> Iterator[None]:
        """Training happens inside.

        Raises:
            KeyboardInterrupt: Ctrl-C a second time.
        """
        try:
            with signals_to(self._remember):
                yield
        except _StopAtOnce:
            raise KeyboardInterrupt from None

    def _remember(self, number: int) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise _StopAtOnce
        self._signal = number
        print(
            f"\n{signal.Signals(number).name}: finishing this step and saving; Ctrl-C again stops at once", flush=True
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes SIGTERM back: Lightning's handler would end the run without saving it."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: self._remember(number))

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
        """Training is not repeated when what follows it, the final evaluation, is interrupted or fails."""
        if self.every_steps > 0 and trainer.global_step % self.every_steps != 0:
            self.save(trainer)

    def _asked(self, step: int) -> int | None:
        """The signal that any rank received; ranks must stop together, so they ask each other now and then."""
        if world_size() == 1:
            return self._signal
        if step % _RANKS_AGREE_EVERY_STEPS:
            return None
        if self._signal is None and self.stop_file is not None and self.stop_file.is_file():
            self._signal = int(self.stop_file.read_text() or signal.SIGTERM)
        return next((number for number in objects_of_ranks(self._signal) if number is not None), None)

    def save(self, trainer: lightning.Trainer) -> None:
        """Writes the state of the run.

        Raises:
            TrainingError: the disk is full or not writable; an earlier checkpoint stays as it is.
        """
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())  # a machine that goes down keeps names before contents otherwise
                if self.path.is_file():
                    os.replace(self.path, previous(self.path))
                os.replace(temporary, self.path)
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


def previous(checkpoint: Path) -> Path:
    """Where the checkpoint before the last one is kept."""
    return checkpoint.with_name("previous.ckpt")


def newest_whole(checkpoint: Path) -> Path | None:
    """What to resume from: the last checkpoint, or the one before where the last is damaged or missing.

    A checkpoint is a zip archive with a checksum for every tensor, so half-written and altered ones are told apart from
    whole ones by reading them. The run that goes on from an earlier one ends in the same numbers.

    Returns:
        None when there is neither.

    Raises:
        TrainingError: none that is there can be read.
    """
    there = [path for path in (checkpoint, previous(checkpoint)) if path.is_file()]
    whole = next((path for path in there if _is_whole(path)), None)
    if there and whole is None:
        names = " and ".join(str(path) for path in there)
        raise TrainingError(f"{names} cannot be read (damaged); delete {checkpoint.parent}, and the run starts over")
    if whole is not None and whole != there[0]:
        logger.warning("%s is damaged; going on from the one before, step %d", there[0], step_of(whole))
    return whole


def _is_whole(checkpoint: Path) -> bool:
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):  # whatever the damage hits
        return False


def step_of(checkpoint: Path) -> int:
    """Optimiser steps taken when a whole checkpoint was written."""
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)["global_step"])


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
