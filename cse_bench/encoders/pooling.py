"""Pooling: from token states to one sentence vector. Pure functions; no result depends on the padding or its side.

Shapes: b sentences, l tokens (padded), d width. `mask` is the attention mask, 1 for real tokens, special ones included.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def _take(states: Tensor, position: Tensor) -> Tensor:
    return states[torch.arange(states.shape[0], device=states.device), position]


def cls(last: Tensor, first: Tensor | None, mask: Tensor) -> Tensor:
    """The state of the first real token, before any pretrained pooler. (b, l, d) -> (b, d).

    Gao et al. 2021 (arXiv 2104.08821) call it `cls_before_pooler`.
    """
    return _take(last, mask.long().argmax(dim=1))


def mean(last: Tensor, first: Tensor | None, mask: Tensor) -> Tensor:
    """The mean over real tokens of the last layer. (b, l, d) -> (b, d)."""
    weights = mask.unsqueeze(-1).to(last.dtype)
    return (last * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def first_last_mean(last: Tensor, first: Tensor | None, mask: Tensor) -> Tensor:
    """The mean over real tokens of the average of layer 1 and the last layer. (b, l, d) -> (b, d).

    `first` is the output of the first transformer layer (`hidden_states[1]`). SimCSE's code took the embedding layer
    (`hidden_states[0]`) until January 2022, and so do the numbers printed in table 5 of the paper.
    """
    assert first is not None, "first_last_mean needs the states of layer 1"
    return mean((first + last) / 2, None, mask)


def last_token(last: Tensor, first: Tensor | None, mask: Tensor) -> Tensor:
    """The state of the last real token: the only one of a causal model that has seen the whole sentence. (b, l, d) -> (b, d)."""
    length = mask.shape[1]
    return _take(last, length - 1 - mask.long().flip(dims=(1,)).argmax(dim=1))


POOLING: dict[str, Callable[[Tensor, Tensor | None, Tensor], Tensor]] = {
    "cls": cls,
    "mean": mean,
    "first_last_mean": first_last_mean,
    "last_token": last_token,
}
