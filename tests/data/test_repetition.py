"""Sub-word repetition: what may be repeated, how often, and that it depends on the sentence alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.data.repetition import most_repetitions, repeated_positions, with_repetitions
from tests.tiny import token_rows


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.32, {3: 0, 4: 0, 6: 0, 7: 1, 8: 1, 10: 2, 12: 2, 16: 4, 20: 5, 25: 7, 28: 7, 32: 9}),
        (0.30, {3: 0, 4: 0, 6: 0, 7: 1, 8: 1, 10: 2, 12: 2, 16: 3, 20: 5, 25: 6, 28: 7, 32: 8}),
        (0.28, {3: 0, 4: 0, 6: 0, 7: 0, 8: 1, 10: 1, 12: 2, 16: 3, 20: 4, 25: 6, 28: 6, 32: 7}),
        (0.0, {3: 0, 32: 0}),
    ],
)
def test_most_repetitions_of_the_official_code(rate: float, expected: dict[int, int]) -> None:
    assert {n: most_repetitions(n, rate=rate, rule="official") for n in expected} == expected


def test_most_repetitions_of_the_paper() -> None:
    found = {n: most_repetitions(n, rate=0.32, rule="paper") for n in (2, 3, 4, 6, 12, 32)}
    # int(0.32 * 30) = 9 for 30 tokens and two special ones, as in the code; short sentences repeat more.
    assert found == {2: 0, 3: 1, 4: 2, 6: 2, 12: 3, 32: 9}


@pytest.mark.parametrize(("tokens", "counts"), [(6, {0}), (10, {0, 1, 2}), (32, set(range(10)))])
def test_numbers_of_repeated_tokens_are_equally_likely(tokens: int, counts: set[int]) -> None:
    draws = 20_000
    draw = np.random.default_rng(0)
    found = [repeated_positions(tokens, rate=0.32, rule="official", draw=draw) for _ in range(draws)]
    sizes = np.array([len(positions) for positions in found])
    assert set(sizes) == counts
    p = 1 / len(counts)
    error = 5 * np.sqrt(p * (1 - p) / draws)
    assert all(abs(np.mean(sizes == count) - p) <= error for count in counts)
    # Every interior position is as likely as any other: E[k] / (n - 2).
    hits = np.bincount(np.concatenate(found).astype(int), minlength=tokens) / draws
    expected = (len(counts) - 1) / 2 / (tokens - 2)
    assert hits[0] == hits[-1] == 0
    assert np.abs(hits[1:-1] - expected).max() < 5 * np.sqrt(max(expected, 1e-12) / draws) + 1e-12


@given(st.integers(2, 60), st.floats(0, 0.99), st.sampled_from(["official", "paper"]), st.integers(0, 99))
def test_positions_are_distinct_and_inside(tokens: int, rate: float, rule: str, seed: int) -> None:
    positions = repeated_positions(tokens, rate=rate, rule=rule, draw=np.random.default_rng(seed)).tolist()
    assert positions == sorted(set(positions))
    assert all(0 < position < tokens - 1 for position in positions)
    assert len(positions) <= most_repetitions(tokens, rate=rate, rule=rule)


def test_a_repeated_token_follows_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = token_rows([5, 5])
    rows.ids[0] = rows.ids[1] = torch.tensor([101, 7, 8, 9, 102])
    answers = iter([np.array([1, 3]), np.empty(0, dtype=np.int64)])
    monkeypatch.setattr("cse_bench.data.repetition.repeated_positions", lambda *_, **__: next(answers))
    found = with_repetitions(rows, rate=0.32, rule="official", key=(0,))
    assert found.lengths.tolist() == [7, 5]
    assert found.ids[0].tolist() == [101, 7, 7, 8, 9, 9, 102]
    assert found.ids[1, :5].tolist() == [101, 7, 8, 9, 102]


def test_a_row_may_outgrow_the_truncation_and_keeps_its_order() -> None:
    rows = token_rows([32] * 200)
    found = with_repetitions(rows, rate=0.32, rule="official", key=(1,))
    assert int(found.lengths.max()) == 41
    for before, after, length in zip(rows.ids.tolist(), found.ids.tolist(), found.lengths.tolist(), strict=True):
        left = list(after[:length])
        for token in before:  # what remains after taking the sentence out, in order, is what was said twice
            left.remove(token)
        assert len(left) == length - 32
        assert (after[0], after[length - 1]) == (before[0], before[-1])


def test_repetitions_belong_to_the_sentence_not_to_the_batch() -> None:
    rows = token_rows([20] * 12)
    whole = with_repetitions(rows, rate=0.32, rule="official", key=(3,))
    part = with_repetitions(rows.take(torch.tensor([7, 2]), length=20), rate=0.32, rule="official", key=(3,))
    assert part.lengths.tolist() == whole.lengths[[7, 2]].tolist()
    for row, sentence in enumerate((7, 2)):
        length = int(part.lengths[row])
        assert part.ids[row, :length].tolist() == whole.ids[sentence, :length].tolist()
    other = with_repetitions(rows, rate=0.32, rule="official", key=(4,))
    assert other.lengths.tolist() != whole.lengths.tolist()
