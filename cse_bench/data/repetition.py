"""Sub-word repetition: a sentence with a few of its tokens said twice, so that a positive pair differs in length.

Wu et al. 2022: "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised Sentence Embedding",
COLING 2022, arXiv 2109.04380, section 3.1.
"""

import numpy as np
import torch

from cse_bench.data.rows import TokenRows

_OFFICIAL_LIMIT = 10  # of the official code; the upper end is exclusive, so at most 9 tokens are repeated


def most_repetitions(tokens: int, *, rate: float, rule: str) -> int:
    """The largest number of tokens of a row that a rule may repeat.

    Args:
        tokens: of the row, n, the special ones at both ends included.
        rate: the paper's duplication rate, r.
        rule: `official`: at most min(10, int(r n)) - 1. `paper`: max(2, int(r (n - 2))).
    """
    if rate == 0:
        return 0
    official = min(_OFFICIAL_LIMIT, int(rate * tokens)) - 1
    most = official if rule == "official" else max(2, int(rate * (tokens - 2)))
    return max(0, min(most, tokens - 2))


def repeated_positions(tokens: int, *, rate: float, rule: str, draw: np.random.Generator) -> np.ndarray:
    """Which positions of a row are said twice, ascending; never the first and the last one.

    Their number is uniform from 0 to `most_repetitions`, both included; then that many distinct positions are drawn
    uniformly.
    """
    most = most_repetitions(tokens, rate=rate, rule=rule)
    count = int(draw.integers(most + 1)) if most else 0
    if count == 0:
        return np.empty(0, dtype=np.int64)
    return np.sort(1 + draw.choice(tokens - 2, size=count, replace=False))


def with_repetitions(rows: TokenRows, *, rate: float, rule: str, key: tuple[int, ...]) -> TokenRows:
    """The rows with some of their tokens said twice in a row; longer rows are not cut again.

    What is repeated in a sentence depends on `key` and on the number of the sentence in the corpus alone, not on the
    batch it comes in.

    Args:
        rows: of sentences.
        rate: see `most_repetitions`.
        rule: see `most_repetitions`.
        key: the seed of the run, say.
    """
    lengths = rows.lengths.numpy()
    sources = []
    for tokens, sentence in zip(lengths.tolist(), rows.sentence.tolist(), strict=True):
        draw = np.random.default_rng((*key, sentence))
        twice = repeated_positions(tokens, rate=rate, rule=rule, draw=draw)
        sources.append(np.sort(np.concatenate((np.arange(tokens), twice))))
    longer = np.array([len(source) for source in sources], dtype=np.int64)
    index = np.zeros((len(sources), int(longer.max())), dtype=np.int64)
    for row, source in enumerate(sources):
        index[row, : len(source)] = source
    return TokenRows(
        ids=rows.ids.gather(1, torch.from_numpy(index).to(rows.ids.device)),
        lengths=torch.from_numpy(longer),
        sentence=rows.sentence,
        view=rows.view,
        num_views=rows.num_views,
        epoch=rows.epoch,
    )
