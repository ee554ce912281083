"""Weights & Biases: an optional second home of the metrics; the run directory stays the record."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger


class RunWandbLogger(WandbLogger):
    """A logger that can be closed, so that the next run of a sweep gets a wandb run of its own."""

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
        tags: free words.
        directory: of the run.
        name: of the run.
        group: what groups runs: the study, else the runs that differ only by seed.
        method: job type, so that runs can be grouped by method.
        config: the resolved config.
    """
    if offline:
        # wandb's own telemetry would look for the network every minute, offline or not.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return RunWandbLogger(
        project=project,
        entity=entity,
        # Not Lightning's `offline`: it sets WANDB_MODE for the whole process, later runs included.
        mode="offline" if offline else None,
        tags=list(tags),
        save_dir=str(directory),
        name=name,
        id=name,
        group=group,
        job_type=method,
        config=config,
        resume=None if offline else "allow",
        log_model=False,
    )
