"""Two processes with b sentences each train exactly as one process with 2b: same loss, same gradient everywhere.

For every method, over two steps, so that the state which a method keeps (a queue, say) counts.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.methods import base
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.debcse import DebCSE
from tests.distributed.pool import Ranks
from tests.methods.every import METHODS, ONE_STEP, overrides_of, with_towers_apart
from tests.methods.test_debcse import prepared
from tests.tiny import gradients, tiny_method, token_rows

LENGTHS = [5] * 20 + [8, 11] * 6 + [32] * 16

WHOLE = ("cse_sfp", "jtcse_distil")  # rows that are mostly prompt, or too few: no pieces worth having

Step = tuple[list[float], dict[str, np.ndarray], int]


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


def built(method: str, folder: Path, *, split: bool = False, cache_rows: int | None = None) -> ContrastiveMethod:
    """In miniature, without dropout: masks differ between ranks by design."""
    if method == "debcse":  # with pairs really mined, or it would be without what makes it different
        return prepared(folder, "method.hard_negatives=2", split=split, cache_rows=cache_rows).eval()
    overrides = (*overrides_of(method), *ONE_STEP.get(method, ()))
    shaken = "+backbone.architecture.initializer_range=0.3"
    return with_towers_apart(tiny_method(*overrides, shaken, split=split, cache_rows=cache_rows)).eval()


def batches(method: ContrastiveMethod) -> list[TokenRows]:
    """Two batches of sentences, in their prompt where the method has one."""
    if isinstance(method, DebCSE) and method.store is not None:
        everything = np.arange(len(LENGTHS))
        return [method.store.rows(everything), replace(method.store.rows(everything[::-1].copy()), epoch=1)]
    prompt = method.encoder.tokenizer.prompt or "{sentence}"
    lead = [ord(letter) + 3 for letter in prompt]
    return [
        rows_of([[*row[:length].tolist(), *lead] for row, length in zip(rows.ids, rows.lengths, strict=True)])
        if len(lead) > len("{sentence}")
        else rows
        for rows in (token_rows(LENGTHS), token_rows(LENGTHS, seed=1))
    ]


def step(
    rank: int,
    name: str,
    folder: Path,
    sizes: tuple[int, int],
    split: bool,
    cache_rows: int | None,
    gather: Callable[..., Tensor] | None,
) -> Step:
    """Losses of two steps, gradients after averaging over ranks, and number of forwards of one rank."""
    method = built(name, folder, split=split, cache_rows=cache_rows)
    start = sum(sizes[:rank])
    mine = torch.arange(start, start + sizes[rank])
    forwards: list[None] = []
    method.encoder.plain_body.get_input_embeddings().register_forward_pre_hook(lambda *_: forwards.append(None))
    right, overhead = base.gather, base._PIECE_OVERHEAD_TOKENS
    base.gather, base._PIECE_OVERHEAD_TOKENS = gather or right, 64
    losses = []
    try:
        model = DistributedDataParallel(LossOnly(method), find_unused_parameters=gather is not None)
        for whole in batches(method):
            local = whole.take(mine, length=int(whole.lengths.max()))
            loss = model(local)
            if loss.requires_grad:
                loss.backward()
            with torch.no_grad():
                method.finish_step(local)
            losses.append(float(loss.detach()))
    finally:
        base.gather, base._PIECE_OVERHEAD_TOKENS = right, overhead
    found = {key: gradient.numpy() for key, gradient in gradients(method).items()}
    return losses, found, len(forwards)


@cache
def one_process(name: str, folder: Path) -> Step:
    """The reference: all sentences in one process, in one padded block."""
    method = built(name, folder)
    losses = []
    for whole in batches(method):
        loss = method.loss_of(whole)["loss"]
        loss.backward()
        with torch.no_grad():
            method.finish_step(whole)
        losses.append(float(loss.detach()))
    return losses, {key: gradient.numpy() for key, gradient in gradients(method).items()}, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is mined."""
    return tmp_path_factory.mktemp("mined")


def largest_gap(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(first[name] - second.get(name, np.zeros(()))).max()) for name in first)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("sizes", "split", "cache_rows"),
    [((24, 24), False, None), ((25, 23), True, None), ((44, 4), True, 8)],
)
def test_two_processes_equal_one(
    ranks: Ranks, folder: Path, method: str, sizes: tuple[int, int], split: bool, cache_rows: int | None
) -> None:
    losses, expected, _ = one_process(method, folder)
    assert max(float(np.abs(gradient).max()) for gradient in expected.values()) > 1e-3
    results = ranks.run(step, method, folder, sizes, split, cache_rows, None)
    for found_losses, found, _ in results:
        assert found_losses == pytest.approx(losses, abs=1e-8)
        assert found.keys() == expected.keys()
        assert largest_gap(expected, found) < 1e-8
    assert (max(forwards for _, _, forwards in results) > 2) == (
        cache_rows is not None or (split and method not in WHOLE)
    )


@pytest.mark.parametrize("wrong", [without_gradient, own_slice_only, no_gather])
def test_a_wrong_gather_is_noticed(ranks: Ranks, folder: Path, wrong: Callable[..., Tensor]) -> None:
    """The comparison above has teeth: each of these was somebody's implementation once."""
    _, expected, _ = one_process("simcse", folder)
    for _, found, _ in ranks.run(step, "simcse", folder, (24, 24), False, None, wrong):
        assert largest_gap(expected, found) > 1e-4
