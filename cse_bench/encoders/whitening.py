r"""Whitening of sentence vectors: five linear maps that leave the coordinates uncorrelated, with variance 1.

With rows x of mean m and covariance :math:`\Sigma`, and :math:`z = (x - m)\, W`:

.. math::
    W^\top \Sigma\, W = I \quad\Leftrightarrow\quad W W^\top = \Sigma^{-1}

W is unique up to a rotation from the right, which changes no inner product and no cosine: with all d dimensions the
five give the same similarities. They differ in what the first k coordinates hold.

Shapes: n sentences, d width, k dimensions kept. Everything is in float64.

Source:
    Kessy, Lewin and Strimmer 2018, "Optimal whitening and decorrelation", The American Statistician 72(4), table 1
    (arXiv 1512.00809); their W acts on columns and is the transpose of the one here.
"""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cse_bench.losses.whitening import covariance, whitening_matrix

Whitening = Literal["pca", "zca", "pca_cor", "zca_cor", "cholesky"]

WHITENINGS: tuple[Whitening, ...] = get_args(Whitening)
# These keep what varies most in their leading coordinates, so that the others can be left out.
SORTED: tuple[Whitening, ...] = ("pca", "pca_cor")
_SCALED = ("pca_cor", "zca_cor")
_ROWS_AT_ONCE = 8192  # in float64: the vectors of a whole corpus would take twice their memory again


def moments(vectors: Float[np.ndarray, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and biased covariance (divided by n) of vectors."""
    mean = torch.from_numpy(vectors.mean(axis=0, dtype=np.float64))
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        centred = torch.from_numpy(vectors[start : start + _ROWS_AT_ONCE]).double() - mean
        total += covariance(centred[None])[0] * len(centred)
    return mean, total / len(vectors)


def rounding(mean: Float[Tensor, " d"], sigma: Float[Tensor, "d d"]) -> float:
    """Standard deviation up to which nothing is known to vary: 2^-23 of the length of the vectors, for float32 ones."""
    return torch.finfo(torch.float32).eps * float(mean.square().sum() + sigma.trace()) ** 0.5


def rank(sigma: Float[Tensor, "d d"], *, noise: float) -> int:
    """In how many directions the vectors vary by more than `noise`, a standard deviation."""
    return int((torch.linalg.eigvalsh(sigma) > noise**2).sum())


def whitening_map(
    sigma: Float[Tensor, "d d"], *, kind: Whitening, dimensions: int, noise: float = 0.0
) -> Float[Tensor, "d k"]:
    r"""The first k columns of W.

    With :math:`\Sigma = U \Lambda U^\top`, the variances V on a diagonal, and the correlations
    :math:`P = V^{-1/2} \Sigma V^{-1/2} = G \Theta G^\top`:

    * `pca`: :math:`W = U \Lambda^{-1/2}`, directions of falling variance
    * `zca`: :math:`W = U \Lambda^{-1/2} U^\top`, symmetric; of all five the z nearest to x - m
    * `pca_cor`: :math:`W = V^{-1/2} G\, \Theta^{-1/2}`
    * `zca_cor`: :math:`W = V^{-1/2} G\, \Theta^{-1/2} G^\top`, the z nearest to the standardised x
    * `cholesky`: :math:`W = L` with :math:`L L^\top = \Sigma^{-1}`, lower triangular, its diagonal positive

    The signs of the columns of U and G are such that their diagonals are positive, as the authors advise: coordinate i
    of z then goes along with coordinate i of x.

    Args:
        sigma: symmetric; positive definite, or for the kinds in `SORTED` of rank k or more.
        kind: which of the five.
        dimensions: k.
        noise: coordinates that deviate by no more are constant; `pca_cor` leaves them out.
    """
    if kind == "cholesky":
        # The factor of the inverse is found from last to first coordinate: that of the reversed matrix, reversed again.
        reversed_map = whitening_matrix(sigma.flip(0, 1)[None], engine="cholesky", newton_iters=0)[0]
        return reversed_map.flip(0, 1)[:, :dimensions]
    scale = _scale(sigma, kind, noise=noise)
    values, axes = _principal_axes(scale[:, None] * sigma * scale)
    if kind in SORTED:
        rotated = axes[:, :dimensions] * values[:dimensions].rsqrt()
    else:
        rotated = (axes * values.rsqrt()) @ axes.T[:, :dimensions]
    return scale[:, None] * rotated


def spectrum(sigma: Float[Tensor, "d d"], *, kind: Whitening) -> Float[Tensor, " d"]:
    """The eigenvalues, falling, of what is inverted: covariances, or correlations for `pca_cor` and `zca_cor`."""
    scale = _scale(sigma, kind, noise=0.0)
    return torch.linalg.eigvalsh(scale[:, None] * sigma * scale).flip(0)


def _scale(sigma: Float[Tensor, "d d"], kind: Whitening, *, noise: float) -> Float[Tensor, " d"]:
    """What makes correlations of covariances, for the kinds that start from these; else ones."""
    if kind not in _SCALED:
        return torch.ones(len(sigma), dtype=sigma.dtype)
    variances = sigma.diagonal()
    return torch.where(variances > noise**2, variances.rsqrt(), 0.0)


def _principal_axes(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Eigenvalues, falling, and eigenvectors in columns whose diagonal is positive."""
    values, axes = torch.linalg.eigh(matrix)
    values, axes = values.flip(0), axes.flip(1)
    return values, axes * torch.where(axes.diagonal() < 0, -1.0, 1.0)
