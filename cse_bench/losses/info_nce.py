"""InfoNCE: the contrastive loss that every method here builds on.

Shapes: b anchors, c candidates (c >= b), d width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cse_bench.losses.row_blocks import mean_over_rows


def cosine_matrix(anchors: Float[Tensor, "b d"], candidates: Float[Tensor, "c d"]) -> Float[Tensor, "b c"]:
    """Cosine of every anchor with every candidate."""
    return F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T


def info_nce(
    anchors: Float[Tensor, "b d"], candidates: Float[Tensor, "c d"], *, temperature: float
) -> Float[Tensor, ""]:
    r"""Softmax cross-entropy over cosines; candidate i is the positive of anchor i, all others are its negatives.

    .. math::
        \ell = \frac{1}{b} \sum_{i=1}^{b}
            \Big[ \log \sum_{j=1}^{c} e^{\cos(a_i, c_j) / \tau} - \cos(a_i, c_i) / \tau \Big]

    One direction only: candidates are never anchors. Cosines and softmax are taken in the dtype given; give float32 or
    better, since a bfloat16 step of 0.004 in a cosine becomes 0.08 after division by a temperature of 0.05.

    Args:
        anchors: b vectors, not normalised.
        candidates: the b positives in the order of the anchors, then c - b further negatives, not normalised.
        temperature: :math:`\tau`.

    Returns:
        The mean loss. All rows equal gives log c; b = c = 1 gives 0.

    Source:
        Gao, Yao and Chen 2021 (arXiv 2104.08821), equation 4; van den Oord et al. 2018 (arXiv 1807.03748).
    """
    targets = torch.arange(anchors.shape[0], device=anchors.device)

    def loss_of(rows: slice) -> Tensor:
        return F.cross_entropy(cosine_matrix(anchors[rows], candidates) / temperature, targets[rows])

    return mean_over_rows(loss_of, rows=anchors.shape[0], columns=candidates.shape[0])
