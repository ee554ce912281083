"""Training in a test: a real `train` call, and loggers that make something happen at a chosen step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from safetensors.torch import load_file
from torch import Tensor

from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.train import TrainingSummary, train
from tests.tiny import config_in


class At(Logger):
    """Does something when the loss of a step is logged: after the step, before its checkpoint."""

    name = "at"
    version = ""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self.step = step
        self.action = action

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step == self.step and "train/loss" in metrics:
            self.action()

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        pass


def signal_at(step: int, *numbers: int) -> At:
    """Sends signals to this process, as a terminal or a scheduler would."""
    return At(step, lambda: [os.kill(os.getpid(), number) for number in numbers])


def fail_at(step: int) -> At:
    """Breaks the run without warning, as a power cut would."""

    def fail() -> None:
        raise RuntimeError("the power went")

    return At(step, fail)


def train_in(folder: Path, *overrides: str, loggers: tuple[Logger, ...] = ()) -> tuple[TrainingSummary, RunDirectory]:
    """Trains, or goes on with what `folder` holds."""
    directory = RunDirectory(folder / "run")
    directory.path.mkdir(parents=True, exist_ok=True)
    summary = train(config_in(folder, *overrides), directory, loggers=list(loggers))
    return summary, directory


def kept_weights(directory: RunDirectory) -> dict[str, Tensor]:
    """Every tensor of what the run kept: encoders, readouts, and what only training uses."""
    return {
        f"{file.relative_to(directory.model).parent}/{name}".removeprefix("./"): tensor
        for file in sorted(directory.model.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
