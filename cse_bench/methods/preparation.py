"""What a method may look at once, before training."""

from dataclasses import dataclass
from pathlib import Path

from cse_bench.config.schema import RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.data.token_store import TokenStore


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The corpus, the finished prerequisites and the config of a run.

    Attributes:
        config: of the run.
        corpus: the training sentences; sentence i is row i of the store.
        store: the same, tokenised.
        prerequisites: the saved encoder of every run that `prerequisites` named and that trained one.
        cache: folder for what other runs can use again.
    """

    config: RunConfig
    corpus: Corpus
    store: TokenStore
    prerequisites: dict[str, Path]
    cache: Path
