"""Keyed random numbers: a function of the key alone, and random enough."""

import numpy as np
from scipy import stats

from cse_bench.mining.keyed import keyed_gumbel, keyed_integers, keyed_uniform


def test_a_number_is_a_function_of_its_key_whatever_stands_beside_it() -> None:
    whole = keyed_uniform(3, np.arange(100)[:, None], np.arange(20))
    assert whole.shape == (100, 20)
    assert keyed_uniform(3, 41, 7) == whole[41, 7]
    assert np.array_equal(keyed_uniform(3, np.array([5, 99])[:, None], np.arange(20)), whole[[5, 99]])


def test_every_part_of_the_key_counts_and_so_does_their_order() -> None:
    keys = [(0, 1, 2), (1, 0, 2), (0, 2, 1), (0, 1), (0, 1, 2, 0), (2**32 - 1, 1, 2), (-1, 1, 2)]
    assert len({float(keyed_uniform(*key)) for key in keys}) == len(keys)


def test_the_numbers_are_uniform_and_independent() -> None:
    for axis in range(3):  # along any part of the key
        key = [0, 0, 0]
        key[axis] = np.arange(50_000)
        numbers = keyed_uniform(*key)
        assert 0 < numbers.min() < numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02
        assert len(np.unique(numbers)) == len(numbers)


def test_gumbel_and_integers_follow_their_laws() -> None:
    draws = np.arange(50_000)
    assert stats.kstest(keyed_gumbel(1, draws), "gumbel_r").pvalue > 1e-3
    integers = keyed_integers(7, 1, draws)
    assert set(integers.tolist()) == set(range(7))
    assert stats.chisquare(np.bincount(integers)).pvalue > 1e-3
