"""Pooling: from token states to one sentence vector. Pure functions; no result depends on the padding or its side.

Shapes: b sentences, l tokens (padded), d width. `mask` is the attention mask, 1 for real tokens, special ones included.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

States = Float[Tensor, "b l d"]
Mask = Int[Tensor, "b l"]
Vectors = Float[Tensor, "b d"]


def cls(last: States, first: States | None, mask: Mask) -> Vectors:
    """The state of the first real token, before any pretrained pooler.

    Gao et al. 2021 (arXiv 2104.08821) call it `cls_before_pooler`.
    """
    return _take(last, mask.argmax(dim=1))


def mean(last: States, first: States | None, mask: Mask) -> Vectors:
    """The mean over real tokens of the last layer."""
    real = mask.bool().unsqueeze(-1)
    # Filled, not multiplied by zero: a kernel may leave NaN where a padding token attends to nothing.
    return last.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def first_last_mean(last: States, first: States | None, mask: Mask) -> Vectors:
    """The mean over real tokens of the average of layer 1 and the last layer.

    `first` is the output of the first transformer layer (`hidden_states[1]`). SimCSE's code took the embedding layer
    (`hidden_states[0]`) until January 2022, and so do the numbers printed in table 5 of the paper.
    """
    assert first is not None, "first_last_mean needs the states of layer 1"
    return mean((first + last) / 2, None, mask)


def last_token(last: States, first: States | None, mask: Mask) -> Vectors:
    """The state of the last real token: the only one of a causal model that has seen the whole sentence."""
    return from_end(last, mask, 0)


def from_end(states: States, mask: Mask, distance: int) -> Vectors:
    """The state of the real token that has `distance` real tokens after it (0: the last one)."""
    return _take(states, mask.shape[1] - 1 - mask.flip(dims=(1,)).argmax(dim=1) - distance)


def _take(states: States, position: Int[Tensor, " b"]) -> Vectors:
    return states[torch.arange(states.shape[0], device=states.device), position]


POOLING: dict[str, Callable[[Tensor, Tensor | None, Tensor], Tensor]] = {
    "cls": cls,
    "mean": mean,
    "first_last_mean": first_last_mean,
    "last_token": last_token,
}
