"""Random numbers that are a function of their key alone, for whole arrays of keys at once.

A generator per sentence would cost more than the draw; one generator for all would make a draw depend on the order of
the sentences, on workers and on where a run was resumed.
"""

import numpy as np

# Which draw a number is for: the first part of a key after the seed.
LEXICAL, UNIFORM, POSITIVE, NEGATIVE, CALIBRATION, TRAINING, PROBE = range(7)

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def keyed_uniform(*key: int | np.ndarray) -> np.ndarray:
    """Numbers in (0, 1), never 0 or 1, one for every key.

    Args:
        key: whole numbers or arrays of them, broadcast against each other.

    Source:
        The mixing function of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
        generators"), applied to one part of the key after the other.
    """
    state: np.ndarray = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        for part in key:
            state = (state ^ np.asarray(part).astype(np.uint64)) + _STEP
            state = (state ^ (state >> np.uint64(30))) * _FIRST
            state = (state ^ (state >> np.uint64(27))) * _SECOND
            state = state ^ (state >> np.uint64(31))
    return np.asarray(((state >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def keyed_gumbel(*key: int | np.ndarray) -> np.ndarray:
    """Standard Gumbel numbers; the largest of log w + Gumbel is a draw in proportion to w."""
    return np.asarray(-np.log(-np.log(keyed_uniform(*key))))


def keyed_integers(bound: int, *key: int | np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to `bound` - 1."""
    return np.minimum((keyed_uniform(*key) * bound).astype(np.int64), bound - 1)
