"""The end of a sweep: one table with mean and spread, instead of as many single numbers as there were runs."""

import json
import os
import uuid
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_MANIFEST = "CSE_BENCH_SWEEP_MANIFEST"


class SweepTable(Callback):
    """Hydra callback: prints the table of a sweep when it is over.

    The runs leave their names in a manifest file, since a launcher may run them in other processes.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Opens the manifest."""
        folder = Path(config.paths.output_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[_MANIFEST] = str((folder / f".sweep-{uuid.uuid4().hex}.jsonl").resolve())

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table and removes the manifest."""
        manifest = Path(os.environ.pop(_MANIFEST))
        if not manifest.is_file():
            return
        entries = [json.loads(line) for line in manifest.read_text().splitlines()]
        manifest.unlink()
        from cse_bench.results.tables import group_table, print_table

        columns = _columns(entries)
        if columns:
            print_table(group_table(columns, title=f"{len(entries)} runs"))


def note_run(directory: Path, baseline: Mapping[str, float] | None) -> None:
    """Enters a finished run into the manifest of the sweep that it is part of, if any."""
    if manifest := os.environ.get(_MANIFEST):
        with Path(manifest).open("a") as file:
            file.write(json.dumps({"directory": str(directory.resolve()), "baseline": baseline}) + "\n")


def _columns(entries: list[dict[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Column title -> metrics of its runs; runs that differ by more than the seed never share a column."""
    from cse_bench.results.run_directory import read_results

    runs: dict[tuple[str, str], list[Mapping[str, float]]] = defaultdict(list)
    baselines: dict[str, list[Mapping[str, float]]] = {}
    for entry in entries:
        results = read_results(Path(entry["directory"]))
        backbone = f"{results['backbone']}, {results['pooling']}"
        runs[f"{results['method']['name']} ({results['method']['status']})\n{backbone}", results["group"]].append(results["metrics"])
        if entry["baseline"]:
            baselines[f"untrained\n{backbone}"] = [entry["baseline"]]
    titles = [title for title, _ in runs]
    named = {title if titles.count(title) == 1 else f"{title}\n{group[:8]}": values for (title, group), values in runs.items()}
    return {**{title: values for title, values in baselines.items() if title not in named}, **named}
