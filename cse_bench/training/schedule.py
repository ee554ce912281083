"""How long a run will train: steps and sentences, as far as they can be told before the corpus is read."""

from dataclasses import dataclass
from pathlib import Path

from cse_bench.config.bind import build
from cse_bench.config.schema import RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.data.sampler import GlobalBatchSampler
from cse_bench.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run trains. None: not known before the corpus is read.

    Attributes:
        sentences: in the corpus.
        source: where that number is from, or why it is not known.
        steps_per_epoch: optimiser steps of one pass over the corpus.
        steps: optimiser steps of the run.
        sentences_seen: over all steps and devices.
    """

    sentences: int | None
    source: str
    steps_per_epoch: int | None
    steps: int | None
    sentences_seen: int | None


def planned_schedule(config: RunConfig, *, devices: int) -> Schedule:
    """Counts the steps of a run before it starts; nothing is downloaded.

    Args:
        config: checked config.
        devices: number of them, over all machines.

    Raises:
        DataError: the corpus is smaller than a batch.
    """
    trainer, data = config.trainer.arguments(), config.data
    size = data.global_batch_size
    max_steps = int(trainer.get("max_steps", -1))
    sentences, source = _sentences(build(data.corpus))
    if sentences is None:
        steps = max_steps if max_steps > 0 else None
        seen = steps * size if steps else None
        return Schedule(sentences=None, source=source, steps_per_epoch=None, steps=steps, sentences_seen=seen)
    if sentences < size:
        raise DataError(
            f"the corpus has {sentences} sentences, fewer than one batch; set data.global_batch_size to at most that"
        )
    sampler = GlobalBatchSampler(
        sentences, global_batch_size=size, seed=0, world_size=devices, drop_last=data.drop_last
    )
    per_epoch = len(sampler)
    steps = max_steps if max_steps > 0 else per_epoch * int(trainer.get("max_epochs", 1))
    epochs, rest = divmod(steps, per_epoch)
    seen = epochs * min(sentences, per_epoch * size) + rest * size
    return Schedule(sentences=sentences, source=source, steps_per_epoch=per_epoch, steps=steps, sentences_seen=seen)


def _sentences(corpus: Corpus) -> tuple[int | None, str]:
    """The number of sentences as far as it can be told without a download, and where it is from."""
    try:
        declared = getattr(corpus, "num_lines", None)
        if isinstance(declared, int):
            return declared, f"as {corpus.name} says"
        path = getattr(corpus, "path", None)
        if isinstance(path, Path) and path.is_file():
            return sum(1 for _ in corpus.lines()), f"counted in {path.name}"
    except DataError as error:
        return None, str(error)
    return None, f"unknown until the corpus is read ({corpus.name} is not here)"
