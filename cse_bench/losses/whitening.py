"""Shuffled group whitening: decorrelates small groups of features with the statistics of a batch.

Shapes: b rows, d features, k groups of g = d / k features.

Every function works in float32 at least: in half precision a covariance loses its small eigenvalues, and the inverse
root is made of them.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Engine = Literal["eigh", "cholesky", "newton"]

_ABSOLUTE_RIDGE = 1e-8  # features that are all constant have no scale to which a relative one could refer


def whiten_groups(
    rows: Float[Tensor, "b d"],
    order: Int[Tensor, " d"],
    *,
    num_groups: int,
    engine: Engine,
    newton_iters: int,
    detach: bool,
    eps: float,
) -> Float[Tensor, "b d"]:
    r"""Whitens groups of features, each with its own covariance, and leaves every feature in its place.

    Group k owns the features `order[k * g : (k + 1) * g]`. With their columns in P and C = P - mean(P):

    .. math::
        \Sigma = \tfrac{1}{b} C^\top C + \big(\epsilon\, \tfrac{\mathrm{tr}\,C^\top C}{b\,g} + 10^{-8}\big) I \qquad
        Y = C W, \quad W W^\top = \Sigma^{-1}

    Args:
        rows: at least g + 1 of them for a covariance of full rank; 2 g or more for one worth inverting.
        order: a permutation of the features.
        num_groups: k; divides d. k = d standardises every feature by itself; k = 1 whitens all of them.
        engine: how W is found, see `whitening_matrix`.
        newton_iters: of the engine `newton`.
        detach: W is a constant in the backward, so that the gradient flows through C alone (as in the official code).
        eps: ridge relative to the mean variance, so that the result does not depend on the scale of the features.

    Source:
        Zhuo et al. 2023 (arXiv 2305.17746), shuffled group whitening; official code.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        groups = wide[:, order].unflatten(1, (num_groups, -1)).transpose(0, 1)
        centred = groups - groups.mean(dim=1, keepdim=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            matrix = whitening_matrix(ridged(covariance(centred), eps=eps), engine=engine, newton_iters=newton_iters)
        white = (centred @ matrix).transpose(0, 1).flatten(1)
        return white[:, order.argsort()]


def covariance(centred: Float[Tensor, "k b g"]) -> Float[Tensor, "k g g"]:
    """Biased covariance (divided by b) of centred rows, per group."""
    return centred.mT @ centred / centred.shape[1]


def ridged(matrix: Float[Tensor, "k g g"], *, eps: float) -> Float[Tensor, "k g g"]:
    """With `eps` times the mean variance, and 1e-8, added to the diagonal."""
    mean_variance = matrix.diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = (eps * mean_variance + _ABSOLUTE_RIDGE)[:, None, None]
    return matrix + ridge * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)


def whitening_matrix(matrix: Float[Tensor, "k g g"], *, engine: Engine, newton_iters: int) -> Float[Tensor, "k g g"]:
    r"""W with :math:`W^\top \Sigma W = I` for symmetric positive definite matrices.

    Args:
        matrix: covariances.
        engine: `eigh`: the symmetric root, which stays closest to the input and does not depend on the order of
            features (ZCA); `newton`: the same by iteration; `cholesky`: :math:`L^{-\top}`, which does depend on it.
        newton_iters: of the engine `newton`.
    """
    if engine == "eigh":
        root: Tensor = _InverseRoot.apply(matrix)
        return root
    if engine == "newton":
        return newton_inverse_root(matrix, iterations=newton_iters)
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), identity, upper=False).mT


def newton_inverse_root(matrix: Float[Tensor, "k g g"], *, iterations: int) -> Float[Tensor, "k g g"]:
    r"""The symmetric inverse root by the coupled Newton-Schulz iteration, from matrix products alone.

    .. math::
        Y_0 = \Sigma / \mathrm{tr}\,\Sigma, \quad Z_0 = I, \quad M_t = \tfrac12 (3 I - Z_t Y_t), \quad
        Y_{t+1} = Y_t M_t, \quad Z_{t+1} = M_t Z_t, \quad W = Z_T / \sqrt{\mathrm{tr}\,\Sigma}

    The uncoupled recursion, :math:`P \leftarrow \tfrac12 (3 P - P^3 \Sigma)`, has the same iterates in exact arithmetic
    and diverges in float32 at a condition number of 100.

    Args:
        matrix: covariances.
        iterations: 12 reach float32 accuracy at a condition number of 1e3, 15 at 1e4.

    Source:
        Huang et al. 2019 (arXiv 1904.03441), iterative normalisation; the coupled form: Higham 2008, "Functions of
        matrices", equation 6.35.
    """
    trace = matrix.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    root, inverse = matrix / trace, identity
    for _ in range(iterations):
        step = (3 * identity - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return inverse / trace.sqrt()


class _InverseRoot(torch.autograd.Function):
    r"""The symmetric inverse root, :math:`U \lambda^{-1/2} U^\top`; its backward stands equal eigenvalues.

    The backward of the eigendecomposition divides by differences of eigenvalues and gives NaN where two are equal.
    Here they do not occur:

    .. math::
        \frac{\partial L}{\partial \Sigma} = U \big( K \circ (U^\top \bar G\, U) \big) U^\top, \qquad
        K_{ab} = \frac{-1}{\sqrt{\lambda_a \lambda_b}\, (\sqrt{\lambda_a} + \sqrt{\lambda_b})}

    where :math:`\bar G` is the symmetric part of the gradient of the root.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        # In float64: float32 would leave an error of 1e-2 at a condition number of 1e5.
        try:
            values, vectors = torch.linalg.eigh(matrix.double())
        except torch.linalg.LinAlgError:  # not finite; the training step says where that comes from
            ctx.save_for_backward(matrix.diagonal(dim1=1, dim2=2), matrix)
            return torch.full_like(matrix, torch.nan)
        # The ridge keeps eigenvalues positive; rounding may take a smallest one below.
        deviations = values.clamp(min=_ABSOLUTE_RIDGE).sqrt()
        ctx.save_for_backward(deviations, vectors)
        return ((vectors / deviations[:, None, :]) @ vectors.mT).to(matrix.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        deviations, vectors = ctx.saved_tensors
        symmetric = ((gradients[0] + gradients[0].mT) / 2).to(vectors.dtype)
        columns, lines = deviations[:, None, :], deviations[:, :, None]
        factor = -1 / (columns * lines * (columns + lines))
        inner: Tensor = vectors.mT @ symmetric @ vectors
        return (vectors @ (factor * inner) @ vectors.mT).to(gradients[0].dtype)
