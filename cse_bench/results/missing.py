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
from cse_bench.results.run_directory import RunDirectory
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

    Args:
        results: of finished runs.
    """
    counts = Counter(phrase for result in results for phrase in differences(result.get("environment", {})))
    which = "it was made" if len(results) == 1 else "{} of them were made"
    return [f"note: {which.format(count)} with other {phrase}" for phrase, count in counts.items()]
