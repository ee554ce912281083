"""`results.csv`: one line per run with all of its metrics, for whoever wants to compute something else."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cse_bench.results.collect import Collection, Group, Run, facts_of

_FACTS = ("method", "label", "status", "pooling", "group", "seed", "steps", "selected_step", "commit", "directory")


def write_every_run(collection: Collection, path: Path) -> None:
    """Writes the file; a metric that a run does not have is empty, one that is not defined is `nan`."""
    groups = [group for block in collection.blocks for group in block.groups]
    known = sorted({metric for group in groups for run in group.runs for metric in run.metrics})
    compared_by = list(dict.fromkeys(name for block in collection.blocks for name in block.facts))
    written = set()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(name.replace(" ", "_") for name in compared_by), *_FACTS, *known])
        for group in groups:
            for run in group.runs:
                if run.directory not in written:  # an untrained backbone stands in several blocks
                    written.add(run.directory)
                    own = dict(facts_of(run))
                    facts = [*(own.get(name, "") for name in compared_by), *_facts(group, run)]
                    writer.writerow([*facts, *(run.metrics.get(metric, "") for metric in known)])


def _facts(group: Group, run: Run) -> Iterator[Any]:
    results = run.results
    yield from (group.method, group.label, group.status, results.get("pooling", ""), group.key[:8])
    selection = results.get("selection") or {}
    git = results.get("environment", {}).get("git") or {}
    yield from ("" if run.seed is None else run.seed, results["steps"], selection.get("step", ""))
    yield from (str(git.get("commit") or "")[:10], run.directory.name)
