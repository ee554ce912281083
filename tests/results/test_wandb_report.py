"""A report in wandb, offline: tables, figures, one artifact with all files; and what is said when it is not taken."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cse_bench.errors import ConfigError
from cse_bench.results.wandb_report import log_report
from tests.results.offline_wandb import isolate, recorded


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A directory as `python -m cse_bench.report` leaves it."""
    import matplotlib.image
    import numpy as np

    folder = tmp_path / "report"
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / "report.html").write_text("<!doctype html><title>A study</title>")
    with (folder / "tables" / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["method", "mean", "sd"], ["simcse", "60.43", "0.41"], ["untrained", "57.19", ""]])
    (folder / "tables" / "scores.md").write_text("| method | mean |\n")
    matplotlib.image.imsave(folder / "figures" / "plane.png", np.zeros((4, 4)))
    (folder / "figures" / "plane.svg").write_text("<svg/>")
    return folder


def log(directory: Path) -> str:
    return log_report(directory, project="cse_bench", entity=None, group="a study", offline=True)


def test_tables_figures_and_one_artifact(report: Path) -> None:
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    where = log(report)
    assert Path(where).parent == report / "wandb"
    assert {path: path.read_bytes() for path in before} == before
    found = recorded(report)
    run = found["run"]
    assert (run.run_group, run.job_type, run.project) == ("a study", "report", "cse_bench")
    (row,) = found["history"]
    assert row["report/scores"]["_type"] == "table-file"
    assert (row["report/scores"]["nrows"], row["report/scores"]["ncols"]) == (2, 3)
    assert row["report/plane"]["_type"] == "image-file"
    artifacts = {(one.type, one.name): one for one in found["artifacts"] if one.type == "report"}
    ((kind, name), artifact), *more = artifacts.items()
    assert (kind, name, more) == ("report", "report-a-study", [])
    assert {entry.path for entry in artifact.manifest.contents} == {
        "report.html",
        "tables/scores.csv",
        "tables/scores.md",
        "tables/scores.table.json",
        "figures/plane.png",
        "figures/plane.svg",
    }
    for path in report.rglob("*"):
        assert not path.is_file() or b"f" * 40 not in path.read_bytes(), path


def test_the_same_report_has_the_same_checksum_and_wandb_folders_are_no_part_of_it(
    report: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(report, copy)
    (copy / "wandb").mkdir()
    (copy / "wandb" / "older").write_text("of an earlier time")
    digests = set()
    for folder in (report, copy):
        log(folder)
        (digest,) = {one.digest for one in recorded(folder)["artifacts"] if one.type == "report"}
        digests.add(digest)
    assert len(digests) == 1


def test_numbers_become_numbers_and_gaps_stay_gaps(report: Path) -> None:
    log(report)
    (table,) = (report / "wandb").rglob("media/table/**/*.json")
    assert json.loads(table.read_text())["data"] == [["simcse", 60.43, 0.41], ["untrained", 57.19, None]]


def test_without_a_key_the_local_report_stays_and_the_message_says_how_to_go_on(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: wandb remembers a key that it has seen."""
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    script = (
        "import sys; from pathlib import Path; from cse_bench.results.wandb_report import log_report\n"
        "log_report(Path(sys.argv[1]), project='cse_bench', entity=None, group=None, offline=False)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(report)], capture_output=True, text=True)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("cse_bench.errors.ConfigError: wandb does not take the report (")
    for words in ("The report itself is complete", str(report / "report.html"), "wandb login", "wandb.offline=true"):
        assert words in message
    assert f"`wandb sync {report / 'wandb'}/offline-run-*`" in message
    assert (report / "tables" / "scores.csv").is_file()


def test_there_must_be_a_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report.html is missing; `python -m cse_bench.report runs="):
        log(tmp_path)
