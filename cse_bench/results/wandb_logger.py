"""Weights & Biases: an optional second home of the metrics; the run directory stays the record."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger


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
) -> Logger:
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
    return WandbLogger(
        project=project,
        entity=entity,
        offline=offline,
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
