"""Surface similarity against numbers worked out by hand and slow definitions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.errors import DataError
from cse_bench.mining.surface import surface_similarity
from cse_bench.mining.words import Words, read_words

FIRST = "a man is playing a guitar"
BY_HAND = {  # other sentence: (edit distance, u of edit, u of jaccard)
    FIRST: (0, 1.0, 1.0),
    "a man plays the guitar": (3, 0.5, 0.42857143),
    "a man is eating a guitar": (1, 0.83333333, 0.66666667),
    "someone performs music": (6, 0.0, 0.0),
    "a a man is is playing a guitar": (2, 0.75, 1.0),
    "guitar a playing is man a": (4, 0.33333333, 1.0),
}
NAMES = ["edit", "jaccard", "bigram_dice", "idf_jaccard"]


def of(name: str, sentences: list[str]) -> np.ndarray:
    """All pairs, (n, n)."""
    similarity = surface_similarity(name, read_words(sentences))
    first, second = np.indices((len(sentences), len(sentences))).reshape(2, -1)
    return similarity(first, second).reshape(len(sentences), -1)


@pytest.mark.parametrize(("name", "column"), [("edit", 1), ("jaccard", 2)])
def test_equals_the_hand_computed_similarities(name: str, column: int) -> None:
    found = of(name, [FIRST, *list(BY_HAND)[1:]])
    assert found[0].tolist() == pytest.approx([row[column] for row in BY_HAND.values()], abs=1e-7)
    assert np.array_equal(found, found.T)


def levenshtein(first: list[str], second: list[str]) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        above, row = row, [i]
        for j, b in enumerate(second, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def slow(name: str, first: str, second: str, corpus: list[str]) -> float:
    a, b = first.split(), second.split()
    if name == "edit":
        return 1 - levenshtein(a, b) / max(len(a), len(b)) if a or b else 0.0
    if name == "bigram_dice":
        x, y = set(pairwise(a)), set(pairwise(b))
        return 2 * len(x & y) / (len(x) + len(y)) if x or y else 0.0
    texts = {tuple(line.split()) for line in corpus}
    weight = {
        word: math.log((1 + len(texts)) / (1 + sum(word in text for text in texts))) if name == "idf_jaccard" else 1.0
        for word in {*a, *b}
    }
    union = sum(weight[word] for word in {*a, *b})
    return sum(weight[word] for word in {*a} & {*b}) / union if union > 0 else 0.0


sentences = st.lists(st.lists(st.sampled_from("a b c d e f".split()), max_size=9).map(" ".join), min_size=1, max_size=6)


@pytest.mark.parametrize("name", NAMES)
@given(sentences)
def test_equals_the_slow_definition(name: str, lines: list[str]) -> None:
    expected = [[slow(name, first, second, lines) for second in lines] for first in lines]
    assert np.allclose(of(name, lines), expected, rtol=0, atol=1e-6)


def test_the_slow_distance_agrees_with_the_hand_computed_ones() -> None:
    for other, (distance, _, _) in BY_HAND.items():
        assert levenshtein(FIRST.split(), other.split()) == distance


@given(sentences)
def test_edit_similarity_is_bounded_by_the_lengths(lines: list[str]) -> None:
    lengths = np.array([len(line.split()) for line in lines])
    bound = np.minimum(lengths[:, None], lengths) / np.maximum(np.maximum(lengths[:, None], lengths), 1)
    assert np.all(of("edit", lines) <= bound + 1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_without_words_is_like_no_other(name: str) -> None:
    found = of(name, ["...", "a b c", "!"])
    assert found[0].tolist() == [0, 0, 0]
    assert found[1, 1] == 1


def test_the_options_differ() -> None:
    lines = ["the river the old bird sings", "the old bird the river", "the stone", "a river"]
    tables = [of(name, lines) for name in NAMES]
    assert all(np.abs(a - b).max() > 0.05 for i, a in enumerate(tables) for b in tables[:i])


def test_words_beyond_the_two_byte_characters_keep_their_identity() -> None:
    """Words are written as characters; some numbers are no character by themselves."""
    many = [f"w{i} w{i + 1}" for i in range(0, 60_000, 2)]
    words = read_words(many)
    near = np.arange(27_600, 27_700)  # around the 55,296th word
    similarity = surface_similarity("edit", words)
    assert np.all(similarity(near, near) == 1)
    assert np.all(similarity(near, near + 1024) == 0)


def test_more_words_than_characters_are_refused() -> None:
    words = Words(flat=np.zeros(0, np.int32), offsets=np.zeros(1, np.int64), text=np.zeros(0), vocabulary=2_000_000)
    with pytest.raises(DataError, match=r"2,000,000 different words.*method\.mining\.surface=jaccard"):
        surface_similarity("edit", words)
