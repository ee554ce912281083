"""Reconstruction losses against hand-computed numbers, slow loops, and their properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.losses.reconstruction import (
    reconstruction_target,
    token_errors,
    token_weights,
    variance_explained,
    weighted_mean,
)

COUNTS = [50, 30, 15, 4, 1, 0]


def weights_of(counts: list[int], weighting: str, *, a: float = 1e-3, alpha: float = 0.5) -> list[float]:
    return token_weights(torch.tensor(counts), weighting=weighting, sif_a=a, power_alpha=alpha).tolist()


def matrix(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_smooth_inverse_frequency_by_hand() -> None:
    counts = [500, 100, 10, 1, 0, 9389]  # of 10,000
    found = weights_of(counts, "sif")
    assert found[:5] == pytest.approx([0.01960784, 0.09090909, 0.5, 0.90909091, 1.0], abs=1e-8)
    expected = [0.16666667, 0.25, 0.4, 0.71428571, 0.90909091, 1.0]
    assert weights_of(COUNTS, "sif", a=0.1) == pytest.approx(expected, abs=1e-8)


def test_other_weightings_by_hand() -> None:
    assert weights_of(COUNTS, "neglog") == pytest.approx(
        [0.150515, 0.26143937, 0.41195437, 0.69897, 1.0, 1.0], abs=1e-8
    )
    assert weights_of(COUNTS, "power") == pytest.approx([0.14142136, 0.18257419, 0.25819889, 0.5, 1.0, 1.0], abs=1e-8)
    assert weights_of(COUNTS, "none") == [1.0] * 6


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30), st.sampled_from(["sif", "neglog", "power", "none"]))
def test_weights_fall_with_frequency_and_stay_between_zero_and_one(counts: list[int], weighting: str) -> None:
    found = np.array(weights_of(counts, weighting))
    assert np.isfinite(found).all()
    assert (found >= -1e-12).all()
    assert (found <= 1 + 1e-12).all()
    assert (np.diff(found[np.argsort(counts)]) <= 1e-12).all()


def test_weighted_mean_by_hand() -> None:
    error = matrix([4.0, 1.0, 0.25])
    omega = matrix([0.01960784313, 0.5, 1.0])
    loss = weighted_mean((omega * error)[None], omega[None])
    assert float(loss[0]) == pytest.approx(0.54516129, abs=1e-8)
    assert float(error.mean()) == pytest.approx(1.75)  # unweighted


def test_weighted_mean_is_over_tokens_and_not_over_sentences() -> None:
    sums, weights = matrix([[6.0, 1.0]]), matrix([[3.0, 1.0]])  # 2 a token, 1 a token
    assert float(weighted_mean(sums, weights)[0]) == pytest.approx(7 / 4)
    assert float(weighted_mean(matrix([[0.0, 0.0]]), matrix([[0.0, 0.0]]))[0]) == 0.0  # no token at all


def test_token_error_by_hand() -> None:
    x, written = matrix([[1, 2], [0, 1], [3, -1]]), matrix([[0, 2], [0, 0], [1, -1]])
    error = token_errors(written[None], reconstruction_target(x[None], norm="none"))[0]
    assert error.tolist() == pytest.approx([0.5, 0.5, 2.0], abs=1e-12)
    omega = matrix([0.01960784313, 0.5, 1.0])
    assert float(weighted_mean((omega * error)[None], omega[None])[0]) == pytest.approx(1.48709677, abs=1e-8)


def test_normalised_target_by_hand() -> None:
    target = reconstruction_target(matrix([[[1, 2, 3, 6]]]), norm="layernorm")[0, 0]
    assert target.tolist() == pytest.approx([-1.06904344, -0.53452172, 0.0, 1.60356516], abs=1e-5)
    expected = (matrix([1, 2, 3, 6]) - 3) / math.sqrt(3.5 + 1e-5)
    assert torch.allclose(target, expected, rtol=0, atol=1e-12)


def slow_r_squared(written: np.ndarray, target: np.ndarray, omega: np.ndarray) -> float:
    mean = sum(w * t for w, t in zip(omega, target, strict=True)) / omega.sum()
    residual = sum(w * ((t - x) ** 2).mean() for w, t, x in zip(omega, target, written, strict=True))
    total = sum(w * ((t - mean) ** 2).mean() for w, t in zip(omega, target, strict=True))
    return 1 - residual / total


def r_squared(written: Tensor, target: Tensor, omega: Tensor) -> float:
    """Of tokens dealt out to two sentences of one view."""
    error, square = omega * token_errors(written[None], target[None])[0], omega * target.square().mean(dim=1)
    half = len(omega) // 2

    def per_sentence(values: Tensor) -> Tensor:
        return torch.stack([values[:half].sum(dim=0), values[half:].sum(dim=0)])[None]

    return float(
        variance_explained(
            per_sentence(error), per_sentence(omega), per_sentence(square), per_sentence(omega[:, None] * target)
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_variance_explained_equals_the_slow_one(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randn(11, 4, generator=draw, dtype=torch.float64) + 3
    written = target + 0.5 * torch.randn(11, 4, generator=draw, dtype=torch.float64)
    omega = torch.rand(11, generator=draw, dtype=torch.float64)
    expected = slow_r_squared(written.numpy(), target.numpy(), omega.numpy())
    assert r_squared(written, target, omega) == pytest.approx(expected, abs=1e-10)
    assert r_squared(target, target, omega) == pytest.approx(1.0)
    mean = (omega[:, None] * target).sum(dim=0) / omega.sum()
    assert r_squared(mean.expand_as(target), target, omega) == pytest.approx(0.0, abs=1e-10)


def test_gradcheck() -> None:
    draw = torch.Generator().manual_seed(0)
    written = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    states = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    omega = torch.rand(2, 3, generator=draw, dtype=torch.float64)

    def loss(written: Tensor, states: Tensor) -> Tensor:
        error = token_errors(written, reconstruction_target(states, norm="layernorm"))
        return weighted_mean((omega * error).sum(dim=1), omega.sum(dim=1))

    assert torch.autograd.gradcheck(loss, (written, states))
