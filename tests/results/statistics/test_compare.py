"""Comparisons: exact permutations by enumeration, Benjamini-Hochberg by hand, and what two groups have in common."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp, ttest_rel

from cse_bench.results.statistics.analysis import Comparison
from cse_bench.results.statistics.compare import compare, corrected, sign_flip_p
from cse_bench.results.statistics.power import PAIRS_LEAVE_IT_OPEN, hedges_correction, seeds_needed
from cse_bench.results.statistics.resampling import sign_flips
from tests.results.statistics.blocks import sample, scored

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_sign_flips_of_seeds_are_exact(n: int) -> None:
    differences = RANDOM.normal(loc=0.8, size=n)
    means = [np.mean(np.array(signs) * differences) for signs in itertools.product((1, -1), repeat=n)]
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert sign_flip_p(sample(differences), seed=0) == pytest.approx(expected)


def test_sign_flips_of_many_seeds_are_drawn() -> None:
    differences = RANDOM.normal(loc=0.1, size=40)
    found = sign_flip_p(sample(differences), seed=0)
    assert found == sign_flip_p(sample(differences), seed=0)
    assert found == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.03)


def test_exchanges_of_test_pairs_against_enumeration() -> None:
    contributions = RANDOM.normal(loc=[[0.35], [0.0]], size=(2, 9))
    signs = np.array(list(itertools.product((1, -1), repeat=9)))
    difference = contributions[0] - contributions[1]
    expected = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12)
    flipped = sign_flips(contributions, permutations=20_000, random=np.random.default_rng(1))
    first, second = (
        scored(name, sample([row.sum()], flipped=[flips], replicates=[[0.0, 1.0]]))
        for name, row, flips in zip("ab", contributions, flipped, strict=True)
    )
    found = compare(first, second, what="pairs", seed=0).p_pairs
    assert found == pytest.approx(expected, abs=0.015)


def test_pairing_is_over_common_seeds() -> None:
    values = {seed: 60 + RANDOM.normal() for seed in range(6)}
    first = scored("a", sample([values[seed] + 0.5 + 0.01 * seed for seed in range(6)]), range(6))
    second = scored("b", sample([values[seed] for seed in (5, 3, 1)] + [0.0]), [5, 3, 1, 77])
    found = compare(first, second, what="", seed=0)
    assert found.paired_seeds == 3
    differences = [0.5 + 0.01 * seed for seed in (1, 3, 5)]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.p == pytest.approx(ttest_1samp(differences, 0).pvalue)
    assert found.p_seeds == pytest.approx(2 / 8)
    d_z = hedges_correction(2) * np.mean(differences) / np.std(differences, ddof=1)
    assert found.effect_size == pytest.approx(d_z)
    assert (found.seeds_needed, found.seeds_needed_reason) == seeds_needed(d_z)


def test_without_per_pair_scores_p_is_of_seeds_alone() -> None:
    first, second = RANDOM.normal(size=(2, 5))
    found = compare(scored("a", sample(first)), scored("b", sample(second)), what="", seed=0)
    assert (found.over_pairs, found.over_both, found.p_pairs) == (None, None, None)
    assert found.p == pytest.approx(ttest_rel(first, second).pvalue)


def test_against_an_untrained_backbone() -> None:
    values = [60.0, 60.4, 60.1]
    noise = RANDOM.normal(size=100)
    trained = scored("a", sample(values, replicates=np.array(values)[:, None] + noise, flipped=np.zeros((3, 9))))
    untrained = scored("u", sample([57.0], replicates=[57 + noise], flipped=np.zeros((1, 9)), trained=False), [None])
    found = compare(trained, untrained, what="pairs", seed=0)
    assert (found.paired_seeds, found.p_seeds) == (0, None)
    assert found.p == pytest.approx(ttest_1samp(values, 57).pvalue)  # the noise of the pairs cancels
    assert found.p_pairs == pytest.approx(0.1)
    d_z = hedges_correction(2) * (np.mean(values) - 57) / np.std(values, ddof=1)
    assert found.effect_size == pytest.approx(d_z)
    reverse = compare(untrained, trained, what="pairs", seed=0)
    assert reverse.difference == pytest.approx(-found.difference)
    assert reverse.p == pytest.approx(found.p)


def test_different_seeds_are_compared_unpaired() -> None:
    first, second = RANDOM.normal(size=(2, 5))
    found = compare(scored("a", sample(first)), scored("b", sample(second), range(5, 10)), what="", seed=0)
    assert (found.paired_seeds, found.p_seeds) == (0, None)
    pooled = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)  # Hedges's g with equally many runs
    assert found.effect_size == pytest.approx(hedges_correction(8) * (first.mean() - second.mean()) / pooled)


def test_one_run_each_is_too_few_seeds() -> None:
    found = compare(scored("a", sample([60.0])), scored("b", sample([50.0])), what="", seed=0)
    (judged,) = corrected([found], sign=1)
    assert (judged.p, judged.p_adjusted, judged.verdict) == (None, None, "too few seeds")
    assert (judged.effect_size, judged.seeds_needed) == (None, None)


def test_equal_groups_are_not_told_apart() -> None:
    same = scored("a", sample([60.0, 61.0]))
    (judged,) = corrected([compare(same, scored("b", sample([60.0, 61.0])), what="", seed=0)], sign=1)
    assert (judged.difference, judged.p, judged.verdict) == (0, 1.0, "not told apart")
    assert (judged.effect_size, judged.seeds_needed) == (None, None)


@pytest.mark.parametrize("value", [0.1, 0.7, 4_369_408.0, 1e-7])
def test_what_never_varies_does_not_differ_by_rounding(value: float) -> None:
    many, few = scored("a", sample([value] * 10), range(10)), scored("b", sample([value] * 3), range(10, 13))
    found = compare(many, few, what="", seed=0)
    assert (found.difference, found.p, found.p_seeds) == (0, 1.0, None)


def test_a_few_equal_differences_prove_nothing() -> None:
    first, second = scored("a", sample([50.1, 51.1, 3.1])), scored("b", sample([50.0, 51.0, 3.0]))
    (judged,) = corrected([compare(first, second, what="", seed=0)], sign=1)
    assert judged.difference == pytest.approx(0.1)
    assert (judged.p, judged.p_adjusted, judged.verdict, judged.seeds_needed) == (None, None, "no test", None)


def test_equal_differences_are_tested_over_the_pairs() -> None:
    noise = RANDOM.normal(size=(2, 400))
    first, second = (
        scored(name, sample([value, value + 1], replicates=np.array([[value], [value + 1]]) + row))
        for name, value, row in zip("ab", (55.0, 50.0), noise, strict=True)
    )
    (judged,) = corrected([compare(first, second, what="pairs", seed=0)], sign=1)
    assert judged.p == pytest.approx(2 * norm.sf(5 / np.std(noise[0] - noise[1], ddof=1)), rel=0.2)
    assert judged.verdict == "better"


def test_without_seeds_or_with_an_undefined_resample_there_is_no_test() -> None:
    alone = [scored(name, sample([value], trained=False), [None]) for name, value in (("u", 50.0), ("w", 55.0))]
    undefined = [
        scored(name, sample([value, value + 1, value - 2], replicates=[[value, np.nan]] * 3))
        for name, value in (("a", 50.0), ("b", 55.0))
    ]
    for first, second in (alone, undefined):
        (judged,) = corrected([compare(first, second, what="pairs", seed=0)], sign=1)
        assert (judged.difference, judged.p, judged.verdict) == (-5, None, "no test")
        assert (judged.seeds_needed, judged.seeds_needed_reason) == (None, None)


def test_more_seeds_do_not_make_more_pairs() -> None:
    values, noise = 60 + RANDOM.normal(size=10), RANDOM.normal(size=(2, 400))
    second = scored("b", sample(values, replicates=values[:, None] + noise[0]))
    differences = RANDOM.normal(scale=0.3, size=10)
    found = {}
    for size in (0.5, 3.0, 6.0):
        more = values + size + differences - differences.mean()
        first = scored("a", sample(more, replicates=more[:, None] + noise[1]))
        found[size] = compare(first, second, what="pairs", seed=0)
    assert found[0.5].seeds_needed is None
    assert found[0.5].seeds_needed_reason == PAIRS_LEAVE_IT_OPEN
    assert found[6.0].seeds_needed == 2
    assert found[6.0].seeds_needed_reason is None
    assert compare(scored("a", sample(values + 0.5 + differences)), second, what="", seed=0).seeds_needed_reason is None


def with_p(p: float | None, difference: float = 1.0) -> Comparison:
    return Comparison(
        first=scored("a", sample([0.0])).group,
        second=scored("b", sample([0.0])).group,
        difference=difference,
        paired_seeds=5,
        over_seeds=None,
        over_pairs=None,
        over_both=None,
        p_seeds=None,
        p_pairs=None,
        p=p,
        p_adjusted=None,
        effect_size=None,
        seeds_needed=None,
        verdict="too few seeds",
    )


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: 0.005 x 4/1, 0.020 x 4/2, 0.035 x 4/3, 0.5; each no larger than the next.
    judged = corrected([with_p(0.5), with_p(0.020), with_p(None), with_p(0.035, -1), with_p(0.005)], sign=1)
    assert [one.p_adjusted for one in judged] == pytest.approx([0.5, 0.04, None, 0.035 * 4 / 3, 0.02])
    assert [one.verdict for one in judged] == ["not told apart", "better", "too few seeds", "worse", "better"]


def test_lower_may_be_better() -> None:
    judged = corrected([with_p(0.001, -1), with_p(0.001, 1)], sign=-1)
    assert [one.verdict for one in judged] == ["better", "worse"]


def test_no_comparisons() -> None:
    assert corrected([], sign=1) == []
