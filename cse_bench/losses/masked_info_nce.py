"""InfoNCE with hard negatives of every anchor's own, and with logits left out.

Shapes: b anchors, q hard negatives per anchor, d width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cse_bench.losses.info_nce import cosine_matrix


def masked_info_nce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    negatives: Float[Tensor, "b q d"],
    *,
    temperature: float,
    positives_left_out: Bool[Tensor, "b b"] | None = None,
    negatives_left_out: Bool[Tensor, "b b q"] | None = None,
    own_negative_log_weight: float = 0.0,
) -> Float[Tensor, ""]:
    r"""Softmax cross-entropy over the cosines with all positives and all hard negatives, less those left out.

    .. math::
        \ell = -\frac{1}{b} \sum_i \log \frac{e^{\cos(a_i, p_i) / \tau}}
            {\sum_j m_{ij} e^{\cos(a_i, p_j) / \tau}
             + \sum_j \sum_q n_{ijq} e^{\cos(a_i, h_{jq}) / \tau + \beta [i = j]}}

    with m and n zero where a logit is left out. :math:`m_{ii} = 1` always: without it the anchor's own positive would
    not be in the denominator and the loss had no lower bound.

    Args:
        anchors: b vectors, not normalised.
        positives: positive i belongs to anchor i and is a negative of all others.
        negatives: the hard negatives of every anchor; negatives of all others too. q may be 0.
        temperature: :math:`\tau`.
        positives_left_out: true where anchor i does not see positive j; the diagonal is ignored.
        negatives_left_out: true where anchor i does not see negative q of anchor j.
        own_negative_log_weight: :math:`\beta`, added to the logits of the anchor's own negatives.

    Returns:
        The mean loss. With q = 0 and nothing left out it is `info_nce`, to the last bit.

    Source:
        Gao, Yao and Chen 2021 (arXiv 2104.08821), equation 5 and appendix B for hard negatives and their weight;
        leaving out likely false negatives is Miao, Du and Zhang 2023 (arXiv 2309.07396) as read here.
    """
    size, count = negatives.shape[:2]
    logits = cosine_matrix(anchors, torch.cat([positives, negatives.flatten(0, 1)])) / temperature
    own = torch.eye(size, dtype=torch.bool, device=logits.device)
    if own_negative_log_weight:
        weight = torch.cat([torch.zeros_like(own), own.repeat_interleave(count, dim=1)], dim=1)
        logits = logits + own_negative_log_weight * weight.to(logits.dtype)
    left_out = []
    if positives_left_out is not None or negatives_left_out is not None:
        none = torch.zeros_like(own)
        left_out.append(none if positives_left_out is None else positives_left_out & ~own)
        if negatives_left_out is None:
            left_out.append(none.repeat_interleave(count, dim=1))
        else:
            left_out.append(negatives_left_out.flatten(1))
        logits = logits.masked_fill(torch.cat(left_out, dim=1), -torch.inf)
    return F.cross_entropy(logits, torch.arange(size, device=logits.device))
