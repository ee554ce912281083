"""The metrics log: one row per value, nothing lost, nothing twice, whatever byte a kill cuts it at."""

import math
from pathlib import Path

import pytest

from cse_bench.results.metrics_log import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a log that does not exist yet."""
    return tmp_path / "metrics.csv"


def test_values_come_back_exactly(path: Path) -> None:
    log = MetricsLog(path)
    log.log_metrics({"train/loss": 1 / 3, "a,b": 2}, step=1)
    log.log_metrics({"train/loss": math.nan, "epoch": 0}, step=2)
    log.log_metrics({"x": -math.inf, "y": 1e-300}, step=2)
    rows = read_metrics(path)
    assert rows[:2] == [(1, "train/loss", 1 / 3), (1, "a,b", 2.0)]
    assert rows[2][:2] == (2, "train/loss")
    assert math.isnan(rows[2][2])
    assert rows[3:] == [(2, "x", -math.inf), (2, "y", 1e-300)]


def test_new_run_starts_an_empty_log(path: Path) -> None:
    MetricsLog(path).log_metrics({"a": 1}, step=1)
    MetricsLog(path)
    assert read_metrics(path) == []
    assert path.read_text().strip() == "step,metric,value"


def test_resumed_run_keeps_what_its_checkpoint_knows(path: Path) -> None:
    log = MetricsLog(path)
    for step in range(1, 6):
        log.log_metrics({"a": step, "b": step}, step=step)
    again = MetricsLog(path, resume_step=3)
    for step in range(4, 7):
        again.log_metrics({"a": step, "b": step}, step=step)
    assert read_metrics(path) == [(step, name, float(step)) for step in range(1, 7) for name in "ab"]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_whatever_byte_a_kill_cuts_it_at_complete_rows_stay(path: Path) -> None:
    log = MetricsLog(path)
    for step in (9, 10, 11):
        log.log_metrics({"train/loss": step + 0.125}, step=step)
    whole, content = read_metrics(path), path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        complete = sum(end <= cut for end in ends[1:])  # the first line is the header
        assert read_metrics(path) == whole[:complete]


def test_missing_log_has_no_rows(path: Path) -> None:
    assert read_metrics(path) == []
    MetricsLog(path, resume_step=5)
    assert read_metrics(path) == []
