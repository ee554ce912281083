"""Studies with known truth, given to the report's own functions by `benchmarks.coverage`: do its promises hold?

The bounds are three standard errors or more from what was measured with many studies, so a right program passes with
any seed, and a wrong one (an interval of another variance, a test of another null hypothesis) does not.
"""

import numpy as np
import pytest

from benchmarks.coverage import RATIOS, SEEDS, covered, rejected, spearman_study
from cse_bench.results.statistics.compare import compare
from cse_bench.results.statistics.estimate import Estimate
from tests.results.statistics.blocks import sample

CELLS = [(n, n * ratio, 1, both) for n in SEEDS for ratio in RATIOS for both in (0, 1)]


@pytest.mark.parametrize(("n", "seeds", "pairs", "both"), [(2, 4, 1, 0), (3, 1, 1, 1), (5, 4, 1, 0), (10, 1, 4, 0)])
def test_intervals_cover_their_targets(n: int, seeds: float, pairs: float, both: float) -> None:
    random = np.random.default_rng(0)
    hits = np.mean([covered(random, n=n, seeds=seeds, pairs=pairs, both=both) for _ in range(250)], axis=0)
    assert hits[:3].min() > 0.90
    assert hits[3] < 0.95  # seeds alone do not cover the mean over all test pairs


def test_false_alarms_and_power() -> None:
    random = np.random.default_rng(0)
    for seeds, pairs, column in ((1, 1, 0), (1, 0, 1), (0, 1, 2)):  # p, p_seeds, p_pairs at their null hypotheses
        options = {"n": 6, "seeds": seeds, "pairs": pairs, "both": 0}
        error = (seeds / 6 + pairs) ** 0.5
        null, real = (
            np.mean([rejected(random, **options, difference=difference)[column] for _ in range(80)])  # type: ignore[arg-type]
            for difference in (0.0, 4 * error)
        )
        assert null < 0.14
        assert real > 0.6  # all six seeds must agree for p_seeds: 2 / 64


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seeds", "pairs", "both"), CELLS)
def test_coverage_of_every_cell(n: int, seeds: float, pairs: float, both: float) -> None:
    random = np.random.default_rng(1)
    hits = np.mean([covered(random, n=n, seeds=seeds, pairs=pairs, both=both) for _ in range(400)], axis=0)
    assert (np.abs(hits[:2] - 0.95) < 0.055).all()
    assert 0.905 < hits[2] <= (1 if n == 2 else 0.995)  # two seeds: wide where seeds and pairs are equally noisy


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("ratio", [4, 8, 32])
def test_few_seeds_that_vary_more_than_pairs_raise_no_more_false_alarms(n: int, ratio: float) -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(1500):
        values = random.normal(scale=(n * ratio) ** 0.5, size=n) + random.normal()
        replicates = values[:, None] + random.normal(size=200)
        found.append((Estimate.of(sample(values, replicates=replicates)).p() or 0) <= 0.05)
    assert np.mean(found) < 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "pairs", "column"), [(1, 1, 0), (1, 0, 1), (0, 1, 2)])
def test_false_alarms_are_five_percent(seeds: float, pairs: float, column: int) -> None:
    random = np.random.default_rng(1)
    found = [rejected(random, n=8, seeds=seeds, pairs=pairs, both=0, difference=0)[column] for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_spearman_of_equal_methods(correlation: float) -> None:
    random = np.random.default_rng(1)
    found = [compare(*spearman_study(random, n=5, correlation=correlation), what="", seed=0) for _ in range(400)]
    assert np.mean([(one.p or 0) <= 0.05 for one in found]) == pytest.approx(0.045, abs=0.04)
    assert np.mean([(one.p_pairs or 0) <= 0.05 for one in found]) == pytest.approx(0.05, abs=0.04)
