"""InfoNCE with hard negatives of every anchor's own, and with logits left out.

Shapes: b anchors, q hard negatives per anchor, d width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cse_bench.losses.info_nce import cosine_matrix
from cse_bench.losses.row_blocks import mean_over_rows


def masked_info_nce(
    anchors: Float[Tensor, "b d"],
    positives: Float[Tensor, "b d"],
    negatives: Float[Tensor, "b q d"],
    *,
    temperature: float,
    left_out: Callable[[slice], Tensor] | None = None,
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
        left_out: anchors -> true where they do not see a candidate, (anchors, b + b * q): the b positives, then the
            hard negatives of every anchor. An anchor's own positive is seen whatever it says. A function, since the
            whole matrix may be too large.
        own_negative_log_weight: :math:`\beta`, added to the logits of the anchor's own negatives.

    Returns:
        The mean loss. With q = 0 and nothing left out it is `info_nce`, to the last bit.

    Source:
        Gao, Yao and Chen 2021 (arXiv 2104.08821), equation 5 and appendix B for hard negatives and their weight;
        leaving out likely false negatives is Miao, Du and Zhang 2023 (arXiv 2309.07396) as read here.
    """
    size, count = negatives.shape[:2]
    candidates = torch.cat([positives, negatives.flatten(0, 1)])
    numbers = torch.arange(size, device=anchors.device)

    def loss_of(rows: slice) -> Tensor:
        logits = cosine_matrix(anchors[rows], candidates) / temperature
        own = numbers[rows].unsqueeze(1) == numbers
        if own_negative_log_weight:
            weight = torch.cat([torch.zeros_like(own), own.repeat_interleave(count, dim=1)], dim=1)
            logits = logits + own_negative_log_weight * weight.to(logits.dtype)
        if left_out is not None:
            kept = torch.cat([own, torch.zeros_like(own).repeat_interleave(count, dim=1)], dim=1)
            logits = logits.masked_fill(left_out(rows) & ~kept, -torch.inf)
        return F.cross_entropy(logits, numbers[rows])

    return mean_over_rows(loss_of, rows=size, columns=len(candidates))
