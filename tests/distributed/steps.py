"""Two steps of every method, by one process or by one of two ranks: what the tests of several processes compare."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.methods import base
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.debcse import DebCSE
from tests.methods.every import ONE_STEP, overrides_of, with_towers_apart
from tests.methods.test_debcse import prepared
from tests.tiny import gradients, tiny_method, token_rows

LENGTHS = [5] * 20 + [8, 11] * 6 + [32] * 16


@dataclass(frozen=True)
class Steps:
    """What two steps gave.

    Attributes:
        losses: of each step.
        gradients: of every parameter, summed over the steps and averaged over ranks.
        forwards: of the encoder's embedding layer, in this process.
    """

    losses: list[float]
    gradients: dict[str, np.ndarray]
    forwards: int


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How two ranks take the steps.

    Attributes:
        sizes: sentences on each rank.
        split: forward in length-sorted pieces.
        cache_rows: gradient caching.
        accumulate: ranks add up the gradients of both steps before they exchange them, as gradient accumulation does.
    """

    sizes: tuple[int, int] = (24, 24)
    split: bool = False
    cache_rows: int | None = None
    accumulate: bool = False


class LossOnly(nn.Module):
    """What Lightning's strategy wraps: a forward that is the training step."""

    def __init__(self, method: ContrastiveMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: TokenRows) -> Tensor:
        return self.method.loss_of(batch)["loss"]


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


def steps_of_rank(
    rank: int, name: str, folder: Path, setting: Setting, gather: Callable[..., Tensor] | None = None
) -> Steps:
    """What one of two ranks finds, with another gather if one is given."""
    method = built(name, folder, split=setting.split, cache_rows=setting.cache_rows)
    start = sum(setting.sizes[:rank])
    mine = torch.arange(start, start + setting.sizes[rank])
    forwards: list[None] = []
    method.encoder.plain_body.get_input_embeddings().register_forward_pre_hook(lambda *_: forwards.append(None))
    right, overhead = base.gather, (base._PIECE_OVERHEAD_TOKENS, base._PACKED_OVERHEAD)
    base.gather, base._PIECE_OVERHEAD_TOKENS, base._PACKED_OVERHEAD = gather or right, 64, 1
    losses = []
    try:
        model = DistributedDataParallel(LossOnly(method), find_unused_parameters=gather is not None)
        for number, whole in enumerate(batches(method)):
            local = whole.take(mine, length=int(whole.lengths.max()))
            with model.no_sync() if setting.accumulate and number == 0 else nullcontext():
                loss = model(local)
                if loss.requires_grad:
                    loss.backward()
            with torch.no_grad():
                method.finish_step(local)
            losses.append(float(loss.detach()))
    finally:
        base.gather, (base._PIECE_OVERHEAD_TOKENS, base._PACKED_OVERHEAD) = right, overhead
    return Steps(losses, {key: gradient.numpy() for key, gradient in gradients(method).items()}, len(forwards))


@cache
def steps_of_one_process(name: str, folder: Path) -> Steps:
    """The reference: all sentences in one process, in one padded block."""
    method = built(name, folder)
    losses = []
    for whole in batches(method):
        loss = method.loss_of(whole)["loss"]
        loss.backward()
        with torch.no_grad():
            method.finish_step(whole)
        losses.append(float(loss.detach()))
    return Steps(losses, {key: gradient.numpy() for key, gradient in gradients(method).items()}, 1)


def assert_same(found: list[Steps], expected: Steps) -> None:
    """What every rank found is what one process finds: each loss, and the gradient of every parameter."""
    assert max(float(np.abs(gradient).max()) for gradient in expected.gradients.values()) > 1e-3
    for one in found:
        assert one.losses == pytest.approx(expected.losses, abs=1e-8)
        assert one.gradients.keys() == expected.gradients.keys()
        for name, gradient in expected.gradients.items():
            assert float(np.abs(gradient - one.gradients[name]).max()) < 1e-8, name
