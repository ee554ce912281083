"""Spearman and its aggregations, against slow pure-Python oracles and the released ESimCSE log."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cse_bench.evaluation.spearman import (
    cosine_of_rows,
    spearman,
    spearman_all,
    spearman_mean,
    spearman_wmean,
    weighted_mean,
)
from cse_bench.evaluation.sts_tables import SUBSETS

TIED = (np.array([0.10, 0.40, 0.40, 0.70, 0.20]), np.array([1.0, 2, 3, 5, 1]))
REVERSED = (np.array([0.95, 0.85, 0.90]), np.array([0.0, 2, 1.5]))
UNTIED = (np.array([0.10, 0.20, 0.30, 0.40]), np.array([0.0, 2, 1, 3]))
UNTIED_REVERSED = (np.array([0.50, 0.60]), np.array([5.0, 4]))

# Sub-set Spearmans, mean, wmean and all, as printed (4 decimals) in the log of the released ESimCSE bert-base.
ESIMCSE_LOG = {
    "sts12": ([0.6480, 0.8928, 0.6097, 0.7356, 0.6127], 0.6998, 0.7180, 0.7340),
    "sts13": ([0.6325, 0.8104, 0.8358], 0.7596, 0.7975, 0.8327),
    "sts14": ([0.6251, 0.7749, 0.8003, 0.8320, 0.8658, 0.7307], 0.7715, 0.7828, 0.7725),
    "sts15": ([0.7525, 0.6970, 0.8438, 0.8431, 0.8958], 0.8064, 0.8085, 0.8266),
    "sts16": ([0.6948, 0.8416, 0.8412, 0.8698, 0.7172], 0.7929, 0.7940, 0.7881),
}


def slow_ranks(values: list[float]) -> list[float]:
    """Average ranks by counting."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def slow_pearson(xs: list[float], ys: list[float]) -> float:
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return covariance / math.sqrt(sum((x - x_mean) ** 2 for x in xs) * sum((y - y_mean) ** 2 for y in ys))


def slow_spearman(scores: list[float], gold: list[float]) -> float:
    return 100 * slow_pearson(slow_ranks(scores), slow_ranks(gold))


def test_aggregation_vectors_with_ties() -> None:
    assert spearman(*TIED) == pytest.approx(94.73684211, abs=1e-8)
    assert spearman(*REVERSED) == pytest.approx(-100, abs=1e-8)
    assert spearman_all([TIED, REVERSED]) == pytest.approx(-4.24250216, abs=1e-8)
    assert spearman_mean([TIED, REVERSED]) == pytest.approx(-2.63157895, abs=1e-8)
    assert spearman_wmean([TIED, REVERSED]) == pytest.approx(21.71052632, abs=1e-8)


def test_aggregation_vectors_without_ties() -> None:
    subsets = [UNTIED, UNTIED_REVERSED]
    assert [spearman(*subset) for subset in subsets] == pytest.approx([80, -100], abs=1e-8)
    assert spearman_all(subsets) == pytest.approx(88.57142857, abs=1e-8)
    assert spearman_mean(subsets) == pytest.approx(-10, abs=1e-8)
    assert spearman_wmean(subsets) == pytest.approx(20, abs=1e-8)


def test_ranks_by_arg_sort_would_be_wrong() -> None:
    scores, gold = TIED
    arg_sort_ranks = [np.argsort(np.argsort(values, kind="stable")).tolist() for values in (scores, gold)]
    assert slow_pearson(*arg_sort_ranks) != pytest.approx(spearman(scores, gold) / 100, abs=1e-3)


@pytest.mark.parametrize("task", ESIMCSE_LOG)
def test_mean_and_wmean_of_released_log(task: str) -> None:
    subsets, mean, wmean, joined = ESIMCSE_LOG[task]
    counts = list(SUBSETS[task].values())
    # Both sides are rounded to 4 decimals: half a unit from the inputs, half a unit from the logged result.
    assert weighted_mean(subsets, [1.0] * len(subsets)) == pytest.approx(mean, abs=1.0001e-4)
    assert weighted_mean(subsets, counts) == pytest.approx(wmean, abs=1.0001e-4)
    assert abs(joined - mean) > 1e-3  # "all" is another number: this guards against a table that could not tell


