"""Dev tasks that make something happen in the ranks: they break in no way that is foreseen, or are asked to stop."""

import os
import signal
import time
from pathlib import Path

import psutil

from cse_bench.evaluation.task import Encode, Yielded
from tests.tiny import PairScore


class Broken(PairScore):
    """As `PairScore`, until a rank asks.

    Args:
        seed: of the run.
        breaks: the seed that breaks.
    """

    def __init__(self, *, seed: int, breaks: int) -> None:
        super().__init__(split="dev")
        self.broken = seed == breaks

    def evaluate(self, encode: Encode) -> Yielded:
        if self.broken and "RANK" in os.environ:
            raise RuntimeError("the power went")
        yield from super().evaluate(encode)


class Terminating(PairScore):
    """As `PairScore`, and the first time that a rank is asked, the command that started it receives SIGTERM.

    Args:
        once: a file that says that it was done.
    """

    def __init__(self, *, once: str) -> None:
        super().__init__(split="dev")
        self.once = Path(once)

    def evaluate(self, encode: Encode) -> Yielded:
        if "RANK" in os.environ and not self.once.exists():
            self.once.touch()
            torchrun = psutil.Process().parent()
            assert torchrun is not None
            os.kill(torchrun.ppid(), signal.SIGTERM)
            time.sleep(2)  # the command tells its ranks
        yield from super().evaluate(encode)
