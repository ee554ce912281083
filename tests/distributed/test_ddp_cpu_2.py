"""The multi-device path end to end: parent, torchrun, two ranks, results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cse_bench.errors import TrainingError
from cse_bench.results.metrics_log import read_metrics
from cse_bench.run import run
from tests.conftest import REPOSITORY
from tests.tiny import config_in, metric_rows, overrides_in, task_overrides

# Dropout masks differ between ranks by design: the same numbers are only to be had without them.
NO_MASKS = ("backbone.dropout=0", "method.views=identical", "trainer.max_steps=8")


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "cse_bench", *overrides_in(folder, "trainer=ddp_cpu_2", *overrides)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def losses(directory: Path) -> list[tuple[int, float]]:
    return list(metric_rows(read_metrics(directory / "metrics.csv"), "train/loss"))


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    tasks = (*task_overrides(), "evaluation.eval_every_steps=4")
    # trainer=ddp_cpu_2 brings its own defaults: the options of the trainer group come after it.
    again = ("trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false")
    done = subprocess.run(
        command(tmp_path, *NO_MASKS, *tasks, *again),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "outputs").iterdir()
    results = json.loads((directory / "results.json").read_text())
    assert results["status"] == "complete"
    assert results["steps"] == 8
    assert results["config"]["trainer"]["devices"] == 2
    assert not {"training.json", "interrupted", "failed", "stop"} & {path.name for path in directory.iterdir()}

    one = run(config_in(tmp_path, *NO_MASKS, *tasks))
    assert one["directory"] != str(directory)
    expected = losses(Path(one["directory"]))
    assert [step for step, _ in expected] == list(range(1, 9))
    assert max(value for _, value in expected) - min(value for _, value in expected) > 0.5  # it does train
    for (step, value), (expected_step, expected_value) in zip(losses(directory), expected, strict=True):
        assert (step, value) == (expected_step, pytest.approx(expected_value, rel=1e-4))
    for metric in ("pairs/dev/score", "pairs/test/score"):
        assert results["metrics"][metric] == pytest.approx(one["metrics"][metric], abs=0.05)
    # All ranks count, also where the last batch of an epoch does not divide evenly.
    for metric in ("cost/train_sentences", "cost/train_tokens_real"):
        assert results["metrics"][metric] == one["metrics"][metric]
    assert results["selection"]["step"] == one["selection"]["step"]


@pytest.mark.slow
def test_a_failing_rank_ends_in_one_error_and_a_failed_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = config_in(tmp_path, "trainer=ddp_cpu_2", "optimizer.lr=1e36", "trainer.max_steps=20")
    with pytest.raises(TrainingError, match=r"^step \d+: loss is nan; 'z' is not finite"):
        run(config)
    (directory,) = (tmp_path / "outputs").iterdir()
    results = json.loads((directory / "results.json").read_text())
    assert results["status"] == "failed"
    assert results["error"].startswith("step ")
    # No traceback of ours: the one message says what to do.
    assert "cse_bench/methods" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_ranks_save_and_go_on(tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("trainer.max_steps=400", "trainer.log_every_n_steps=1")
    process = subprocess.Popen(
        command(tmp_path, *arguments),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (logs := list((tmp_path / "outputs").glob("*/metrics.csv"))) or len(losses(logs[0].parent)) < 12:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as the terminal does: every process in its foreground
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "saved, the same command goes on from here" in errors
    directory = logs[0].parent
    assert json.loads((directory / "results.json").read_text())["status"] == "interrupted"
    stopped = len(losses(directory))
    assert stopped < 400
    result = run(config_in(tmp_path, "trainer=ddp_cpu_2", *arguments))
    assert result["directory"] == str(directory)
    assert [step for step, _ in losses(directory)] == list(range(1, 401))
