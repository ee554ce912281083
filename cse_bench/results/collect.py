"""Collecting finished runs: repetitions are put together, what can be compared side by side, and nothing else.

* a *group* is the runs that differ by their seed alone
* a *block* is the groups that may be compared: one backbone, one training text and precision, and one evaluation (same
  test data by checksum, same task versions, same precision of the embeddings)

What is unfinished, failed, damaged or there twice is named and left out.
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cse_bench.errors import ConfigError
from cse_bench.results.labels import labels
from cse_bench.results.run_directory import read_results

_RESULTS = "results.json"
_NEEDED = (
    *("identity", "group", "seed", "steps", "backbone", "finished", "metrics", "method.name", "method.status"),
    *("precision.evaluation", "data.corpus", "data.evaluation", "evaluation.task_versions"),
)

Facts = tuple[tuple[str, str], ...]
"""What the runs of a block have in common, by name."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: where it lies.
        results: the content of its `results.json`.
    """

    directory: Path
    results: Mapping[str, Any]

    @property
    def seed(self) -> int | None:
        """None where it decides nothing: no training, and no random weights."""
        random = self.results.get("config", {}).get("backbone", {}).get("source") == "random"
        return int(self.results["seed"]) if self.is_trained or random else None

    @property
    def is_trained(self) -> bool:
        """Whether any step was taken."""
        return bool(self.results["steps"])

    @property
    def is_backbone(self) -> bool:
        """Whether this is the backbone as it is, with which all others are compared."""
        # Results without this key are older than methods that make an encoder without training.
        return bool(self.results["method"].get("is_backbone", not self.is_trained))

    @property
    def metrics(self) -> Mapping[str, float]:
        """All metrics by path."""
        metrics: Mapping[str, float] = self.results["metrics"]
        return metrics


@dataclass(frozen=True)
class Group:
    """Repetitions of one experiment.

    Attributes:
        key: the hash of everything but the seed.
        runs: in the order of their seeds.
        label: a name for tables and figures, unique in its block: the method, and where several groups have the same
            one, what sets them apart.
    """

    key: str
    runs: Sequence[Run]
    label: str

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.runs[0].results["method"]["name"])

    @property
    def status(self) -> str:
        """Where the method's definition comes from."""
        return str(self.runs[0].results["method"]["status"])

    @property
    def is_backbone(self) -> bool:
        """See `Run.is_backbone`."""
        return self.runs[0].is_backbone

    @property
    def is_trained(self) -> bool:
        """See `Run.is_trained`."""
        return self.runs[0].is_trained

    def values(self, metric: str) -> dict[int | None, float]:
        """Seed -> value of a metric, for the runs that have it."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


@dataclass(frozen=True)
class Block:
    """Groups that may be compared.

    Attributes:
        facts: what they have in common, for a title.
        groups: the backbone as it is, what is made of it without training, and the trained ones by method.
    """

    facts: Mapping[str, str]
    groups: Sequence[Group]


@dataclass
class Collection:
    """What was found.

    Attributes:
        blocks: the finished runs.
        left_out: directory and reason of every other one.
    """

    blocks: list[Block] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def collect(patterns: Sequence[str]) -> Collection:
    """Reads all runs in or below some folders.

    Args:
        patterns: run directories, folders that hold some at any depth, or globs of either.

    Raises:
        ConfigError: a pattern leads to no run.
    """
    collection = Collection()
    finished: dict[str, Run] = {}
    seen: set[str] = set()
    for directory in (path for pattern in patterns for path in _directories(pattern, seen)):
        results = read_results(directory)
        if reason := _unusable(results):
            collection.left_out.append((directory, reason))
            continue
        run, known = Run(directory, results), finished.get(str(results["identity"]))
        if known is not None:
            run, older = sorted((known, run), key=lambda one: str(one.results["finished"]), reverse=True)
            words = f"the same run as {run.directory}, older, {_agreement(run, older)}"
            collection.left_out.append((older.directory, words))
        finished[str(results["identity"])] = run
    collection.blocks = _blocks(list(finished.values()))
    return collection


def _directories(pattern: str, seen: set[str]) -> Iterator[Path]:
    """The run directories that a pattern leads to, through links too, less those that others led to."""
    found = False
    walked: set[str] = set()
    for text in sorted(glob.glob(os.path.expanduser(pattern))):  # noqa: PTH207, PTH111 (an absolute pattern, too)
        for folder, folders, files in os.walk(text, followlinks=True):
            real = os.path.realpath(folder)
            if _RESULTS in files or real in walked:
                folders.clear()  # nothing below a run is another run; a link may lead back up
            walked.add(real)
            if _RESULTS in files:
                found = True
                if real not in seen:
                    seen.add(real)
                    yield Path(folder)
            folders.sort()
    if not found:
        raise ConfigError(f"runs: no run at '{pattern}' (a run directory holds {_RESULTS}); give folders or globs")


def _unusable(results: Mapping[str, Any]) -> str | None:
    """Why a run cannot be counted, or None."""
    if not results or "status" not in results:
        return f"damaged: its {_RESULTS} cannot be read"
    if results["status"] == "failed":
        return f"failed: {results.get('error', 'no reason given')}"
    if results["status"] != "complete":
        return f"unfinished ({results['status']}): the same command goes on with it"
    missing = [path for path in _NEEDED if not _has(results, path.split("."))]
    if missing:
        return f"damaged: without {', '.join(missing)}"
    if not isinstance(results["seed"], int):
        return f"damaged: its seed is {results['seed']!r}"
    return None


def _has(results: Any, path: Sequence[str]) -> bool:
    if not path:
        return True
    return isinstance(results, Mapping) and path[0] in results and _has(results[path[0]], path[1:])


def _agreement(run: Run, older: Run) -> str:
    """Whether two runs of one identity have the same scores, where both have them."""
    common = [name for name in run.metrics if name in older.metrics and not name.startswith("cost/")]
    pairs = {name: (run.metrics[name], older.metrics[name]) for name in common}
    differing = {name: values for name, values in pairs.items() if not np.array_equal(*values, equal_nan=True)}
    if not differing:
        return "the same numbers"
    name = max(differing, key=lambda name: abs(differing[name][0] - differing[name][1]))
    return "OTHER NUMBERS ({} of {} metrics; {}: {:.6g} and {:.6g})".format(
        len(differing), len(common), name, *differing[name]
    )


def _blocks(runs: Sequence[Run]) -> list[Block]:
    # Seeds of one config are one group only if they were also evaluated alike, which no config tells.
    members: dict[tuple[str, Facts], list[Run]] = {}
    for run in runs:
        members.setdefault((str(run.results["group"]), facts_of(run)), []).append(run)
    groups: dict[Facts, list[Group]] = {}
    for (key, facts), own in members.items():
        group = Group(key, sorted(own, key=lambda run: -1 if run.seed is None else run.seed), label="")
        groups.setdefault(facts, []).append(group)
    # An untrained backbone has fewer facts: it stands beside everything that was made of it and evaluated alike, and
    # what was fitted to a text without training stands beside what was trained on that text.
    return [
        _block(facts, [group for own in groups if set(own) <= set(facts) for group in groups[own]])
        for facts in groups
        if not any(set(facts) < set(other) for other in groups)
    ]


def _block(facts: Facts, groups: Sequence[Group]) -> Block:
    groups = sorted(groups, key=lambda one: (not one.is_backbone, one.is_trained, one.method, one.key))
    names = labels([group.runs[0].results for group in groups])
    return Block(dict(facts), [replace(group, label=name) for group, name in zip(groups, names, strict=True)])


def facts_of(run: Run) -> Facts:
    """What a run must share with others to be compared. Of an untrained one only what it has."""
    results = run.results
    evaluation = results["data"]["evaluation"]
    facts = {
        "backbone": str(results["backbone"]),
        "evaluation data": _short(repr(sorted(evaluation.items()))),
        "task versions": ", ".join(f"{name} {v}" for name, v in sorted(results["evaluation"]["task_versions"].items())),
        "evaluation precision": str(results["precision"]["evaluation"]),
    }
    if (corpus := results["data"]["corpus"]) is not None:
        checksum = str(corpus.get("sha256", ""))[:8]
        facts["training text"] = f"{corpus['name']} ({checksum}, {corpus['sentences']} sentences)"
    if run.is_trained:
        facts["training precision"] = str(results["precision"]["training"])
    return tuple(facts.items())


def _short(text: str) -> str:
    """A name for content."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
