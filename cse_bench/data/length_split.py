"""Length-sorted pieces: the rows of a step forwarded in groups of similar length, so that little work is padding.

The loss sees all rows at once whatever the pieces, so the split changes the cost of a step and nothing else.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Pieces come in few shapes: kernels are prepared per shape (oneDNN compiles and caches them, torch.compile would too),
# and a new shape in every step costs more than the padding it saves.
_ROW_STEP = 16
_LENGTH_STEP = 8


@dataclass(frozen=True)
class Piece:
    """Rows that are forwarded together.

    Attributes:
        rows: their indices, ascending in length.
        length: columns they are padded to.
    """

    rows: Tensor
    length: int


def length_pieces(lengths: Tensor, *, overhead_tokens: int, max_rows: int | None = None) -> list[Piece]:
    """Cuts the rows, sorted by length, into the pieces that cost least.

    The cost of a piece is (rows * columns) + overhead_tokens: its padded tokens, and the fixed cost of one more forward
    and backward expressed in tokens. Pieces end at multiples of 16 rows (of `max_rows` if that is less) and have a
    multiple of 8 columns (or the longest row's length). Minimised exactly, by dynamic programming over possible cuts.

    Args:
        lengths: tokens of each row, (n,).
        overhead_tokens: how many tokens one more piece is worth.
        max_rows: of a piece; None: as many as pay off.

    Returns:
        Pieces in ascending order of length; their rows together are a permutation of 0..n-1.
    """
    values = lengths.numpy()
    order = np.argsort(values, kind="stable")
    longest = int(values.max())
    step = _ROW_STEP if max_rows is None else min(_ROW_STEP, max_rows)
    most = len(values) if max_rows is None else max_rows
    ends = np.append(np.arange(step, len(values), step), len(values))
    starts = np.concatenate(([0], ends[:-1]))
    columns = np.minimum(-(-values[order[ends - 1]] // _LENGTH_STEP) * _LENGTH_STEP, longest)
    best = np.zeros(len(ends) + 1)  # best[k]: least cost of the rows before ends[k - 1]
    cut = np.zeros(len(ends) + 1, dtype=int)
    for k in range(1, len(ends) + 1):
        rows = ends[k - 1] - starts[:k]
        costs = np.where(rows <= most, best[:k] + rows * columns[k - 1] + overhead_tokens, np.inf)
        cut[k] = int(np.argmin(costs))
        best[k] = costs[cut[k]]
    pieces = []
    k = len(ends)
    while k > 0:
        pieces.append(Piece(torch.from_numpy(order[starts[cut[k]] : ends[k - 1]]), int(columns[k - 1])))
        k = cut[k]
    return pieces[::-1]


def pieces_in_order(rows: int, length: int, *, max_rows: int) -> list[Piece]:
    """Consecutive blocks of at most `max_rows` rows, all of `length` columns."""
    return [Piece(block, length) for block in torch.arange(rows).split(max_rows)]
