"""The gather in one process, where it must do nothing; two processes are in tests/distributed."""

import torch

from cse_bench.training.gather import gather, objects_of_ranks, world_size


def test_one_process_is_a_world_of_its_own() -> None:
    assert world_size() == 1
    assert objects_of_ranks({"a": 1}) == [{"a": 1}]


def test_gather_in_one_process_is_the_tensor_itself() -> None:
    local = torch.ones(2, 3, requires_grad=True)
    joined = gather(local, dim=1)
    assert joined is local
    joined.sum().backward()
    assert torch.equal(local.grad, torch.ones(2, 3))
