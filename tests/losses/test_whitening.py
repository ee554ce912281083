"""Shuffled group whitening against hand-computed numbers, a slow numpy oracle, finite differences, its properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.losses.whitening import (
    covariance,
    newton_inverse_root,
    ridged,
    whiten_groups,
    whitening_matrix,
)

X = [[2.0, 1.0], [-2.0, -1.0], [1.0, 2.0], [-1.0, -2.0]]
ORTHOGONAL = [[math.sqrt(2), 0.0], [-math.sqrt(2), 0.0], [0.0, math.sqrt(2)], [0.0, -math.sqrt(2)]]
A = [[-5, -2, 1, 4], [2, -5, -1, 3], [-2, 3, -3, 2], [5, 0, -5, 1], [1, -3, 4, 0], [-3, 5, 2, -1]]
C = [[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 1.0]]
ENGINES = ["eigh", "newton", "cholesky"]


def matrix(values, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def whitened(
    rows: Tensor, order=None, *, groups=1, engine="eigh", iterations=15, detach=True, eps: float = 0.0
) -> Tensor:
    order = torch.arange(rows.shape[1]) if order is None else torch.as_tensor(order)
    return whiten_groups(rows, order, num_groups=groups, engine=engine, newton_iters=iterations, detach=detach, eps=eps)


def slow_whiten(rows: np.ndarray, order: list[int], groups: int, eps: float) -> np.ndarray:
    """Group by group, by the symmetric root of numpy's eigendecomposition."""
    count, width = rows.shape
    size = width // groups
    result = np.empty_like(rows)
    for k in range(groups):
        columns = order[k * size : (k + 1) * size]
        block = rows[:, columns] - rows[:, columns].mean(axis=0)
        sigma = sum(np.outer(row, row) for row in block) / count
        sigma = sigma + (eps * np.trace(sigma) / size + 1e-8) * np.eye(size)
        values, vectors = np.linalg.eigh(sigma)
        result[:, columns] = block @ vectors @ np.diag(values**-0.5) @ vectors.T
    return result


def random_rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlated features of unlike scale and mean."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=draw, dtype=torch.float64)
    mixed = mixed @ torch.randn(width, width, generator=draw, dtype=torch.float64)
    return (mixed + torch.randn(width, generator=draw, dtype=torch.float64) * 3).to(dtype)


def test_zca_by_hand() -> None:
    sigma = covariance(matrix(X)[None])
    assert torch.allclose(sigma[0], matrix([[2.5, 2.0], [2.0, 2.5]]), rtol=0, atol=1e-12)
    w = whitening_matrix(sigma, engine="eigh", newton_iters=1)[0]
    assert torch.allclose(w, matrix([[0.94280904, -0.47140452], [-0.47140452, 0.94280904]]), rtol=0, atol=1e-8)
    y = whitened(matrix(X))
    assert torch.allclose(y, math.sqrt(2) * matrix([[1, 0], [-1, 0], [0, 1], [0, -1]]), rtol=0, atol=1e-7)
    assert torch.allclose(y.T @ y / 4, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-7)
    assert abs(float(y[0, 0]) - 1.22474487) > 0.1  # a covariance divided by b - 1
    assert torch.allclose(whitened(matrix(X) + matrix([10, -3])), y, rtol=0, atol=1e-7)


def test_cholesky_by_hand() -> None:
    rows = [[1.26491106, -0.63245553], [0.63245553, 1.26491106]]
    expected = matrix([rows[0], [-x for x in rows[0]], rows[1], [-x for x in rows[1]]])
    assert torch.allclose(whitened(matrix(X), engine="cholesky"), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("iterations", "first"),
    [
        (1, (0.55901699, -0.08944272)),
        (2, (0.68795706, -0.21656318)),
        (3, (0.82158751, -0.35018299)),
        (5, (0.941002, -0.46959748)),
    ],
)
def test_newton_by_hand(iterations: int, first: tuple[float, float]) -> None:
    sigma = covariance(matrix(X)[None])
    w = newton_inverse_root(sigma, iterations=iterations)[0]
    assert w[0].tolist() == pytest.approx(first, abs=1e-8)
    # The textbook recursion has the same iterates; it is not used since float32 breaks it.
    normed, p = sigma[0] / 5, torch.eye(2, dtype=torch.float64)
    for _ in range(iterations):
        p = (3 * p - p @ p @ p @ normed) / 2
    assert torch.allclose(w, p / math.sqrt(5), rtol=0, atol=1e-12)


def test_newton_converges_to_the_symmetric_root() -> None:
    sigma = covariance(matrix(X)[None])
    newton = newton_inverse_root(sigma, iterations=7)
    assert torch.allclose(newton, whitening_matrix(sigma, engine="eigh", newton_iters=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("condition", "iterations"), [(1e2, 10), (1e3, 12), (1e4, 15)])
def test_newton_is_stable_in_float32(condition: float, iterations: int) -> None:
    draw = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64))
    dense = q @ torch.diag(torch.logspace(0, -math.log10(condition), 6, dtype=torch.float64)) @ q.T
    sigma = ((dense + dense.T) / 2).float()[None]
    w = newton_inverse_root(sigma, iterations=iterations)[0]
    assert float((w @ sigma[0] @ w - torch.eye(6)).abs().max()) < 5e-3


