"""Surface similarity u of two sentences, from 0 (nothing in common) to 1: how alike they are worded.

Every function takes arrays of sentence numbers and gives u of each pair, float32, (p,). A sentence without words has
u = 0 with every other.
"""

from collections.abc import Callable

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from scipy.sparse import csr_array

from cse_bench.errors import DataError
from cse_bench.mining.words import Words

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(p,) and (p,) sentence numbers -> (p,)."""

_PAIRS_AT_ONCE = 65536  # bounds the memory of the intermediate rows
# A word is written as one character. Characters 0xD800 to 0xDFFF are no characters by themselves.
_SURROGATES = (0xD800, 0x800)
_MOST_WORDS = 0x110000 - _SURROGATES[1]


def surface_similarity(name: str, words: Words, *, workers: int = 1) -> Similarity:
    r"""The surface similarity of a name.

    * `edit`: :math:`1 - \mathrm{Lev}(a, b) / \max(|a|, |b|)` over words. Since the distance is at least the difference
      of the lengths, u is at most the ratio of the shorter to the longer length: one number for overlap, order and
      length.
    * `jaccard`: common words over all words of both, as sets; blind to length and order.
    * `bigram_dice`: twice the common pairs of neighbouring words over all of both, as sets.
    * `idf_jaccard`: as `jaccard`, each word weighted by log((1 + n) / (1 + df)): frequent words count less.

    Args:
        name: one of these.
        words: of the corpus.
        workers: threads for the edit distance.

    Raises:
        DataError: the corpus has more different words than `edit` can tell apart.
    """
    if name == "edit":
        return _edit(words, workers=workers)
    sentence = np.repeat(np.arange(len(words)), words.counts)
    if name == "bigram_dice":
        inside = sentence[1:] == sentence[:-1]
        pairs = words.flat[:-1].astype(np.int64)[inside] * words.vocabulary + words.flat[1:][inside]
        _, items = np.unique(pairs, return_inverse=True)
        return _overlap(sentence[1:][inside], items, weights=None, rows=len(words), is_dice=True)
    weights = None
    if name == "idf_jaccard":
        word, _ = words.occurrences(among=words.is_first)
        frequency = np.bincount(word, minlength=words.vocabulary)
        weights = np.log((1 + words.is_first.sum()) / (1 + frequency))
    return _overlap(sentence, words.flat, weights=weights, rows=len(words), is_dice=False)


def _edit(words: Words, *, workers: int) -> Similarity:
    if words.vocabulary > _MOST_WORDS:
        raise DataError(
            f"the corpus has {words.vocabulary:,} different words, the edit similarity tells at most {_MOST_WORDS:,} "
            "apart; set method.mining.surface=jaccard"
        )
    # One character per word: the compiled distance then reads the sentences as they are, without conversion.
    start, gap = _SURROGATES
    codes = np.where(words.flat >= start, words.flat + gap, words.flat).astype("<u4")
    whole = codes.tobytes().decode("utf-32-le")
    texts = [whole[a:b] for a, b in zip(words.offsets[:-1].tolist(), words.offsets[1:].tolist(), strict=True)]

    def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        longer = np.maximum(words.counts[first], words.counts[second])
        distance = process.cpdist(
            [texts[i] for i in first.tolist()],
            [texts[i] for i in second.tolist()],
            scorer=Levenshtein.distance,
            dtype=np.int32,
            workers=workers,
        )
        return np.where(longer > 0, 1 - distance / np.maximum(longer, 1), 0).astype(np.float32)

    return similarity


def _overlap(
    sentence: np.ndarray, items: np.ndarray, *, weights: np.ndarray | None, rows: int, is_dice: bool
) -> Similarity:
    columns = int(items.max(initial=-1)) + 1
    members = csr_array((np.ones(len(items)), (sentence, items)), shape=(rows, max(columns, 1)))
    members.sum_duplicates()
    members.data[:] = 1
    weighted = members.copy()
    if weights is not None:
        weighted.data = weights[members.indices]
    totals = np.asarray(weighted.sum(axis=1)).ravel()

    def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            one, other = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
            common = np.asarray(weighted[one].multiply(members[other]).sum(axis=1)).ravel()
            both = totals[one] + totals[other]
            numerator, denominator = (2 * common, both) if is_dice else (common, both - common)
            found.append(np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 0))
        return np.concatenate(found).astype(np.float32)

    return similarity