@pytest.mark.parametrize("n", [2, 3, 10, 57])
def test_equals_slow_spearman(n: int) -> None:
    generator = np.random.default_rng(n)
    scores = np.round(generator.uniform(-1, 1, n), 1) + np.arange(n) % 2 * 0.05
    gold = np.append(generator.integers(0, 3, n - 2), [4.0, 5.0])
    assert spearman(scores, gold) == pytest.approx(slow_spearman(scores.tolist(), gold.tolist()), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 10)), min_size=3, max_size=30), st.randoms())
def test_order_of_pairs_and_scale_of_grades_do_not_matter(
    rows: list[tuple[int, int]], random: "np.random.Generator"
) -> None:
    scores, gold = np.array(rows, dtype=float).T
    if len(set(gold)) == 1 or len(set(scores)) == 1:
        return
    shuffled = rows.copy()
    random.shuffle(shuffled)
    shuffled_scores, shuffled_gold = np.array(shuffled, dtype=float).T
    expected = spearman(scores / 50, gold)
    assert spearman(shuffled_scores / 50, shuffled_gold * 7 + 1) == pytest.approx(expected, abs=1e-9)
    assert spearman(-scores / 50, gold) == pytest.approx(-expected, abs=1e-9)


def test_last_bits_do_not_break_ties() -> None:
    gold = np.array([1.0, 2, 3, 4])
    tied = np.array([0.1, 0.5, 0.5, 0.9])
    noisy = tied + np.array([0, 3e-16, -3e-16, 0])
    assert slow_spearman(noisy.tolist(), gold.tolist()) != slow_spearman(tied.tolist(), gold.tolist())
    assert spearman(noisy, gold) == spearman(tied, gold)


def test_collapsed_scores_are_nan_in_every_aggregation() -> None:
    constant = (np.array([1.0, 1.0, 1.0 - 1e-13]), np.array([0.0, 1, 2]))
    assert math.isnan(spearman(*constant))
    assert math.isnan(spearman_all([constant, constant]))
    assert math.isnan(spearman_mean([UNTIED, constant]))
    assert math.isnan(spearman_wmean([UNTIED, constant]))


@pytest.mark.parametrize(
    ("scores", "gold", "message"),
    [
        ([0.1, math.nan], [1.0, 2], "score of pair 1 is nan"),
        ([0.1, 0.2], [math.inf, 2], "grade of pair 0 is inf"),
        ([0.1, 0.2], [3.0, 3.0], "all 2 grades are 3"),
        ([0.1], [3.0], "at least two pairs, got 1"),
        ([0.1, 0.2], [3.0], "expected two equal 1-d shapes"),
    ],
)
def test_bad_input_is_refused(scores: list[float], gold: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spearman(np.array(scores), np.array(gold))


def test_weighted_mean_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="2 values and 1 weights"):
        weighted_mean([1.0, 2.0], [1.0])


def test_cosine_equals_slow_cosine() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 9, 5)).astype(np.float32)
    expected = [
        sum(float(x) * float(y) for x, y in zip(one, two, strict=True))
        / math.sqrt(sum(float(x) ** 2 for x in one) * sum(float(y) ** 2 for y in two))
        for one, two in zip(left, right, strict=True)
    ]
    cosines = cosine_of_rows(left, right)
    assert cosines.dtype == np.float64
    assert cosines == pytest.approx(expected, abs=1e-14)


def test_cosine_survives_extreme_lengths() -> None:
    left = np.array([[3e200, 4e200], [3e-200, 4e-200]])
    assert cosine_of_rows(left, np.array([[4.0, 3.0], [4.0, 3.0]])) == pytest.approx([0.96, 0.96], abs=1e-15)


@pytest.mark.parametrize(("bad", "reason"), [(0.0, "row 1 .* is all zeros"), (math.nan, "row 1 .* is not finite")])
def test_cosine_refuses_rows_without_direction(bad: float, reason: str) -> None:
    rows = np.array([[1.0, 2.0], [bad, bad]])
    with pytest.raises(ValueError, match=reason):
        cosine_of_rows(rows, np.ones((2, 2)))
    with pytest.raises(ValueError, match=reason):
        cosine_of_rows(np.ones((2, 2)), rows)


def test_cosine_refuses_unequal_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        cosine_of_rows(np.ones((2, 3)), np.ones((1, 3)))
