"""Seeds needed, against the definition and against simulated studies."""

import numpy as np
import pytest
from scipy.stats import nct, norm, t, ttest_1samp

from benchmarks.coverage import simulated_power
from cse_bench.results.statistics.power import PAIRS_LEAVE_IT_OPEN, hedges_correction, power_of, seeds_needed


@pytest.mark.parametrize("pairs", [0.0, 0.0001, 0.1, 3.0])
@pytest.mark.parametrize("effect", [0.05, 0.3, -0.5, 0.8, 1.0, 2.0, 5.0, 1000.0])
def test_the_fewest_seeds_that_are_enough(effect: float, pairs: float) -> None:
    needed, reason = seeds_needed(effect, pairs=pairs)
    if pairs > 0 and abs(effect) / pairs**0.5 < norm.ppf(0.975) + norm.ppf(0.8):
        assert (needed, reason) == (None, PAIRS_LEAVE_IT_OPEN)
        assert power_of(effect, 10_000, pairs=pairs) < 0.8
        return
    assert needed is not None
    assert reason is None
    assert power_of(effect, needed, pairs=pairs) >= 0.8
    assert needed == 2 or power_of(effect, needed - 1, pairs=pairs) < 0.8


@pytest.mark.parametrize("effect", [0.0, float("nan"), float("inf")])
def test_no_effect_needs_no_number(effect: float) -> None:
    assert seeds_needed(effect, pairs=0.1) == (None, None)


def test_very_many_seeds_are_not_searched() -> None:
    assert seeds_needed(0.001) == (None, "more than 10,000 seeds")


@pytest.mark.parametrize("n", [2, 3, 5, 10, 34, 1000])
def test_without_pairs_it_is_the_t_test(n: int) -> None:
    critical = t.ppf(0.975, n - 1)
    for shift in (0.0, 0.5, 1.0, 2.8, 5.0):
        expected = nct.sf(critical, n - 1, shift) + nct.cdf(-critical, n - 1, shift)
        assert power_of(shift / n**0.5, n) == pytest.approx(expected, abs=5e-5)


def test_pairs_take_power() -> None:
    found = [power_of(0.8, 20, pairs=pairs) for pairs in (0.0, 0.01, 0.05, 0.2, 1.0, 100.0)]
    assert (np.diff(found) < 0).all()
    assert found[-1] == pytest.approx(0.05, abs=0.01)
    assert found[0] == pytest.approx(power_of(0.8, 20, pairs=1e-9), abs=1e-6)


def test_power_is_a_number_and_grows_with_effect_and_seeds() -> None:
    effects, seeds = np.geomspace(0.01, 20, 60), (2, 3, 4, 5, 7, 10, 30, 100, 1000, 10_000)
    for n in seeds:
        row = [power_of(effect, n) for effect in effects if effect * n**0.5 < 20]
        assert np.isfinite(row).all()
        assert (np.diff(row) > -1e-9).all()
    assert (np.diff([power_of(0.4, n) for n in seeds[:8]]) > 0).all()


def test_textbook_value() -> None:
    # Cohen 1988 and G*Power: a paired t-test with d_z = 0.5, two-sided 0.05, power 0.8 takes 34 pairs.
    assert seeds_needed(0.5) == (34, None)


@pytest.mark.parametrize("effect", [0.7, 1.5])
def test_power_is_reached_in_simulated_studies(effect: float) -> None:
    needed, _ = seeds_needed(effect)
    assert needed is not None
    differences = np.random.default_rng(0).normal(loc=effect, size=(4000, needed))
    power = np.mean(ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(power_of(effect, needed), abs=0.025)


@pytest.mark.parametrize(("effect", "n", "pairs"), [(1.0, 14, 0.05), (3.0, 4, 0.3), (0.5, 100, 0.02), (4.0, 2, 1.0)])
def test_power_with_pairs_is_that_of_the_verdicts_test(effect: float, n: int, pairs: float) -> None:
    found = simulated_power(np.random.default_rng(0), effect=effect, n=n, pairs=pairs, studies=800)
    assert found == pytest.approx(power_of(effect, n, pairs=pairs), abs=0.05)


@pytest.mark.parametrize("n", [4, 6, 11])
def test_hedges_correction_takes_the_bias_away(n: int) -> None:
    values = np.random.default_rng(0).normal(loc=1.0, size=(100_000, n))
    standardised = values.mean(axis=1) / values.std(axis=1, ddof=1)
    assert standardised.mean() > 1.05
    assert hedges_correction(n - 1) * standardised.mean() == pytest.approx(1.0, abs=0.02)
    assert hedges_correction(n - 1) == pytest.approx(1 - 3 / (4 * (n - 1) - 1), abs=0.03)  # the usual approximation


def test_one_degree_of_freedom_has_no_unbiased_effect() -> None:
    assert hedges_correction(1) == 0
