"""WhitenedCSE on two processes: statistics of all rows give what one process gives, those of each rank do not."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.distributed.pool import Ranks
from tests.methods.test_whitenedcse import SPREAD, slow_loss, whitened_method
from tests.tiny import gradients, token_rows


def distributed_step(rank: int, sizes: tuple[int, int], overrides: tuple[str, ...]) -> tuple[float, dict, float]:
    """Loss, gradients averaged over ranks, and the mark of a skipped step."""
    method = whitened_method(SPREAD, *overrides).eval()
    whole = token_rows([6, 9, 12, 7] * 8)
    start = sum(sizes[:rank])
    local = whole.take(torch.arange(start, start + sizes[rank]), length=12)
    parts = method.loss_of(local)
    parts["loss"].backward()
    found = {}
    for name, gradient in gradients(method).items():
        dist.all_reduce(gradient)
        found[name] = (gradient / 2).numpy()
    return float(parts["loss"].detach()), found, float(parts["skipped"])


@pytest.mark.parametrize("detach", ["true", "false"])
def test_global_statistics_make_two_processes_one(ranks: Ranks, detach: str) -> None:
    overrides = ("method.statistics=global", f"method.detach_whitening={detach}")
    method = whitened_method(SPREAD, *overrides).eval()
    loss = method.loss_of(token_rows([6, 9, 12, 7] * 8))["loss"]
    loss.backward()
    for found_loss, found, _ in ranks.run(distributed_step, (17, 15), overrides):
        assert found_loss == pytest.approx(float(loss.detach()), abs=1e-9)
        assert max(float(np.abs(g.numpy() - found[name]).max()) for name, g in gradients(method).items()) < 1e-8


def test_rank_statistics_are_of_each_process_alone(ranks: Ranks) -> None:
    method = whitened_method(SPREAD).eval()
    with torch.no_grad():
        pooled = method.represent(method.views(token_rows([6, 9, 12, 7] * 8)))["pooled"].unflatten(0, (3, 32))
    expected, one = slow_loss(method, pooled, [17, 15]), slow_loss(method, pooled, [32])
    assert abs(expected - one) > 1e-3
    for loss, _, skipped in ranks.run(distributed_step, (17, 15), ()):
        assert loss == pytest.approx(expected, abs=1e-7)
        assert skipped == 0.0
    for loss, found, skipped in ranks.run(distributed_step, (8, 7), ()):  # the smaller block has too few
        assert (loss, skipped) == (0.0, 1.0)
        assert all(float(np.abs(gradient).max()) == 0.0 for gradient in found.values())
