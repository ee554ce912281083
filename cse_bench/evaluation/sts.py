"""STS tasks: cosine of two sentence embeddings against human grades, and the geometry of the embeddings.

Nothing is trained on STS here: SentEval's original trains a regressor on STS-B and SICK-R, the SimCSE line of work does
not (Gao et al. 2021, arXiv 2104.08821, appendix B). Scores are Spearman x 100.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from cse_bench.evaluation.geometry import RATIO_LABEL, geometry
from cse_bench.evaluation.spearman import (
    Subset,
    cosine_of_rows,
    spearman,
    spearman_all,
    spearman_mean,
    spearman_wmean,
    weighted_mean,
)
from cse_bench.evaluation.sts_files import Pairs, STSFiles
from cse_bench.evaluation.sts_overlap import Copy, PairKey, assert_counts, classify, pair_key
from cse_bench.evaluation.sts_tables import STSB_PAIRS, SUBSETS, TEST_PAIRS
from cse_bench.evaluation.task import Encode, Yielded

COLLAPSED = "all cosines are equal: the encoder collapsed"


class STSTest:
    """The seven STS test tasks in the setting of the papers' tables, and their leak-free variant.

    Yields Spearman x 100, per-pair cosines and grades:

    * `sts/test/<task>`: all sub-sets of the task in one Spearman ("all"); `sts/test/avg`: unrounded mean of the seven.
      SimCSE's script averages values rounded to 2 decimals, which differs by up to 0.005.
    * `sts/test_mean/<task>`, `sts/test_wmean/<task>`: the two other aggregations of STS12-16 that papers report.
    * `sts/test_clean/<task>`, `sts/test_clean/avg`: "all" on the leak-free set of `sts_overlap`.
    * `pairs/sts/test/<task>/cosine`, `.../gold`, and `.../clean`, which is 1 where a pair is in the leak-free set.

    STS-B dev is read to find leaked pairs; it is not encoded.
    """

    name = "sts"
    version = 1

    def __init__(self, *, data: str | None, cache: str) -> None:
        """Remembers where the files are.

        Args:
            data: Folder that holds `sts/`, or SentEval's `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
        """
        self._files = STSFiles(data=data, cache=cache)

    def sentences(self) -> list[str]:
        """Both sides of every scored pair."""
        subsets = [pairs for subsets in self._content.tasks.values() for pairs in subsets]
        return [sentence for pairs in subsets for sentence in pairs.left + pairs.right]

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields the metrics and arrays listed at the class."""
        classic: dict[str, float] = {}
        leak_free: dict[str, float] = {}
        for task, subsets in self._content.tasks.items():
            scored = [_scored(pairs, encode) for pairs in subsets]
            cosines, gold = (np.concatenate(side) for side in zip(*scored, strict=True))
            clean = self._content.clean[task]
            classic[task] = spearman_all(scored)
            leak_free[task] = spearman(cosines[clean], gold[clean])
            yield from _with_reason(f"sts/test/{task}", classic[task], COLLAPSED)
            yield from _with_reason(f"sts/test_clean/{task}", leak_free[task], COLLAPSED)
            if task in SUBSETS:
                in_subset = "the cosines of a sub-set are all equal: the encoder collapsed"
                yield from _with_reason(f"sts/test_mean/{task}", spearman_mean(scored), in_subset)
                yield from _with_reason(f"sts/test_wmean/{task}", spearman_wmean(scored), in_subset)
            yield f"pairs/sts/test/{task}/cosine", cosines
            yield f"pairs/sts/test/{task}/gold", gold
            yield f"pairs/sts/test/{task}/clean", clean.astype(np.float64)
        yield from _average("sts/test/avg", classic)
        yield from _average("sts/test_clean/avg", leak_free)

    def sources(self) -> dict[str, str]:
        """sha256 of the STS files, STS-B dev among them."""
        self.sentences()
        return self._files.sources()

    def labels(self) -> dict[str, str]:
        """What the four groups of numbers are."""
        return {
            "sts/test": 'classic: Spearman x 100, "all" setting; avg: unrounded mean of the seven tasks',
            "sts/test_mean": "Spearman x 100, mean over sub-sets (not comparable with sts/test)",
            "sts/test_wmean": "Spearman x 100, mean over sub-sets weighted by pairs (not comparable with sts/test)",
            "sts/test_clean": (
                'leak-free: Spearman x 100, "all" setting, without the pairs of STS-B dev; a pair that occurs several '
                "times counts once, in the smallest of its tasks; avg: unrounded mean of the seven tasks"
            ),
        }

    @cached_property
    def _content(self) -> "_TestContent":
        tasks = {task: self._files.test(task) for task in TEST_PAIRS}
        decided = classify(
            {task: [key for pairs in subsets for key in _keys(pairs)] for task, subsets in tasks.items()},
            held_out=_keys(self._files.benchmark("dev")),
        )
        assert_counts(decided)
        clean = {task: np.array([copy is Copy.KEPT for copy in copies]) for task, copies in decided.items()}
        return _TestContent(tasks=tasks, clean=clean)


