"""How large a difference is against the noise of seeds, and how many seeds would show it."""

import math

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 10_000


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
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    seeds = 2 * gammaincinv(freedom / 2, (nodes + 1) / 2) / freedom / n
    both = seeds + pairs
    level = 1 - ALPHA / 2
    half = np.maximum(
        stdtrit(np.minimum(freedom * (both / seeds) ** 2, _NORMAL_FROM), level) * np.sqrt(both),
        stdtrit(freedom, level) * np.sqrt(seeds),
    )
    error = math.sqrt(1 / n + pairs)
    rejected = ndtr((abs(effect) - half) / error) + ndtr((-abs(effect) - half) / error)
    return float(weights @ rejected / 2)


def seeds_needed(effect: float, *, pairs: float = 0.0) -> tuple[int | None, str | None]:
    """Fewest paired seeds with power `POWER` at `ALPHA`, on test pairs as many as now.

    No number of seeds adds a test pair: the variance over pairs stays as it is.

    Args:
        effect: as for `power_of`.
        pairs: as for `power_of`.

    Returns:
        The number, or None and why there is none; neither for an effect that is no number.
    """
    from scipy.special import ndtr, ndtri

    if not math.isfinite(effect):
        return None, None
    found = bisect_left(
        range(2, MOST_SEEDS + 1), True, key=lambda n: power_of(effect, n, pairs=pairs) >= POWER
    )
    needed = found + 2
    if needed <= MOST_SEEDS:
        return needed, None
    with_all_seeds = abs(effect) / math.sqrt(pairs) if pairs > 0 else math.inf
    if effect == 0:
        ...
    return None, None
