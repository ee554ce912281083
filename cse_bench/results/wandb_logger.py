"""Weights & Biases: an optional second home of the metrics; the run directory stays the record."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from cse_bench.errors import ConfigError, first_line
from cse_bench.results.wandb_names import FINAL, no_telemetry

logger = logging.getLogger(__name__)


class RunWandbLogger(WandbLogger):
    """A logger that can be closed, so that the next run of a sweep gets a wandb run of its own."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, opened when it is first asked for.

        When wandb cannot be reached, the run goes on, and wandb's files stay in the run directory: hours of training
        do not hang on somebody else's machine.

        Raises:
            ConfigError: wandb does not know the key, or there is none.
        """
        try:
            return super().experiment
        except wandb.errors.Error as error:
            if isinstance(error, wandb.errors.CommError) and not isinstance(error, wandb.errors.AuthenticationError):
                logger.warning(
                    "wandb cannot be reached (%s); the run goes on without it. Once it can: wandb sync %s",
                    first_line(error),
                    Path(str(self._save_dir), "wandb", "offline-run-*"),
                )
                wandb.teardown()  # its own process still holds the run that it could not open
                self._wandb_init |= {"mode": "offline", "resume": None}
                return super().experiment
            raise ConfigError(
                f"logger.wandb: no run can be opened ({first_line(error)}); log in with `wandb login` (or "
                "WANDB_API_KEY) and check the network, or go on with logger.wandb.offline=true (`wandb sync` uploads "
                "later) or logger=csv"
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs at a step; final metrics go to the summary as well, which tables and bar charts read."""
        super().log_metrics(metrics, step)
        if final := {name: value for name, value in metrics.items() if name.startswith(FINAL)}:
            self.experiment.summary.update(final)

    def close(self, *, failed: bool) -> None:
        """Ends the wandb run; without it, wandb goes on with the same run in this process.

        Args:
            failed: wandb shows the run as failed.
        """
        if self._experiment is not None:
            self._experiment.finish(exit_code=1 if failed else 0)
            self._experiment = None


def wandb_logger(
    *,
    project: str,
    entity: str | None,
    offline: bool,
    tags: list[str],
    directory: Path,
    name: str,
    group: str,
    method: str,
    config: dict[str, Any],
) -> RunWandbLogger:
    """A logger whose runs carry the run's identity as id, so that a resumed run goes on in the same place.

    The API key comes from `wandb login` or the environment; the schema has no key for it, so no config can hold one.

    Args:
        project: of wandb.
        entity: of wandb; None: the default one.
        offline: write to the run directory only.
        tags: free words; the status of the method is added.
        directory: of the run.
        name: of the run.
        group: what groups runs: the study, else the runs that differ only by seed.
        method: job type, so that runs can be grouped by method.
        config: the resolved config, and under `run` what a dashboard groups and labels by.
    """
    if offline:
        no_telemetry()
    return RunWandbLogger(
        project=project,
        entity=entity,
        # Not Lightning's `offline`: it sets WANDB_MODE for the whole process, later runs included.
        mode="offline" if offline else None,
        tags=[*tags, config["run"]["status"]],
        save_dir=str(directory),
        name=name,
        id=name,
        group=group,
        job_type=method,
        config=config,
        resume=None if offline else "allow",
        log_model=False,
    )
