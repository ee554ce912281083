"""The losses of twin towers: contrast between rows of either tower, and the pull on the lengths of positive pairs.

Shapes: b sentences, r = 2 b rows that lie sentence by sentence (rows 2 k and 2 k + 1 are the two views of sentence k),
d width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cse_bench.losses.info_nce import cosine_matrix
from cse_bench.losses.row_blocks import mean_over_rows

# Smaller cosines count as this one. The official code replaces only negative ones; the logarithm of a tiny positive one
# would explode.
_LEAST_COSINE = 1e-4


def sentence_by_sentence(views: Float[Tensor, "2 b d"]) -> Float[Tensor, "r d"]:
    """Two views, one after the other -> rows in which the two views of a sentence are neighbours."""
    return views.transpose(0, 1).flatten(0, 1)


def partner_nce(
    anchors: Float[Tensor, "r d"], candidates: Float[Tensor, "r d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""InfoNCE in which the other view of the same sentence is the positive, and a row is never its own candidate.

    .. math::
        \frac{1}{r} \sum_{i=1}^{r} \Big[ \log \sum_{j \neq i} e^{\cos(x_i, y_j) / \tau} - \cos(x_i, y_{p(i)}) / \tau
        \Big]

    where p(i) is the row of the other view. Every row has r - 2 negatives, both views of all other sentences. The
    candidate j = i is left out when the rows come from different towers, too. Not symmetric in its arguments.

    Args:
        anchors: x, sentence by sentence; not normalised.
        candidates: y, in the same order; not normalised.
        temperature: :math:`\tau`.

    Returns:
        The mean loss. All rows equal gives log(r - 1); one sentence gives 0.

    Source:
        Zong et al. 2025 (arXiv 2505.02366), official code: `NCE` and `ICNCE` terms.
    """
    numbers = torch.arange(anchors.shape[0], device=anchors.device)

    def loss_of(rows: slice) -> Tensor:
        scores = cosine_matrix(anchors[rows], candidates) / temperature
        own = numbers[rows].unsqueeze(1) == numbers
        return F.cross_entropy(scores.masked_fill(own, float("-inf")), numbers[rows] ^ 1)

    return mean_over_rows(loss_of, rows=anchors.shape[0], columns=candidates.shape[0])


def modulus_loss(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    first_moduli: Float[Tensor, "b m"],
    second_moduli: Float[Tensor, "b m"],
    *,
    scale: float,
) -> Float[Tensor, ""]:
    r"""The tensor-modulus constraint: positive pairs shall agree in direction and in length.

    .. math::
        \frac{1}{b} \sum_{i=1}^{b} -\ln \max(\cos(x_i, y_i), 10^{-4})
        \cdot s \frac{\lVert u_i - v_i \rVert}{\lVert u_i \rVert + \lVert v_i \rVert}

    With k the ratio of the two lengths and t the cosine of u and v, the second factor is
    :math:`s \sqrt{1 + k^2 - 2 k t} / (1 + k)`: between 0 and s, and 0 only where u = v.

    Args:
        first: x, one view in one tower.
        second: y, the other view of the same sentences in the other tower.
        first_moduli: u, what the length is taken of, to `first`.
        second_moduli: v, likewise to `second`.
        scale: s; 1/2 in the official code, absent from the formula of the paper.

    Source:
        Zong et al. 2025 (arXiv 2503.12739 and 2505.02366), ICTM; factor 1/2 as in the official code. There a cosine
        below zero counts as 1e-4; here every cosine below 1e-4 does.
    """
    direction = -F.cosine_similarity(first, second, dim=-1).clamp(min=_LEAST_COSINE).log()
    apart = torch.linalg.vector_norm(first_moduli - second_moduli, dim=-1)
    lengths = torch.linalg.vector_norm(first_moduli, dim=-1) + torch.linalg.vector_norm(second_moduli, dim=-1)
    return (direction * scale * apart / lengths).mean()
