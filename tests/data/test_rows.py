from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.data.rows import TokenRows, rows_of, stacked

token_lists = st.lists(st.lists(st.integers(1, 999), min_size=1, max_size=9), min_size=1, max_size=6)


def content(rows: TokenRows) -> list[list[int]]:
    """The real tokens of every row."""
    return [ids[:length].tolist() for ids, length in zip(rows.ids, rows.lengths, strict=True)]


def test_rows_of():
    rows = rows_of([[5, 6], [7], [8, 9, 10]])
    assert rows.ids.tolist() == [[5, 6, 0], [7, 0, 0], [8, 9, 10]]
    assert rows.lengths.tolist() == [2, 1, 3]
    assert rows.sentence.tolist() == [0, 1, 2]
    assert rows.view.tolist() == [0, 0, 0]
    assert (len(rows), rows.num_views) == (3, 1)
    assert rows.mask().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[5, 6, 99], [7, 99, 99], [8, 9, 10]], [[1, 1, 0], [1, 0, 0], [1, 1, 1]]),
        ("left", [[99, 5, 6], [99, 99, 7], [8, 9, 10]], [[0, 1, 1], [0, 0, 1], [1, 1, 1]]),
    ],
)
def test_padded(side, ids, mask):
    found = rows_of([[5, 6], [7], [8, 9, 10]]).padded(pad_token_id=99, side=side)
    assert [tensor.tolist() for tensor in found] == [ids, mask]


@given(tokens=token_lists, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 3))
def test_padding_keeps_every_token_in_order(tokens, side, extra):
    rows = rows_of(tokens)
    wider = torch.cat([rows.ids, torch.full((len(tokens), extra), 1234)], dim=1)
    ids, mask = TokenRows(wider, rows.lengths, rows.sentence, rows.view).padded(pad_token_id=0, side=side)
    assert [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)] == tokens
    assert (ids[mask == 0] == 0).all()
    edge = -1 if side == "left" else 0
    assert mask[:, edge].all()
    assert (mask.diff(dim=1) * (1 if side == "left" else -1) >= 0).all()  # one block of padding


@given(tokens=token_lists, views=st.integers(1, 3))
def test_repeat_is_view_major(tokens, views):
    rows = rows_of(tokens).repeat(views)
    b = len(tokens)
    assert rows.num_views == views
    assert content(rows) == tokens * views
    assert rows.view.tolist() == [view for view in range(views) for _ in range(b)]
    assert rows.sentence.tolist() == list(range(b)) * views
    # What a method relies on: unflattening gives [view, sentence].
    assert torch.equal(rows.ids.unflatten(0, (views, b))[-1], rows_of(tokens).ids)


@given(data=st.data(), tokens=token_lists)
def test_take(data, tokens):
    index = data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=8))
    longest = max(len(tokens[i]) for i in index)
    rows = rows_of(tokens)
    rows = TokenRows(rows.ids, rows.lengths, rows.sentence + 100, rows.view + 1, num_views=2)
    taken = rows.take(torch.tensor(index), length=longest)
    assert content(taken) == [tokens[i] for i in index]
    assert taken.ids.shape == (len(index), longest)
    assert taken.sentence.tolist() == [100 + i for i in index]
    assert set(taken.view.tolist()) == {1}


def test_moving_keeps_at_hand_what_the_rows_are():
    """The meta device stands for any other: the ids move there, all else can still be read here."""
    rows = rows_of([[5, 6], [7]]).repeat(2).to("meta")
    assert rows.ids.device.type == "meta"
    assert rows.lengths.tolist() == [2, 1, 2, 1]
    assert rows.sentence.tolist() == [0, 1, 0, 1]
    assert rows.view.tolist() == [0, 0, 1, 1]
    assert rows.num_views == 2
    assert rows.take(torch.tensor([1, 3]), length=1).ids.shape == (2, 1)
    assert rows.mask().device.type == "meta"


def test_blocks_of_different_lengths_are_stacked_as_views():
    rows = stacked([replace(rows_of([[5, 6], [7]]), epoch=3), rows_of([[5, 6, 6, 6], [7, 7]])])
    assert rows.ids.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [5, 6, 6, 6], [7, 7, 0, 0]]
    assert rows.lengths.tolist() == [2, 1, 4, 2]
    assert rows.sentence.tolist() == [0, 1, 0, 1]
    assert rows.view.tolist() == [0, 0, 1, 1]
    assert (rows.num_views, rows.epoch) == (2, 3)
