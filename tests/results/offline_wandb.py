"""wandb without an account and without a network, and reading what it writes."""

import json
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest


def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Everything in the one wandb run of a directory: its description, config, history, summary and artifacts."""
    (file,) = Path(directory).glob("wandb/offline-run-*/*.wandb")
    for _ in range(200):  # wandb's own process may still be writing when the run is finished here
        if "exit" in (found := _recorded(file.read_bytes())):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def _recorded(content: bytes) -> dict[str, Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "step_metrics": {}, "artifacts": []}
    for data in log_records(content):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            found["history"].append(_values(record.history.item))
        elif kind == "summary":
            found["summary"] |= _values(record.summary.update)
        elif kind == "metric":
            found["step_metrics"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            found["artifacts"].append(record.artifact)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """What a record says by key; the parts of a table or an image come one by one."""
    found: dict[str, Any] = {}
    for item in items:
        first, *rest = item.nested_key or [item.key]
        value = json.loads(item.value_json)
        if rest:
            found.setdefault(first, {})[".".join(rest)] = value
        else:
            found[first] = value
    return found
