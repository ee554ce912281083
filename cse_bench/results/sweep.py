"""The end of a sweep: one table with mean and spread, instead of as many single numbers as there were runs."""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cse_bench.results.labels import varying_settings

_MANIFEST = "CSE_BENCH_SWEEP_MANIFEST"
_WIDEST = 16  # columns of a table that somebody can still read


class SweepTable(Callback):
    """Hydra callback: prints the table of a sweep when it is over.

    The runs leave their names in a manifest file, since a launcher may run them in other processes.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Opens the manifest."""
        folder = Path(config.paths.output_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[_MANIFEST] = str((folder / f".sweep-{uuid.uuid4().hex}.jsonl").resolve())

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Notes a failed run; the sweep goes on with the others."""
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value  # its property would raise it
            _note({"failed": " ".join(job_return.overrides or []), "error": f"{type(error).__name__}: {error}"})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table."""
        close_sweep()


def note_run(directory: Path, baseline: Path | None) -> None:
    """Enters a finished run into the manifest of the sweep that it is part of, if any.

    Args:
        directory: of the run.
        baseline: directory of the untrained backbone's run, for a trained one.
    """
    _note({"directory": str(directory.resolve()), "baseline": str(baseline.resolve()) if baseline else None})


def note_busy(directory: Path, overrides: Sequence[str]) -> None:
    """Enters a run that another process is at; the sweep comes back to it when its other runs are done.

    Args:
        directory: of the run.
        overrides: of the job.
    """
    _note({"busy": str(directory.resolve()), "overrides": list(overrides)})


def reaches_sweep() -> bool:
    """Whether the sweep reads what a job notes. Jobs do not always inherit its environment, e.g. on a Ray cluster."""
    return bool(os.environ.get(_MANIFEST))


def busy_runs() -> list[tuple[Path, list[str]]]:
    """Directory and overrides of every run that was entered with `note_busy`."""
    return [(Path(entry["busy"]), entry["overrides"]) for entry in _entries() if "busy" in entry]


def comes_back(sweeper: Mapping[str, Any]) -> bool:
    """Whether a sweeper looks again at runs that another process was at. Others want a result from every job.

    Args:
        sweeper: Hydra's config of it.
    """
    return str(sweeper.get("_target_")).endswith(".MissingRuns")


def close_sweep() -> None:
    """Prints the table of the sweep that was started here, if any, and forgets it.

    Hydra tells its callbacks of the end of a sweep only when no run failed, so the command line calls this as well.
    """
    entries = _entries()
    if manifest := os.environ.pop(_MANIFEST, None):
        Path(manifest).unlink(missing_ok=True)
    from cse_bench.results.tables import group_table, print_lines, print_table

    failed = [entry for entry in entries if "failed" in entry]
    runs = len({entry["directory"] for entry in entries if "directory" in entry})
    columns = sweep_columns(entries)
    if len(columns) > _WIDEST:
        print_lines([f"{runs} runs of {len(columns)} settings: too many for a table; see python -m cse_bench.report"])
    elif columns:
        print_table(group_table(columns, title=f"{runs} runs" + (f", and {len(failed)} that failed" if failed else "")))
    print_lines(f"failed: {entry['failed']}\n  {entry['error']}" for entry in failed)


def _note(entry: dict[str, Any]) -> None:
    if manifest := os.environ.get(_MANIFEST):
        with Path(manifest).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _entries() -> list[dict[str, Any]]:
    manifest = Path(os.environ.get(_MANIFEST, ""))
    return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []


def sweep_columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Column title -> metrics of its runs; runs that differ by more than the seed never share a column.

    Args:
        entries: the lines of a manifest. Untrained baselines come first; a run that is named twice counts once.
    """
    from cse_bench.results.run_directory import read_results

    found = [entry for entry in entries if "directory" in entry]
    directories = [entry["baseline"] for entry in found if entry["baseline"]] + [entry["directory"] for entry in found]
    groups: dict[str, list[dict[str, Any]]] = {}
    for directory in dict.fromkeys(directories):
        results = read_results(Path(directory))
        if results.get("status") == "complete":
            groups.setdefault(results["group"], []).append(results)
    titles = {group: _title(runs[0]) for group, runs in groups.items()}
    columns = {}
    for group, runs in groups.items():
        same = [groups[other][0] for other, title in titles.items() if title == titles[group]]
        name = f"{titles[group]}\n{_difference(runs[0], same)}" if len(same) > 1 else titles[group]
        columns[name] = [run["metrics"] for run in runs]
    return columns


def _title(results: Mapping[str, Any]) -> str:
    method = results["method"]
    return f"{method['name']} ({method['status']})\n{results['backbone']}, {results['pooling']}"


def _difference(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What sets a run apart from those with the same title; part of the group's hash makes it unique."""
    return "\n".join([*varying_settings(results, others)[:3], results["group"][:8]])
