"""Losses over a matrix of scores that is never whole: the memory of a contrastive loss without the batch squared.

A loss that compares b anchors with c candidates keeps several matrices of b x c numbers for the backward. With the
encoder's activations out of the way (gradient caching) these are what grows with the batch.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Scores that are worth keeping at once: 16 MiB in float32, a batch of 2,048 with as many candidates.
MOST_SCORES = 2**22


def row_blocks(rows: int, *, columns: int) -> Iterator[slice]:
    """Consecutive rows of a matrix, in blocks of at most `MOST_SCORES` numbers (and at least one row)."""
    size = max(1, MOST_SCORES // max(1, columns))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def mean_over_rows(loss_of: Callable[[slice], Tensor], *, rows: int, columns: int) -> Tensor:
    r"""The mean of a loss over the rows of a matrix of scores, block by block.

    .. math::
        \ell = \frac{1}{b} \sum_k b_k \ell_k

    with :math:`\ell_k` the mean of the :math:`b_k` rows of block k. The backward computes every block again, so one
    block's scores are in memory at a time. One block, that is every batch of common size, is computed as it stands.

    Args:
        loss_of: rows -> the mean loss of these; deterministic.
        rows: b.
        columns: c, scores in each row.
    """
    blocks = list(row_blocks(rows, columns=columns))
    if len(blocks) == 1:
        return loss_of(blocks[0])
    parts: list[Tensor] = [
        checkpoint(loss_of, block, use_reentrant=False, preserve_rng_state=False) * ((block.stop - block.start) / rows)
        for block in blocks
    ]
    return torch.stack(parts).sum()
