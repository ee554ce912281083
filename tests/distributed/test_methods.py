"""Two processes with b sentences each train exactly as one process with 2b: same loss, same gradient everywhere."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cse_bench.data.rows import TokenRows
from cse_bench.methods import base
from cse_bench.methods.base import ContrastiveMethod
from tests.distributed.pool import Ranks
from tests.tiny import gradients, tiny_method, token_rows

LENGTHS = [5] * 30 + [8, 11] * 5 + [110] * 8

Step = tuple[float, dict[str, np.ndarray], int]


class LossOnly(nn.Module):
    """What Lightning's strategy wraps: a forward that is the training step."""

    def __init__(self, method: ContrastiveMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: TokenRows) -> Tensor:
        return self.method.loss_of(batch)["loss"]


def without_gradient(local: Tensor, *, dim: int) -> Tensor:
    """As `torch.distributed.all_gather` does it."""
    received = [torch.empty_like(local) for _ in range(2)]
    dist.all_gather(received, local.contiguous())
    return torch.cat(received, dim=dim)


def own_slice_only(local: Tensor, *, dim: int) -> Tensor:
    """The usual repair: the local block is put back with its gradient, which gives half of the true one."""
    received = list(without_gradient(local.detach(), dim=dim).split(local.shape[dim], dim=dim))
    received[dist.get_rank()] = local
    return torch.cat(received, dim=dim)


def no_gather(local: Tensor, *, dim: int) -> Tensor:
    """Each rank's own negatives only."""
    return local


def step(rank: int, sizes: tuple[int, int], split: bool, gather: Callable[..., Tensor] | None) -> Step:
    """Loss, gradients after averaging over ranks, and number of forwards of one rank."""
    method = tiny_method("+backbone.architecture.initializer_range=0.3", split=split).eval()  # no dropout
    whole = token_rows(LENGTHS)
    start = sum(sizes[:rank])
    local = whole.take(torch.arange(start, start + sizes[rank]), length=int(whole.lengths.max()))
    forwards: list[None] = []
    method.encoder.register_forward_pre_hook(lambda module, arguments: forwards.append(None))
    right = base.gather
    base.gather = gather or right
    try:
        model = DistributedDataParallel(LossOnly(method), find_unused_parameters=gather is not None)
        loss = model(local)
        if loss.requires_grad:
            loss.backward()
    finally:
        base.gather = right
    found = {name: gradient.numpy() for name, gradient in gradients(method).items()}
    return float(loss.detach()), found, len(forwards)


@pytest.fixture(scope="module")
def one_process() -> Step:
    """The reference: all sentences in one process, in one padded block."""
    method = tiny_method("+backbone.architecture.initializer_range=0.3").eval()
    loss = method.loss_of(token_rows(LENGTHS))["loss"]
    loss.backward()
    return float(loss.detach()), {name: gradient.numpy() for name, gradient in gradients(method).items()}, 1


def largest_gap(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(first[name] - second.get(name, np.zeros(()))).max()) for name in first)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("sizes", [(24, 24), (25, 23), (47, 1)])
def test_two_processes_equal_one(ranks: Ranks, one_process: Step, sizes: tuple[int, int], split: bool) -> None:
    loss, expected, _ = one_process
    assert max(float(np.abs(gradient).max()) for gradient in expected.values()) > 1e-3
    results = ranks.run(step, sizes, split, None)
    for found_loss, found, _ in results:
        assert found_loss == pytest.approx(loss, abs=1e-8)
        assert found.keys() == expected.keys()
        assert largest_gap(expected, found) < 1e-8
    assert (max(forwards for _, _, forwards in results) > 1) == split


@pytest.mark.parametrize("wrong", [without_gradient, own_slice_only, no_gather])
def test_a_wrong_gather_is_noticed(ranks: Ranks, one_process: Step, wrong: Callable[..., Tensor]) -> None:
    """The comparison above has teeth: each of these was somebody's implementation once."""
    _, expected, _ = one_process
    for _, found, _ in ranks.run(step, (24, 24), False, wrong):
        assert largest_gap(expected, found) > 1e-4
