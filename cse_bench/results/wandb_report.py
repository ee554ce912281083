"""A written report in Weights & Biases: its tables and figures, and all of its files as one versioned artifact."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cse_bench.errors import ConfigError, first_line
from cse_bench.results.wandb_names import no_telemetry

if TYPE_CHECKING:
    import wandb

PAGE = "report.html"
JOB_TYPE = "report"


def log_report(directory: Path, *, project: str, entity: str | None, group: str | None, offline: bool) -> str:
    """Logs a report that was written before, in a wandb run of its own.

    The run has job type `report` and the group of the runs that are reported. It shows every `.csv` as a table and
    every `.png` as an image, `report/<file>`. All files (and the tables once more, as wandb tables) are one artifact
    `report-<group>` of type `report`; wandb makes a new version of it when a file has changed, and none when all are
    the same.

    The API key comes from `wandb login` or WANDB_API_KEY. Nothing in the report's directory is changed; wandb adds its
    own folder `wandb`, which is not part of the artifact.

    Args:
        directory: with `report.html` and the files beside it.
        project: of wandb.
        entity: of wandb; None: the default one.
        group: of wandb, the study; None: none.
        offline: write to `directory/wandb` only; `wandb sync` uploads later.

    Returns:
        Where it is now: the URL of the run, or its directory when it was written offline.

    Raises:
        ConfigError: there is no report, or wandb does not take it; the report itself stays as it is.
    """
    import wandb

    if not (directory / PAGE).is_file():
        raise ConfigError(
            f"no report in {directory}: {PAGE} is missing; `python -m cse_bench.report runs=...` writes one"
        )
    if offline:
        no_telemetry()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"report-{group or project}")
    try:
        with wandb.init(
            project=project,
            entity=entity,
            group=group,
            job_type=JOB_TYPE,
            name=name,
            dir=directory,
            # Not `online`: WANDB_MODE decides where the config does not.
            mode="offline" if offline else None,
        ) as run:
            _log(run, directory, name)
            where = str(Path(run.dir).parent) if run.offline else str(run.url)
    except (wandb.errors.Error, OSError) as error:
        raise ConfigError(
            f"wandb does not take the report ({first_line(error)}). The report itself is complete: {directory / PAGE}. "
            "Log in with `wandb login` (or WANDB_API_KEY) and check the network, or set wandb.offline=true and upload "
            f"later with `wandb sync {directory / 'wandb'}/offline-run-*`"
        ) from error
    return where


def _log(run: "wandb.Run", directory: Path, name: str) -> None:
    import wandb

    artifact = wandb.Artifact(name, type=JOB_TYPE)
    media: dict[str, Any] = {}
    for path in _files(directory):
        inside = path.relative_to(directory)
        artifact.add_file(str(path), name=inside.as_posix())
        if path.suffix == ".csv":
            # Twice: a table that was logged belongs to the run, and an artifact takes none that does.
            artifact.add(_table(path), inside.with_suffix("").as_posix())
            media[f"report/{path.stem}"] = _table(path)
        elif path.suffix == ".png":
            media[f"report/{path.stem}"] = wandb.Image(str(path))
    if media:
        run.log(media)
    run.log_artifact(artifact)


def _files(directory: Path) -> Iterator[Path]:
    """The report's files in a fixed order, without what wandb keeps there."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name != "wandb" and not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _table(path: Path) -> "wandb.Table":
    """A CSV file with a header; columns that hold nothing but numbers and gaps become numbers."""
    import wandb

    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = [_numbers(list(column)) for column in zip(*rows, strict=True)]
    return wandb.Table(columns=[*header], data=[list(row) for row in zip(*columns, strict=True)])


def _numbers(cells: list[str]) -> list[Any]:
    """Floats and None of a column that is one of numbers; else the column."""
    try:
        numbers = [float(cell) if cell else None for cell in cells]
    except ValueError:
        return cells
    return numbers if any(number is not None for number in numbers) else cells
