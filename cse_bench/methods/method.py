"""What every method answers, trained or not: where it comes from, what it needs, and what embeds at the end."""

from abc import ABC
from collections.abc import Iterator
from typing import Any, ClassVar, NotRequired, TypedDict

import lightning
from torch import Tensor

from cse_bench.config.messages import Problem
from cse_bench.config.schema import Optimizer, RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import Encoder, SentenceEncoder

STATUSES = ("official code", "paper", "own reading", "baseline")
"""What `Method.status` may be; it stands beside every result."""


class Shared(TypedDict):
    """What every method is given by the framework and hands on to its base class: `**shared: Unpack[Shared]`."""

    encoder: Encoder
    optimizer: Optimizer
    seed: NotRequired[int]
    split_rows_by_length: NotRequired[bool]
    gradient_cache_rows: NotRequired[int | None]


class Method(lightning.LightningModule, ABC):
    """What makes an encoder: by training (`ContrastiveMethod`) or without (`TrainingFree`).

    Args:
        encoder: the shared encoder.
        seed: of what the method draws beside weights and dropout masks.
    """

    status: ClassVar[str]
    """Where the definition comes from, one of `STATUSES`."""
    citation: ClassVar[str]
    """Authors, venue, year and arXiv id."""
    trains: ClassVar[bool]
    """Whether there is anything to train."""
    version: ClassVar[int] = 1
    """Raised whenever a change of the code changes what equal settings measure: finished runs are then done again.

    Not for other rounding, nor for other random numbers of the same distribution."""
    is_backbone: ClassVar[bool] = False
    """Whether the encoder is the backbone as it is, with which all others are compared; it is not kept again."""

    def __init__(self, *, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.seed = seed
        self.notes: dict[str, Any] = {}  # facts for the result that the config does not tell

    @classmethod
    def prerequisites(cls, config: RunConfig) -> dict[str, RunConfig]:
        """Runs that must be finished before this one, by a name that `prepare` finds them under (a teacher, say)."""
        return {}

    @classmethod
    def encoders_by_path(cls, config: RunConfig) -> dict[str, str]:
        """Config key -> path or Hub id, for what the method reads that no run of ours made first.

        A run's identity holds their content in place of the value at the key.
        """
        return {}

    @classmethod
    def problems(cls, config: RunConfig) -> Iterator[Problem]:
        """What about this combination of method, backbone and data cannot work; asked before any weights are loaded."""
        yield from ()

    @classmethod
    def reads_corpus(cls, config: RunConfig) -> bool:
        """Whether the result depends on the sentences; else they are neither read nor part of the run's identity."""
        return cls.trains

    @classmethod
    def check_corpus(cls, config: RunConfig, *, name: str, sentences: int) -> None:
        """Asked of every corpus that is read, before any weights are loaded.

        Args:
            config: of the run.
            name: of the corpus.
            sentences: how many it has.

        Raises:
            DataError: it is too small.
        """

    @property
    def sentence_encoder(self) -> SentenceEncoder:
        """What embeds sentences at inference; it is what the run keeps."""
        return self.encoder

    def embed(self, rows: TokenRows) -> Tensor:
        """Sentence vectors at inference, (n, d)."""
        return self.sentence_encoder(rows)
