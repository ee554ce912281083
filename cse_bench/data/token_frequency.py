"""How often every token id occurs in a tokenised corpus."""

from collections.abc import Iterable

import numpy as np

from cse_bench.data.token_store import TokenStore

_CHUNK = 1 << 22  # tokens read at a time; bounds the memory of the copy that counting makes


def token_counts(store: TokenStore, *, vocab_size: int, special_ids: Iterable[int] = ()) -> np.ndarray:
    """Occurrences of every token id, after the truncation that the store was made with.

    A million sentences take about a second, so the counts are not kept.

    Args:
        store: the corpus.
        vocab_size: number of ids.
        special_ids: whose count is set to zero, since they are in every row; ids beyond the vocabulary are ignored.

    Returns:
        int64, (vocab_size,).
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, store.num_tokens, _CHUNK):
        counts += np.bincount(store.tokens[start : start + _CHUNK], minlength=vocab_size)
    counts[[token for token in special_ids if token < vocab_size]] = 0
    return counts
