"""The five kinds of whitening against slow numpy, and what they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.encoders.whitening import SORTED, WHITENINGS, Whitening, moments, rank, rounding, spectrum, whitening_map

WIDTH = 7


def rows(count: int = 60, width: int = WIDTH, *, seed: int = 0) -> np.ndarray:
    """Correlated features of unlike scale and mean."""
    draw = np.random.default_rng(seed)
    mixed = draw.standard_normal((count, width)) @ draw.standard_normal((width, width))
    return mixed * draw.uniform(0.1, 10, width) + 3 * draw.standard_normal(width)


def covariance_of(vectors: np.ndarray) -> np.ndarray:
    """One product of deviations at a time."""
    count, width = vectors.shape
    means = [sum(vectors[:, i]) / count for i in range(width)]
    return np.array(
        [
            [sum((row[i] - means[i]) * (row[j] - means[j]) for row in vectors) / count for j in range(width)]
            for i in range(width)
        ]
    )


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return sum(value**exponent * np.outer(axis, axis) for value, axis in zip(values, vectors.T, strict=True))


def sorted_axes(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the largest, eigenvectors as rows, entry i of number i positive."""
    values, vectors = np.linalg.eig(matrix)
    order = np.argsort(-values.real)
    axes = vectors.real.T[order]
    return values.real[order], np.array([axis * np.sign(axis[i]) for i, axis in enumerate(axes)])


def slow_map(sigma: np.ndarray, kind: str) -> np.ndarray:
    """Table 1 of Kessy, Lewin and Strimmer: W for columns, z = W x."""
    inverse_deviations = np.diag(1 / np.sqrt(np.diag(sigma)))
    correlations = inverse_deviations @ sigma @ inverse_deviations
    if kind == "zca":
        return power(sigma, -0.5)
    if kind == "zca_cor":
        return power(correlations, -0.5) @ inverse_deviations
    if kind == "cholesky":
        return np.linalg.cholesky(np.linalg.inv(sigma)).T
    values, axes = sorted_axes(sigma if kind == "pca" else correlations)
    rotation = np.diag(values**-0.5) @ axes
    return rotation if kind == "pca" else rotation @ inverse_deviations


def fitted(vectors: np.ndarray, kind: Whitening, dimensions: int | None = None) -> Tensor:
    return whitening_map(moments(vectors)[1], kind=kind, dimensions=dimensions or vectors.shape[1])


def whitened(vectors: np.ndarray, kind: Whitening, dimensions: int | None = None) -> np.ndarray:
    return (vectors - vectors.mean(axis=0)) @ fitted(vectors, kind, dimensions).numpy()


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_moments_are_the_plain_ones_whatever_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = rows()
    monkeypatch.setattr("cse_bench.encoders.whitening._ROWS_AT_ONCE", 13)
    mean, sigma = moments(vectors)
    np.testing.assert_allclose(mean, vectors.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sigma, covariance_of(vectors), rtol=1e-10)
    assert sigma.dtype == moments(vectors.astype(np.float32))[1].dtype == torch.float64


