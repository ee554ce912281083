"""Weighted reconstruction of token states: frequent tokens count less.

Shapes: b sentences, l content tokens (padded), d width, t token ids of the vocabulary.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Weighting = Literal["sif", "neglog", "power", "none"]
TargetNorm = Literal["layernorm", "none"]


def token_weights(
    counts: Int[Tensor, " t"], *, weighting: Weighting, sif_a: float, power_alpha: float
) -> Float[Tensor, " t"]:
    r"""A weight in [0, 1] for every token id, the smaller the more frequent the token.

    With the probability p = count / C of the training corpus, C tokens in all:

    .. math::
        \text{sif: } \frac{a}{a + p} \qquad
        \text{neglog: } \frac{-\ln p}{\ln C} \qquad
        \text{power: } \Big(\frac{p_{\min}}{p}\Big)^{\alpha} \qquad
        \text{none: } 1

    A token that never occurs gets weight 1; :math:`p_{\min}` is the smallest probability above zero.

    Args:
        counts: how often each id occurs.
        weighting: one of these.
        sif_a: a of `sif`: the probability whose weight is one half.
        power_alpha: :math:`\alpha` of `power`.

    Returns:
        In float64.

    Source:
        sif: smooth inverse frequency, Arora, Liang and Ma 2017. That frequent tokens count less: Liu et al. 2024 (arXiv
        2402.15153); by which formula is our reading.
    """
    total = counts.sum().clamp(min=1).double()
    p = counts.double() / total
    if weighting == "sif":
        return sif_a / (sif_a + p)
    if weighting == "none":
        return torch.ones_like(p)
    smallest = counts.double().masked_fill(counts == 0, torch.inf).amin() / total
    seen = p.where(counts > 0, smallest if weighting == "power" else 1 / total)
    if weighting == "power":
        # Where nothing occurs at all the quotient is inf / inf.
        return (smallest / seen).pow(power_alpha).nan_to_num(nan=1.0)
    # A corpus of one token has ln C = 0.
    return -seen.log() / total.clamp(min=2).log()


def reconstruction_target(states: Float[Tensor, "b l d"], *, norm: TargetNorm) -> Float[Tensor, "b l d"]:
    """What is to be reconstructed: the states, or each normalised over its features (eps 1e-5, no learnt scale).

    Unnormalised, the few features of huge magnitude in a pretrained model's last layer would own the squared error.
    """
    return F.layer_norm(states, states.shape[-1:], eps=1e-5) if norm == "layernorm" else states


def token_errors(reconstruction: Float[Tensor, "b l d"], target: Float[Tensor, "b l d"]) -> Float[Tensor, "b l"]:
    """Mean squared error of every token over its d features."""
    return (reconstruction - target).square().mean(dim=2)


def weighted_mean(error_sums: Float[Tensor, "*v b"], weight_sums: Float[Tensor, "*v b"]) -> Float[Tensor, "*v"]:
    r"""Mean token error over the sentences of each view, from sums over the tokens of each sentence.

    .. math::
        L = \frac{\sum_{i} m_i\, \omega(t_i)\, \ell_i}{\max(\sum_{i} m_i\, \omega(t_i),\ 10^{-8})}

    over all tokens i of the batch: its scale depends neither on the weights' scale nor on batch or lengths.

    Args:
        error_sums: weighted errors, summed over the tokens of each sentence.
        weight_sums: the weights, likewise.
    """
    return error_sums.sum(dim=-1) / weight_sums.sum(dim=-1).clamp(min=1e-8)


def variance_explained(
    error_sums: Float[Tensor, "*v b"],
    weight_sums: Float[Tensor, "*v b"],
    square_sums: Float[Tensor, "*v b"],
    target_sums: Float[Tensor, "*v b d"],
) -> Float[Tensor, ""]:
    r"""R squared of the reconstruction: 1 for a perfect one, 0 for the weighted mean target at every token.

    .. math::
        R^2 = 1 - \frac{\sum_i \omega_i \ell_i}{\sum_i \omega_i \lVert t_i - \bar t \rVert^2 / d}, \qquad
        \bar t = \frac{\sum_i \omega_i t_i}{\sum_i \omega_i}

    Args:
        error_sums: weighted errors, summed over the tokens of each sentence.
        weight_sums: the weights, likewise.
        square_sums: weighted mean squares of the targets, likewise.
        target_sums: weighted targets, likewise.
    """
    total = weight_sums.sum().clamp(min=1e-8)
    mean = target_sums.flatten(0, -2).sum(dim=0) / total
    variance = square_sums.sum() - total * mean.square().mean()
    return 1 - error_sums.sum() / variance.clamp(min=1e-8)
