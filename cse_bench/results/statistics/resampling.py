"""Scores on resampled test pairs, for many runs at once, and the contributions of single pairs to a score.

A resample of n pairs is a vector of counts c that sum to n: how often each pair was drawn. The same counts serve every
run (common random numbers), so replicate b of one run may be subtracted from replicate b of another: what the two owe
to an easy draw cancels.

Spearman's correlation of a resample is exact, ties and all. With the pairs sorted by cosine and S the running sum of
their counts, the copies of a pair take the ranks S - c + 1 .. S, on average (S_before + S + 1) / 2, and pairs with
equal cosines share theirs. A run is therefore sorted once, not once per resample.

Shapes: `r` runs, `n` pairs, `b` resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cse_bench.evaluation.spearman import COSINE_DECIMALS

Floats = npt.NDArray[np.float64]

_AT_ONCE = 32  # resamples: their arrays of some thousand pairs fit in a processor's cache


def resampled_spearman(cosines: Floats, gold: Floats, *, resamples: int, random: np.random.Generator) -> Floats:
    """Spearman x 100 of every run on the same bootstrap resamples of the pairs.

    Args:
        cosines: `(r, n)`; rounded before they are ranked, as the evaluation does.
        gold: `(n,)` grades.
        resamples: their number.
        random: source of the resamples.

    Returns:
        `(r, b)`; NaN where a resample has no two different cosines, or grades.
    """
    runs = [_Order(np.round(row, COSINE_DECIMALS)) for row in cosines]
    grades = _Order(gold)
    scores = np.empty((len(runs), resamples))
    for start, drawn in _draws(len(gold), resamples=resamples, random=random):
        ranks, gold_squares = grades.ranked(drawn)
        deviations = np.empty_like(ranks)
        deviations[grades.order] = ranks - len(gold)  # twice the rank less twice the mean rank (n + 1) / 2
        weights = drawn.counts * deviations
        for run, row in zip(runs, scores, strict=True):
            ranks, squares = run.ranked(drawn)
            products = np.einsum("nb,nb->b", np.take(weights, run.order, axis=0), ranks) / 4
            norm = np.sqrt(squares * gold_squares)
            part = row[start : start + len(norm)]
            part[:] = np.nan
            np.divide(100 * products, norm, out=part, where=norm > 0)
    return scores


def resampled_mean(values: Floats, *, resamples: int, random: np.random.Generator) -> Floats:
    """Mean of every run's per-item values on the same bootstrap resamples of the items.

    Args:
        values: `(r, n)`.
        resamples: their number.
        random: source of the resamples.

    Returns:
        `(r, b)`.
    """
    means = np.empty((len(values), resamples))
    for start, drawn in _draws(values.shape[1], resamples=resamples, random=random):
        means[:, start : start + drawn.counts.shape[1]] = values @ drawn.counts / values.shape[1]
    return means


def spearman_contributions(cosines: Floats, gold: Floats) -> Floats:
    """What each pair adds to Spearman x 100: exchanging two encoders' ranks of a pair exchanges these.

    With x and y the standardised ranks of cosines and grades and r their mean product, pair i adds

        100 (x_i y_i - r (x_i^2 - 1) / 2) / n

    The second term has sum 0. It is the change of the ranks' spread, by which a correlation is divided, to first order:
    without it, an exchange would look as if it varied the correlation more than it does, and the test would hardly ever
    reject for large correlations.

    Args:
        cosines: `(r, n)`.
        gold: `(n,)`.

    Returns:
        `(r, n)`; row r sums to the Spearman of run r. NaN for a run whose cosines are all equal.
    """
    from scipy.stats import rankdata

    x = _standardised(rankdata(np.round(cosines, COSINE_DECIMALS), axis=1))
    y = _standardised(rankdata(gold)[None])
    correlation = (x * y).mean(axis=1, keepdims=True)
    return 100 * (x * y - correlation * (x**2 - 1) / 2) / len(gold)


def sign_flips(contributions: Floats, *, permutations: int, random: np.random.Generator) -> Floats:
    """Sums of the contributions under random signs, the same signs for every run.

    Args:
        contributions: `(r, n)`.
        permutations: number of sign vectors.
        random: source of the signs.

    Returns:
        `(r, permutations)`.
    """
    sums = np.empty((len(contributions), permutations))
    for start in range(0, permutations, _AT_ONCE):
        width = min(_AT_ONCE, permutations - start)
        signs = random.integers(0, 2, size=(width, contributions.shape[1]), dtype=np.int8) * 2.0 - 1.0
        sums[:, start : start + width] = contributions @ signs.T
    return sums


@dataclass(frozen=True, kw_only=True)
class _Draws:
    """A few resamples of n pairs: `counts` `(n, b)`, `ties` = counts^3 - counts `(n, b)`, summed over pairs `(b,)`."""

    counts: npt.NDArray[np.int32]
    ties: Floats
    tie_sums: Floats


def _draws(n: int, *, resamples: int, random: np.random.Generator) -> Iterator[tuple[int, _Draws]]:
    """Resamples, `_AT_ONCE` at a time, each time with the number of the first."""
    for start in range(0, resamples, _AT_ONCE):
        width = min(_AT_ONCE, resamples - start)
        drawn = random.integers(0, n, size=(width, n)) + np.arange(width)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=width * n).reshape(width, n).T
        ties = (counts**3 - counts).astype(np.float64)
        yield start, _Draws(counts=counts.astype(np.int32, order="C"), ties=ties, tie_sums=ties.sum(axis=0))


class _Order:
    """Values sorted once, to be ranked in any resample.

    Args:
        values: `(n,)`.
    """

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        ends = np.append(starts[1:], len(values))
        sizes = ends - starts
        self._start_of, self._end_of = np.repeat(starts, sizes), np.repeat(ends, sizes)
        self._tied_starts, self._tied_ends = starts[sizes > 1], ends[sizes > 1]
        self._tied = self.order[np.repeat(sizes, sizes) > 1]

    def ranked(self, drawn: _Draws) -> tuple[Floats, Floats]:
        """Twice the average ranks, less 1, in sorted order `(n, b)`; sums of squared deviations of the ranks `(b,)`.

        The sum of squares is (n^3 - n - sum of (t^3 - t) over the sets of t equal values) / 12. Without equal cosines
        these sets are the copies of single pairs, the same for every run.
        """
        counts = drawn.counts
        below = np.zeros((len(counts) + 1, counts.shape[1]), dtype=np.int32)
        np.cumsum(np.take(counts, self.order, axis=0), axis=0, out=below[1:])
        ranks = np.empty(counts.shape)
        sums = drawn.tie_sums
        if len(self._tied):
            np.add(below[self._start_of], below[self._end_of], out=ranks)
            together = (below[self._tied_ends] - below[self._tied_starts]).astype(np.float64)
            sums = sums - drawn.ties[self._tied].sum(axis=0) + (together**3 - together).sum(axis=0)
        else:
            np.add(below[:-1], below[1:], out=ranks)
        n = float(len(counts))
        return ranks, (n**3 - n - sums) / 12


def _standardised(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.divide(centred, deviation, out=np.full_like(centred, np.nan), where=deviation > 0)
