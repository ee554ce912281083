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


def power_of(effect: float, n: int) -> float:
    """Power of the two-sided t-test of n paired differences at `ALPHA`, by the noncentral t-distribution.

    Args:
        effect: mean difference over the standard deviation of the differences, in the population.
        n: number of pairs, at least 2.
    """
    from scipy.stats import nct, t

    critical = t.ppf(1 - ALPHA / 2, n - 1)
    shift = abs(effect) * math.sqrt(n)
    # The other tail is below Phi(-shift); where it underflows, scipy returns NaN for it.
    wrong_sign = nct.cdf(-critical, n - 1, shift) if shift < 6 else 0.0
    return float(nct.sf(critical, n - 1, shift) + wrong_sign)


def seeds_needed(effect: float) -> int | None:
    """Fewest paired seeds with power `POWER` at `ALPHA`; None for no effect, or if `MOST_SEEDS` are too few.

    Only the noise of seeds is in this: no number of seeds adds a test pair.

    Args:
        effect: as for `power_of`.
    """
    from scipy.stats import norm

    if effect == 0 or not math.isfinite(effect):
        return None
    effect = min(abs(effect), 20.0)  # two seeds are enough already; far out, scipy's distribution is NaN
    # With a known standard deviation fewer would do, so the search starts there.
    least = ((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) / effect) ** 2
    candidates = range(max(2, math.floor(min(least, MOST_SEEDS + 1))), MOST_SEEDS + 1)
    return next((n for n in candidates if power_of(effect, n) >= POWER), None)
