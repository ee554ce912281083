"""A dev task that breaks in the ranks of one seed, in no way that is foreseen."""

import os

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
