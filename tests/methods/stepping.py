"""Steps of a method without a trainer."""

import torch
from torch import Tensor

from cse_bench.data.rows import TokenRows
from cse_bench.methods.base import ContrastiveMethod


def step(method: ContrastiveMethod, batch: TokenRows) -> dict[str, Tensor]:
    """The loss of a step and what follows it, in the order of `ContrastiveMethod.training_step`."""
    parts = method.loss_of(batch)
    with torch.no_grad():
        method.finish_step(batch)
    return parts
