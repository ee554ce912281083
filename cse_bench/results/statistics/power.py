"""How large a difference is against the noise of seeds, and how many seeds would show it."""

import math
from functools import cache

import numpy as np

from cse_bench.results.statistics.resampling import Floats

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 10_000
PAIRS_LEAVE_IT_OPEN = "the test pairs leave it open"


def hedges_correction(freedom: float) -> float:
    """Factor that takes the small-sample bias from a standardised difference; 0 with one degree of freedom.

    J = gamma(f / 2) / (sqrt(f / 2) gamma((f - 1) / 2)); Hedges 1981, "Distribution theory for Glass's estimator of
    effect size and related estimators", Journal of Educational Statistics 6(2), equation 6e.

    Args:
        freedom: degrees of freedom f of the standard deviation.
    """
    if freedom <= 1:
        return 0.0
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def power_of(effect: float, n: int, *, pairs: float = 0.0) -> float:
    """Power at `ALPHA` of the verdict's test with n paired seeds: of `Estimate.p`, the variance over pairs known.

    With the differences in units of their standard deviation over seeds, their mean is drawn from N(effect, 1 / n +
    pairs) and, independently, s^2 from chi^2 / (n - 1). Given s^2, the test rejects where the mean is further from 0
    than the half-width of the interval. That probability is integrated over s^2 (Gauss-Legendre over its quantiles).
    Without pairs it is the paired t-test.

    Args:
        effect: mean difference over the standard deviation of the differences, in the population.
        n: number of pairs, at least 2.
        pairs: variance over test pairs of the mean difference, over the variance of the differences.
    """
    from scipy.special import gammaincinv, ndtr, stdtrit

    freedom = n - 1
    quantiles, weights = _quantiles()
    seeds = 2 * gammaincinv(freedom / 2, quantiles) / freedom / n  # s^2 / n
    half = stdtrit(freedom, 1 - ALPHA / 2) * np.sqrt(seeds)
    if pairs > 0:
        both = seeds + pairs
        satterthwaite = np.minimum(freedom * (both / seeds) ** 2, 1e6)  # normal from there on
        half = np.maximum(half, stdtrit(satterthwaite, 1 - ALPHA / 2) * np.sqrt(both))
    error = math.sqrt(1 / n + pairs)
    rejected = ndtr((abs(effect) - half) / error) + ndtr((-abs(effect) - half) / error)
    return float(weights @ rejected)


def seeds_needed(effect: float, *, pairs: float = 0.0) -> tuple[int | None, str | None]:
    """Fewest paired seeds with power `POWER` at `ALPHA`, on as many test pairs as there are.

    No number of seeds adds a test pair: their variance stays as it is.

    Args:
        effect: as for `power_of`.
        pairs: as for `power_of`.

    Returns:
        The number, or None and the reason, if there is one: `PAIRS_LEAVE_IT_OPEN`, or that `MOST_SEEDS` are too few.
    """
    from scipy.stats import norm

    if effect == 0 or not math.isfinite(effect):
        return None, None
    # Were the deviation over seeds known, this variance of the mean would do. It is less well known, so the search
    # starts at the seeds that this takes.
    allowed = (effect / (norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER))) ** 2 - pairs
    if allowed <= 0:
        return None, PAIRS_LEAVE_IT_OPEN
    candidates = range(max(2, math.floor(min(1 / allowed, MOST_SEEDS + 1))), MOST_SEEDS + 1)
    needed = next((n for n in candidates if power_of(effect, n, pairs=pairs) >= POWER), None)
    return needed, f"more than {MOST_SEEDS:,} seeds" if needed is None else None


@cache
def _quantiles() -> tuple[Floats, Floats]:
    """Nodes in (0, 1) and weights that sum to 1; with 40 of them, power without pairs is right to 3e-5."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    return (nodes + 1) / 2, weights / 2
