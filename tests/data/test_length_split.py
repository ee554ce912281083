from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cse_bench.data.length_split import length_pieces

lengths_up_to = st.lists(st.integers(1, 60), min_size=1, max_size=100)


def cost(pieces, overhead):
    return sum(len(piece.rows) * piece.length + overhead for piece in pieces)


def least_cost(lengths, overhead):
    """Every way to cut the sorted rows at multiples of 16, tried out."""
    ordered, n = sorted(lengths), len(lengths)
    places = range(16, n, 16)
    best = None
    for k in range(len(places) + 1):
        for cuts in combinations(places, k):
            total = 0
            for start, end in zip((0, *cuts), (*cuts, n), strict=True):
                columns = min(-(-ordered[end - 1] // 8) * 8, ordered[-1])
                total += (end - start) * columns + overhead
            best = total if best is None else min(best, total)
    return best


@settings(max_examples=150, deadline=None)
@given(lengths=lengths_up_to, overhead=st.sampled_from([0, 1, 50, 300, 1024, 10**6]))
def test_the_cost_is_least_over_all_cuts(lengths, overhead):
    pieces = length_pieces(torch.tensor(lengths), overhead_tokens=overhead)
    assert cost(pieces, overhead) == least_cost(lengths, overhead)


@settings(max_examples=150, deadline=None)
@given(lengths=lengths_up_to, overhead=st.integers(0, 2000))
def test_pieces_are_all_rows_once_sorted_and_covered(lengths, overhead):
    pieces = length_pieces(torch.tensor(lengths), overhead_tokens=overhead)
    rows = torch.cat([piece.rows for piece in pieces]).tolist()
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for piece in pieces:
        assert max(lengths[row] for row in piece.rows.tolist()) <= piece.length <= max(lengths)


@settings(max_examples=100, deadline=None)
@given(lengths=lengths_up_to, overhead=st.integers(0, 2000))
def test_shapes_are_few(lengths, overhead):
    pieces = length_pieces(torch.tensor(lengths), overhead_tokens=overhead)
    assert all(len(piece.rows) % 16 == 0 for piece in pieces[:-1])
    assert all(piece.length % 8 == 0 or piece.length == max(lengths) for piece in pieces)


def test_equal_lengths_stay_in_order():
    pieces = length_pieces(torch.full((40,), 12), overhead_tokens=0)
    assert torch.cat([piece.rows for piece in pieces]).tolist() == list(range(40))
    assert {piece.length for piece in pieces} == {12}


def test_a_dear_piece_leaves_one():
    [piece] = length_pieces(torch.arange(1, 101), overhead_tokens=10**9)
    assert (len(piece.rows), piece.length) == (100, 100)


def test_free_pieces_are_as_small_as_allowed():
    pieces = length_pieces(torch.arange(1, 129), overhead_tokens=0)
    assert [piece.length for piece in pieces] == [16, 32, 48, 64, 80, 96, 112, 128]


def test_one_row():
    [piece] = length_pieces(torch.tensor([13]), overhead_tokens=5)
    assert (piece.rows.tolist(), piece.length) == ([0], 13)


@pytest.mark.parametrize("n", [15, 16, 17, 32, 33])
def test_sizes_around_a_step(n):
    lengths = torch.arange(n, 0, -1)
    pieces = length_pieces(lengths, overhead_tokens=1)
    assert cost(pieces, 1) == least_cost(lengths.tolist(), 1)
