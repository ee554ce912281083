"""Alignment, uniformity, dispersion and two ratios of them; anisotropy and the spectrum of the same embeddings.

Alignment and uniformity are Wang and Isola 2020 (arXiv 2005.10242), section 4.1. The ratios are "ratio metrics
(cse_bench definition)": CSE-SFP (arXiv 2505.00389) introduces two ratio metrics for the joint assessment of alignment
and uniformity, but its formulas were not available to us, so these must not be called that paper's metrics. Formulas of
theirs would be added beside these.

With f an embedding scaled to length 1, P the positive pairs, and i < j running over all pairs of the n sentences:

    A = mean over (u, v) in P of |f_u - f_v|^2            alignment, 0..4, lower is better
    U = log of the mean over i < j of exp(-2 |f_i - f_j|^2)   uniformity, -8..0, lower is better
    D = mean over i < j of |f_i - f_j|^2                  dispersion, 0..2n/(n-1), higher is more spread
    align_uniform_ratio = A / -U                          lower is better
    align_dispersion_ratio = A / D                        lower is better; 1: positives are as far apart as any pair

A alone rewards squeezing all sentences into a narrow cone, U alone rewards tearing positives apart; a common change of
scale cancels in the ratios. Jensen's inequality gives -U <= 2 D.

How the space is used, of the same embeddings, with s_1 >= s_2 >= ... the singular values of the matrix of all f less
their mean, and V_k the variance of coordinate k:

    mean_cosine = mean over i < j of cos(f_i, f_j) = 1 - D / 2   anisotropy (Ethayarajh 2019, arXiv 1909.00512)
    effective_rank = exp(-sum_k q_k log q_k), q_k = s_k / sum s  1..min(n - 1, d) (Roy and Vetterli 2007, EUSIPCO)
    largest_variance_share = max_k V_k / sum V                   1/d..1; near 1: one coordinate decides every cosine
                                                                 (Timkey and van Schijndel 2021, arXiv 2109.04404)

The mean is taken off before the spectrum because the common direction is what mean_cosine tells already. Shapes: `n`
sentences, `p` positive pairs, `d` width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from cse_bench.evaluation.vectors import unit_rows

RATIO_LABEL = "ratio metrics (cse_bench definition)"

# Below this dispersion only rounding noise is left of the distances, and a ratio of noise can come out as any number.
COLLAPSE_DISPERSION = 1e-12

UNIFORMITY_T = 2.0
BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The numbers of this module for one set of sentences; a value that is not defined is NaN.

    `reason` says why some are NaN, or is None: `collapsed` (all embeddings point the same way: no ratios, no spectrum),
    `no_positives` (no alignment, no ratios), `too_few` (fewer than two sentences: nothing).
    """

    alignment: float
    uniformity: float
    dispersion: float
    align_uniform_ratio: float
    align_dispersion_ratio: float
    mean_cosine: float
    effective_rank: float
    largest_variance_share: float
    singular_values: npt.NDArray[np.float64]
    dimension_variance: npt.NDArray[np.float64]
    num_sentences: int
    num_positives: int
    reason: str | None

    def yielded(self, prefix: str) -> Iterator[tuple[str, float | np.ndarray | str]]:
        """Metrics, arrays, and the reason at every metric that is NaN, as an evaluation task yields them."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "reason":
                continue
            yield f"{prefix}/{field.name}", value
            if isinstance(value, float) and math.isnan(value):
                yield f"{prefix}/{field.name}", self.reason or "undefined"


def alignment(left: np.ndarray, right: np.ndarray, *, alpha: float = 2.0) -> float:
    """Mean distance of positive pairs to the power `alpha`: `mean_i |f(left_i) - f(right_i)|^alpha`.

    Wang and Isola 2020, section 4.1, with their alpha = 2 as default. Embeddings are scaled to length 1 here.

    Args:
        left: `(p, d)`.
        right: `(p, d)`, row i is the positive of row i of `left`.
        alpha: Power of the distance.

    Raises:
        ValueError: Shapes differ, no pair, or a zero or non-finite row.
    """
    if left.shape != right.shape:
        raise ValueError(f"the two sides of the pairs have shapes {left.shape} and {right.shape}; they must be equal")
    if len(left) == 0:
        raise ValueError("alignment needs at least one positive pair, got none")
    return _alignment_of_unit(unit_rows(left), unit_rows(right), alpha)


def uniformity(embeddings: np.ndarray, *, t: float = UNIFORMITY_T, block_rows: int = BLOCK_ROWS) -> float:
    """Log of the mean Gaussian potential of all unordered pairs: `log mean_{i<j} exp(-t |f_i - f_j|^2)`.

    Wang and Isola 2020, section 4.1, with their t = 2 as default; a row is never paired with itself. Orthogonal
    embeddings have -4.

    Args:
        embeddings: `(n, d)`.
        t: Weight of the squared distance.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: Fewer than two rows, or a zero or non-finite row.
    """
    return _spread(unit_rows(embeddings), t=t, block_rows=block_rows)[0]


def dispersion(embeddings: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> float:
    """Mean squared distance of all unordered pairs: `mean_{i<j} |f_i - f_j|^2 = mean_{i<j} 2 - 2 cos(f_i, f_j)`.

    Args:
        embeddings: `(n, d)`.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: Fewer than two rows, or a zero or non-finite row.
    """
    return _spread(unit_rows(embeddings), t=UNIFORMITY_T, block_rows=block_rows)[1]


def geometry(embeddings: np.ndarray, positives: np.ndarray, *, block_rows: int = BLOCK_ROWS) -> Geometry:
    """All numbers of this module, of one set of embeddings.

    Args:
        embeddings: `(n, d)`; duplicates count as often as they are given.
        positives: `(p, 2)` integers, the two rows of each positive pair; `p` may be 0.
        block_rows: Rows and columns of distances in memory at a time.

    Raises:
        ValueError: A zero or non-finite row, or positives that are not pairs of different rows of `embeddings`.
    """
    unit = unit_rows(embeddings)
    n, d = unit.shape
    _check_positives(positives, n)
    uniform, disperse, rank, share = math.nan, math.nan, math.nan, math.nan
    singular, variance = np.full(min(n, d), math.nan), np.full(d, math.nan)
    reason = "too_few" if n < 2 else "no_positives" if len(positives) == 0 else None
    if n >= 2:
        uniform, disperse = _spread(unit, t=UNIFORMITY_T, block_rows=block_rows)
        if -uniform > 2 * disperse + 1e-9:
            raise AssertionError(
                f"Jensen's inequality is broken: -U = {-uniform} > 2 D = {2 * disperse}; a bug in the block sums"
            )
        singular, variance = _spectrum(unit)
        # Tested before any division: U and D are near 0 together, and the signs of their rounding noise are arbitrary.
        if disperse <= COLLAPSE_DISPERSION:
            reason = "collapsed"
        else:
            rank, share = _effective_rank(singular), float(variance.max() / variance.sum())
    align = _alignment_of_unit(unit[positives[:, 0]], unit[positives[:, 1]], 2.0) if len(positives) else math.nan
    return Geometry(
        alignment=align,
        uniformity=uniform,
        dispersion=disperse,
        align_uniform_ratio=math.nan if reason else align / -uniform,
        align_dispersion_ratio=math.nan if reason else align / disperse,
        mean_cosine=1.0 - disperse / 2.0,
        effective_rank=rank,
        largest_variance_share=share,
        singular_values=singular,
        dimension_variance=variance,
        num_sentences=n,
        num_positives=len(positives),
        reason=reason,
    )


def _check_positives(positives: np.ndarray, n: int) -> None:
    if positives.ndim != 2 or positives.shape[1] != 2 or not np.issubdtype(positives.dtype, np.integer):
        raise ValueError(
            f"positives have shape {positives.shape} and type {positives.dtype}; expected integers (pairs, 2)"
        )
    wrong = (positives < 0).any(axis=1) | (positives >= n).any(axis=1) | (positives[:, 0] == positives[:, 1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"positive pair {row} is {positives[row].tolist()}; expected two different rows of 0..{n - 1}")


def _alignment_of_unit(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], alpha: float) -> float:
    squared = np.square(left - right).sum(axis=1)
    return float(np.mean(squared ** (alpha / 2)))


def _spread(unit: npt.NDArray[np.float64], *, t: float, block_rows: int) -> tuple[float, float]:
    """Uniformity and dispersion in one pass over the blocks of the upper triangle."""
    n = len(unit)
    if n < 2:
        raise ValueError(f"the spread of embeddings needs at least two rows, got {n}")
    sum_squared = 0.0
    sum_potential_less_one = 0.0
    for top in range(0, n, block_rows):
        rows = unit[top : top + block_rows]
        for start in range(top, n, block_rows):
            squared = np.clip(2.0 - 2.0 * (rows @ unit[start : start + block_rows].T), 0.0, 4.0)
            # A block on the diagonal holds each of its pairs twice, and self pairs, which a distance of 0 takes out of
            # both sums.
            share = 1.0
            if start == top:
                np.fill_diagonal(squared, 0.0)
                share = 0.5
            sum_squared += share * float(squared.sum())
            # exp(x) - 1 instead of exp(x): for a narrow cone the potential is so near to 1 that its logarithm would be
            # noise.
            sum_potential_less_one += share * float(np.expm1(-t * squared).sum())
    pairs = n * (n - 1) / 2
    return math.log1p(sum_potential_less_one / pairs), sum_squared / pairs


def _spectrum(unit: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Singular values `(min(n, d),)` of the rows less their mean, largest first; variance `(d,)` of each column.

    From the eigenvalues of the smaller Gram matrix, which costs a tenth of a decomposition of the rows. Values below
    1e-8 of the largest are rounding noise.
    """
    centred = unit - unit.mean(axis=0)
    n, d = centred.shape
    gram = centred.T @ centred if d <= n else centred @ centred.T
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    return np.sqrt(np.clip(eigenvalues, 0.0, None)), np.square(centred).mean(axis=0)


def _effective_rank(singular: npt.NDArray[np.float64]) -> float:
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))
