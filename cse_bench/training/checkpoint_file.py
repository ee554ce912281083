"""The file that a run goes on from: written straight to its place, told whole from damaged before it is read."""

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from cse_bench.errors import TrainingError

logger = logging.getLogger(__name__)


class CheckpointFile(TorchCheckpointIO):
    """Writes where it is told to, and is done when the disk has it.

    Lightning's own makes a second copy in memory and one in the machine's folder for temporary files, which may be
    small, or memory as well; a killed process leaves it there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Lightning's hook.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        with Path(path).open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # what torch makes of it while it tries to end the archive
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())  # a machine that goes down keeps names before contents otherwise


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
            if archive.testzip() is not None:
                return False
        step_of(checkpoint)
    except Exception:  # whatever the damage hits: zipfile and torch have many words for it
        return False
    return True


def step_of(checkpoint: Path) -> int:
    """Optimiser steps taken when a whole checkpoint was written."""
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)["global_step"])
