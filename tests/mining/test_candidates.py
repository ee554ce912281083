"""The candidate table against a slow one made sentence by sentence, and what it promises."""

import numpy as np
import pytest

from cse_bench.mining.candidates import CandidateFinder, CandidateTable, eligible_sentences
from cse_bench.mining.keyed import LEXICAL, keyed_uniform
from cse_bench.mining.neighbours import exact_search
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.surface import surface_similarity
from cse_bench.mining.words import Words, postings_of, read_words
from tests.mining.corpus import RARE, SENTENCES, settings

WORDS = read_words(SENTENCES)
COUNT = len(SENTENCES)
HERONS = range(2, 2 + len(RARE))
DUPLICATE = 2 + len(RARE)  # of the first of them


def vectors(seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(COUNT, 6))
    drawn[DUPLICATE] = drawn[HERONS[0]]
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def found_by(chosen: MiningSettings, anchors: np.ndarray, words: Words = WORDS) -> CandidateTable:
    eligible = eligible_sentences(words, min_words=chosen.min_words)
    positions = np.flatnonzero(eligible)
    finder = CandidateFinder(
        words,
        vectors(),
        eligible=positions,
        search=exact_search(vectors()[positions]),
        postings=postings_of(words, among=eligible, allowed=chosen.rare_frequency),
        surface=surface_similarity(chosen.surface, words),
        settings=chosen,
    )
    return finder(anchors)


def slow_semantic(anchor: int, chosen: MiningSettings, listed: set[int]) -> list[int]:
    if len(WORDS[anchor]) < chosen.min_words:
        return []
    others = [j for j in listed if WORDS.text[j] != WORDS.text[anchor]]
    return sorted(others, key=lambda j: (-float(vectors()[anchor] @ vectors()[j]), j))[: chosen.semantic]


def slow_lexical(anchor: int, chosen: MiningSettings, listed: set[int]) -> list[int]:
    holders = {word: {j for j in listed if word in WORDS[j]} for word in set(WORDS[anchor].tolist())}
    fewest, most = chosen.rare_frequency
    rare = sorted((len(who), word) for word, who in holders.items() if fewest <= len(who) <= most)
    sharing = set().union(*[holders[word] for _, word in rare[: chosen.rare_words]])
    sharing = {j for j in sharing if WORDS.text[j] != WORDS.text[anchor]}
    if len(sharing) > chosen.postings:
        drawn = {j: float(keyed_uniform(chosen.seed, LEXICAL, anchor, j)) for j in sharing}
        sharing = set(sorted(sharing, key=drawn.__getitem__)[: chosen.postings])
    similarity = surface_similarity(chosen.surface, WORDS)
    alike = {j: float(similarity(np.array([anchor]), np.array([j]))[0]) for j in sharing}
    return sorted(sharing, key=lambda j: (-alike[j], j))[: chosen.lexical]


@pytest.mark.parametrize(
    "changes", [{}, {"postings": 3}, {"min_words": 5}, {"surface": "jaccard", "rare_words": 1}, {"lexical": 0}]
)
def test_equals_the_slow_table(changes) -> None:
    chosen = settings(**changes)
    table = found_by(chosen, np.arange(COUNT)).candidates
    listed = set(np.flatnonzero(eligible_sentences(WORDS, min_words=chosen.min_words)).tolist())
    for anchor in range(COUNT):
        semantic = slow_semantic(anchor, chosen, listed)
        assert [j for j in table[anchor, : chosen.semantic].tolist() if j >= 0] == semantic
        lexical = slow_lexical(anchor, chosen, listed)
        middle = table[anchor, chosen.semantic : chosen.semantic + chosen.lexical].tolist()
        assert [j for j in middle if j >= 0] == [j for j in lexical if j not in semantic]


def test_no_candidate_is_the_anchor_an_equal_text_too_short_or_there_twice() -> None:
    chosen = settings(uniform=30)
    table = found_by(chosen, np.arange(COUNT)).candidates
    drawn: set[int] = set()
    for anchor, row in enumerate(table):
        present = row[row >= 0]
        assert len(set(present.tolist())) == len(present) > 0
        assert (WORDS.text[present] != WORDS.text[anchor]).all()
        assert (WORDS.counts[present] >= 3).all()
        assert WORDS.is_first[present].all()
        drawn |= set(row[chosen.semantic + chosen.lexical :].tolist())
    assert drawn >= set(np.flatnonzero(eligible_sentences(WORDS, min_words=3)).tolist())  # any may be drawn


def test_similarities_are_those_of_the_pairs() -> None:
    chosen = settings()
    table = found_by(chosen, np.arange(COUNT))
    row, column = (table.candidates >= 0).nonzero()
    other = table.candidates[row, column]
    cosines = np.einsum("nd,nd->n", vectors()[row], vectors()[other])
    assert np.allclose(table.similarity[row, column], cosines, rtol=0, atol=1e-6)
    assert np.array_equal(table.surface[row, column], surface_similarity("edit", WORDS)(row, other))


def test_sentences_alike_in_wording_are_found_though_the_teacher_is_far_from_them() -> None:
    chosen = settings(lexical=10, postings=60)
    table = found_by(chosen, np.array(HERONS))
    for anchor, row in zip(HERONS, table.candidates, strict=True):
        assert set(row[row >= 0].tolist()) >= set(HERONS) - {anchor}
    assert table.surface.max() > 0.8


def test_a_short_sentence_has_no_semantic_candidates_but_random_ones() -> None:
    chosen = settings()
    table = found_by(chosen, np.array([0, 1])).candidates
    assert (table[:, : chosen.semantic + chosen.lexical] == -1).all()
    assert (table[:, chosen.semantic + chosen.lexical :] >= 0).any(axis=1).all()


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    chosen = settings()
    whole = found_by(chosen, np.arange(COUNT))
    for anchors in (np.arange(10, 20), np.array([40, 3])):
        part = found_by(chosen, anchors)
        assert np.array_equal(part.candidates, whole.candidates[anchors])
        assert np.array_equal(part.surface, whole.surface[anchors])


def test_a_corpus_without_any_candidate_gives_an_empty_table() -> None:
    table = found_by(settings(min_words=99), np.arange(COUNT))
    assert (table.candidates == -1).all()
    assert table.candidates.shape == (COUNT, 13)
