"""What the figures are drawn from: values over training, scores of single pairs, spectra."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cse_bench.results.collect import Block, Group, Run
from cse_bench.results.metrics_file import read_metrics

Floats = npt.NDArray[np.float64]

_PAIR_SCORES = "pair_scores.npz"
_GRADED_PAIRS = ("pairs/sts/test/stsb", "pairs/sts/dev/stsb")
BUCKETS = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 5.0))


@dataclass(frozen=True)
class Series:
    """A metric over the training of a group.

    Attributes:
        steps: `(s,)` steps that every run has, ascending.
        values: `(r, s)` one row per run.
    """

    steps: npt.NDArray[np.int64]
    values: Floats


def series(group: Group, metric: str) -> Series | None:
    """A metric over training, at the steps that all runs of a group have; None where there is no such step.

    Steps that only some of the runs have are left out: the mean would jump where the set of seeds changes.
    """
    rows = [_logged(run.directory).get(metric, {}) for run in group.runs]
    steps = sorted(set.intersection(*(set(row) for row in rows)))
    if not steps:
        return None
    return Series(np.array(steps), np.array([[row[step] for step in steps] for row in rows]))


@lru_cache(maxsize=4096)
def _logged(directory: Path) -> Mapping[str, Mapping[int, float]]:
    """Metric -> step -> value of a run."""
    logged: dict[str, dict[int, float]] = {}
    for step, name, value in read_metrics(directory / "metrics.csv"):
        logged.setdefault(name, {})[step] = value
    return logged


def selection_metric(block: Block) -> str | None:
    """The metric that selects checkpoints in most runs; None where nothing was selected."""
    names = Counter(
        run.results["selection"]["metric"]
        for group in block.groups
        for run in group.runs
        if run.results.get("selection") and run.results["selection"].get("metric")
    )
    return names.most_common(1)[0][0] if names else None


def selected(run: Run, metric: str) -> tuple[int, float] | None:
    """Step of the encoder that was kept and its value of a metric in the log."""
    selection = run.results.get("selection")
    if not selection:
        return None
    step = int(selection["step"])
    value = _logged(run.directory).get(metric, {}).get(step)
    return None if value is None else (step, value)


def start_of(group: Group, block: Block, metric: str) -> float | None:
    """A metric of the untrained backbone that a group started from: the baseline pooled in the same way."""
    pooling = group.runs[0].results.get("pooling")
    for other in block.groups:
        first = other.runs[0]
        if other.is_backbone and first.results.get("pooling") == pooling and metric in first.metrics:
            return first.metrics[metric]
    return None


def cosines_by_grade(group: Group) -> tuple[str, list[Floats]] | None:
    """Cosines of STS-B pairs by grade, seeds pooled, of the test split, else of dev.

    Returns:
        The split, and one array per bucket of `BUCKETS`; None without per-pair scores.
    """
    for prefix in _GRADED_PAIRS:
        found = [arrays for run in group.runs if (arrays := _arrays(run, [f"{prefix}/cosine", f"{prefix}/gold"]))]
        if found:
            cosine = np.concatenate([arrays[0] for arrays in found])
            gold = np.concatenate([arrays[1] for arrays in found])
            last = len(BUCKETS) - 1
            inside = [
                (gold >= low) & ((gold <= high) if index == last else (gold < high)) & np.isfinite(cosine)
                for index, (low, high) in enumerate(BUCKETS)
            ]
            return prefix.split("/")[2], [cosine[mask] for mask in inside]
    return None


def spectrum(group: Group) -> Floats | None:
    """Singular values in proportion to the largest one, mean over the runs; None where no run has them."""
    found = [arrays[0] for run in group.runs if (arrays := _arrays(run, ["geometry/singular_values"]))]
    usable = [one / one[0] for one in found if len(one) and np.isfinite(one).all() and one[0] > 0]
    if not usable:
        return None
    width = min(len(one) for one in usable)
    return np.asarray(np.mean([one[:width] for one in usable], axis=0))


def _arrays(run: Run, names: Sequence[str]) -> list[Floats] | None:
    """Arrays of a run's per-pair scores; None when one of them is not there."""
    path = run.directory / _PAIR_SCORES
    if not path.is_file():
        return None
    with np.load(path) as stored:
        return [stored[name] for name in names] if all(name in stored.files for name in names) else None
