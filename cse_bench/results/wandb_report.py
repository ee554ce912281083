"""A written report in Weights & Biases: its tables and figures, and all of its files as one versioned artifact."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cse_bench.errors import ConfigError, first_line
from cse_bench.results.wandb_names import no_telemetry

if TYPE_CHECKING:
    import wandb

JOB_TYPE = "report"


def log_report(
    directory: Path, files: Sequence[Path], *, project: str, entity: str | None, group: str | None, offline: bool
) -> str:
    """Logs a report that was written before, in a wandb run of its own.

    The run has job type `report` and the group of the runs that are reported. It shows every `.csv` as a table and
    every `.png` as an image, `report/<file>`. All files (and the tables once more, as wandb tables) are one artifact
    `report-<group>` of type `report`; wandb makes a new version of it when a file has changed, and none when all are
    the same.

    Only the given files are logged: the user chose the folder, and it may hold anything else. wandb adds its own
    folder `wandb` to it.

    The API key comes from `wandb login` or WANDB_API_KEY.

    Args:
        directory: of the report; names in the artifact are relative to it.
        files: of the report, the page first; all below `directory`.
        project: of wandb.
        entity: of wandb; None: the default one.
        group: of wandb, the study; None: none.
        offline: write to `directory/wandb` only; `wandb sync` uploads later.

    Returns:
        Where it is now: the URL of the run, or its directory when it was written offline.

    Raises:
        ConfigError: a file is missing, or wandb does not take the report; the report itself stays as it is.
        ValueError: no files, or one that is not below `directory`.
    """
    import wandb

    if not files:
        raise ValueError("no files; give those of the report, the page first")
    named = {path.relative_to(directory): path for path in files}
    if missing := [str(path) for path in files if not path.is_file()]:
        raise ConfigError(
            f"the report in {directory} is not complete, wandb gets none of it: {missing[0]} is missing; "
            "`python -m cse_bench.report runs=...` writes it"
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
            # wandb would add these by itself: changes of a git repository around us, the script, what is printed.
            settings=wandb.Settings(disable_git=True, save_code=False, console="off"),
        ) as run:
            _log(run, named, name)
            where = str(Path(run.dir).parent) if run.offline else str(run.url)
    except (wandb.errors.Error, OSError) as error:
        raise ConfigError(
            f"wandb does not take the report ({first_line(error)}). The report itself is complete: {files[0]}. "
            "Log in with `wandb login` (or WANDB_API_KEY) and check the network, or set wandb.offline=true and upload "
            f"later with `wandb sync {directory / 'wandb'}/offline-run-*`"
        ) from error
    return where


def _log(run: "wandb.Run", named: Mapping[Path, Path], name: str) -> None:
    import wandb

    artifact = wandb.Artifact(name, type=JOB_TYPE)
    media: dict[str, Any] = {}
    for inside, path in named.items():
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
