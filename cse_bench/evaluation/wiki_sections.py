"""Section triplets: is a sentence closer to its own section than to another section of the same Wikipedia article?

Dor et al. 2018, "Learning Thematic Similarity Metric from Article Sections Using Triplet Networks": sentences of one
section are assumed to be thematically closer than sentences of different sections of one article, so a triplet (anchor,
same section, other section) is answered correctly if cos(anchor, same) > cos(anchor, other). Nobody graded anything, so
the ceiling is well below 100, but it needs no download. The articles are the held-out ones of
`cse_bench.data.wikipedia`, not that paper's data set.

Drawing one triplet per anchor would add noise: between draws the accuracy has a standard deviation of 0.7 points on the
test anchors and 1.2 on the dev anchors, as much as a short training gains. Here every triplet of an anchor is counted:
the same question without the dice and at no cost, as the cosines come from embeddings that are needed anyway.

Shapes: `n` distinct sentences, each of which is an anchor; `p` pairs; `d` width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cse_bench.data.wikipedia import DUMP, Article, load_articles, split_articles, thematic_sections
from cse_bench.errors import DataError
from cse_bench.evaluation.geometry import RATIO_LABEL, geometry
from cse_bench.evaluation.spearman import COSINE_DECIMALS
from cse_bench.evaluation.task import Encode, Yielded
from cse_bench.evaluation.vectors import unit_rows

HeldOut = Literal["dev", "test"]

POSITIVES_LABEL = "positives: same-section sentence pairs of held-out Wikipedia articles (not STS-B)"


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Sentences of the thematic sections of some articles, in reading order.

    Attributes:
        sentences: `n` distinct sentences.
        article: `(n,)` number of the article of each sentence, ascending.
        section: `(n,)` number of its section, ascending; no two articles share one.
    """

    sentences: list[str]
    article: npt.NDArray[np.int64]
    section: npt.NDArray[np.int64]


