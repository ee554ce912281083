"""A search with Optuna, as a sweeper of Hydra: every trial is one or more runs, given to whatever launcher is chosen.

The published sweeper (hydra-optuna-sweeper 1.3.0) admits Optuna below 3 only, and takes one run for a trial.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Tune(Sweeper):
    """Asks Optuna for values, runs them, and tells it the selection metric.

    Args:
        trials: finished trials that the study shall have in the end, those of earlier and of parallel launches counted.
        seeds: of the runs of a trial, whose mean counts; None: one run, with the config's seed.
        parallel_trials: asked for, and given to the launcher, at a time.
        sampler_seed: of Optuna's sampler; None: another one at every launch.
        study: its name; None: from what is searched and what stays fixed.
        storage: a file (Optuna's journal), or the URL of a database.
        params: the search space and fixed overrides, beside the command line.
    """

    def __init__(
        self,
        *,
        trials: int,
        seeds: list[int] | None,
        parallel_trials: int,
        sampler_seed: int | None,
        study: str | None,
        storage: str,
        params: dict[str, str] | None,
    ) -> None:
        self.trials, self.parallel_trials = trials, parallel_trials
        self.seeds, self.sampler_seed = seeds, sampler_seed
        self.study, self.storage, self.params = study, storage, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook; takes the launcher from the config."""
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the search.

        Raises:
            ConfigError: a space, a seed or a study that does not fit.
        """
        from cse_bench.tuning import search

        def launch(jobs: list[list[str]], first: int) -> Any:
            self.validate_batch_is_legal(jobs)
            return self.launcher.launch(jobs, initial_job_idx=first)

        given = [f"{key}={value}" for key, value in (self.params or {}).items()]
        return search(self, [*given, *arguments], loader=self.hydra_context.config_loader, launch=launch)
