"""The multi-device path end to end: parent, torchrun, two ranks, results."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cse_bench.errors import TrainingError
from cse_bench.run import run
from cse_bench.training.launch import RankFiles, _outcome
from cse_bench.training.resume import Interrupted
from cse_bench.training.train import TrainingSummary
from tests.distributed.command import (
    finish,
    losses,
    rank_of,
    ranks_of,
    results_of,
    runs_in,
    signal_all,
    start,
    wait_until,
)
from tests.tiny import config_in, task_overrides

# Dropout masks differ between ranks by design: the same numbers are only to be had without them.
NO_MASKS = ("backbone.dropout=0", "method.views=identical", "trainer.max_steps=8")
# trainer=ddp_cpu_2 brings its own defaults: the options of the trainer group come after it.
QUIET = ("trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false")
MESSAGES = {"prerequisites.json", "training.json", "interrupted", "failed", "lost", "stop"}


def run_everywhere(folder: Path) -> str:
    """What a scheduler does, on one machine: starts the same command on "every machine", and waits for all."""
    script = folder / "on_every_machine"
    script.write_text('#!/bin/sh\n"$@" < /dev/null &\nfirst=$!\n"$@" < /dev/null || exit 1\nwait $first\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


@pytest.mark.parametrize(
    "machines",
    [
        pytest.param((), id="one machine"),
        pytest.param(("trainer.devices=1", "trainer.num_nodes=2"), id="two machines", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(tmp_path: Path, machines: tuple[str, ...]) -> None:
    tasks = (*task_overrides(), "evaluation.eval_every_steps=4")
    environment = {"CSE_BENCH_ON_EVERY_MACHINE": run_everywhere(tmp_path)} if machines else {}
    finish(start(tmp_path, *NO_MASKS, *tasks, *QUIET, *machines, **environment))
    (directory,) = (tmp_path / "outputs").iterdir()
    results = results_of(directory)
    assert results["status"] == "complete"
    assert results["steps"] == 8
    trainer = results["config"]["trainer"]
    assert (trainer["devices"], trainer["num_nodes"]) == ((1, 2) if machines else (2, 1))
    assert not MESSAGES & {path.name for path in directory.iterdir()}

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
    with pytest.raises(TrainingError, match=r"^step \d+: "):
        run(config)
    (directory,) = (tmp_path / "outputs").iterdir()
    results = results_of(directory)
    assert results["status"] == "failed"
    assert results["error"].startswith("step ")
    # No traceback of ours: the one message says what to do.
    assert "cse_bench/methods" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_rank_that_breaks_shows_its_traceback_and_the_sweep_goes_on(tmp_path: Path) -> None:
    broken = "+evaluation.dev.broken={_target_:tests.distributed.broken.Broken,seed:${seed},breaks:0}"
    arguments = ("-m", "seed=0,1", broken, "trainer.max_steps=4", "evaluation.eval_every_steps=2", *QUIET)
    errors = finish(start(tmp_path, *arguments), code=2)
    assert "Traceback" in errors
    assert "tests/distributed/broken.py" in errors
    runs = {seed: results_of(directory) for seed, directory in runs_in(tmp_path).items()}
    assert (runs[0]["status"], runs[1]["status"]) == ("failed", "complete")
    assert runs[0]["error"] == "RuntimeError: the power went"


@pytest.mark.slow
def test_a_killed_rank_fails_its_run_alone_and_the_same_sweep_does_the_rest(tmp_path: Path) -> None:
    arguments = ("-m", "seed=0,1", "trainer.max_steps=120", "checkpoint_every_steps=5", *QUIET)
    process = start(tmp_path, *arguments)
    wait_until(lambda: 0 in (found := runs_in(tmp_path)) and len(losses(found[0])) > 12, process)
    next(rank for rank in ranks_of(process) if rank_of(rank) == 1).kill()
    finish(process, code=2)
    directories = runs_in(tmp_path)
    runs = {seed: results_of(directory) for seed, directory in directories.items()}
    assert (runs[0]["status"], runs[1]["status"]) == ("failed", "complete")
    assert "a rank of " in runs[0]["error"]
    assert "killed from outside" in runs[0]["error"]
    finished = (directories[1] / "results.json").stat().st_mtime_ns
    finish(start(tmp_path, *arguments))
    assert results_of(directories[0])["status"] == "complete"
    assert [step for step, _ in losses(directories[0])] == list(range(1, 121))
    assert (directories[1] / "results.json").stat().st_mtime_ns == finished  # not done again


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "torchrun"])
def test_ranks_do_not_outlive_what_started_them(tmp_path: Path, victim: str) -> None:
    arguments = ("trainer.max_steps=5000", *QUIET)
    process = start(tmp_path, *arguments)
    wait_until(lambda: any(losses(directory) for directory in runs_in(tmp_path).values()), process)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    if victim == "parent":
        process.kill()
    else:
        ranks[0].parent().kill()
    wait_until(lambda: not any(rank.is_running() and rank.status() != "zombie" for rank in ranks))
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if victim == "parent" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_ranks_save_and_go_on(tmp_path: Path, number: signal.Signals) -> None:
    arguments = ("trainer.max_steps=400", *QUIET)
    process = start(tmp_path, *arguments)
    wait_until(lambda: any(len(losses(directory)) > 12 for directory in runs_in(tmp_path).values()), process)
    signal_all(process, number)
    errors = finish(process, code=128 + number)
    assert "saved, the same command goes on from here" in errors
    (directory,) = runs_in(tmp_path).values()
    assert results_of(directory)["status"] == "interrupted"
    stopped = len(losses(directory))
    assert stopped < 400
    result = run(config_in(tmp_path, "trainer=ddp_cpu_2", *arguments))
    assert result["directory"] == str(directory)
    assert [step for step, _ in losses(directory)] == list(range(1, 401))


@pytest.mark.slow
@pytest.mark.parametrize("asked_at", [2, 8])
def test_ranks_that_are_nearly_done_are_interrupted_too(tmp_path: Path, asked_at: int) -> None:
    """No step is left at which they would look by themselves."""
    task = f"+evaluation.dev.last={{_target_:tests.distributed.broken.Terminating,once:{tmp_path / 'once'}}}"
    metric = "evaluation.selection_metric=pairs/dev/score"
    arguments = ("trainer.max_steps=8", task, metric, f"evaluation.eval_every_steps={asked_at}", *QUIET)
    errors = finish(start(tmp_path, *arguments), code=128 + signal.SIGTERM)
    assert "stopped at step 8 by SIGTERM; saved, the same command goes on from here" in errors
    (directory,) = runs_in(tmp_path).values()
    assert results_of(directory)["status"] == "interrupted"
    finish(start(tmp_path, *arguments))
    assert results_of(directory)["status"] == "complete"
    assert [step for step, _ in losses(directory)] == list(range(1, 9))


@pytest.mark.parametrize("saved_at_end", [True, False])
def test_a_signal_that_comes_when_the_ranks_are_done_is_not_lost(tmp_path: Path, saved_at_end: bool) -> None:
    files = RankFiles(tmp_path)
    summary = TrainingSummary(steps=8, selection=None, corpus=None, metrics={}, parameters={}, notes={})
    files.write_summary(summary)
    assert _outcome(files, "run", 0, saved_at_end=saved_at_end) == summary
    files.stop.write_text(str(int(signal.SIGTERM)))
    if saved_at_end:
        with pytest.raises(Interrupted, match="stopped by SIGTERM outside of the steps"):
            _outcome(files, "run", 0, saved_at_end=True)
    else:  # to stop would lose it all
        assert _outcome(files, "run", 0, saved_at_end=False) == summary


@pytest.mark.slow
def test_ranks_that_have_not_begun_stop_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "trainer.max_steps=400", *QUIET)
    wait_until(lambda: len(ranks_of(process)) == 2, process)
    signal_all(process, signal.SIGTERM)
    errors = finish(process, code=128 + signal.SIGTERM)
    assert "the same command goes on" in errors
    (directory,) = runs_in(tmp_path).values()
    assert results_of(directory)["status"] == "interrupted"
    assert losses(directory) == []


def test_a_rank_ends_whatever_python_would_do_at_its_end() -> None:
    """As threads of a process group do that is still there then."""
    script = "import atexit, os; from cse_bench import worker; atexit.register(os.abort); print('done'); worker._end()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
