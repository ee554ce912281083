"""Alignment, uniformity, dispersion and two ratios of them.

Alignment and uniformity are Wang and Isola 2020 (arXiv 2005.10242), section 4.1. The ratios are "ratio metrics
(cse_bench definition)": CSE-SFP (arXiv 2505.00389) introduces two ratio metrics for the joint assessment of alignment
and uniformity, but its formulas were not available to us, so these must not be called that paper's metrics. Formulas of
theirs would be added beside these.

With f an embedding scaled to length 1, P the positive pairs, and i < j running over all pairs of the n sentences:

    A = mean over (u, v) in P of |f_u - f_v|^2            alignment, 0..4, lower is better
    U = log of the mean over i < j of exp(-2 |f_i - f_j|^2)   uniformity, -8..0, lower is better
    D = mean over i < j of |f_i - f_j|^2                  dispersion, 0..2n/(n-1), higher is more spread
    align_uniform_ratio = A / -U                          lower is better
    align_dispersion_ratio = A / D                        lower is better; 1: positives are as far apart as any pair

A alone rewards squeezing all sentences into a narrow cone, U alone rewards tearing positives apart; a common change of
scale cancels in the ratios. Jensen's inequality gives -U <= 2 D. Shapes: `n` sentences, `p` positive pairs, `d` width.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cse_bench.evaluation.vectors import unit_rows

RATIO_LABEL = "ratio metrics (cse_bench definition)"

# Below this dispersion only rounding noise is left of the distances, and a ratio of noise can come out as any number.
COLLAPSE_DISPERSION = 1e-12

UNIFORMITY_T = 2.0
BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The five numbers of this module for one set of sentences; a value that is not defined is NaN.

    `reason` says why the ratios are NaN: `collapsed` (all embeddings point the same way), `no_positives` (alignment is
    NaN too), `too_few` (fewer than two sentences, all five are NaN), or None.
    """

    alignment: float
    uniformity: float
    dispersion: float
    align_uniform_ratio: float
    align_dispersion_ratio: float
    n: int
    num_positives: int
    reason: str | None


def alignment(left: np.ndarray, right: np.ndarray, *, alpha: float = 2.0) -> float:
    """Mean distance of positive pairs to the power `alpha`: `mean_i |f(left_i) - f(right_i)|^alpha`.

    Wang and Isola 2020, section 4.1, with their alpha = 2 as default. Embeddings are scaled to length 1 here.

    Args:
        left: `(p, d)`.
        right: `(p, d)`, row i is the positive of row i of `left`.
        alpha: Power of the distance.

    Raises:
        ValueError: Shapes differ, no pair, or a zero or non-finite row.
    """
    if left.shape != right.shape:
        raise ValueError(f"the two sides of the pairs have shapes {left.shape} and {right.shape}; they must be equal")
    if len(left) == 0:
        raise ValueError("alignment needs at least one positive pair, got none")
    return _alignment_of_unit(unit_rows(left), unit_rows(right), alpha)


def uniformity(embeddings: np.ndarray, *, t: float = UNIFORMITY_T, block_rows: int = BLOCK_ROWS) -> float:
    """Log of the mean Gaussian potential of all unordered pairs: `log mean_{i<j} exp(-t |f_i - f_j|^2)`.

    Wang and Isola 2020, section 4.1, with their t = 2 as default; a row is never paired with itself. Orthogonal
    embeddings have -4.

    Args:
        embeddings: `(n, d)`.
        t: Weight of the squared distance.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: Fewer than two rows, or a zero or non-finite row.
    """
    return _spread(unit_rows(embeddings), t=t, block_rows=block_rows)[0]


