"""What the figures are drawn from: values over training, scores of single pairs, spectra."""

import csv
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cse_bench.results.collect import Block, Group, Run
from cse_bench.results.metrics_file import read_metrics
from cse_bench.results.report.tables import with_status

Floats = npt.NDArray[np.float64]

_PAIR_SCORES = "pair_scores.npz"
_LOG = "metrics.csv"
_SPECTRUM = "geometry/singular_values"
# What NumPy raises for a file that is cut off, or holds something else.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error)
_GRADED_PAIRS = ("pairs/sts/test/stsb", "pairs/sts/dev/stsb")
BUCKETS = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 5.0))


@dataclass(frozen=True)
class Series:
    """A metric over the training of a group.

    Attributes:
        steps: `(s,)` steps that every run with a log has, ascending.
        values: `(r, s)` one row per run with a log.
    """

    steps: npt.NDArray[np.int64]
    values: Floats


def series(group: Group, metric: str) -> Series | None:
    """A metric over training, of the runs that logged it; None without such a run, or without a step they share.

    Steps that only some of these runs have are left out: the mean would jump where the set of seeds changes.
    """
    rows = [row for run in group.runs if (row := _log_of(run, metric))]
    steps = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if not steps:
        return None
    return Series(np.array(steps), np.array([[row[step] for step in steps] for row in rows]))


def _log_of(run: Run, metric: str) -> Mapping[int, float]:
    """Step -> value; empty where the run did not log the metric, or its log cannot be read."""
    return (_logged(run.directory) or {}).get(metric, {})


@lru_cache(maxsize=4096)
def _logged(directory: Path) -> Mapping[str, Mapping[int, float]] | None:
    """Metric -> step -> value of a run; None when its log cannot be read."""
    logged: dict[str, dict[int, float]] = {}
    try:
        for step, name, value in read_metrics(directory / _LOG):
            logged.setdefault(name, {})[step] = value
    except (OSError, ValueError, csv.Error):
        return None
    return logged


def log_gaps(groups: Sequence[Group], metric: str) -> list[str]:
    """Sentences about runs that are missing in what `series` returns."""
    damaged = [run for group in groups for run in group.runs if _logged(run.directory) is None]
    gaps = [_without(run, _LOG) for run in damaged]
    for group in groups:
        used = sum(bool(_log_of(run, metric)) for run in group.runs)
        if group.is_trained and used < len(group.runs):
            gaps.append(f"{with_status(group)}: {used} of {len(group.runs)} runs have a log of it")
    return gaps


def pair_gaps(groups: Sequence[Group]) -> list[str]:
    """Sentences about runs whose per-pair scores and singular values cannot be read."""
    return [_without(run, _PAIR_SCORES) for group in groups for run in group.runs if _is_damaged(run)]


def _without(run: Run, file: str) -> str:
    return f"without {run.directory.name}: its {file} cannot be read"


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
    value = _log_of(run, metric).get(step)
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
    found = [arrays[0] for run in group.runs if (arrays := _arrays(run, [_SPECTRUM]))]
    usable = [one / one[0] for one in found if len(one) and np.isfinite(one).all() and one[0] > 0]
    if not usable:
        return None
    width = min(len(one) for one in usable)
    return np.asarray(np.mean([one[:width] for one in usable], axis=0))


def _arrays(run: Run, names: Sequence[str]) -> list[Floats] | None:
    """Arrays of a run's per-pair scores; None when one of them is not there, or cannot be read."""
    try:
        return _stored(run, names)
    except _UNREADABLE:
        return None


def _stored(run: Run, names: Sequence[str]) -> list[Floats] | None:
    path = run.directory / _PAIR_SCORES
    if not path.is_file():
        return None
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return [stored[name] for name in names] if all(name in stored.files for name in names) else None


def _is_damaged(run: Run) -> bool:
    """Whether any of what the figures read of a run's arrays cannot be read."""
    try:
        for names in (*([f"{prefix}/cosine", f"{prefix}/gold"] for prefix in _GRADED_PAIRS), [_SPECTRUM]):
            _stored(run, names)
    except _UNREADABLE:
        return True
    return False
