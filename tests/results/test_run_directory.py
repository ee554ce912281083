"""The run directory: results appear whole or not at all, one process at a time, and errors that can be acted on."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cse_bench.errors import ConfigError
from cse_bench.results.run_directory import RunDirectory, read_results, write_json
from tests.tiny import config_in


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """An empty one."""
    made = RunDirectory(tmp_path / "run")
    made.path.mkdir()
    return made


def test_nan_survives_the_round_trip_as_null(directory: RunDirectory) -> None:
    metrics = {"a": math.nan, "b": math.inf, "c": 1.5, "d": np.float32(0.5), "e": np.int64(3)}
    directory.write({"status": "complete", "metrics": metrics, "list": (1, math.nan)})
    text = (directory.path / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = directory.results()
    assert math.isnan(found["metrics"]["a"])
    assert math.isnan(found["metrics"]["b"])
    assert {name: found["metrics"][name] for name in "cde"} == {"c": 1.5, "d": 0.5, "e": 3}
    assert found["list"] == [1, None]


def test_complete_is_what_results_say(directory: RunDirectory) -> None:
    assert not directory.is_complete()
    for status in ("running", "interrupted", "failed"):
        directory.write({"status": status})
        assert not directory.is_complete()
    directory.write({"status": "complete"})
    assert directory.is_complete()


@pytest.mark.parametrize(
    "content", [b"", b'{"status": "complete"', b"[]", b"3", b"null", b'{"metrics": 3}', b"\xff\xfe", b'"complete"']
)
def test_damaged_results_are_no_results(directory: RunDirectory, content: bytes) -> None:
    (directory.path / "results.json").write_bytes(content)
    assert directory.results() == {}
    assert not directory.is_complete()
    directory.write({"status": "complete"})
    assert directory.is_complete()


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


def test_full_disk_keeps_the_old_results(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.write({"status": "running"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(ConfigError, match=r"cannot write .*results\.json .*No space left.*folder with space"):
            directory.write({"status": "complete"})
    assert directory.results() == {"status": "running"}
    assert [path.name for path in directory.path.iterdir()] == ["results.json"]  # no half-written file beside it


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_writing(directory: RunDirectory) -> None:
    directory.write({"status": "running"})
    (directory.path / ".results.json").symlink_to("/dev/full")  # where the new content is written first
    with pytest.raises(ConfigError, match="No space left"):
        directory.write({"status": "complete"})
    assert directory.results() == {"status": "running"}


def test_full_disk_while_writing_pair_scores(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(ConfigError, match=r"pair_scores\.npz .*No space left"):
        directory.write_pair_scores({"a": np.ones(3)})
    assert list(directory.path.iterdir()) == []


def test_results_that_cannot_be_json_change_nothing(directory: RunDirectory) -> None:
    directory.write({"status": "running"})
    with pytest.raises(TypeError):
        write_json(directory.path / "results.json", {"status": object()})
    assert directory.results() == {"status": "running"}


def test_pair_scores_round_trip(directory: RunDirectory) -> None:
    directory.write_pair_scores({})
    assert not (directory.path / "pair_scores.npz").exists()
    directory.write_pair_scores({"sts/test/stsb": np.array([0.5, math.nan])})
    with np.load(directory.path / "pair_scores.npz", allow_pickle=False) as file:
        assert file.files == ["sts/test/stsb"]
        assert np.array_equal(file["sts/test/stsb"], [0.5, math.nan], equal_nan=True)


HOLD = """
import sys
from pathlib import Path
from cse_bench.results.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_one_is_gone(directory: RunDirectory) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"another process is running .*run now"), directory.locked():
            pass
        holder.kill()  # the lock of a killed process is free
        with directory.locked(wait=True):
            pass
    with directory.locked():
        pass


def test_lock_is_free_again_after_an_error(directory: RunDirectory) -> None:
    with pytest.raises(ValueError, match="inside"), directory.locked():
        raise ValueError("inside")
    with directory.locked():
        pass


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match=r"paths\.output_dir: cannot write .*file/run"), refused.locked():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"paths\.output_dir: cannot write"), RunDirectory(tmp_path / "run").locked():
        pass


def test_start_removes_leftovers_unless_the_run_goes_on(directory: RunDirectory, tmp_path: Path) -> None:
    config = config_in(tmp_path)
    for resumes in (True, False):
        for name in ("metrics.csv", "pair_scores.npz", "model/model.safetensors", "checkpoints/last.ckpt"):
            (directory.path / name).parent.mkdir(exist_ok=True)
            (directory.path / name).touch()
        if not resumes:
            directory.clear()
        directory.start(config, {"status": "running"})
        assert directory.metrics.exists() == directory.model.exists() == resumes
        assert directory.results() == {"status": "running"}
        assert "tiny_bert" in directory.config.read_text()


def test_start_on_a_full_disk(directory: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_in(tmp_path)
    monkeypatch.setattr("cse_bench.results.run_directory.OmegaConf.save", full_disk)
    with pytest.raises(ConfigError, match="No space left"):
        directory.start(config, {})


def test_results_of_a_folder_without_any(tmp_path: Path) -> None:
    assert read_results(tmp_path) == {}
    assert read_results(tmp_path / "missing") == {}
    write_json(tmp_path / "results.json", {"a": 1})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1}


def test_a_file_that_cannot_be_written_names_the_key(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "folder" / "x.json", {"a": 1}, key="output")
    assert (tmp_path / "new" / "folder" / "x.json").is_file()
    with pytest.raises(ConfigError, match=r"^output: cannot write .*x\.json"):
        write_json(tmp_path / "new" / "folder" / "x.json" / "x.json", {}, key="output")
    with pytest.raises(ConfigError, match=r"^output: cannot write .*folder"):
        write_json(tmp_path / "new" / "folder", {}, key="output")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
