"""What a run costs: time, rate, tokens, memory. A method is compared with what it costs beside what it scores."""

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.training.allocator import give_back_freed_memory
from cse_bench.training.gather import world_size

# What inference cost is counted on: 24 words, about what an STS or Wikipedia sentence has.
_TYPICAL_SENTENCE = (
    "The old harbour was rebuilt after the war, and since then ferries have left it every morning for the islands in "
    "the north."
)

# Linux only: the peak of the resident memory, and the file that starts it anew.
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass
class TokenCount:
    """What went through the encoder in training, on this rank.

    Attributes:
        real: tokens of sentences, views counted each.
        padded: tokens computed, padding included.
        sentences: sentences, counted once whatever their number of views.
    """

    real: int = 0
    padded: int = 0
    sentences: int = 0

    @classmethod
    def sum(cls, counts: Sequence["TokenCount"]) -> "TokenCount":
        """The counts of several ranks together."""
        return cls(
            real=sum(count.real for count in counts),
            padded=sum(count.padded for count in counts),
            sentences=sum(count.sentences for count in counts),
        )


class CostMeter(lightning.Callback):
    """Measures training without evaluation, and evaluation without training. Sums go on over a resumed run."""

    def __init__(self) -> None:
        self.train_time_s = 0.0
        self.eval_time_s = 0.0
        self._mark: float | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock."""
        self._mark = time.perf_counter()

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

    def sentences_per_s(self, tokens: TokenCount) -> float:
        """Training rate so far over all ranks, told from one of them; NaN before the first step."""
        running = time.perf_counter() - self._mark if self._mark is not None else 0.0
        seconds = self.train_time_s + running
        return tokens.sentences * world_size() / seconds if seconds > 0 else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The sums, for the checkpoint."""
        self._add_training_time()
        return {"train_time_s": self.train_time_s, "eval_time_s": self.eval_time_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The sums of the part of the run before the checkpoint."""
        self.train_time_s = state_dict["train_time_s"]
        self.eval_time_s = state_dict["eval_time_s"]

    def metrics(self, tokens: TokenCount) -> dict[str, float]:
        """The sums as metrics below `cost/`.

        Args:
            tokens: of all ranks together.
        """
        return {
            "cost/train_time_s": self.train_time_s,
            "cost/train_sentences": float(tokens.sentences),
            "cost/train_sentences_per_s": tokens.sentences / self.train_time_s if self.train_time_s else float("nan"),
            "cost/train_tokens_real": float(tokens.real),
            "cost/train_tokens_padded": float(tokens.padded),
        }


def reset_peak_memory() -> None:
    """Starts the peaks anew: a run of a sweep does not inherit the peak of the one before it in the same process."""
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with contextlib.suppress(OSError):  # not Linux, or a sandbox without this file: the peak is then the process's
        _CLEAR_REFS.write_text("5")


def peak_memory_bytes(device: torch.device | str = "cpu") -> int:
    """Peak memory of this process since `reset_peak_memory`.

    Args:
        device: a GPU: memory allocated by PyTorch there; the CPU: resident memory.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def inference_flops(encoder: SentenceEncoder) -> int:
    """Floating-point operations of the matrix products that embed one sentence of 24 words, prompt included.

    Counted, not timed, so that it is the same on every machine: what one inference costs beside another, whatever the
    number of towers, the prompt or the readout.
    """
    # The kernel decides what is counted: only the plain one shows its two matrix products everywhere.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encoder.encode([_TYPICAL_SENTENCE])
    return int(counter.get_total_flops())
