"""The comparison of test_methods.py has teeth: with a wrong gather it fails, for every method.

Each of these was somebody's implementation once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from cse_bench.methods import esimcse
from tests.distributed.pool import RANKS, Ranks
from tests.distributed.steps import Setting, Steps, assert_same, steps_of_one_process, steps_of_rank
from tests.methods.every import METHODS


def without_gradient(local: Tensor, *, dim: int) -> Tensor:
    """`torch.distributed.all_gather` as it is: nothing that was gathered has a gradient, one's own slice included."""
    received = [torch.empty_like(local) for _ in range(RANKS)]
    dist.all_gather(received, local.contiguous())
    return torch.cat(received, dim=dim)


def own_slice_only(local: Tensor, *, dim: int) -> Tensor:
    """The usual repair: the local block is put back with its gradient, the others stay detached."""
    received = list(without_gradient(local.detach(), dim=dim).split(local.shape[dim], dim=dim))
    received[dist.get_rank()] = local
    return torch.cat(received, dim=dim)


def exact_but(local: Tensor, dim: int, backward: Callable[[Tensor], Tensor]) -> Tensor:
    """Joined as it should be; the gradient of the local block is `backward` of the sum over ranks of all gradients."""

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, block: Tensor) -> Tensor:
            return without_gradient(block, dim=dim)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            total = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(total)
            return backward(total)

    return Gather.apply(local) if local.requires_grad else without_gradient(local, dim=dim)


def mean_over_ranks(local: Tensor, *, dim: int) -> Tensor:
    """Averaged over ranks here, and once more by DDP, which is not made up for."""
    return exact_but(local, dim, lambda total: total.chunk(RANKS, dim=dim)[dist.get_rank()] / RANKS)


def slice_of_rank_0(local: Tensor, *, dim: int) -> Tensor:
    """Every rank takes the gradient of the first block."""
    return exact_but(local, dim, lambda total: total.chunk(RANKS, dim=dim)[0])


def no_gather(local: Tensor, *, dim: int) -> Tensor:
    """Each rank's own negatives only."""
    return local


def right(local: Tensor, *, dim: int) -> Tensor:
    """The project's own, to show that nothing else makes the comparison fail."""
    from cse_bench.training.gather import gather

    return gather(local, dim=dim)


def with_gathers(rank: int, method: str, folder: Path, gathers: list[Callable[..., Tensor]]) -> list[Steps]:
    return [steps_of_rank(rank, method, folder, Setting(), gather) for gather in gathers]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "gathers",
    [
        pytest.param([own_slice_only], id="own slice only"),
        pytest.param(
            [right, without_gradient, mean_over_ranks, slice_of_rank_0, no_gather], id="others", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wrong_gather_is_noticed(
    ranks: Ranks, mined: Path, method: str, gathers: list[Callable[..., Tensor]]
) -> None:
    expected = steps_of_one_process(method, mined)
    for gather, *found in zip(gathers, *ranks.run(with_gathers, method, mined, gathers), strict=True):
        if gather is right:
            assert_same(found, expected)
        else:
            with pytest.raises(AssertionError):
                assert_same(found, expected)
                pytest.fail(f"{gather.__name__} was not noticed")  # an outcome of its own, not an AssertionError


def with_queue_of_rank(rank: int, folder: Path) -> Steps:
    """What enters the queue is not gathered."""
    right = esimcse.gather
    esimcse.gather = no_gather
    try:
        return steps_of_rank(rank, "esimcse", folder, Setting())
    finally:
        esimcse.gather = right


def test_a_queue_of_each_rank_is_noticed(ranks: Ranks, mined: Path) -> None:
    with pytest.raises(AssertionError):
        assert_same(ranks.run(with_queue_of_rank, mined), steps_of_one_process("esimcse", mined))
