"""What a metric is computed from: which arrays of `pair_scores.npz`, by what formula.

A metric is a weighted mean of parts, a part is one correlation or one mean over test pairs. Test pairs are resampled
within parts, so that each task keeps its size and its weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cse_bench.evaluation.sts_tables import SUBSETS, TEST_PAIRS
from cse_bench.evaluation.transfer import TASKS as TRANSFER_TASKS


@dataclass(frozen=True, kw_only=True)
class Part:
    """One correlation, or one mean.

    Attributes:
        name: unique; parts of one name are the same in every metric and get the same resamples.
        values: path of the cosines, or of the values whose mean is taken.
        gold: path of the grades that cosines are correlated with; None: the mean of the values.
        factor: path of what the values are multiplied by, the same for all runs; None: 1.
        keep: path of a mask of the pairs that count; None: all.
        rows: first pair and the one after the last; None: all.
        scale: factor of the values of a mean.
        weight: in the metric.
    """

    name: str
    values: str
    gold: str | None = None
    factor: str | None = None
    keep: str | None = None
    rows: tuple[int, int] | None = None
    scale: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A metric in terms of per-pair scores.

    Attributes:
        parts: their weights sum to 1.
        what: what is resampled, in words.
        caveat: why the pairs are not quite independent, or None.
    """

    parts: Sequence[Part]
    what: str
    caveat: str | None = None


def composition(metric: str) -> Composition | None:
    """How a metric follows from per-pair scores; None for one that does not (cost, geometry).

    Args:
        metric: its path, e.g. `sts/test/avg`.
    """
    match metric.split("/"):
        case ["sts", "test" | "test_clean" as setting, "avg"]:
            tasks = [_sts(setting, task, weight=1 / len(TEST_PAIRS)) for task in TEST_PAIRS]
            return Composition(parts=tasks, what="test pairs, within each of the seven tasks")
        case ["sts", "test" | "test_clean" as setting, task] if task in TEST_PAIRS:
            return Composition(parts=[_sts(setting, task)], what="test pairs")
        case ["sts", "test_mean" | "test_wmean" as setting, task] if task in SUBSETS:
            return Composition(parts=_subsets(setting, task), what="test pairs, within each sub-set")
        case ["sts", "dev", "stsb"]:
            stsb = Part(name=metric, values="pairs/sts/dev/stsb/cosine", gold="pairs/sts/dev/stsb/gold")
            return Composition(parts=[stsb], what="dev pairs")
        case ["lee", "spearman"]:
            return Composition(
                parts=[Part(name=metric, values="pairs/lee/cosine", gold="pairs/lee/gold")],
                what="pairs of documents",
                caveat="the 1,225 pairs share 50 documents; taken as independent, they give intervals that are too "
                "narrow",
            )
        case ["wiki_sections", split, "accuracy"]:
            return Composition(
                parts=[Part(name=metric, values=f"pairs/wiki_sections/{split}/accuracy")],
                what="anchor sentences",
                caveat="anchors of one article share their text; taken as independent, they give intervals that are "
                "too narrow",
            )
        case ["transfer" | "transfer_fast" as protocol, "test", "avg"]:
            tasks = [_transfer(protocol, task, weight=1 / len(TRANSFER_TASKS)) for task in TRANSFER_TASKS]
            return Composition(parts=tasks, what="test examples, within each of the seven tasks")
        case ["transfer" | "transfer_fast" as protocol, "test", task] if task in TRANSFER_TASKS:
            return Composition(parts=[_transfer(protocol, task)], what="test examples")
    return None


def _sts(setting: str, task: str, *, weight: float = 1.0) -> Part:
    return Part(
        name=f"sts/{setting}/{task}",
        values=f"pairs/sts/test/{task}/cosine",
        gold=f"pairs/sts/test/{task}/gold",
        keep=f"pairs/sts/test/{task}/clean" if setting == "test_clean" else None,
        weight=weight,
    )


def _subsets(setting: str, task: str) -> list[Part]:
    parts, start = [], 0
    for name, size in SUBSETS[task].items():
        weight = 1 / len(SUBSETS[task]) if setting == "test_mean" else size / TEST_PAIRS[task]
        whole = _sts("test", task)
        parts.append(
            Part(
                name=f"sts/test/{task}/{name}",
                values=whole.values,
                gold=whole.gold,
                rows=(start, start + size),
                weight=weight,
            )
        )
        start += size
    return parts


def _transfer(protocol: str, task: str, *, weight: float = 1.0) -> Part:
    path = f"{protocol}/test/{task}"
    return Part(name=path, values=f"pairs/{path}/correct", factor=f"pairs/{path}/weight", scale=100.0, weight=weight)
