"""The contract of an evaluation task, and the one function that runs tasks.

A task receives sentences' embeddings and yields numbers. It knows neither trainer nor logger, so the same task serves
in-training validation, the final test and `cse_bench.evaluate` on any encoder.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from cse_bench.errors import DataError
from cse_bench.evaluation.vectors import first_unusable_row

logger = logging.getLogger(__name__)

V = TypeVar("V")

Encode = Callable[[Sequence[str]], np.ndarray]
"""`n` sentences -> `(n, d)` float32 or float64, row i for sentence i."""

Yielded = Iterator[tuple[str, float | np.ndarray | str]]
"""`(path, value)`: a number is a metric, a 1-d array is kept beside the metrics (at `pairs/...` one value per pair, for
paired statistics), a string is a note on the metric: why it is NaN, or what is to be known about it."""


class Task(Protocol):
    """An evaluation task. Its name and version may be class constants or instance attributes."""

    @property
    def name(self) -> str:
        """Unique among the tasks of a run."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever a change of the code changes a number."""
        ...

    def sentences(self) -> list[str]:
        """Every sentence that `evaluate` will ask for, duplicates allowed. Files are checked here or before."""
        ...

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields metrics, arrays and the reasons of NaN metrics, each with its path."""
        ...

    def sources(self) -> dict[str, str]:
        """Path of each file behind the numbers, relative to its root, and its sha256."""
        ...

    def labels(self) -> dict[str, str]:
        """What the numbers mean in words, by prefix of the metric path."""
        ...


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of `run_tasks`.

    Attributes:
        metrics: Number by metric path.
        arrays: 1-d array by path; those at `pairs/...` hold one value per pair.
        notes: Why a metric is NaN, or what is to be known about it, by metric path.
        labels: What numbers mean, by prefix of the metric path.
        sources: sha256 by file.
        task_versions: Version by task name.
        num_sentences: Distinct sentences encoded.
        time_s: Wall time of reading, encoding and scoring.
    """

    metrics: dict[str, float]
    arrays: dict[str, np.ndarray]
    notes: dict[str, str]
    labels: dict[str, str]
    sources: dict[str, str]
    task_versions: dict[str, int]
    num_sentences: int
    time_s: float


def run_tasks(tasks: Sequence[Task], encode: Encode) -> Evaluation:
    """Runs tasks on one encoder, each distinct sentence of all tasks encoded exactly once, in one call of `encode`.

    Args:
        tasks: At least one, with different names.
        encode: The encoder; sorts by length and batches as it likes.

    Raises:
        DataError: An embedding is zero or not finite (names row and sentence), or a task's files are damaged.
        ValueError: A task or encoder breaks its contract: two values for one path, a wrong shape, an unannounced text.
    """
    started = time.perf_counter()
    if not tasks:
        raise ValueError("no tasks given; expected at least one")
    versions: dict[str, int] = {}
    for task in tasks:
        _add(versions, task.name, task.version, what="task name")
    # A dict keeps the first occurrences in order, so the same tasks always send the same list to the encoder.
    rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(s for task in tasks for s in task.sentences()))}
    embeddings = _checked_embeddings(list(rows), encode)

    def look_up(sentences: Sequence[str]) -> np.ndarray:
        unknown = next((sentence for sentence in sentences if sentence not in rows), None)
        if unknown is not None:
            raise ValueError(f"a task asks for {_short(unknown)}, which its sentences() did not announce")
        return embeddings[[rows[sentence] for sentence in sentences]]

    metrics: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    for task in tasks:
        for path, value in task.evaluate(look_up):
            if isinstance(value, str):
                _add(notes, path, value, what="note path")
            elif isinstance(value, np.ndarray):
                if value.ndim != 1:
                    raise ValueError(f"array {path} has shape {value.shape}; expected one dimension")
                _add(arrays, path, value, what="array path")
            else:
                _add(metrics, path, float(value), what="metric path")
    for path in notes.keys() - metrics.keys():
        raise ValueError(f"a note at {path} belongs to no metric; yield the metric at the same path")
    for path, number in metrics.items():
        if not math.isfinite(number):
            logger.warning("%s is %s: %s", path, number, notes.get(path, "the task gives no reason"))
    return Evaluation(
        metrics=metrics,
        arrays=arrays,
        notes=notes,
        labels=_merged([task.labels() for task in tasks], what="label"),
        sources=_merged([task.sources() for task in tasks], what="source"),
        task_versions=versions,
        num_sentences=len(rows),
        time_s=time.perf_counter() - started,
    )


def _checked_embeddings(sentences: list[str], encode: Encode) -> np.ndarray:
    embeddings = encode(sentences)
    if embeddings.ndim != 2 or len(embeddings) != len(sentences) or embeddings.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"the encoder returned shape {embeddings.shape} of {embeddings.dtype} for {len(sentences)} sentences; "
            f"expected ({len(sentences)}, width) of float32 or float64"
        )
    unusable = first_unusable_row(embeddings)
    if unusable is not None:
        row, reason = unusable
        raise DataError(
            f"the embedding of sentence {row}, {_short(sentences[row])}, {reason}, so it has no cosine with another; "
            "evaluate an encoder whose embeddings are finite and not zero (did its training diverge?)"
        )
    return embeddings


def _short(sentence: str) -> str:
    return repr(sentence if len(sentence) <= 80 else sentence[:77] + "...")


def _add(results: dict[str, V], path: str, value: V, *, what: str) -> None:
    if path in results:
        raise ValueError(f"{what} {path!r} is given twice; each must be unique over all tasks")
    results[path] = value


def _merged(parts: Sequence[dict[str, str]], *, what: str) -> dict[str, str]:
    """Joins the tasks' dicts: tasks may share a file or a label, but not disagree about it."""
    merged: dict[str, str] = {}
    for part in parts:
        for key, value in part.items():
            if merged.setdefault(key, value) != value:
                raise ValueError(f"two tasks give {what} {key!r} different values: {merged[key]!r} and {value!r}")
    return merged
