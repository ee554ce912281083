"""Which way is better: for most metrics up, for the few named here down, for some neither."""

from fnmatch import fnmatchcase

# Read from the top, the first pattern that fits decides.
_LOWER_IS_BETTER = {
    "cost/*_per_s": False,
    "cost/*": True,
    "geometry/dispersion": False,
    "geometry/effective_rank": False,
    "geometry/*": True,  # alignment, uniformity, the ratios, mean cosine and the largest variance share
}

_NO_SCORE = ("transfer*/l2/*", "geometry/num_*", "mining/*")


def is_score(metric: str) -> bool:
    """Whether more, or less, of it is better at all; not so for counts and settings.

    Args:
        metric: its path.
    """
    return not any(fnmatchcase(metric, pattern) for pattern in _NO_SCORE)


def lower_is_better(metric: str) -> bool:
    """Whether the smaller of two values of a metric is the better one.

    Args:
        metric: its path.
    """
    return next((lower for pattern, lower in _LOWER_IS_BETTER.items() if fnmatchcase(metric, pattern)), False)


def sign(metric: str) -> float:
    """1 where higher is better, -1 where lower is: values times it are larger where they are better."""
    return -1.0 if lower_is_better(metric) else 1.0
