"""Words, equal texts, posting lists."""

import numpy as np

from cse_bench.mining.candidates import eligible_sentences
from cse_bench.mining.words import postings_of, read_words

LINES = ["A b, c!", "", "a B c", "b b d", "a a", "c d e", "É_1 b"]


def test_words_are_lower_cased_runs_of_letters_and_digits() -> None:
    words = read_words(LINES)
    assert len(words) == 7
    assert words.counts.tolist() == [3, 0, 3, 3, 2, 3, 2]
    assert words.vocabulary == 6  # a b c d e é_1
    assert words[0].tolist() == words[2].tolist()
    assert words[3].tolist() == [words[0][1], words[0][1], words[5][1]]


def test_equal_texts_have_the_number_of_the_first() -> None:
    words = read_words([*LINES, "...", "c b a"])
    assert words.text.tolist() == [0, 1, 0, 3, 4, 5, 6, 1, 8]  # order counts; texts without words are equal
    assert eligible_sentences(words, min_words=3).tolist() == [
        True,
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        True,
    ]


def test_posting_lists_hold_the_listed_sentences_once() -> None:
    words = read_words(LINES)
    listed = eligible_sentences(words, min_words=2)
    postings = postings_of(words, among=listed, allowed=(2, 3))
    by_word = {
        name: postings.sentences[postings.offsets[i] : postings.offsets[i + 1]].tolist()
        for i, name in enumerate("abcd")
    }
    assert by_word == {"a": [0, 4], "b": [0, 3, 6], "c": [0, 5], "d": [3, 5]}
    assert postings.frequency.tolist() == [2, 3, 2, 2, 1, 1]


def test_the_rarest_allowed_words_are_looked_up() -> None:
    words = read_words(LINES)
    postings = postings_of(words, among=eligible_sentences(words, min_words=2), allowed=(2, 3))
    assert postings.sharing(words[0], rarest=1).tolist() == [0, 4]  # a and c are equally rare: the earlier
    assert postings.sharing(words[0], rarest=2).tolist() == [0, 4, 5]
    assert postings.sharing(words[0], rarest=3).tolist() == [0, 3, 4, 5, 6]
    assert postings.sharing(words[1], rarest=3).tolist() == []
    rare_only = postings_of(words, among=np.ones(7, dtype=bool), allowed=(3, 3))
    assert rare_only.sharing(words[5], rarest=3).tolist() == [0, 2, 5]  # d occurs twice, e once: neither is allowed
