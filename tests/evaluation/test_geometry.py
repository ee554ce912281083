"""Alignment, uniformity, dispersion and the ratio metrics, against hand-computed values and slow loops."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cse_bench.evaluation.geometry import alignment, dispersion, geometry, uniformity

X = np.array([[3.0, 4], [0, 2], [1, 0]])
Y = np.array([[4.0, 3], [-3, 4], [5, -12]])
STACKED = np.vstack([X, Y])
ROWS_OF_X_AND_Y = np.array([[0, 3], [1, 4], [2, 5]])
TOLERANCE = 1e-6


def unit(rows: np.ndarray) -> list[list[float]]:
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.tolist()]


def slow_squared_distances(rows: list[list[float]]) -> list[float]:
    return [
        sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
    ]


def slow_uniformity(rows: np.ndarray, t: float = 2.0) -> float:
    squared = slow_squared_distances(unit(rows))
    return math.log(sum(math.exp(-t * value) for value in squared) / len(squared))


def slow_dispersion(rows: np.ndarray) -> float:
    squared = slow_squared_distances(unit(rows))
    return sum(squared) / len(squared)


def slow_alignment(left: np.ndarray, right: np.ndarray, alpha: float = 2.0) -> float:
    pairs = zip(unit(left), unit(right), strict=True)
    return sum(math.pow(math.dist(one, two), alpha) for one, two in pairs) / len(left)


def random_rows(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


# --- vectors -------------------------------------------------------------------------------------------------


def test_alignment_vectors() -> None:
    assert alignment(X, Y) == pytest.approx(0.5702564103, abs=TOLERANCE)
    assert alignment(X, Y, alpha=1.0) == pytest.approx(0.6748995457, abs=TOLERANCE)
    gold = np.array([5.0, 4.2, 4.0])
    assert alignment(X[gold > 4], Y[gold > 4]) == pytest.approx(0.24, abs=TOLERANCE)
    assert alignment(X[gold >= 4], Y[gold >= 4]) == pytest.approx(0.5702564103, abs=TOLERANCE)


def test_uniformity_vectors() -> None:
    assert uniformity(X) == pytest.approx(-1.4997749839, abs=TOLERANCE)
    assert uniformity(STACKED) == pytest.approx(-1.6806701806, abs=TOLERANCE)
    assert uniformity(STACKED, t=1.0) == pytest.approx(-1.1299484796, abs=TOLERANCE)


def test_wrong_variants_are_other_numbers() -> None:
    """The mistakes found in published code, each with its value, so that a regression to one of them is recognised."""
    squared = slow_squared_distances(unit(X))
    wrong_uniformity = {
        -1.7748596847: math.log(sum(math.exp(-2 * math.sqrt(value)) for value in squared) / 3),
        -0.7295617166: math.log((3 + 2 * sum(math.exp(-2 * value) for value in squared)) / 9),
        -2.1333333333: sum(-2 * value for value in squared) / 3,
        -3.1329983383: (slow_uniformity(X) + slow_uniformity(Y)) / 2,
        -11.0986121761: math.log(sum(math.exp(-2 * value) for value in slow_squared_distances(X.tolist())) / 3),
    }
    for expected, value in wrong_uniformity.items():
        assert value == pytest.approx(expected, abs=TOLERANCE)
        assert min(abs(uniformity(rows) - value) for rows in (X, STACKED)) > 0.05
    not_normalised = float(np.square(X - Y).sum(axis=1).mean())
    assert not_normalised == pytest.approx(58.3333333333, abs=TOLERANCE)
    assert abs(alignment(X, Y) - not_normalised) > 50
    one_minus_cosine = alignment(X, Y) / (dispersion(STACKED) / 2)
    assert one_minus_cosine == pytest.approx(0.6568998109, abs=TOLERANCE)
    assert abs(geometry(STACKED, ROWS_OF_X_AND_Y).align_dispersion_ratio - one_minus_cosine) > 0.3


def test_v1_unnormalised_input() -> None:
    result = geometry(STACKED, ROWS_OF_X_AND_Y)
    assert result.alignment == pytest.approx(0.5702564103, abs=TOLERANCE)
    assert result.uniformity == pytest.approx(-1.6806701806, abs=TOLERANCE)
    assert result.dispersion == pytest.approx(1.7362051282, abs=TOLERANCE)
    assert result.align_uniform_ratio == pytest.approx(0.3393029857, abs=TOLERANCE)
    assert result.align_dispersion_ratio == pytest.approx(0.3284499055, abs=TOLERANCE)
    assert (result.num_sentences, result.num_positives, result.reason) == (6, 3, None)


def test_v2_four_points() -> None:
    result = geometry(np.array([[1, 0], [0, 1], [0.8, 0.6], [-0.6, 0.8]]), np.array([[0, 2], [1, 3]]))
    assert result.alignment == pytest.approx(0.4, abs=TOLERANCE)
    assert result.dispersion == pytest.approx(8.8 / 6, abs=TOLERANCE)
    assert result.uniformity == pytest.approx(-1.6617428752, abs=TOLERANCE)
    assert result.align_uniform_ratio == pytest.approx(0.2407111268, abs=TOLERANCE)
    assert result.align_dispersion_ratio == pytest.approx(3 / 11, abs=TOLERANCE)


def slow_spectrum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit_length = np.array(unit(rows))
    centred = unit_length - unit_length.mean(axis=0)
    return np.linalg.svd(centred, compute_uv=False), unit_length.var(axis=0)


@pytest.mark.parametrize("n, d", [(6, 2), (9, 4), (4, 7), (40, 40), (2, 3)])
def test_spectrum_equals_a_decomposition_of_the_rows(n: int, d: int) -> None:
    rows = random_rows(n, d) + 0.3
    singular, variance = slow_spectrum(rows)
    result = geometry(rows, np.array([[0, 1]]))
    np.testing.assert_allclose(result.singular_values, singular, atol=1e-7)
    np.testing.assert_allclose(result.dimension_variance, variance, atol=1e-12)
    share = singular[singular > 1e-7] / singular[singular > 1e-7].sum()
    assert result.effective_rank == pytest.approx(math.exp(-sum(q * math.log(q) for q in share)), abs=1e-5)
    assert result.largest_variance_share == pytest.approx(variance.max() / variance.sum(), abs=1e-12)
    cosines = [1 - squared / 2 for squared in slow_squared_distances(unit(rows))]
    assert result.mean_cosine == pytest.approx(sum(cosines) / len(cosines), abs=1e-12)


def test_spectrum_of_known_shapes() -> None:
    # Orthogonal directions and their opposites: no common direction, every dimension used alike.
    result = geometry(np.vstack([np.eye(5), -np.eye(5)]), np.array([[0, 1]]))
    assert result.effective_rank == pytest.approx(5)
    assert result.largest_variance_share == pytest.approx(1 / 5)
    assert result.mean_cosine == pytest.approx(-1 / 9)  # of 45 pairs, 5 are opposite and the others orthogonal
    # All on one line through the origin: one dimension does everything.
    line = geometry(np.array([[1.0, 0], [-1, 0], [2, 0], [-3, 0]]), np.array([[0, 2]]))
    assert line.effective_rank == pytest.approx(1)
    assert line.largest_variance_share == pytest.approx(1)


def test_an_offset_raises_the_mean_cosine_and_not_the_rank() -> None:
    rows = random_rows(300, 20)
    plain, cone = geometry(rows, np.array([[0, 1]])), geometry(rows + 5.0, np.array([[0, 1]]))
    assert plain.mean_cosine == pytest.approx(0, abs=0.01)
    assert cone.mean_cosine > 0.9
    assert cone.effective_rank == pytest.approx(plain.effective_rank, rel=0.1)
    assert plain.effective_rank > 19


def test_v3_perfect_positives_give_a_valid_zero() -> None:
    result = geometry(np.vstack([np.eye(2), np.eye(2)]), np.array([[0, 2], [1, 3]]))
    assert result.alignment == 0
    assert result.uniformity == pytest.approx(-1.0626359889, abs=TOLERANCE)
    assert result.dispersion == pytest.approx(4 / 3, abs=TOLERANCE)
    assert (result.align_uniform_ratio, result.align_dispersion_ratio, result.reason) == (0, 0, None)


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_v4_collapsed_encoder_has_no_ratio(noise: float) -> None:
    rows = np.tile([0.3, -0.7, 0.1], (50, 1)) + noise * random_rows(50, 3)
    result = geometry(rows, np.array([[0, 1], [2, 3]]))
    assert result.reason == "collapsed"
    assert math.isnan(result.align_uniform_ratio)
    assert math.isnan(result.align_dispersion_ratio)
    assert [result.alignment, result.uniformity, result.dispersion] == pytest.approx([0, 0, 0], abs=1e-12)
    assert result.mean_cosine == pytest.approx(1)
    assert math.isnan(result.effective_rank)
    assert math.isnan(result.largest_variance_share)


@given(st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6))
def test_v5_length_of_rows_does_not_matter(lengths: list[float]) -> None:
    scaled = geometry(STACKED * np.array(lengths)[:, None], ROWS_OF_X_AND_Y)
    assert scaled.align_uniform_ratio == pytest.approx(0.3393029857, abs=TOLERANCE)
    assert scaled.align_dispersion_ratio == pytest.approx(0.3284499055, abs=TOLERANCE)


@given(st.floats(-math.pi, math.pi))
def test_v6_rotation_does_not_matter(angle: float) -> None:
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rotated = geometry(STACKED @ rotation, ROWS_OF_X_AND_Y)
    assert rotated.align_uniform_ratio == pytest.approx(0.3393029857, abs=TOLERANCE)
    assert rotated.align_dispersion_ratio == pytest.approx(0.3284499055, abs=TOLERANCE)


@pytest.mark.parametrize("angle", [1e-3, 0.5, math.pi / 2, math.pi])
def test_v7_one_pair(angle: float) -> None:
    result = geometry(np.array([[1.0, 0], [math.cos(angle), math.sin(angle)]]), np.array([[0, 1]]))
    squared = 2 - 2 * math.cos(angle)
    values = [result.alignment, result.dispersion, result.uniformity / -2]
    assert values == pytest.approx([squared] * 3, rel=1e-6)
    assert (result.align_dispersion_ratio, result.align_uniform_ratio) == pytest.approx((1, 0.5), abs=TOLERANCE)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_v8_simplex(n: int) -> None:
    result = geometry(np.eye(n), np.array([[0, n - 1]]))
    assert result.uniformity == pytest.approx(-4, abs=TOLERANCE)
    assert (result.align_dispersion_ratio, result.align_uniform_ratio) == pytest.approx((1, 0.5), abs=TOLERANCE)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.floats(0, 50), st.integers(0, 1000))
def test_v9_jensen(n: int, d: int, offset: float, seed: int) -> None:
    result = geometry(random_rows(n, d, seed=seed) + offset, np.array([[0, n - 1]]))
    assert -result.uniformity <= 2 * result.dispersion + 1e-9
    if result.reason is None:
        assert result.align_uniform_ratio >= result.align_dispersion_ratio / 2 - 1e-9


@pytest.mark.parametrize(("right", "expected"), [([1.0, 0.0], 0.0), ([0.0, 1.0], -4.0), ([-1.0, 0.0], -8.0)])
def test_limits_of_uniformity(right: list[float], expected: float) -> None:
    assert uniformity(np.array([[1.0, 0.0], right])) == pytest.approx(expected, abs=1e-12)


def test_common_change_of_scale_cancels_in_the_ratios() -> None:
    """A narrow cone: alignment improves a hundredfold, the ratios stay."""
    rows = random_rows(80, 8)
    positives = np.stack([np.arange(40), np.arange(40, 80)], axis=1)
    near, far = (geometry(rows + offset, positives) for offset in (10, 1000))
    assert far.alignment < near.alignment / 1000
    assert far.align_uniform_ratio == pytest.approx(near.align_uniform_ratio, rel=0.05)
    assert far.align_dispersion_ratio == pytest.approx(near.align_dispersion_ratio, rel=0.05)
    assert far.align_uniform_ratio == pytest.approx(far.align_dispersion_ratio / 2, rel=1e-3)


# --- oracles and symmetries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block_rows", [1, 4, 5, 23, 2048])
@pytest.mark.parametrize("n", [2, 5, 23])
def test_equals_slow_loops_for_every_block_size(n: int, block_rows: int) -> None:
    rows = random_rows(n, 4, seed=n).astype(np.float32)
    positives = np.array([[0, 1], [n - 1, 0]])
    result = geometry(rows, positives, block_rows=block_rows)
    wide = rows.astype(np.float64)
    assert result.uniformity == pytest.approx(slow_uniformity(wide), abs=1e-12)
    assert result.dispersion == pytest.approx(slow_dispersion(wide), abs=1e-12)
    assert result.alignment == pytest.approx(slow_alignment(wide[positives[:, 0]], wide[positives[:, 1]]), abs=1e-12)
    assert uniformity(rows, t=0.5, block_rows=block_rows) == pytest.approx(slow_uniformity(wide, 0.5), abs=1e-12)
    assert dispersion(rows, block_rows=block_rows) == result.dispersion


def test_equals_mean_over_the_full_matrix() -> None:
    rows = random_rows(300, 16)
    cosines = np.corrcoef(np.hstack([rows, -rows]))  # rows of mean zero: their correlation is their cosine
    upper = cosines[np.triu_indices(300, k=1)]
    assert dispersion(rows, block_rows=128) == pytest.approx(float(np.mean(2 - 2 * upper)), abs=1e-12)
    expected = math.log(float(np.mean(np.exp(-4 + 4 * upper))))
    assert uniformity(rows, block_rows=128) == pytest.approx(expected, abs=1e-12)


@given(st.permutations(range(6)))
def test_order_of_sentences_does_not_matter(order: list[int]) -> None:
    moved = np.argsort(order)[ROWS_OF_X_AND_Y]
    permuted = geometry(STACKED[order], moved[:, ::-1], block_rows=4)
    expected = geometry(STACKED, ROWS_OF_X_AND_Y)
    assert permuted.alignment == pytest.approx(expected.alignment, abs=1e-12)
    assert permuted.uniformity == pytest.approx(expected.uniformity, abs=1e-12)
    assert permuted.dispersion == pytest.approx(expected.dispersion, abs=1e-12)


# --- degenerate cases ----------------------------------------------------------------------------------------


def test_no_positives() -> None:
    result = geometry(X, np.empty((0, 2), dtype=int))
    assert (result.reason, result.num_positives) == ("no_positives", 0)
    assert all(math.isnan(v) for v in (result.alignment, result.align_uniform_ratio, result.align_dispersion_ratio))
    assert result.uniformity == pytest.approx(-1.4997749839, abs=TOLERANCE)
    assert result.dispersion == pytest.approx(3.2 / 3, abs=TOLERANCE)
    assert result.mean_cosine == pytest.approx(1 - 1.6 / 3, abs=TOLERANCE)
    assert result.effective_rank > 1


@pytest.mark.parametrize("n", [0, 1])
def test_too_few(n: int) -> None:
    result = geometry(np.ones((n, 3)), np.empty((0, 2), dtype=int))
    assert (result.reason, result.num_sentences) == ("too_few", n)
    assert math.isnan(result.alignment)
    assert math.isnan(result.uniformity)
    assert math.isnan(result.dispersion)
    assert math.isnan(result.align_uniform_ratio)
    assert math.isnan(result.align_dispersion_ratio)
    assert math.isnan(result.mean_cosine)
    assert math.isnan(result.effective_rank)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_row_without_direction_is_named(bad: float) -> None:
    rows = X.copy()
    rows[2] = bad
    for measure in (uniformity, dispersion):
        with pytest.raises(ValueError, match="row 2 of the embeddings"):
            measure(rows)
    with pytest.raises(ValueError, match="row 2 of the embeddings"):
        geometry(rows, np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("positives", "message"),
    [
        (np.array([[0, 1], [1, 3]]), r"positive pair 1 is \[1, 3\]"),
        (np.array([[-1, 1]]), r"positive pair 0 is \[-1, 1\]"),
        (np.array([[1, 1]]), r"positive pair 0 is \[1, 1\]"),
        (np.array([[0.0, 1.0]]), "expected integers"),
        (np.array([0, 1]), r"expected integers \(pairs, 2\)"),
    ],
)
def test_bad_positives_are_refused(positives: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        geometry(X, positives)


def test_pure_functions_refuse_what_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        uniformity(X[:1])
    with pytest.raises(ValueError, match="at least one positive pair"):
        alignment(X[:0], Y[:0])
    with pytest.raises(ValueError, match="must be equal"):
        alignment(X, Y[:2])


def test_fast_enough_for_every_evaluation_during_training() -> None:
    rows = random_rows(3000, 128).astype(np.float32)
    positives = np.stack([np.arange(208), np.arange(1500, 1708)], axis=1)
    geometry(rows, positives)
    durations = []
    for _ in range(3):
        started = time.process_time()
        geometry(rows, positives)
        durations.append(time.process_time() - started)
    assert min(durations) < 1.0