@pytest.mark.parametrize("engine", ["eigh", "cholesky"])
def test_direct_engines_hold_float32_at_a_condition_number_of_1e5(engine: str) -> None:
    draw = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64))
    sigma = (q @ torch.diag(torch.logspace(0, -5, 6, dtype=torch.float64)) @ q.T).float()[None]
    w = whitening_matrix((sigma + sigma.mT) / 2, engine=engine, newton_iters=1)[0].double()
    bound = 2e-4 if engine == "eigh" else 2e-3
    assert float((w.T @ sigma[0].double() @ w - torch.eye(6, dtype=torch.float64)).abs().max()) < bound


def test_ridge_by_hand() -> None:
    sigma = ridged(covariance(matrix(X)[None]), eps=0.2)
    assert torch.allclose(sigma[0], matrix([[3.0, 2.0], [2.0, 3.0]]), rtol=0, atol=2e-8)
    w = whitening_matrix(sigma, engine="eigh", newton_iters=1)[0]
    assert torch.allclose(w, matrix([[0.7236068, -0.2763932], [-0.2763932, 0.7236068]]), rtol=0, atol=1e-7)
    y = whitened(matrix(X), eps=0.2)
    assert y[0].tolist() == pytest.approx([1.17082039, 0.17082039], abs=1e-7)
    assert torch.allclose(y.T @ y / 4, matrix([[0.7, 0.2], [0.2, 0.7]]), rtol=0, atol=1e-7)


def test_ridge_makes_a_deficient_covariance_invertible() -> None:
    rows = matrix([[1.0, 0.0], [-1.0, 0.0]])
    sigma = covariance(rows[None]) + 1e-3 * torch.eye(2, dtype=torch.float64)
    y = rows @ whitening_matrix(sigma, engine="eigh", newton_iters=1)[0]
    assert torch.allclose(y, matrix([[0.99950037, 0.0], [-0.99950037, 0.0]]), rtol=0, atol=1e-8)


def test_groups_by_hand() -> None:
    rows = matrix(A)
    assert torch.equal(rows, matrix([[((7 * n + 3 * k + n * k) % 11) - 5 for k in range(4)] for n in range(6)]))
    plain = whitened(rows, groups=2)
    assert plain[0].tolist() == pytest.approx([-1.5617109, -0.77428715, 0.61135971, 1.60648211], abs=1e-7)
    y = whitened(rows, [2, 0, 3, 1], groups=2)
    assert y[0].tolist() == pytest.approx([-1.41175248, -0.21136534, 0.08339617, 1.49266606], abs=1e-7)
    assert y[5].tolist() == pytest.approx([-0.6718299, 1.38173991, 0.61804362, -1.02241884], abs=1e-7)
    sigma = y.T @ y / 6
    for pair in ([0, 2], [1, 3]):
        assert torch.allclose(sigma[pair][:, pair], torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-7)
    assert float(sigma[0, 1]) == pytest.approx(-0.53418008, abs=1e-7)  # not whitened across groups
    assert torch.allclose(whitened(rows, [0, 2, 1, 3], groups=2), y, rtol=0, atol=1e-12)
    assert not torch.allclose(whitened(rows, [0, 2, 1, 3], groups=2, engine="cholesky"), y, rtol=0, atol=0.1)
    single = (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0)
    assert torch.allclose(whitened(rows, groups=4), single, rtol=0, atol=1e-7)


DETACHED = [[-0.23570226, 0.82495791], [-0.70710678, 0.35355339], [-1.1785113, -0.11785113], [2.12132034, -1.06066017]]
FULL = [[-0.47140452, 1.47313913], [-0.47140452, -0.29462783], [-0.41247896, -0.58925565], [1.355288, -0.58925565]]
FULL_EQUAL = [[-0.25, 1.75], [-0.25, -0.75], [-1.0, -0.5], [1.5, -0.5]]
DETACHED_EQUAL = [[0.25, 1.0], [-0.75, 0.0], [-1.75, -1.0], [2.25, 0.0]]


@pytest.mark.parametrize("engine", ["eigh", "newton"])
@pytest.mark.parametrize(
    ("rows", "detach", "expected"),
    [(X, True, DETACHED), (X, False, FULL), (ORTHOGONAL, True, DETACHED_EQUAL), (ORTHOGONAL, False, FULL_EQUAL)],
)
def test_gradient_by_hand(engine: str, rows, detach: bool, expected) -> None:
    x = matrix(rows).requires_grad_()
    (matrix(C) * whitened(x, engine=engine, detach=detach)).sum().backward()
    assert torch.allclose(x.grad, matrix(expected), rtol=0, atol=1e-6)


