"""wandb for real, offline: what a run leaves, and that the runs of a sweep stay apart."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

wandb = pytest.importorskip("wandb")

from cse_bench.run import run  # noqa: E402
from tests.tiny import config_in, task_overrides  # noqa: E402

OFFLINE = ("logger=wandb", "logger.wandb.offline=true", "trainer.max_steps=2", "study=a_study")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, no settings, no network: every folder of wandb lies in the test's."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # its telemetry goes on in a thread, into other tests
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # wandb's own process is no Python: nobody answers it
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)  # a secret that must not come out anywhere

    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"network call to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB) after a header of 7 bytes."""
    block, position, parts = 32768, 7, b""
    while position + 7 <= len(content):
        left = block - position % block
        if left < 7:  # too little for a record's header: padding
            position += left
            continue
        size, kind = struct.unpack_from("<HB", content, position + 4)
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def recorded(directory: str | Path) -> dict[str, Any]:
    """Everything in the one wandb run of a run directory: its description, config, history and summary."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = Path(directory).glob("wandb/offline-run-*/*.wandb")
    found: dict[str, Any] = {"config": {}, "history": []}
    for data in log_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            found["history"].append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def test_a_run_leaves_its_metrics_config_and_place_but_no_secret(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, *OFFLINE, *task_overrides(), "evaluation.eval_every_steps=1"))
    found = recorded(results["directory"])
    assert (found["run"].run_group, found["run"].job_type, found["run"].project) == ("a_study", "simcse", "cse_bench")
    assert found["run"].run_id == found["run"].display_name == results["name"]
    assert found["config"]["method"]["temperature"] == 0.05
    history = [row for row in found["history"] if "train/loss" in row]
    assert [row["trainer/global_step"] for row in history] == [1, 2]
    final = next(row for row in found["history"] if "final/pairs/test/score" in row)
    assert final["final/pairs/test/score"] == results["metrics"]["pairs/test/score"]
    assert found["exit"] == 0
    for path in Path(results["directory"]).rglob("*"):
        assert not path.is_file() or b"f" * 40 not in path.read_bytes(), path


def test_runs_of_a_sweep_do_not_bleed_into_each_other(tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        results = run(config_in(tmp_path, *OFFLINE, f"seed={seed}"))
        assert wandb.run is None  # finished
        found.append((results, recorded(results["directory"])))
    for results, records in found:
        assert records["run"].run_id == results["name"]
        assert records["config"]["seed"] == results["seed"]
        steps = [row["trainer/global_step"] for row in records["history"] if "train/loss" in row]
        assert steps == [1, 2]
    assert os.environ.get("WANDB_MODE") is None  # nor is the next run offline because this one was


def test_a_failed_run_is_finished_too(tmp_path: Path) -> None:
    from cse_bench.errors import TrainingError

    with pytest.raises(TrainingError):
        run(config_in(tmp_path, *OFFLINE, "optimizer.lr=1e36", "trainer.max_steps=9"))
    assert wandb.run is None
    (directory,) = (tmp_path / "outputs").iterdir()
    found = recorded(directory)
    assert found["run"].run_id == directory.name
    assert found["exit"] == 1


def test_group_is_the_repetitions_of_a_run_without_a_study(tmp_path: Path) -> None:
    from cse_bench.results.loggers import extra_loggers
    from cse_bench.results.run_directory import RunDirectory

    groups = set()
    for overrides in (("seed=1",), ("seed=2",), ("seed=1", "optimizer.lr=1e-5")):
        config = config_in(tmp_path, "logger=wandb", *overrides)
        (logger,) = extra_loggers(config, RunDirectory(tmp_path / "run"))
        groups.add(logger._wandb_init["group"])
    assert len(groups) == 2
    assert all(group.startswith("simcse-tiny_bert-") for group in groups)