class WikiSections:
    """The task `wiki_sections/dev` or `wiki_sections/test`.

    Yields the accuracy in percent (chance 50) and two numbers per anchor, and for `dev` also the geometry of the
    embedding space with all same-section pairs as positives; in-training evaluation reads the dev split only.

    Args:
        split: `dev` (during training) or `test`.
        cache: Folder for the parsed dump; created if needed and shared with the training corpus.

    Raises:
        DataError: Another split. The dump is searched and checked by `sentences`, which raises DataError if it is not
        right.
    """

    version = 1

    def __init__(self, *, split: HeldOut, cache: str) -> None:
        """Keeps split and folder; nothing is read yet."""
        if split not in get_args(HeldOut):
            raise DataError(f"split={split!r} of wiki_sections; allowed are {' and '.join(get_args(HeldOut))}")
        self._split = split
        self._cache = cache

    @property
    def name(self) -> str:
        """The path prefix of the task's metrics; dev and test are two tasks and may run together."""
        return f"wiki_sections/{self._split}"

    @cached_property
    def anchors(self) -> Anchors:
        """The sentences of this split with their articles and sections; read once."""
        return collect_anchors(split_articles(load_articles(cache=self._cache), split=self._split))

    def sentences(self) -> list[str]:
        """The `n` distinct sentences of the split's thematic sections."""
        return self.anchors.sentences

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields `<name>/accuracy`, `pairs/<name>/accuracy` and `.../margin` `(n,)`, and for dev `geometry/...`."""
        anchors = self.anchors
        embeddings = encode(anchors.sentences)
        shares, margins = score_anchors(embeddings, article=anchors.article, section=anchors.section)
        yield f"{self.name}/accuracy", 100.0 * float(shares.mean())
        yield f"pairs/{self.name}/accuracy", 100.0 * shares
        yield f"pairs/{self.name}/margin", margins
        if self._split == "dev":
            yield from geometry(embeddings, same_section_pairs(anchors.section)).yielded("geometry")

    def sources(self) -> dict[str, str]:
        """The dump, and the anchors with their sections: the same checksum means the same questions everywhere."""
        anchors = self.anchors
        lines = "".join(
            f"{section}\t{text}\n" for section, text in zip(anchors.section, anchors.sentences, strict=True)
        )
        return {DUMP.source: DUMP.sha256, f"anchors of {self.name}": hashlib.sha256(lines.encode()).hexdigest()}

    def labels(self) -> dict[str, str]:
        """What the numbers mean, by prefix of the metric path."""
        share = (
            "percent of an anchor's triplets in which its own section is closer than another of the article (chance 50)"
        )
        labels = {
            f"{self.name}/accuracy": f"mean over anchors: {share}",
            f"pairs/{self.name}/accuracy": share,
            f"pairs/{self.name}/margin": "per anchor: mean cosine with its own section minus that with the others",
        }
        if self._split == "dev":
            labels["geometry"] = f"{POSITIVES_LABEL}; align_*_ratio: {RATIO_LABEL}"
        return labels


def collect_anchors(articles: Sequence[Article]) -> Anchors:
    """The sentences of all thematic sections, numbered by article and section.

    Args:
        articles: Articles with at least two thematic sections each.
    """
    sentences: list[str] = []
    of_article: list[int] = []
    of_section: list[int] = []
    num_sections = 0
    for number, article in enumerate(articles):
        for section in thematic_sections(article):
            sentences.extend(section.sentences)
            of_article.extend([number] * len(section.sentences))
            of_section.extend([num_sections] * len(section.sentences))
            num_sections += 1
    return Anchors(
        sentences=sentences,
        article=np.array(of_article, dtype=np.int64),
        section=np.array(of_section, dtype=np.int64),
    )


def score_anchors(
    embeddings: np.ndarray, *, article: npt.NDArray[np.int64], section: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For each anchor, the share of its triplets that are answered correctly, and its mean margin.

    With S the other sentences of the anchor's section and O the sentences of the article's other sections:

        share  = mean over s in S, o in O of [cos(anchor, s) > cos(anchor, o)] + [equal] / 2
        margin = mean over s in S of cos(anchor, s) - mean over o in O of cos(anchor, o)

    Cosines are rounded as before a ranking, so that a tie is one on every machine; a collapsed encoder gets a share of
    one half.

    Args:
        embeddings: `(n, d)`.
        article: `(n,)` article of each row.
        section: `(n,)` section of each row; at least two rows each, and at least two sections per article.

    Returns:
        Shares in 0..1 `(n,)` and margins in -2..2 `(n,)`.

    Raises:
        ValueError: A row of the embeddings is zero or not finite.
    """
    unit = unit_rows(embeddings)
    shares, margins = np.empty(len(unit)), np.empty(len(unit))
    for rows in (np.flatnonzero(article == number) for number in np.unique(article)):
        cosines = np.round(unit[rows] @ unit[rows].T, COSINE_DECIMALS)
        is_same = section[rows][:, None] == section[rows][None, :]
        for anchor, row in enumerate(rows):
            mates = is_same[anchor].copy()
            mates[anchor] = False
            same, other = cosines[anchor, mates], np.sort(cosines[anchor, ~is_same[anchor]])
            # The place of `same` in the sorted `other` counts the triplets won; the two ends of a run of ties average
            # to one half.
            won = np.searchsorted(other, same, side="left") + np.searchsorted(other, same, side="right")
            shares[row] = won.mean() / (2 * len(other))
            margins[row] = same.mean() - other.mean()
    return shares, margins


def same_section_pairs(section: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All pairs of different rows with one section, each once.

    Args:
        section: `(n,)` section of each row.

    Returns:
        `(p, 2)` rows, the smaller first.
    """
    left, right = np.nonzero(np.triu(section[:, None] == section[None, :], k=1))
    return np.stack([left, right], axis=1).astype(np.int64)
