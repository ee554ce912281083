import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.pooling import POOLING, first_last_mean

# Worked by hand: two real tokens and one of padding, whose large states show when they leak in.
LAST = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]], dtype=torch.float64)
FIRST = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("cls", [1.0, 2.0]), ("mean", [2.0, 3.0]), ("first_last_mean", [1.5, 2.0]), ("last_token", [3.0, 4.0])],
)
def test_vectors(pooling, expected):
    assert POOLING[pooling](LAST, FIRST, MASK).tolist() == [expected]


@st.composite
def padded_states(draw):
    """Token states with their mask: each row's real tokens at the right or at the left, padding filled with noise."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    width = max(lengths) + draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    real = [torch.randn(2, n, 3, generator=generator, dtype=torch.float64) for n in lengths]
    sides = []
    for side in ("right", "left"):
        states = 100 * torch.randn(2, len(lengths), width, 3, generator=generator, dtype=torch.float64)
        mask = torch.zeros(len(lengths), width, dtype=torch.long)
        for row, (tokens, n) in enumerate(zip(real, lengths, strict=True)):
            where = slice(0, n) if side == "right" else slice(width - n, width)
            states[:, row, where], mask[row, where] = tokens, 1
        sides.append((states[1], states[0], mask))
    return real, sides


@pytest.mark.parametrize("pooling", POOLING)
@settings(max_examples=50, deadline=None)
@given(case=padded_states())
def test_neither_padding_nor_its_side_matters(pooling, case):
    real, (right, left) = case
    oracle = {
        "cls": lambda first, last: last[0],
        "mean": lambda first, last: sum(last) / len(last),
        "first_last_mean": lambda first, last: sum(first + last) / (2 * len(last)),
        "last_token": lambda first, last: last[-1],
    }[pooling]
    expected = torch.stack([oracle(first, last) for first, last in real])
    torch.testing.assert_close(POOLING[pooling](*right), expected)
    torch.testing.assert_close(POOLING[pooling](*left), expected)


def test_nan_in_padding_stays_out_of_a_mean():
    last = LAST.clone()
    last[0, 2] = torch.nan
    assert POOLING["mean"](last, None, MASK).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("pooling", POOLING)
def test_no_gradient_reaches_padding(pooling):
    last, first = LAST.clone().requires_grad_(), FIRST.clone().requires_grad_()
    POOLING[pooling](last, first, MASK).sum().backward()
    assert last.grad[0, 2].tolist() == [0, 0]
    assert last.grad[0, :2].abs().sum() > 0


def test_first_means_the_output_of_layer_one(tiny):
    """SimCSE's code read `hidden_states[0]`, the embedding layer, until January 2022; that is another number."""
    encoder = tiny("tiny_bert", pooling="first_last_mean")
    rows: TokenRows = rows_of(encoder.tokenizer(["a sentence", "and a longer one"], max_length=None))
    ids, mask = rows.padded(pad_token_id=0, side="right")
    with torch.no_grad():
        states = encoder.body(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        vectors = encoder(rows)
    assert len(states) == 3  # embeddings, layer 1, layer 2
    torch.testing.assert_close(vectors, first_last_mean(states[2], states[1], mask))
    assert (vectors - first_last_mean(states[2], states[0], mask)).abs().max() > 0.05
