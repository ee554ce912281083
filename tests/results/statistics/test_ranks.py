"""Probability of being best and agreement of the seeds, in cases with a known answer."""

import numpy as np
import pytest
from scipy.stats import norm

from cse_bench.results.statistics.ranks import probability_best, rank_stability
from tests.results.statistics.blocks import sample, scored


def test_two_groups_with_a_known_difference() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=20_000)
    for difference in (0.0, 1.0, -0.5):
        groups = [scored("a", sample([difference], replicates=[difference + noise], trained=False), [None])]
        groups += [scored("b", sample([0.0] * 3, replicates=np.zeros((3, 20_000))))]
        found = probability_best(groups, sign=1, resamples=1, seed=0)
        assert found == pytest.approx([norm.cdf(difference), norm.cdf(-difference)], abs=0.015)
        assert probability_best(groups, sign=-1, resamples=1, seed=0) == pytest.approx(found[::-1])


def test_seeds_vary_the_mean_as_much_as_between_studies() -> None:
    values = np.random.default_rng(0).normal(size=6)
    groups = [scored("a", sample(values)), scored("b", sample([values.mean() + 0.3] * 2))]
    found = probability_best(groups, sign=1, resamples=40_000, seed=0)
    assert found[0] == pytest.approx(norm.sf(0.3 / (values.std(ddof=1) / 6**0.5)), abs=0.03)


def test_common_seeds_and_pairs_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    luck, noise = random.normal(scale=5, size=(4, 1)), random.normal(scale=5, size=500)
    groups = [
        scored(name, sample((value + luck)[:, 0], replicates=value + luck + noise))
        for name, value in (("a", 60.0), ("b", 60.01))
    ]
    assert probability_best(groups, sign=1, resamples=1, seed=0) == [0, 1]
    other = [groups[0], scored("b", groups[1].sample, range(10, 14))]
    assert 0.3 < probability_best(other, sign=1, resamples=1, seed=0)[0] < 0.7


def test_seeds_that_only_one_group_has_leave_the_others_paired() -> None:
    luck = 5 * np.random.default_rng(1).normal(size=10)
    luck[9] = luck[:9].mean()
    first, second = scored("a", sample(62 + luck[:9]), range(9)), scored("b", sample(60 + luck), range(10))
    paired = probability_best([first, second], sign=1, resamples=20_000, seed=0)[0]
    unpaired = probability_best([first, scored("b", second.sample, range(20, 30))], sign=1, resamples=20_000, seed=0)[0]
    assert paired > 0.97
    error = (first.sample.variance / 9 + second.sample.variance / 10) ** 0.5
    assert unpaired == pytest.approx(norm.cdf(2 / error), abs=0.04)


def test_equal_groups_share() -> None:
    same = sample([60.0, 61.0, 62.0])
    groups = [scored(name, same) for name in "abc"]
    assert probability_best(groups, sign=1, resamples=100, seed=0) == pytest.approx([1 / 3] * 3)


def test_constants_tie_whatever_seeds_are_drawn() -> None:
    groups = [scored(name, sample([0.7] * n), range(n)) for name, n in (("a", 10), ("b", 3), ("c", 7))]
    assert probability_best(groups, sign=1, resamples=500, seed=0) == pytest.approx([1 / 3] * 3)


def concordance(values: np.ndarray) -> float:
    """Kendall's W from its definition: spread of the rank sums over its largest possible value; no ties."""
    groups, seeds = values.shape
    sums = (values.argsort(axis=0).argsort(axis=0) + 1).sum(axis=1)
    return float(12 * ((sums - sums.mean()) ** 2).sum() / (seeds**2 * (groups**3 - groups)))


def test_kendalls_w_by_definition() -> None:
    values = np.random.default_rng(0).normal(size=(5, 4)) + np.arange(5)[:, None]
    groups = [scored(name, sample(row)) for name, row in zip("abcde", values, strict=True)]
    found = rank_stability(groups, sign=1)
    assert found is not None
    assert found.kendall_w == pytest.approx(concordance(values))
    assert list(found.seeds) == [0, 1, 2, 3]
    assert np.mean(found.mean_rank) == pytest.approx(3)
    assert np.argmin(found.mean_rank) == 4


def test_one_order_in_every_seed() -> None:
    groups = [scored(name, sample([level, level + 5, level - 5])) for name, level in zip("abc", (1, 3, 2), strict=True)]
    up, down = rank_stability(groups, sign=1), rank_stability(groups, sign=-1)
    assert up is not None
    assert down is not None
    assert up.kendall_w == pytest.approx(1)
    assert (list(up.mean_rank), list(down.mean_rank)) == ([3, 1, 2], [1, 3, 2])


def test_only_seeds_and_groups_that_can_be_ranked() -> None:
    trained = [
        scored(name, sample([1.0, 2.0, offset]), [0, 1, seed])
        for name, offset, seed in (("a", 0.0, 2), ("b", 1.0, 3), ("c", 2.0, 2))
    ]
    beside = [scored("u", sample([9.0], trained=False), [None]), scored("one", sample([9.0]))]
    trained[0] = scored("a", sample([1.5, 2.5, 0.0]), [0, 1, 2])
    found = rank_stability([*beside, *trained], sign=1)
    assert found is not None
    assert [group.label for group in found.groups] == ["a", "b", "c"]
    assert list(found.seeds) == [0, 1]
    assert rank_stability(trained[:2], sign=1) is None
    assert rank_stability([*trained[:2], scored("c", sample([1.0, 2.0]), [1, 9])], sign=1) is None
    assert rank_stability([scored(name, sample([1.0, 2.0])) for name in "abc"], sign=1) is None
    assert rank_stability([], sign=1) is None
