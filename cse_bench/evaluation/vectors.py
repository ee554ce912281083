"""Rows of embeddings that a cosine can be computed from. Shapes: `n` sentences, `d` width."""

import numpy as np
import numpy.typing as npt


def first_unusable_row(embeddings: np.ndarray) -> tuple[int, str] | None:
    """First row that has no direction, and why, or `None` when every row has one.

    A zero or non-finite vector has no cosine. SentEval turns such a cosine into 0, which hides a diverged encoder
    behind a plausible score, so callers stop instead.

    Args:
        embeddings: `(n, d)`.
    """
    finite = np.isfinite(embeddings).all(axis=1)
    usable = finite & (embeddings != 0).any(axis=1)
    if usable.all():
        return None
    row = int(np.argmin(usable))
    return row, "is all zeros" if finite[row] else "holds a value that is not finite"


def unit_rows(embeddings: np.ndarray) -> npt.NDArray[np.float64]:
    """Rows scaled to length 1, in float64.

    Args:
        embeddings: `(n, d)`.

    Returns:
        `(n, d)`.

    Raises:
        ValueError: Not a matrix, or a zero or non-finite row; names the row.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings have shape {embeddings.shape}; expected (sentences, width)")
    unusable = first_unusable_row(embeddings)
    if unusable is not None:
        row, reason = unusable
        raise ValueError(f"row {row} of the embeddings {reason}: its direction is undefined; repair the encoder")
    rows = np.asarray(embeddings, dtype=np.float64)
    # Dividing by the largest entry first keeps the squares of very long and very short rows inside the float64 range.
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
