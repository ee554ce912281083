"""The gather between two real processes: values in rank order, gradients exact, uneven blocks."""

import numpy as np
import pytest
import torch

from cse_bench.training.gather import gather, objects_of_ranks, world_size
from tests.distributed.pool import Ranks


def blocks(sizes: tuple[int, int], dim: int) -> list[torch.Tensor]:
    """Each rank's block of the same random tensor, (2, sum of sizes, 3) with the sentences at `dim`."""
    draw = torch.Generator().manual_seed(0)
    shape = [2, 4, 3]
    shape[dim] = sum(sizes)
    return list(torch.randn(shape, generator=draw, dtype=torch.float64).split(list(sizes), dim=dim))


def loss_of(joined: torch.Tensor) -> torch.Tensor:
    """Something in which every number of the joined tensor matters to every other one."""
    flat = joined.reshape(-1)
    return (flat.outer(flat).sin() * torch.arange(len(flat), dtype=torch.float64)).sum()


def gathered(rank: int, sizes: tuple[int, int], dim: int) -> tuple[np.ndarray, np.ndarray]:
    local = blocks(sizes, dim)[rank].clone().requires_grad_()
    joined = gather(local, dim=dim)
    loss_of(joined).backward()
    return joined.detach().numpy(), local.grad.numpy()


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(3, 3), (5, 2), (1, 4)])
def test_joined_in_rank_order_with_the_sum_of_the_ranks_gradients(
    ranks: Ranks, sizes: tuple[int, int], dim: int
) -> None:
    whole = torch.cat(blocks(sizes, dim), dim=dim).requires_grad_()
    loss_of(whole).backward()
    expected = whole.grad.split(list(sizes), dim=dim)
    for rank, (joined, gradient) in enumerate(ranks.run(gathered, sizes, dim)):
        assert np.array_equal(joined, whole.detach().numpy())
        # Both ranks compute the same loss, so the sum over ranks is twice the gradient; averaging makes it one.
        assert np.allclose(gradient, 2 * expected[rank].numpy(), rtol=0, atol=1e-10)
        assert np.abs(gradient).max() > 0.1


def objects(rank: int) -> tuple[int, list[int]]:
    return world_size(), objects_of_ranks(10 + rank)


def test_objects_come_in_rank_order(ranks: Ranks) -> None:
    assert ranks.run(objects) == [(2, [10, 11])] * 2
