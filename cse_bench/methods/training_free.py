"""What makes an encoder without training: the backbone as it is, or with something fitted to it."""

from abc import ABC
from typing import ClassVar, Unpack

from cse_bench.config.schema import RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.methods.method import Method, Shared


class TrainingFree(Method, ABC):
    """No views and no loss; at most `fit`, once, for which `reads_corpus` has to say yes.

    Args:
        shared: see `cse_bench.methods.method.Shared`; what only training needs is not looked at.
    """

    trains: ClassVar[bool] = False

    def __init__(self, **shared: Unpack[Shared]) -> None:
        super().__init__(encoder=shared["encoder"], seed=shared.get("seed", 0))

    def fit(self, config: RunConfig, corpus: Corpus) -> dict[str, float]:
        """What the method makes of the corpus; nothing else changes its encoder.

        Returns:
            Metrics for the result: what it cost, and what it found.
        """
        raise NotImplementedError(f"{type(self).__name__} reads the corpus, and has no fit")
