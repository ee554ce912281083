"""Which jobs of a sweep have something left to do."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cse_bench.config.schema import RunConfig
from cse_bench.config.sweep_configs import SweepConfigs
from cse_bench.config.validate import validate_run
from cse_bench.errors import CSEBenchError
from cse_bench.results.environment import differences
from cse_bench.results.run_directory import RunDirectory, read_results
from cse_bench.results.sweep import busy_runs, note_run
from cse_bench.results.tables import print_lines
from cse_bench.run import finished

# Launchers whose jobs run on this machine; elsewhere the same config may mean other devices and precisions.
_HERE = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")


class JobChecker:
    """Looks for the results of a sweep's jobs, and remembers which were left to other processes.

    Args:
        loader: Hydra's.
        master: the composed config of the sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._configs = SweepConfigs(loader, master)
        self._here = master.hydra.launcher._target_.rpartition(".")[2] in _HERE
        self._asked = self._come_back_to = 0
        self._found: list[dict[str, Any]] = []

    def missing(self, jobs: Iterable[Sequence[str]]) -> list[list[str]]:
        """The jobs that are to be launched; the finished ones enter the sweep's table.

        In doubt a job is launched: what is wrong with it is told there.

        Args:
            jobs: the overrides of each.
        """
        left = []
        for job in jobs:
            self._asked += 1
            if (done := self._finished(job)) is None:
                left.append(list(job))
                continue
            baseline = done["baseline_directory"]
            note_run(Path(done["directory"]), Path(baseline) if baseline else None)
            self._found.append(done)
        return left

    def tell(self) -> None:
        """Says how many runs were found finished, and whether all of them were made with what is here now."""
        if self._found:
            print_lines(
                [f"{len(self._found)} of {self._asked} runs were finished before (overwrite=true runs them again)"]
            )
            print_lines(reuse_notes(self._found))

    def left_to_others(self) -> dict[Path, list[str]]:
        """Directory -> overrides of the jobs that found another process at their run, since this was last asked."""
        busy = busy_runs()
        new = busy[self._come_back_to :]
        self._come_back_to = len(busy)
        return dict(new)

    def _finished(self, job: Sequence[str]) -> dict[str, Any] | None:
        try:
            config = validate_run(self._configs(job), here=self._here)
            return None if config.dry_run or _is_open(config) else finished(config)
        except (CSEBenchError, HydraException, OmegaConfBaseException):
            return None


def _is_open(config: RunConfig) -> bool:
    """Whether the machine that runs it decides what run it is."""
    return "auto" in (config.precision, config.evaluation.precision)


def wait_for(directory: Path) -> None:
    """Returns when no other process is at the run."""
    with RunDirectory(directory).locked(wait=True):
        pass


def reuse_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What finished runs were made with that is otherwise now; a line for each difference, none where there is none.

    Their baselines and the runs that they needed first are looked at too, and what they were begun with.

    Args:
        results: of finished runs, with their `directory` and `baseline_directory`.
    """
    one = len(results) == 1
    begun = [{"environment": then} for result in results for then in result.get("earlier_environments", [])]
    baselines = {Path(directory) for result in results if (directory := result.get("baseline_directory"))}
    looked_at: list[tuple[str, Sequence[Mapping[str, Any]]]] = [
        ("it was made" if one else "{} of them were made", results),
        ("a part of it was made" if one else "{} parts of them were made", begun),
        ("its baseline was made" if one else "{} of their baselines were made", _read(baselines)),
        (f"{{}} of the runs that {'it' if one else 'they'} needed first were made", _read(_needed_first(results))),
    ]
    notes = []
    for which, runs in looked_at:
        counts = Counter(phrase for run in runs for phrase in differences(run.get("environment", {})))
        notes += [f"note: {which.format(count)} with other {phrase}" for phrase, count in counts.items()]
    return notes


def _read(directories: Iterable[Path]) -> list[dict[str, Any]]:
    """The results of runs that are still there."""
    found = [read_results(directory) for directory in directories]
    return [results for results in found if "environment" in results]


def _needed_first(results: Iterable[Mapping[str, Any]]) -> set[Path]:
    """Directories of the runs that had to be done before others, and before these; they lie beside each other."""
    found: set[Path] = set()
    left = [(Path(result["directory"]).parent, dict(result.get("prerequisites") or {})) for result in results]
    while left:
        folder, names = left.pop()
        new = {folder / name for name in names.values()} - found
        found |= new
        left += [(folder, dict(read_results(directory).get("prerequisites") or {})) for directory in new]
    return found