@pytest.mark.parametrize("kind", WHITENINGS)
def test_the_formula_of_the_paper(kind: Whitening) -> None:
    vectors = rows()
    expected = slow_map(covariance_of(vectors), kind).T
    np.testing.assert_allclose(fitted(vectors, kind), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", WHITENINGS)
@pytest.mark.parametrize("dimensions", [1, 3, WIDTH])
def test_the_covariance_is_the_identity(kind: Whitening, dimensions: int) -> None:
    found = covariance_of(whitened(rows(), kind, dimensions))
    np.testing.assert_allclose(found, np.eye(dimensions), atol=1e-9)


@pytest.mark.parametrize("kind", WHITENINGS)
def test_fewer_dimensions_are_the_first_columns(kind: Whitening) -> None:
    assert torch.equal(fitted(rows(), kind, 3), fitted(rows(), kind)[:, :3])


@given(st.integers(0, 1000))
def test_with_all_dimensions_every_kind_gives_the_same_cosines(seed: int) -> None:
    vectors = rows(seed=seed)
    expected = cosines(whitened(vectors, "pca"))
    for kind in WHITENINGS:
        np.testing.assert_allclose(cosines(whitened(vectors, kind)), expected, atol=1e-6)


def test_with_fewer_dimensions_they_do_not() -> None:
    found = {kind: cosines(whitened(rows(), kind, 3)) for kind in WHITENINGS}
    for first in WHITENINGS:
        for second in WHITENINGS:
            assert (first == second) == (np.abs(found[first] - found[second]).max() < 0.01)


@pytest.mark.parametrize(("nearest", "to"), [("zca", "centred"), ("zca_cor", "standardised")])
def test_zca_stays_nearest_to_the_input(nearest: Whitening, to: str) -> None:
    vectors = rows()
    target = vectors - vectors.mean(axis=0)
    if to == "standardised":
        target = target / target.std(axis=0)
    best = np.square(whitened(vectors, nearest) - target).sum()
    others = [whitened(vectors, kind) for kind in WHITENINGS if kind != nearest]
    draw = np.random.default_rng(3)
    others += [others[0] @ np.linalg.qr(draw.standard_normal((WIDTH, WIDTH)))[0] for _ in range(50)]
    assert all(np.square(other - target).sum() > best + 1e-6 for other in others)


def test_pca_keeps_what_varies_most() -> None:
    vectors = rows()
    for kind, source in (("pca", vectors), ("pca_cor", vectors / vectors.std(axis=0))):
        centred = source - source.mean(axis=0)
        kept = whitened(vectors, kind, 3)
        explained = [np.square(kept[:, i] @ centred / len(kept)).sum() for i in range(3)]
        expected = np.sort(np.linalg.eigvalsh(covariance_of(source)))[::-1][:3]
        np.testing.assert_allclose(explained, expected, rtol=1e-9)


def test_shapes_of_the_maps() -> None:
    zca, factor = fitted(rows(), "zca"), fitted(rows(), "cholesky")
    torch.testing.assert_close(zca, zca.T)
    assert torch.linalg.eigvalsh(zca).min() > 0
    assert torch.equal(factor, factor.tril())
    assert bool((factor.diagonal() > 0).all())
    for kind in SORTED:
        assert bool((fitted(rows(), kind).diagonal() > 0).all())


def test_correlation_kinds_do_not_see_units() -> None:
    units = np.array([0.01, 50, 1, 2, 5, 0.1, 7])
    for kind in ("pca_cor", "zca_cor", "cholesky"):
        np.testing.assert_allclose(whitened(rows() * units, kind), whitened(rows(), kind), atol=1e-7)
    assert np.abs(whitened(rows() * units, "zca") - whitened(rows(), "zca")).max() > 0.1


def test_rank_counts_what_is_more_than_rounding() -> None:
    vectors = rows(width=5)
    dependent = np.column_stack([vectors, vectors @ [1, 2, 3, 4, 5]]).astype(np.float32)
    constant = np.column_stack([vectors, np.full(len(vectors), 100.1)]).astype(np.float32)
    for degenerate in (dependent, constant):
        mean, sigma = moments(degenerate)
        noise = rounding(mean, sigma)
        assert rank(sigma, noise=noise) == 5
        for kind in SORTED:  # the directions that do vary can be whitened
            matrix = whitening_map(sigma, kind=kind, dimensions=5, noise=noise).numpy()
            found = (degenerate - mean.numpy()) @ matrix
            np.testing.assert_allclose(covariance_of(found), np.eye(5), atol=1e-4)
    for count, expected in ((60, 7), (4, 3), (1, 0)):
        mean, sigma = moments(rows(count=count).astype(np.float32))
        assert rank(sigma, noise=rounding(mean, sigma)) == expected


def test_rounding_is_relative_to_the_vectors_and_not_to_their_deviations() -> None:
    """The vectors of an encoder are often nearly the same: what is behind a LayerNorm still sums to zero."""
    narrow = 1 + 1e-3 * rows(width=WIDTH)
    narrow[:, -1] = -narrow[:, :-1].sum(axis=1)
    mean, sigma = moments(narrow.astype(np.float32))
    assert rank(sigma, noise=rounding(mean, sigma)) == WIDTH - 1


@pytest.mark.parametrize("kind", WHITENINGS)
def test_spectrum_is_of_what_is_inverted(kind: Whitening) -> None:
    sigma = covariance_of(rows())
    matrix = sigma if kind in ("pca", "zca", "cholesky") else np.corrcoef(rows().T)
    expected = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(spectrum(torch.from_numpy(sigma), kind=kind), expected, rtol=1e-9)
