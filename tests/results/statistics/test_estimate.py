"""Intervals of a mean: against scipy's own tests, in the limits, and where nothing varies."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from cse_bench.results.statistics.analysis import Interval
from cse_bench.results.statistics.estimate import Estimate, satterthwaite, seed_bootstrap
from tests.results.statistics.blocks import sample

RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.normal(loc=[[60.3], [60.0]], size=(2, 6))


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    assert interval.level == 0.95
    return interval.low, interval.high


def test_over_seeds_is_students_interval() -> None:
    expected = ttest_1samp(FIRST, 0).confidence_interval(0.95)
    assert ends(Estimate.of(sample(FIRST)).over_seeds()) == pytest.approx(tuple(expected))


def test_paired_differences_are_the_paired_t_test() -> None:
    estimate = Estimate.of(sample(FIRST).minus(sample(SECOND)))
    expected = ttest_rel(FIRST, SECOND)
    assert ends(estimate.over_seeds()) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert estimate.p() == pytest.approx(expected.pvalue)


def test_independent_means_are_welchs_test() -> None:
    estimate = Estimate.of(sample(FIRST), sample(SECOND[:4]))
    expected = ttest_ind(FIRST, SECOND[:4], equal_var=False)
    assert ends(estimate.over_seeds()) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert estimate.p() == pytest.approx(expected.pvalue)


def test_an_untrained_backbone_is_a_number_without_seeds() -> None:
    estimate = Estimate.of(sample(FIRST), sample([59.0], trained=False))
    expected = ttest_1samp(FIRST, 59.0)
    assert estimate.p() == pytest.approx(expected.pvalue)
    alone = Estimate.of(sample([59.0], trained=False, replicates=[np.linspace(58, 60, 101)]))
    assert alone.over_seeds() is None
    low, high = ends(alone.over_both("pairs"))
    assert (low + high) / 2 == pytest.approx(59.0)


def test_a_single_trained_run_has_no_interval_over_seeds() -> None:
    one = sample([60.0], replicates=[np.linspace(59, 61, 101)])
    estimate = Estimate.of(one, sample(FIRST, replicates=np.tile(np.linspace(59, 61, 101), (6, 1))))
    assert (estimate.over_seeds(), estimate.over_both("pairs"), estimate.p()) == (None, None, None)
    assert ends(estimate.over_pairs("pairs")) == pytest.approx((0, 0), abs=1e-9)


def test_both_is_one_source_where_the_other_is_silent() -> None:
    quiet = np.tile(FIRST[:, None], (1, 50))  # pairs do not matter
    estimate = Estimate.of(sample(FIRST, replicates=quiet))
    assert ends(estimate.over_both("pairs")) == pytest.approx(ends(estimate.over_seeds()))
    noise = RANDOM.normal(size=5000)
    still = sample([60.0] * 6, replicates=60.0 + np.tile(noise, (6, 1)))
    low, high = ends(Estimate.of(still).over_both("pairs"))
    assert (high - low) / 2 == pytest.approx(1.96 * noise.std(), rel=0.01)
    assert ends(Estimate.of(still).over_pairs("pairs")) == pytest.approx((low, high), abs=0.1)


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3, 1.0, 10.0])
def test_both_is_never_surer_than_seeds_alone(n: int, noise: float) -> None:
    values, pairs = FIRST[:n], noise * RANDOM.normal(size=500)
    both, seeds = Estimate.of(sample(values, replicates=values[:, None] + pairs)), Estimate.of(sample(values))
    (low, high), (seeds_low, seeds_high) = ends(both.over_both("pairs")), ends(seeds.over_seeds())
    assert low <= seeds_low
    assert seeds_high <= high
    at_the_end = Estimate.of(sample(values - low, replicates=(values - low)[:, None] + pairs))
    assert at_the_end.p() == pytest.approx(0.05)  # interval and p-value are of one test


def test_differences_over_pairs_use_the_same_resamples() -> None:
    noise = RANDOM.normal(size=400)
    first, second = (sample([value] * 3, replicates=value + np.tile(noise, (3, 1))) for value in (61.0, 60.0))
    for estimate in (Estimate.of(first.minus(second)), Estimate.of(first, second)):
        assert ends(estimate.over_pairs("pairs")) == pytest.approx((1.0, 1.0))


def test_equal_values_have_intervals_without_width() -> None:
    same = sample([0.1 + 0.2] * 5)
    value = 0.1 + 0.2
    assert same.variance == 0
    assert ends(Estimate.of(same).over_seeds()) == pytest.approx((value, value))
    assert ends(seed_bootstrap(same, resamples=50, seed=0)) == pytest.approx((value, value))
    assert Estimate.of(same.minus(same)).p() == 1.0
    assert Estimate.of(same).p() is None  # a difference, but nothing to hold it against
    rounded = sample([50.1, 51.1, 3.1]).minus(sample([50.0, 51.0, 3.0]))
    assert np.ptp(rounded.values) > 0
    assert rounded.variance == 0


def test_seed_bootstrap_lies_within_the_values_and_is_repeatable() -> None:
    low, high = ends(seed_bootstrap(sample(FIRST), resamples=500, seed=1))
    assert FIRST.min() <= low < FIRST.mean() < high <= FIRST.max()
    assert seed_bootstrap(sample(FIRST), resamples=500, seed=1) == seed_bootstrap(sample(FIRST), resamples=500, seed=1)
    assert seed_bootstrap(sample([1.0]), resamples=50, seed=0) is None


def test_satterthwaite() -> None:
    assert satterthwaite([(2.0, 4)]) == pytest.approx((2.0, 4.0))
    assert satterthwaite([(2.0, 4), (2.0, 4)]) == pytest.approx((4.0, 8.0))
    assert satterthwaite([(1.0, 4), (3.0, 999)]) == pytest.approx((4.0, 16 / (1 / 4 + 9 / 999)))
    assert satterthwaite([(1e-200, 4), (1e-200, 4)])[1] == pytest.approx(8)
    assert satterthwaite([(0.0, 4)]) == (0.0, math.inf)
