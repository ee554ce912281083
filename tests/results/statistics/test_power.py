"""Seeds needed, against the definition and against simulated studies."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from cse_bench.results.statistics.power import hedges_correction, power_of, seeds_needed


@pytest.mark.parametrize("effect", [0.05, 0.3, -0.5, 0.8, 1.0, 2.0, 5.0, 1000.0])
def test_the_fewest_seeds_that_are_enough(effect: float) -> None:
    needed = seeds_needed(effect)
    assert needed is not None
    limited = min(abs(effect), 20.0)
    assert power_of(limited, needed) >= 0.8
    assert needed == 2 or power_of(limited, needed - 1) < 0.8


@pytest.mark.parametrize("effect", [0.0, 0.001, float("nan"), float("inf")])
def test_what_no_number_of_seeds_shows(effect: float) -> None:
    assert seeds_needed(effect) is None


def test_power_is_a_number_and_grows_with_effect_and_seeds() -> None:
    effects, seeds = np.geomspace(0.01, 20, 60), (2, 3, 4, 5, 7, 10, 30, 100, 1000, 10_000)
    for n in seeds:
        row = [power_of(effect, n) for effect in effects if effect * n**0.5 < 20]
        assert np.isfinite(row).all()
        assert (np.diff(row) > -1e-9).all()
    assert (np.diff([power_of(0.4, n) for n in seeds[:8]]) > 0).all()


def test_textbook_value() -> None:
    # Cohen 1988 and G*Power: a paired t-test with d_z = 0.5, two-sided 0.05, power 0.8 takes 34 pairs.
    assert seeds_needed(0.5) == 34


@pytest.mark.parametrize("effect", [0.7, 1.5])
def test_power_is_reached_in_simulated_studies(effect: float) -> None:
    needed = seeds_needed(effect)
    assert needed is not None
    differences = np.random.default_rng(0).normal(loc=effect, size=(4000, needed))
    power = np.mean(ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(power_of(effect, needed), abs=0.025)


@pytest.mark.parametrize("n", [4, 6, 11])
def test_hedges_correction_takes_the_bias_away(n: int) -> None:
    values = np.random.default_rng(0).normal(loc=1.0, size=(100_000, n))
    standardised = values.mean(axis=1) / values.std(axis=1, ddof=1)
    assert standardised.mean() > 1.05
    assert hedges_correction(n - 1) * standardised.mean() == pytest.approx(1.0, abs=0.02)
    assert hedges_correction(n - 1) == pytest.approx(1 - 3 / (4 * (n - 1) - 1), abs=0.03)  # the usual approximation


def test_one_degree_of_freedom_has_no_unbiased_effect() -> None:
    assert hedges_correction(1) == 0