class _TestContent(NamedTuple):
    tasks: dict[str, list[Pairs]]
    clean: dict[str, np.ndarray]  # by task, True for the rows of the leak-free set


class STSBenchmarkDev:
    """STS-B dev, for the choice of checkpoints during training.

    Yields `sts/dev/stsb` and `pairs/sts/dev/stsb/cosine` and `.../gold`. Reads and encodes the dev split only: a test
    split, or the seven-task average, on which a checkpoint is selected is no test any more.
    """

    name = "sts_dev"
    version = 1

    def __init__(self, *, data: str | None, cache: str) -> None:
        """Remembers where the files are.

        Args:
            data: Folder that holds `sts/`, or SentEval's `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
        """
        self._files = STSFiles(data=data, cache=cache)

    def sentences(self) -> list[str]:
        """Both sides of the 1500 pairs."""
        return self._dev.left + self._dev.right

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields the score and the per-pair arrays."""
        cosines, gold = _scored(self._dev, encode)
        yield from _with_reason("sts/dev/stsb", spearman(cosines, gold), COLLAPSED)
        yield "pairs/sts/dev/stsb/cosine", cosines
        yield "pairs/sts/dev/stsb/gold", gold

    def sources(self) -> dict[str, str]:
        """sha256 of the dev file."""
        self.sentences()
        return self._files.sources()

    def labels(self) -> dict[str, str]:
        """What the number is."""
        return {"sts/dev": "Spearman x 100 on STS-B dev, on which checkpoints are selected; not a test score"}

    @cached_property
    def _dev(self) -> Pairs:
        return self._files.benchmark("dev")


class STSGeometry:
    """Alignment, uniformity, dispersion and the ratio metrics (cse_bench definition) on STS-B.

    Positives are the pairs with a grade strictly above the threshold, as in Gao et al. 2021 (arXiv 2104.08821), section
    3; spread is taken over the sentences of both columns, duplicates kept. The paper used the whole of STS-B, which is
    `split="all"` (149 million pairs of sentences); dev is cheap enough for a training curve. Numbers of different
    splits are not comparable, so only dev has the paths `geometry/...`; the others are at `geometry_test/...` and
    `geometry_all/...`.
    """

    version = 1

    def __init__(
        self,
        *,
        data: str | None,
        cache: str,
        split: Literal["dev", "test", "all"] = "dev",
        min_gold_exclusive: float = 4.0,
    ) -> None:
        """Remembers where the files are and what to take from them.

        Args:
            data: Folder that holds `sts/`, or SentEval's `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
            split: `dev`, `test`, or `all` (train, dev and test together).
            min_gold_exclusive: A pair is positive when its grade is strictly greater.
        """
        if split not in ("dev", "test", "all"):
            raise ValueError(f"split is {split!r}; expected dev, test or all")
        self._files = STSFiles(data=data, cache=cache)
        self._split = split
        self._min_gold_exclusive = min_gold_exclusive
        self.name = "geometry" if split == "dev" else f"geometry_{split}"

    def sentences(self) -> list[str]:
        """Both columns, first all left sides."""
        left = [sentence for pairs in self._pairs for sentence in pairs.left]
        return left + [sentence for pairs in self._pairs for sentence in pairs.right]

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields every field of `Geometry`; singular values and the variance of each dimension as arrays."""
        return geometry(encode(self.sentences()), self._positives).yielded(self.name)

    def sources(self) -> dict[str, str]:
        """sha256 of the STS-B files of the split."""
        self.sentences()
        return self._files.sources()

    def labels(self) -> dict[str, str]:
        """Split, positives and the status of the ratios."""
        return {
            self.name: (
                f"positives: STS-B {self._split} pairs with gold > {self._min_gold_exclusive:g}; spread: all sentences "
                f"of the split, both columns, duplicates kept; align_*_ratio: {RATIO_LABEL}"
            )
        }

    @cached_property
    def _pairs(self) -> list[Pairs]:
        return [self._files.benchmark(split) for split in (STSB_PAIRS if self._split == "all" else [self._split])]

    @property
    def _positives(self) -> np.ndarray:
        gold = np.concatenate([pairs.gold for pairs in self._pairs])
        rows = np.flatnonzero(gold > self._min_gold_exclusive)
        return np.stack([rows, rows + len(gold)], axis=1)


def _keys(pairs: Pairs) -> list[PairKey]:
    return [pair_key(left, right) for left, right in zip(pairs.left, pairs.right, strict=True)]


def _scored(pairs: Pairs, encode: Encode) -> Subset:
    return cosine_of_rows(encode(pairs.left), encode(pairs.right)), pairs.gold


def _with_reason(path: str, value: float, reason: str) -> Iterator[tuple[str, float | str]]:
    yield path, value
    if math.isnan(value):
        yield path, reason


def _average(path: str, values: Mapping[str, float]) -> Iterator[tuple[str, float | str]]:
    undefined = [task for task, value in values.items() if math.isnan(value)]
    average = weighted_mean(list(values.values()), [1.0] * len(values))
    return _with_reason(path, average, f"no value for {', '.join(undefined)}")
