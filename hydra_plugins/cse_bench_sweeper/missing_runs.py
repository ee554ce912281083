"""Hydra's grid sweeper, less the jobs that have nothing to do.

Light to import: Hydra imports every plugin at every start.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


class MissingRuns(BasicSweeper):
    """Launches what is missing, once; runs that another process is at are come back to at the end.

    Finished runs are found here, before a launcher sees them: a cluster is not asked for machines that would only read
    a result.

    Args:
        max_batch_size: jobs given to the launcher at a time; None: all.
        params: what to sweep over, beside the command line.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the sweep.

        Raises:
            Exception: of the first job that failed, when all others are done.
        """
        from cse_bench.results.missing import JobChecker, wait_for

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        checker = JobChecker(loader, self.config)
        returns: list[Sequence[JobReturn]] = []
        for batch in batches:
            self._launch(checker.missing(batch), returns)
        checker.tell()
        while busy := checker.left_to_others():
            for directory in busy:
                wait_for(directory)
            self._launch(checker.missing(list(busy.values())), returns)
        for result in (result for batch in returns for result in batch):
            _ = result.return_value  # raises what the job raised
        return returns

    def _launch(self, jobs: list[list[str]], returns: list[Sequence[JobReturn]]) -> None:
        if jobs:
            self.validate_batch_is_legal(jobs)
            assert self.launcher is not None
            returns.append(self.launcher.launch(jobs, initial_job_idx=sum(map(len, returns))))
