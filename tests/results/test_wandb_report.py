"""A report in wandb, offline: tables, figures, one artifact with its files only; and what is said otherwise."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
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


FILES = ("report.html", "figures/plane.png", "figures/plane.svg", "tables/scores.csv", "tables/scores.md")


def log(directory: Path, *, files: Sequence[str] = FILES) -> str:
    paths = [directory / name for name in files]
    return log_report(directory, paths, project="cse_bench", entity=None, group="a study", offline=True)


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
    uploaded = Path(where) / "files"
    rows = json.loads((uploaded / row["report/scores"]["path"]).read_text())["data"]
    assert rows == [["simcse", 60.43, 0.41], ["untrained", 57.19, None]]  # numbers are numbers, gaps stay gaps
    assert (uploaded / row["report/plane"]["path"]).read_bytes() == (report / "figures" / "plane.png").read_bytes()
    artifacts = {(one.type, one.name): one for one in found["artifacts"] if one.type == "report"}
    ((kind, name), artifact), *more = artifacts.items()
    assert (kind, name, more) == ("report", "report-a-study", [])
    staged = {entry.path: Path(entry.local_path).read_bytes() for entry in artifact.manifest.contents}
    assert json.loads(staged.pop("tables/scores.table.json"))["data"] == rows
    assert staged == {name: (report / name).read_bytes() for name in FILES}
    for path in report.rglob("*"):
        assert not path.is_file() or b"f" * 40 not in path.read_bytes(), path


def test_nothing_else_in_the_folder_leaves_it(report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither under its own name nor as a table, an image or a copy; nor the git repository around it."""
    secret = "PRIVATE-1a5f"
    foreign = ["notes.txt", "tables/older.csv", "tables/older.md", "figures/older.png", "run-1/results.json", ".env"]
    for name in [*foreign, "wandb/older/file"]:
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        (report / name).write_text(f"{secret}\n1\n")
    (report / "figures" / "older.png").write_bytes((report / "figures" / "plane.png").read_bytes() + secret.encode())
    (tmp_path / "code.py").write_text("1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    (tmp_path / "code.py").write_text(f"{secret}\n")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    where = Path(log(report))

    found = recorded(report)
    assert {name for name in found["history"][0] if not name.startswith("_")} == {"report/scores", "report/plane"}
    (artifact,) = [one for one in found["artifacts"] if one.type == "report"]
    assert {entry.path for entry in artifact.manifest.contents} == {*FILES, "tables/scores.table.json"}
    entries = [entry for one in found["artifacts"] for entry in one.manifest.contents]
    assert all(secret.encode() not in Path(entry.local_path).read_bytes() for entry in entries)
    written = [path for folder in (where, *tmp_path.glob("wandb_*_dir")) for path in folder.rglob("*")]
    files = [path for path in written if path.is_file()]
    assert {Path(entry.local_path) for entry in entries} <= set(files)
    assert [path for path in files for word in (secret.encode(), commit) if word in path.read_bytes()] == []


def test_the_same_report_has_the_same_checksum(report: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(report, copy)
    digests = set()
    for folder in (report, copy):
        log(folder)
        (digest,) = {one.digest for one in recorded(folder)["artifacts"] if one.type == "report"}
        digests.add(digest)
    assert len(digests) == 1


def test_without_a_key_the_local_report_stays_and_the_message_says_how_to_go_on(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: wandb remembers a key that it has seen."""
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    script = (
        "import sys; from pathlib import Path; from cse_bench.results.wandb_report import log_report\n"
        "folder = Path(sys.argv[1])\n"
        "files = [folder / 'report.html', folder / 'tables' / 'scores.csv']\n"
        "log_report(folder, files, project='cse_bench', entity=None, group=None, offline=False)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(report)], capture_output=True, text=True)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("cse_bench.errors.ConfigError: wandb does not take the report (")
    for words in ("The report itself is complete", str(report / "report.html"), "wandb login", "wandb.offline=true"):
        assert words in message
    assert f"`wandb sync {report / 'wandb'}/offline-run-*`" in message
    assert (report / "tables" / "scores.csv").is_file()


def test_all_files_must_be_there_and_below_the_folder(report: Path, tmp_path: Path) -> None:
    (report / "tables" / "scores.md").unlink()
    with pytest.raises(ConfigError, match=r"scores.md is missing; `python -m cse_bench.report runs="):
        log(report)
    with pytest.raises(ValueError, match="no files"):
        log(report, files=[])
    (tmp_path / "other.html").touch()
    with pytest.raises(ValueError, match="not in the subpath"):
        log(report, files=[str(tmp_path / "other.html")])
    assert not (report / "wandb").exists()
