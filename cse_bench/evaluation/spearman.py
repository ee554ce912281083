"""Spearman correlation of cosines with human grades, times 100, and its three aggregations over sub-sets.

Gao et al. 2021 (SimCSE, arXiv 2104.08821), appendix B: papers differ in how they join the sub-sets of STS12-16. `all`
is the setting of every table in this field; `mean` and `wmean` differ from it by up to several points and must never be
mixed with it.

A sub-set is a pair `(scores, gold)` of 1-d arrays. Every correlation here is in percent, -100 to 100.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cse_bench.evaluation.vectors import unit_rows

# Two sentences with the same words get cosines that differ in their last bits, depending on the order of summation.
# That breaks ties in the ranking and moves a score between machines (STS12, mean over its sub-sets: by up to 0.02), so
# cosines are rounded before they are ranked.
COSINE_DECIMALS = 10

Subset = tuple[np.ndarray, np.ndarray]


def cosine_of_rows(left: np.ndarray, right: np.ndarray) -> npt.NDArray[np.float64]:
    """Cosine of row i of `left` with row i of `right`, in float64.

    Args:
        left: `(n, d)`.
        right: `(n, d)`.

    Returns:
        `(n,)`, in [-1, 1], not rounded.

    Raises:
        ValueError: The shapes differ, or a row is zero or not finite; names the row.
    """
    if left.shape != right.shape:
        raise ValueError(f"the two sides of the pairs have shapes {left.shape} and {right.shape}; they must be equal")
    cosines: npt.NDArray[np.float64] = np.einsum("nd,nd->n", unit_rows(left), unit_rows(right))
    return np.clip(cosines, -1.0, 1.0)


def spearman(scores: np.ndarray, gold: np.ndarray) -> float:
    """Spearman correlation x 100 with average ranks for ties.

    Args:
        scores: `(n,)` cosines; rounded to `COSINE_DECIMALS` before ranking.
        gold: `(n,)` human grades, on any scale.

    Returns:
        Correlation in percent. NaN when all rounded scores are equal: a collapsed encoder ranks nothing, so it has no
        correlation, and unlike 0 a NaN can never win against a model that ranks badly. Callers say so next to the
        number.

    Raises:
        ValueError: Shapes differ, fewer than two pairs, a value that is not finite, or grades that are all equal (an
            error in the data, not in the model).
    """
    # scipy.stats takes most of a second to import, which every command line call would pay.
    from scipy.stats import spearmanr

    if scores.shape != gold.shape or scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape} and grades {gold.shape}; expected two equal 1-d shapes")
    if len(scores) < 2:
        raise ValueError(f"a correlation needs at least two pairs, got {len(scores)}")
    for what, values in (("score", scores), ("grade", gold)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"{what} of pair {row} is {values[row]}; expected a finite number")
    if (gold == gold[0]).all():
        raise ValueError(f"all {len(gold)} grades are {gold[0]}; a correlation needs different grades")
    rounded = np.round(np.asarray(scores, dtype=np.float64), COSINE_DECIMALS)
    if (rounded == rounded[0]).all():
        return math.nan
    return 100.0 * float(spearmanr(rounded, gold).statistic)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """`sum(w v) / sum(w)`; NaN when a value is NaN."""
    if not values or len(values) != len(weights):
        raise ValueError(f"got {len(values)} values and {len(weights)} weights; expected equally many, at least one")
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / math.fsum(weights)


def spearman_all(subsets: Sequence[Subset]) -> float:
    """One Spearman over the pairs of all sub-sets together: the setting of SimCSE and of the tables after it."""
    return spearman(np.concatenate([scores for scores, _ in subsets]), np.concatenate([gold for _, gold in subsets]))


def spearman_mean(subsets: Sequence[Subset]) -> float:
    """Plain mean of the sub-sets' Spearmans."""
    return weighted_mean([spearman(scores, gold) for scores, gold in subsets], [1.0] * len(subsets))


def spearman_wmean(subsets: Sequence[Subset]) -> float:
    """Mean of the sub-sets' Spearmans weighted by their numbers of pairs (BERT-flow, BERT-whitening)."""
    return weighted_mean([spearman(scores, gold) for scores, gold in subsets], [len(gold) for _, gold in subsets])
