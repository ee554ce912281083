"""Which sentences make up which batch: decided by (seed, epoch, step) alone, whatever the number of ranks."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class GlobalBatchSampler(Sampler[tuple[int, np.ndarray]]):
    """Global batches of a shuffled corpus, of which every rank takes its slice.

    Epoch e is the permutation drawn from (seed, e); global batch k is its k-th block of g sentences; rank r of w takes
    the r-th of w nearly equal parts of the block. So the union over ranks is the same batch for any w, and a run can go
    on at any step. One exception: a last block with fewer sentences than ranks is left out, as `drop_last` would.

    Args:
        num_sentences: size of the corpus.
        global_batch_size: g, sentences per step over all ranks.
        seed: of the order.
        rank: r.
        world_size: w.
        drop_last: leave out the smaller last block of an epoch.
        position: gives the optimiser steps taken so far, over all epochs; asked at the start of every pass, which goes
            on from there.
    """

    def __init__(
        self,
        num_sentences: int,
        *,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self.num_sentences = num_sentences
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        remainder = num_sentences % global_batch_size
        # A rank without a single sentence could not take part in the step.
        short = 0 if drop_last or remainder < world_size else 1
        self.batches_per_epoch = num_sentences // global_batch_size + short
        self.position = position

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """The epoch, and the numbers of the sentences of a batch."""
        epoch, start = divmod(self.position(), self.batches_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_sentences)
        for batch in range(start, self.batches_per_epoch):
            block = order[batch * self.global_batch_size : (batch + 1) * self.global_batch_size]
            yield epoch, np.array_split(block, self.world_size)[self.rank]