def test_the_backward_of_the_eigendecomposition_would_be_nan() -> None:
    x = matrix(ORTHOGONAL).requires_grad_()
    values, vectors = torch.linalg.eigh(x.T @ x / 4)
    (matrix(C) * (x @ vectors @ torch.diag(values**-0.5) @ vectors.T)).sum().backward()
    assert x.grad.isnan().any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_gradcheck(engine: str, eps: float) -> None:
    x = random_rows(9, 6, seed=3).requires_grad_()
    order = [4, 0, 3, 1, 5, 2]
    assert torch.autograd.gradcheck(
        lambda rows: whitened(rows, order, groups=2, engine=engine, detach=False, eps=eps, iterations=20), (x,)
    )


def test_detached_whitening_is_a_constant_linear_map_of_the_centred_rows() -> None:
    x = random_rows(9, 6, seed=3).requires_grad_()
    y = whitened(x, groups=2)
    upstream = random_rows(9, 6, seed=4)
    y.backward(upstream)
    expected = torch.zeros_like(x)
    for k in range(2):
        columns = slice(3 * k, 3 * k + 3)
        sigma = covariance((x - x.mean(dim=0)).detach()[None, :, columns])
        w = whitening_matrix(ridged(sigma, eps=0.0), engine="eigh", newton_iters=1)[0]
        direct = upstream[:, columns] @ w
        expected[:, columns] = direct - direct.mean(dim=0)
    assert torch.allclose(x.grad, expected, rtol=0, atol=1e-10)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31 - 1))


@given(shapes, st.sampled_from(["eigh", "newton"]), st.sampled_from([1e-5, 1e-2]), st.randoms(use_true_random=False))
def test_equals_the_slow_oracle(shape, engine: str, eps: float, draw) -> None:
    groups, size, seed = shape
    rows = random_rows(6 * size, groups * size, seed=seed)
    order = draw.sample(range(groups * size), groups * size)
    found = whitened(rows, order, groups=groups, engine=engine, eps=eps, iterations=40)
    assert np.allclose(found.numpy(), slow_whiten(rows.numpy(), order, groups, eps), rtol=0, atol=1e-6)


@given(shapes, st.sampled_from(ENGINES), st.randoms(use_true_random=False))
def test_every_group_is_white(shape, engine: str, draw) -> None:
    groups, size, seed = shape
    width = groups * size
    rows = random_rows(8 * size, width, seed=seed, dtype=torch.float32)
    order = draw.sample(range(width), width)
    y = whitened(rows, order, groups=groups, engine=engine, iterations=40).double()
    assert float(y.mean(dim=0).abs().max()) < 1e-3
    sigma = (y.T @ y / len(y))[order][:, order]
    for k in range(groups):
        block = sigma[k * size : (k + 1) * size, k * size : (k + 1) * size]
        assert float((block - torch.eye(size, dtype=torch.float64)).abs().max()) < 2e-2


@given(st.floats(0.3, 100), st.floats(-50, 50), st.sampled_from(ENGINES))
def test_neither_shift_nor_scale_matters(scale: float, shift: float, engine: str) -> None:
    rows = random_rows(20, 6, seed=5)
    plain = whitened(rows, groups=2, engine=engine, eps=1e-3, iterations=30)
    moved = whitened(rows * scale + shift, groups=2, engine=engine, eps=1e-3, iterations=30)
    assert torch.allclose(plain, moved, rtol=0, atol=1e-5)


def test_one_group_does_not_depend_on_the_order() -> None:
    rows = random_rows(20, 5)
    assert torch.allclose(whitened(rows, [3, 1, 4, 0, 2]), whitened(rows), rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("case", ["g + 1 rows", "duplicate rows", "constant feature", "everything constant"])
def test_poor_rows_give_finite_results(case: str, engine: str, detach: bool) -> None:
    rows = random_rows(4, 6, dtype=torch.float32)
    if case == "duplicate rows":
        rows = rows[:1].repeat(4, 1) + torch.tensor([0.0, 0, 0, 1])[:, None]
    elif case == "constant feature":
        rows[:, 2] = 3.0
    elif case == "everything constant":
        rows[:] = 1.0
    rows.requires_grad_()
    y = whitened(rows, groups=2, engine=engine, detach=detach, eps=1e-5)
    assert y.isfinite().all()
    (y * torch.arange(24.0).reshape(4, 6)).sum().backward()
    assert rows.grad.isfinite().all()


def test_half_precision_is_widened_first() -> None:
    rows = random_rows(20, 6, dtype=torch.float32)
    assert whitened(rows.bfloat16(), groups=2).dtype == torch.float32
    expected = whitened(rows.bfloat16().float(), groups=2)
    assert torch.equal(whitened(rows.bfloat16(), groups=2), expected)


def test_a_detached_matrix_keeps_no_graph() -> None:
    rows = random_rows(20, 6).requires_grad_()
    names: set[str] = set()

    def walk(node) -> None:
        if node is not None:
            names.add(type(node).__name__)
            for parent, _ in node.next_functions:
                walk(parent)

    walk(whitened(rows, groups=2, detach=True).grad_fn)
    assert not any("InverseRoot" in name or "Eigh" in name for name in names)
    walk(whitened(rows, groups=2, detach=False).grad_fn)
    assert any("InverseRoot" in name for name in names)
