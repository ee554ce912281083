"""Intervals and p-values of a mean over runs, or of a difference of two: what seeds, test pairs and both leave open.

The model: run s scores mu + A_s + B + C_s, where A_s is the seed's luck, B the luck of the test pairs that all runs
share, and C_s what seed and pairs do together. Seeds and test pairs are crossed: another study would draw both anew.

* over seeds: Student's t, with the sample variance s^2 of the n runs
* over test pairs: the percentiles of the bootstrap replicates of the mean of the runs
* over both: value -+ t sqrt(V), V = s^2 / n + v, where v is the bootstrap variance of the mean of the runs over test
  pairs, and t has Satterthwaite's degrees of freedom V^2 / ((s^2 / n)^2 / (n - 1) + v^2 / (b - 1)) for b resamples;
  but never narrower than over seeds: with few of them a small s^2 looks like many degrees of freedom

V counts C once too often (it is in both terms), so the interval is a little wide; so is the pigeonhole bootstrap, which
resamples both sides (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)), but whose seed part is
(n - 1) / n of s^2 / n, with normal tails: too narrow for few seeds.

Measured by `python -m benchmarks.coverage 500` (standard error 1.0): with 2, 3, 5 and 10 seeds, a seed term s^2 / n of
1/32, 1/4, 1, 4, 8 and 32 times the pair term v, with and without C, the 95 % interval over both covers 92.6 to 98.8 %
(the most with two seeds; pigeonhole: 62.2 to 97.4 %); over seeds and over pairs, of their own targets, 92.8 to 96.8 %
and 91.8 to 96.2 %. Of the mean over all seeds and pairs, an interval over seeds covers 30 to 96 %, one over pairs 23 to
96 %: hence both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cse_bench.results.statistics.analysis import Interval
from cse_bench.results.statistics.resampling import Floats

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One metric of one group, or the differences of two groups run by run.

    Attributes:
        values: `(n,)`, by seed.
        replicates: `(n, b)`, the values on resampled test pairs; None without per-pair scores.
        flipped: `(n, p)`, see `Resampled`; None without.
        trained: False for an untrained backbone, to which no seed belongs.
    """

    values: Floats
    replicates: Floats | None
    flipped: Floats | None
    trained: bool

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Of the runs; of equal values exactly that value, so that two such groups do not differ by rounding."""
        return float(self.values[0] + (self.values - self.values[0]).mean())

    @property
    def variance(self) -> float:
        """Of the runs (n - 1); exactly 0 where all are equal but for rounding."""
        return _variance(self.values)

    def rows(self, rows: Sequence[int]) -> "Sample":
        """Some of the runs, in the order given."""
        chosen = list(rows)
        return Sample(
            values=self.values[chosen],
            replicates=None if self.replicates is None else self.replicates[chosen],
            flipped=None if self.flipped is None else self.flipped[chosen],
            trained=self.trained,
        )

    def minus(self, other: "Sample") -> "Sample":
        """Differences run by run; row i of both must belong together."""
        return Sample(
            values=self.values - other.values,
            replicates=_minus(self.replicates, other.replicates),
            flipped=_minus(self.flipped, other.flipped),
            trained=self.trained or other.trained,
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over runs, or a difference of two such means.

    Attributes:
        value: the estimate.
        seed_terms: variance and degrees of freedom of each independent mean over seeds; empty where no seed is involved
            (untrained backbones); None where one is but its variance is unknown (a single trained run).
        pair_replicates: `(b,)`, the value on resampled test pairs; None without.
        pair_flips: `(p,)`, the value with the pairs' contributions under random signs; None without.
    """

    value: float
    seed_terms: Sequence[tuple[float, float]] | None
    pair_replicates: Floats | None
    pair_flips: Floats | None

    @classmethod
    def of(cls, first: Sample, second: Sample | None = None) -> "Estimate":
        """The mean of `first`, less that of `second`, whose seeds are independent of those of `first`."""
        samples = [first] if second is None else [first, second]
        trained = [sample for sample in samples if sample.trained]
        known = all(sample.n > 1 for sample in trained)
        means = [(_mean(sample.replicates), _mean(sample.flipped)) for sample in samples]
        return cls(
            value=first.mean - (second.mean if second else 0.0),
            seed_terms=[(sample.variance / sample.n, sample.n - 1) for sample in trained] if known else None,
            pair_replicates=means[0][0] if second is None else _minus(means[0][0], means[1][0]),
            pair_flips=means[0][1] if second is None else _minus(means[0][1], means[1][1]),
        )

    def over_seeds(self) -> Interval | None:
        """Student's (of two independent means: Welch's) t-interval."""
        if not self.seed_terms:
            return None
        return self._t_interval(self._seeds_alone(), of=f"Student's t-interval over {self._seeds()}")

    def over_pairs(self, what: str) -> Interval | None:
        """Percentile bootstrap over test pairs, the runs as they are.

        Args:
            what: is resampled, in words.
        """
        if self.pair_replicates is None or not np.isfinite(self.pair_replicates).all():
            return None
        low, high = np.quantile(self.pair_replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        of = f"bootstrap over {what} ({len(self.pair_replicates)} resamples, percentiles), these runs"
        return Interval(low=float(low), high=float(high), level=LEVEL, of=of)

    def over_both(self, what: str) -> Interval | None:
        """Both sources together, by the t-interval of the module.

        Args:
            what: is resampled, in words.
        """
        errors = self._both()
        if errors is None:
            return None
        seeds = f"over {self._seeds()} and" if self.seed_terms else "no seed involved;"
        return self._t_interval(errors, of=f"t-interval {seeds} over {what} (sum of both variances)")

    def p(self) -> float | None:
        """Two-sided p-value of a value of 0: of `over_both` where there are per-pair scores, else of `over_seeds`.

        None where nothing varies but the value is not 0: that a few seeds give one value is no proof that all would.
        """
        from scipy.stats import t

        errors = self._both() if self.pair_replicates is not None else self._seeds_alone()
        if not errors:
            return None
        if not any(variance for variance, _ in errors):
            return 1.0 if self.value == 0 else None
        return max(
            float(2 * t.sf(abs(self.value) / math.sqrt(variance), freedom)) for variance, freedom in errors if variance
        )

    def p_pairs(self) -> float | None:
        """Share of random exchanges of the two encoders' ranks that give a difference as large; see `compare`."""
        if self.pair_flips is None or not np.isfinite(self.pair_flips).all():
            return None
        reached = np.abs(self.pair_flips) >= abs(self.value) * (1 - 1e-9)  # equal sums may differ by rounding
        return float((1 + np.count_nonzero(reached)) / (1 + len(reached)))  # the pairs as they are count, too

    @property
    def pair_variance(self) -> float | None:
        """Of the value over test pairs; None without replicates, or if one is undefined."""
        replicates = self.pair_replicates
        if replicates is None or not np.isfinite(replicates).all():
            return None
        return _variance(replicates)

    def _seeds_alone(self) -> list[tuple[float, float]]:
        """Variance and degrees of freedom of the value over seeds; empty if unknown, or if no seed is involved."""
        return [satterthwaite(self.seed_terms)] if self.seed_terms else []

    def _both(self) -> list[tuple[float, float]] | None:
        """Variance and degrees of freedom of both sources together and of the seeds; the wider one counts."""
        if self.seed_terms is None or self.pair_replicates is None or self.pair_variance is None:
            return None
        pairs = (self.pair_variance, len(self.pair_replicates) - 1)
        return [satterthwaite([*self.seed_terms, pairs]), *self._seeds_alone()]

    def _t_interval(self, errors: Sequence[tuple[float, float]], *, of: str) -> Interval:
        from scipy.stats import t

        half = max(
            float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance) if variance > 0 else 0.0
            for variance, freedom in errors
        )
        return Interval(low=self.value - half, high=self.value + half, level=LEVEL, of=of)

    def _seeds(self) -> str:
        return " and ".join(f"{freedom + 1:.0f} seeds" for _, freedom in self.seed_terms or ())


