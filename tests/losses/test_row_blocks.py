"""Losses in blocks of rows: the same value and gradients as in one, and memory that does not grow with the square."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cse_bench.losses import row_blocks
from cse_bench.losses.info_nce import info_nce
from cse_bench.losses.masked_info_nce import masked_info_nce
from cse_bench.losses.twin_tower import partner_nce
from cse_bench.training.memory import LiveBytes


def masked(anchors: Tensor, candidates: Tensor) -> Tensor:
    size = len(anchors)
    hidden = torch.rand(size, 2 * size, generator=torch.Generator().manual_seed(3)) < 0.3
    return masked_info_nce(
        anchors,
        candidates,
        candidates.flip(0).unsqueeze(1),
        temperature=0.1,
        left_out=lambda rows: hidden[rows],
        own_negative_log_weight=0.5,
    )


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "info_nce": lambda anchors, candidates: info_nce(anchors, candidates, temperature=0.1),
    "info_nce with a queue": lambda x, y: info_nce(x, torch.cat([y, y.detach().flip(0)]), temperature=0.1),
    "partner_nce": lambda anchors, candidates: partner_nce(anchors, candidates, temperature=0.1),
    "masked_info_nce": masked,
}


def vectors(rows: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn(rows, 8, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    return first, second


def value_and_gradients(name: str, rows: int) -> tuple[float, list[Tensor]]:
    first, second = vectors(rows)
    loss = LOSSES[name](first, second)
    loss.backward()
    return float(loss.detach()), [first.grad, second.grad]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("most_scores", [1, 40, 100])  # a row at a time; blocks that do not come out even
def test_blocks_change_nothing(name: str, most_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    value, gradients = value_and_gradients(name, 14)
    monkeypatch.setattr(row_blocks, "MOST_SCORES", most_scores)
    assert len(list(row_blocks.row_blocks(14, columns=14))) > 1
    found, found_gradients = value_and_gradients(name, 14)
    assert found == pytest.approx(value, abs=1e-12)
    for one, other in zip(found_gradients, gradients, strict=True):
        assert float(other.abs().max()) > 1e-3
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def peak(name: str, rows: int) -> int:
    first, second = vectors(rows)
    with LiveBytes([first, second]) as live:
        LOSSES[name](first, second).backward()
    return live.peak


@pytest.mark.parametrize("name", ["info_nce", "partner_nce"])
def test_memory_grows_with_the_rows_and_not_with_their_square(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak(name, 1024) > 3 * peak(name, 512)
    monkeypatch.setattr(row_blocks, "MOST_SCORES", 2**12)
    assert peak(name, 1024) < 2.2 * peak(name, 512)


def test_blocks_cover_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "MOST_SCORES", 64)
    for rows, columns in ((1, 1), (7, 10), (8, 64), (3, 1000), (64, 1)):
        blocks = list(row_blocks.row_blocks(rows, columns=columns))
        assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
        assert all((block.stop - block.start) * columns <= 64 or block.stop - block.start == 1 for block in blocks)
