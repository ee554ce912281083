"""Gathering rows over ranks with exact gradients. The one function by which negatives cross processes.

`torch.distributed.all_gather` carries no gradient, and putting the local slice back with its gradient gives 1/w of the
true one.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class _AllGather(torch.autograd.Function):
    """Forward: the blocks of all ranks, joined. Backward: the sum over ranks of the gradient of this rank's block."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, sizes: tuple[int, ...], dim: int) -> Tensor:
        ctx.sizes, ctx.dim = sizes, dim
        moved = local.movedim(dim, 0).contiguous()
        # Ranks may hold different numbers of rows (the last batch of an epoch): all send as many as the largest has,
        # and the rest is cut off.
        sent = moved.new_zeros((max(sizes), *moved.shape[1:]))
        sent[: moved.shape[0]] = moved
        received = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(received, sent)
        return torch.cat([block[:size] for block, size in zip(received, sizes, strict=True)]).movedim(0, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)  # the sum is taken in place
        dist.all_reduce(gradient)
        start = sum(ctx.sizes[: dist.get_rank()])
        return gradient.narrow(ctx.dim, start, ctx.sizes[dist.get_rank()]), None, None


def world_size() -> int:
    """Number of ranks, w; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(local: Tensor, *, dim: int) -> Tensor:
    """Joins the blocks of all ranks along `dim`, in rank order, with exact gradients.

    Every rank computes the same loss of the joined rows. The gradient of a local row is the sum of its gradients over
    ranks, that is w times the true one; data-parallel training averages parameter gradients over ranks, which gives
    exactly the gradient of one process with the joined batch.

    Args:
        local: this rank's block; blocks may differ in size along `dim` only.
        dim: the axis of the sentences.
    """
    if world_size() == 1:
        return local
    size = torch.tensor([local.shape[dim]], device=local.device)
    sizes = [torch.empty_like(size) for _ in range(world_size())]
    dist.all_gather(sizes, size)
    joined: Tensor = _AllGather.apply(local, tuple(int(s) for s in sizes), dim)
    return joined


def objects_of_ranks(value: T) -> list[T]:
    """What every rank gave, in rank order: small things such as counts. All ranks must call it together."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