def dispersion(embeddings: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> float:
    """Mean squared distance of all unordered pairs: `mean_{i<j} |f_i - f_j|^2 = mean_{i<j} 2 - 2 cos(f_i, f_j)`.

    Args:
        embeddings: `(n, d)`.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: Fewer than two rows, or a zero or non-finite row.
    """
    return _spread(unit_rows(embeddings), t=UNIFORMITY_T, block_rows=block_rows)[1]


def geometry(embeddings: np.ndarray, positives: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> Geometry:
    """Alignment of the positives, spread of all sentences, and the ratio metrics (cse_bench definition).

    Args:
        embeddings: `(n, d)`; duplicates count as often as they are given.
        positives: `(p, 2)` integers, the two rows of each positive pair; `p` may be 0.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: A zero or non-finite row, or positives that are not pairs of different rows of `embeddings`.
    """
    unit = unit_rows(embeddings)
    n = len(unit)
    _check_positives(positives, n)
    if n < 2:
        return _undefined_ratios(math.nan, math.nan, math.nan, n=n, positives=positives, reason="too_few")
    uniform, disperse = _spread(unit, t=UNIFORMITY_T, block_rows=block_rows)
    if -uniform > 2 * disperse + 1e-9:
        raise AssertionError(
            f"Jensen's inequality is broken: -U = {-uniform} > 2 D = {2 * disperse}; a bug in the block sums"
        )
    align = _alignment_of_unit(unit[positives[:, 0]], unit[positives[:, 1]], 2.0) if len(positives) else math.nan
    # Tested before any division: U and D are near 0 together, and the signs of their rounding noise are arbitrary.
    if disperse <= COLLAPSE_DISPERSION:
        return _undefined_ratios(align, uniform, disperse, n=n, positives=positives, reason="collapsed")
    if len(positives) == 0:
        return _undefined_ratios(align, uniform, disperse, n=n, positives=positives, reason="no_positives")
    return Geometry(
        alignment=align,
        uniformity=uniform,
        dispersion=disperse,
        align_uniform_ratio=align / -uniform,
        align_dispersion_ratio=align / disperse,
        n=n,
        num_positives=len(positives),
        reason=None,
    )


def _undefined_ratios(
    align: float, uniform: float, disperse: float, *, n: int, positives: np.ndarray, reason: str
) -> Geometry:
    return Geometry(
        alignment=align,
        uniformity=uniform,
        dispersion=disperse,
        align_uniform_ratio=math.nan,
        align_dispersion_ratio=math.nan,
        n=n,
        num_positives=len(positives),
        reason=reason,
    )


def _check_positives(positives: np.ndarray, n: int) -> None:
    if positives.ndim != 2 or positives.shape[1] != 2 or not np.issubdtype(positives.dtype, np.integer):
        raise ValueError(
            f"positives have shape {positives.shape} and type {positives.dtype}; expected integers (pairs, 2)"
        )
    wrong = (positives < 0).any(axis=1) | (positives >= n).any(axis=1) | (positives[:, 0] == positives[:, 1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"positive pair {row} is {positives[row].tolist()}; expected two different rows of 0..{n - 1}")


def _alignment_of_unit(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], alpha: float) -> float:
    squared = np.square(left - right).sum(axis=1)
    return float(np.mean(squared ** (alpha / 2)))


def _spread(unit: npt.NDArray[np.float64], *, t: float, block_rows: int) -> tuple[float, float]:
    """Uniformity and dispersion in one pass over the blocks of the upper triangle."""
    n = len(unit)
    if n < 2:
        raise ValueError(f"the spread of embeddings needs at least two rows, got {n}")
    sum_squared = 0.0
    sum_potential_less_one = 0.0
    for top in range(0, n, block_rows):
        rows = unit[top : top + block_rows]
        for start in range(top, n, block_rows):
            squared = np.clip(2.0 - 2.0 * (rows @ unit[start : start + block_rows].T), 0.0, 4.0)
            # A block on the diagonal holds each of its pairs twice, and self pairs, which a distance of 0 takes out of
            # both sums.
            share = 1.0
            if start == top:
                np.fill_diagonal(squared, 0.0)
                share = 0.5
            sum_squared += share * float(squared.sum())
            # exp(x) - 1 instead of exp(x): for a narrow cone the potential is so near to 1 that its logarithm would be
            # noise.
            sum_potential_less_one += share * float(np.expm1(-t * squared).sum())
    pairs = n * (n - 1) / 2
    return math.log1p(sum_potential_less_one / pairs), sum_squared / pairs