def satterthwaite(terms: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Sum of independent variance estimates and its degrees of freedom, (sum v)^2 / sum(v^2 / f).

    Satterthwaite 1946, "An approximate distribution of estimates of variance components", Biometrics 2(6), equation 17.

    Args:
        terms: variance v and degrees of freedom f of each; at least one.
    """
    total = math.fsum(variance for variance, _ in terms)
    if total == 0:
        return 0.0, math.inf
    # Shares instead of squares: squares of tiny variances would vanish.
    return total, 1 / math.fsum((variance / total) ** 2 / freedom for variance, freedom in terms)


def seed_bootstrap(sample: Sample, *, resamples: int, seed: int) -> Interval | None:
    """Bootstrap interval of the mean over seeds; None for one run.

    By percentiles: BCa estimates a bias and an acceleration from the same few values, has none where all are equal, and
    covers no better. With n seeds the percentiles are too narrow by sqrt((n - 1) / n) and without Student's tails.
    Coverage of 95 % intervals with 2, 3, 5 and 10 normal seeds (`python -m benchmarks.coverage 500`, standard error 1):
    Student 95.4, 95.8, 95.4, 92.2 (in theory 95); percentiles 50.2, 73.8, 82.2, 86.4; BCa 50.2, 72.6, 81.6, 87.4. Read
    Student's interval first.

    Args:
        sample: the runs.
        resamples: their number.
        seed: of the resamples.
    """
    from scipy.stats import bootstrap

    if sample.n < 2 or not sample.trained:
        return None
    found = bootstrap(
        (sample.values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    of = f"bootstrap over {sample.n} seeds ({resamples} resamples, percentiles); too narrow for few seeds"
    return Interval(low=float(found.low), high=float(found.high), level=LEVEL, of=of)


def _variance(values: Floats) -> float:
    """With n - 1; exactly 0 where all are equal but for rounding, as differences of decimal numbers may be."""
    spread = np.ptp(values)
    return float(values.var(ddof=1)) if spread > 1e-9 * np.abs(values).max() else 0.0


def _mean(rows: Floats | None) -> Floats | None:
    return None if rows is None else rows.mean(axis=0)


def _minus(first: Floats | None, second: Floats | None) -> Floats | None:
    return None if first is None or second is None else first - second
