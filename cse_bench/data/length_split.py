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


def length_pieces(lengths: Tensor, *, overhead_tokens: int) -> list[Piece]:
    """Cuts the rows, sorted by length, into the pieces that cost least.

    The cost of a piece is (rows * columns) + overhead_tokens: its padded tokens, and the fixed cost of one more forward
    and backward expressed in tokens. Pieces end at multiples of 16 rows and have a multiple of 8 columns (or the
    longest row's length). Minimised exactly, by dynamic programming over the possible cuts.

    Args:
        lengths: tokens of each row, (n,).
        overhead_tokens: how many tokens one more piece is worth.

    Returns:
        Pieces in ascending order of length; their rows together are a permutation of 0..n-1.
    """
    values = lengths.numpy()
    order = np.argsort(values, kind="stable")
    longest = int(values.max())
    ends = np.append(np.arange(_ROW_STEP, len(values), _ROW_STEP), len(values))
    starts = np.concatenate(([0], ends[:-1]))
    columns = np.minimum(-(-values[order[ends - 1]] // _LENGTH_STEP) * _LENGTH_STEP, longest)
    best = np.zeros(len(ends) + 1)  # best[k]: least cost of the rows before ends[k - 1]
    cut = np.zeros(len(ends) + 1, dtype=int)
    for k in range(1, len(ends) + 1):
        costs = best[:k] + (ends[k - 1] - starts[:k]) * columns[k - 1] + overhead_tokens
        cut[k] = int(np.argmin(costs))
        best[k] = costs[cut[k]]
    pieces = []
    k = len(ends)
    while k > 0:
        pieces.append(Piece(torch.from_numpy(order[starts[cut[k]] : ends[k - 1]]), int(columns[k - 1])))
        k = cut[k]
    return pieces[::-1]
