"""What a method that mines offers beside training: `python -m cse_bench.mine` shows its pairs."""

from abc import ABC, abstractmethod

from cse_bench.methods.preparation import Preparation
from cse_bench.mining.pairs import Pairs
from cse_bench.mining.propensity import Propensity


class MinesPairs(ABC):
    """A method that mines.

    Attributes:
        propensity: how it weights the candidates.
        pairs: what it mined; None before, and where its settings use none.
    """

    propensity: Propensity
    pairs: Pairs | None = None

    @abstractmethod
    def mine(self, preparation: Preparation) -> Pairs | None:
        """The pairs, mined or found; None where the settings use none."""
