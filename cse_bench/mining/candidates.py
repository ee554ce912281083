"""The candidate table: for every sentence others near in meaning, others alike in wording, and some at random.

Shapes: n anchors, c = semantic + lexical + uniform candidates.
"""

from dataclasses import dataclass

import numpy as np

from cse_bench.mining.keyed import LEXICAL, UNIFORM, keyed_integers, keyed_uniform
from cse_bench.mining.neighbours import Search
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.surface import Similarity
from cse_bench.mining.teacher import unit_rows
from cse_bench.mining.words import Postings, Words


def eligible_sentences(words: Words, *, min_words: int) -> np.ndarray:
    """Which sentences may be candidates: long enough, and the first with their words; boolean, (n,).

    One of several equal texts is enough: near-duplicates are the hard negatives that are none.
    """
    return words.is_first & (words.counts >= min_words)


@dataclass(frozen=True)
class CandidateTable:
    """A block of rows of the table.

    Attributes:
        candidates: sentences, int32, (n, c); the semantic ones first, nearest first; -1: there is none.
        similarity: cosine s of anchor and candidate, (n, c).
        surface: surface similarity u, (n, c).
    """

    candidates: np.ndarray
    similarity: np.ndarray
    surface: np.ndarray


class CandidateFinder:
    """Finds the candidates of blocks of sentences.

    A candidate is never the anchor, an equal text, too short or listed twice. A sentence that is too short itself has
    no semantic candidates: nobody knows what two words mean.

    Args:
        words: of the corpus.
        vectors: of the teacher, (sentences, d).
        eligible: positions of the sentences that may be candidates, ascending.
        search: nearest among these.
        postings: of these.
        surface: the surface similarity.
        settings: how many of which kind.
    """

    def __init__(
        self,
        words: Words,
        vectors: np.ndarray,
        *,
        eligible: np.ndarray,
        search: Search,
        postings: Postings,
        surface: Similarity,
        settings: MiningSettings,
    ) -> None:
        self._words, self._vectors, self._eligible = words, vectors, eligible
        self._search, self._postings, self._surface, self._settings = search, postings, surface, settings

    def __call__(self, anchors: np.ndarray) -> CandidateTable:
        """The rows of these sentences."""
        semantic = self._semantic(anchors)
        drawn = self._uniform(anchors)
        lexical, lexical_surface = self._lexical(anchors)
        sentences = np.concatenate([semantic, lexical, drawn], axis=1)
        surface = np.zeros(sentences.shape, dtype=np.float32)
        start = semantic.shape[1]
        surface[:, start : start + lexical.shape[1]] = lexical_surface
        sentences = np.where(_is_repeated(sentences), -1, sentences)
        is_new = sentences >= 0
        is_new[:, start : start + lexical.shape[1]] = False  # known already
        row, column = is_new.nonzero()
        surface[row, column] = self._surface(anchors[row], sentences[row, column])
        return CandidateTable(
            candidates=sentences.astype(np.int32), similarity=self._cosines(anchors, sentences), surface=surface
        )

    def _semantic(self, anchors: np.ndarray) -> np.ndarray:
        count = self._settings.semantic
        if len(self._eligible) == 0:
            return np.full((len(anchors), count), -1, dtype=np.int64)
        # One more than asked for: the anchor, or the text equal to it, is its own nearest neighbour.
        positions = self._search(unit_rows(self._vectors[anchors]), count + 1)
        found = np.where(positions >= 0, self._eligible[positions], -1)
        is_own = self._is_same_text(anchors, found)
        order = np.argsort(is_own, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(np.where(is_own, -1, found), order, axis=1)
        found[self._words.counts[anchors] < self._settings.min_words] = -1
        return found

    def _uniform(self, anchors: np.ndarray) -> np.ndarray:
        count = self._settings.uniform
        if len(self._eligible) == 0:
            return np.full((len(anchors), count), -1, dtype=np.int64)
        columns = np.arange(count)
        drawn = keyed_integers(len(self._eligible), self._settings.seed, UNIFORM, anchors[:, None], columns)
        found = self._eligible[drawn]
        return np.where(self._is_same_text(anchors, found), -1, found)

    def _lexical(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the sentences that share a rare word, those worded most alike."""
        settings = self._settings
        lists = [self._sharing(int(anchor)) for anchor in anchors] if settings.lexical else []
        lengths = np.array([len(sentences) for sentences in lists], dtype=np.int64)
        wide = max(int(lengths.max(initial=0)), settings.lexical)
        found = np.full((len(anchors), wide), -1, dtype=np.int64)
        surface = np.full((len(anchors), wide), -1, dtype=np.float32)
        if lengths.sum():
            is_filled = np.arange(wide) < lengths[:, None]
            second = np.concatenate(lists).astype(np.int64)
            found[is_filled] = second
            surface[is_filled] = self._surface(np.repeat(anchors, lengths), second)
        # Of equal ones the smaller number first: the lists are ascending and the sort is stable.
        order = np.argsort(-surface, axis=1, kind="stable")[:, : settings.lexical]
        chosen = np.take_along_axis(surface, order, axis=1)
        return np.take_along_axis(found, order, axis=1), np.maximum(chosen, 0)

    def _sharing(self, anchor: int) -> np.ndarray:
        settings = self._settings
        found = self._postings.sharing(self._words[anchor], rarest=settings.rare_words)
        found = found[self._words.text[found] != self._words.text[anchor]]
        if len(found) > settings.postings:
            keep = np.argsort(keyed_uniform(settings.seed, LEXICAL, anchor, found), kind="stable")
            found = np.sort(found[keep[: settings.postings]])
        return found

    def _is_same_text(self, anchors: np.ndarray, found: np.ndarray) -> np.ndarray:
        return (found < 0) | (self._words.text[found] == self._words.text[anchors][:, None])

    def _cosines(self, anchors: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        own = unit_rows(self._vectors[anchors])
        others = unit_rows(self._vectors[np.maximum(sentences, 0)])
        cosines = np.matmul(others, own[:, :, None])[:, :, 0]
        return np.where(sentences >= 0, np.clip(cosines, -1, 1), 0).astype(np.float32)


def _is_repeated(sentences: np.ndarray) -> np.ndarray:
    """Where a row names a sentence again that stands further left."""
    order = np.argsort(sentences, axis=1, kind="stable")
    ordered = np.take_along_axis(sentences, order, axis=1)
    repeated = np.zeros(sentences.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated & (sentences >= 0)
