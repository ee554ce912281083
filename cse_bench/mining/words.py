"""The words of a corpus as numbers, and which sentences hold a rare word.

Shapes: n sentences, t words of all sentences together, v different words.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Words:
    """The lower-cased words of every sentence.

    Attributes:
        flat: word ids of all sentences back to back, int32, (t,).
        offsets: sentence i is `flat[offsets[i]:offsets[i + 1]]`, int64, (n + 1,).
        text: the first sentence with the same words in the same order, int32, (n,): equal texts have equal numbers.
        vocabulary: number of different words, v.
    """

    flat: np.ndarray
    offsets: np.ndarray
    text: np.ndarray
    vocabulary: int

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, sentence: int) -> np.ndarray:
        return self.flat[self.offsets[sentence] : self.offsets[sentence + 1]]

    @cached_property
    def counts(self) -> np.ndarray:
        """Words of every sentence, (n,)."""
        return np.diff(self.offsets)

    @cached_property
    def is_first(self) -> np.ndarray:
        """Whether no earlier sentence is the same text, (n,)."""
        return self.text == np.arange(len(self))

    def occurrences(self, *, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (word, sentence) that occurs, once, ordered by word and then by sentence.

        Args:
            among: which sentences count, boolean, (n,).
        """
        sentence = np.repeat(np.arange(len(self), dtype=np.int64), self.counts)
        kept = among[sentence]
        key = np.unique(self.flat[kept].astype(np.int64) * len(self) + sentence[kept])
        return key // len(self), key % len(self)


def read_words(lines: Iterable[str]) -> Words:
    """Splits sentences into words: runs of letters, digits and underscores, lower-cased."""
    vocabulary: dict[str, int] = {}
    first: dict[bytes, int] = {}
    flat: list[np.ndarray] = []
    counts: list[int] = []
    text: list[int] = []
    for index, line in enumerate(lines):
        ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(line.lower())], np.int32)
        text.append(first.setdefault(blake2b(ids.tobytes(), digest_size=16).digest(), index))
        flat.append(ids)
        counts.append(len(ids))
    return Words(
        flat=np.concatenate([np.zeros(0, np.int32), *flat]),
        offsets=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
        text=np.array(text, dtype=np.int32),
        vocabulary=len(vocabulary),
    )


@dataclass(frozen=True)
class Postings:
    """Which sentences hold a word.

    Attributes:
        sentences: of all words back to back, ascending within a word, int32.
        offsets: word w is `sentences[offsets[w]:offsets[w + 1]]`, int64, (v + 1,).
        allowed: fewest and most sentences of a word that is looked up.
    """

    sentences: np.ndarray
    offsets: np.ndarray
    allowed: tuple[int, int]

    @cached_property
    def frequency(self) -> np.ndarray:
        """Sentences that hold a word, (v,)."""
        return np.diff(self.offsets)

    def sharing(self, words: np.ndarray, *, rarest: int) -> np.ndarray:
        """The sentences that share one of the `rarest` words, ascending.

        Args:
            words: of a sentence.
            rarest: how many to look up: the least frequent of those allowed, the smaller number first where equal.
        """
        candidates = np.unique(words)
        frequency = self.frequency[candidates]
        candidates = candidates[(frequency >= self.allowed[0]) & (frequency <= self.allowed[1])]
        chosen = candidates[np.argsort(self.frequency[candidates], kind="stable")[:rarest]]
        if len(chosen) == 0:
            return np.zeros(0, dtype=np.int32)
        return np.unique(
            np.concatenate([self.sentences[self.offsets[word] : self.offsets[word + 1]] for word in chosen])
        )


def postings_of(words: Words, *, among: np.ndarray, allowed: tuple[int, int]) -> Postings:
    """The posting lists of a corpus.

    Args:
        words: of the corpus.
        among: which sentences are listed, boolean, (n,).
        allowed: fewest and most listed sentences of a word that is looked up.
    """
    word, sentence = words.occurrences(among=among)
    counts = np.bincount(word, minlength=words.vocabulary)
    return Postings(
        sentences=sentence.astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        allowed=allowed,
    )
