"""Spearman under counts against pairs that are really repeated, and contributions against real exchanges of ranks."""

import warnings

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from cse_bench.evaluation.spearman import spearman
from cse_bench.results.statistics import resampling
from cse_bench.results.statistics.resampling import (
    Floats,
    resampled_mean,
    resampled_spearman,
    sign_flips,
    spearman_contributions,
)


def drawn(n: int, *, resamples: int, seed: int) -> list[np.ndarray]:
    """The pairs of each resample, by the documented way to draw them."""
    random = np.random.default_rng(seed)
    return [random.integers(0, n, size=n) for _ in range(resamples)]


def cosines_and_gold(n: int, *, decimals: int) -> tuple[Floats, Floats]:
    random = np.random.default_rng(n + decimals)
    gold = np.round(random.random(n) * 5)
    return np.round(np.tanh(gold / 5 + random.normal(size=(3, n))), decimals), gold


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("n", [3, 10, 75])
def test_spearman_of_a_resample_is_that_of_the_repeated_pairs(n: int, decimals: int) -> None:
    cosines, gold = cosines_and_gold(n, decimals=decimals)
    found = resampled_spearman(cosines, gold, resamples=70, random=np.random.default_rng(5))
    defined = 0
    for column, rows in zip(found.T, drawn(n, resamples=70, seed=5), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where all values are equal; the answer is NaN here too
            expected = [100 * spearmanr(run[rows], gold[rows]).statistic for run in cosines]
        np.testing.assert_allclose(column, expected, atol=1e-9)
        defined += np.isfinite(expected).sum()
    assert defined > 100


def test_cosines_are_rounded_as_in_the_evaluation() -> None:
    gold = np.arange(6.0)
    cosines = np.array([[0.1, 0.2, 0.2 + 1e-12, 0.3, 0.5, 0.4]])
    assert spearman_contributions(cosines, gold).sum() == pytest.approx(spearman(cosines[0], gold), abs=1e-9)
    equal = resampled_spearman(np.round(cosines, 3), gold, resamples=20, random=np.random.default_rng(0))
    found = resampled_spearman(cosines, gold, resamples=20, random=np.random.default_rng(0))
    np.testing.assert_array_equal(found, equal)


def test_a_collapsed_run_is_nan_and_does_not_disturb_others() -> None:
    cosines, gold = cosines_and_gold(20, decimals=12)
    alone = resampled_spearman(cosines, gold, resamples=9, random=np.random.default_rng(0))
    cosines[1] = 0.5
    found = resampled_spearman(cosines, gold, resamples=9, random=np.random.default_rng(0))
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], alone[[0, 2]])
    assert np.isnan(spearman_contributions(cosines, gold)[1]).all()


def test_mean_of_a_resample() -> None:
    values = np.random.default_rng(0).normal(size=(2, 11))
    found = resampled_mean(values, resamples=40, random=np.random.default_rng(5))
    expected = np.stack([values[:, rows].mean(axis=1) for rows in drawn(11, resamples=40, seed=5)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_all_runs_get_the_same_resamples() -> None:
    cosines, gold = cosines_and_gold(50, decimals=12)
    order = [2, 0, 0]
    one = resampled_spearman(cosines, gold, resamples=30, random=np.random.default_rng(1))
    other = resampled_spearman(cosines[order], gold, resamples=30, random=np.random.default_rng(1))
    np.testing.assert_array_equal(one[order], other)
    assert np.ptp(one[0]) > 0


def test_how_many_are_drawn_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines, gold = cosines_and_gold(30, decimals=2)
    found = []
    for at_once in (7, 100):
        monkeypatch.setattr(resampling, "_AT_ONCE", at_once)
        found.append(resampled_spearman(cosines, gold, resamples=50, random=np.random.default_rng(1)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("decimals", [1, 12])
def test_contributions_sum_to_spearman(decimals: int) -> None:
    cosines, gold = cosines_and_gold(60, decimals=decimals)
    expected = [spearman(run, gold) for run in cosines]
    np.testing.assert_allclose(spearman_contributions(cosines, gold).sum(axis=1), expected, atol=1e-9)


def test_exchanging_contributions_is_exchanging_ranks_to_first_order() -> None:
    random = np.random.default_rng(0)
    n = 2000
    gold = random.normal(size=n)
    cosines = 1.5 * gold + random.normal(size=n) + random.normal(size=(2, n))
    ranks = rankdata(cosines, axis=1)
    first, second = spearman_contributions(cosines, gold)
    exact, linear = [], []
    for _ in range(300):
        swapped = random.random(n) < 0.5
        exact.append(
            100 * np.corrcoef(np.where(swapped, ranks[1], ranks[0]), rankdata(gold))[0, 1]
            - 100 * np.corrcoef(np.where(swapped, ranks[0], ranks[1]), rankdata(gold))[0, 1]
        )
        linear.append(np.where(swapped, -1, 1) @ (first - second))
    assert np.std(np.subtract(exact, linear)) < 0.05 * np.std(exact)
    assert np.std(linear) == pytest.approx(np.std(exact), rel=0.05)


def test_signs_are_the_same_for_all_runs_and_as_often_minus_as_plus() -> None:
    contributions = np.random.default_rng(0).normal(size=(3, 50))
    contributions[2] = contributions[0] - contributions[1]
    found = sign_flips(contributions, permutations=2000, random=np.random.default_rng(0))
    np.testing.assert_allclose(found[2], found[0] - found[1], atol=1e-9)
    np.testing.assert_allclose(found.var(axis=1), (contributions**2).sum(axis=1), rtol=0.15)
    assert np.abs(found.mean(axis=1)).max() < 4 * found.std() / 2000**0.5
