"""What a run costs: time, rate, tokens, memory. A method is compared with what it costs beside what it scores."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning
import torch


@dataclass
class TokenCount:
    """Tokens that went through the encoder in training.

    Attributes:
        real: tokens of sentences, views counted each.
        padded: tokens computed, padding included.
    """

    real: int = 0
    padded: int = 0


class CostMeter(lightning.Callback):
    """Measures training without evaluation, and evaluation without training.

    Sums go on over a resumed run. Memory is the peak of this process (CPU: resident memory; GPU: memory allocated by PyTorch).
    """

    def __init__(self) -> None:
        self.train_time_s = 0.0
        self.eval_time_s = 0.0
        self.sentences = 0
        self._mark: float | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts sentences over all ranks."""
        self.sentences += len(batch) * trainer.world_size

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stops the clock."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._add_training_time()
        self._mark = None

    def _add_training_time(self) -> None:
        if self._mark is not None:
            now = time.perf_counter()
            self.train_time_s += now - self._mark
            self._mark = now

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """What happens inside is evaluation, not training."""
        self._add_training_time()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.eval_time_s += time.perf_counter() - start
            if self._mark is not None:
                self._mark = time.perf_counter()

    def sentences_per_s(self) -> float:
        """Training rate so far; NaN before the first step."""
        running = time.perf_counter() - self._mark if self._mark is not None else 0.0
        seconds = self.train_time_s + running
        return self.sentences / seconds if seconds > 0 else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The sums, for the checkpoint."""
        self._add_training_time()
        return {"train_time_s": self.train_time_s, "eval_time_s": self.eval_time_s, "sentences": self.sentences}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The sums of the part of the run before the checkpoint."""
        self.train_time_s = state_dict["train_time_s"]
        self.eval_time_s = state_dict["eval_time_s"]
        self.sentences = state_dict["sentences"]

    def metrics(self, tokens: TokenCount) -> dict[str, float]:
        """The sums as metrics below `cost/`."""
        return {
            "cost/train_time_s": self.train_time_s,
            "cost/train_sentences": float(self.sentences),
            "cost/train_sentences_per_s": self.sentences_per_s(),
            "cost/train_tokens_real": float(tokens.real),
            "cost/train_tokens_padded": float(tokens.padded),
        }


def peak_memory_bytes(device: torch.device | None = None) -> int:
    """Peak memory of this process so far: allocated on the GPU, or resident on the CPU."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
