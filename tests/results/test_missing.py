"""Sweeps that survive: only what is missing or failed is done, changes are noticed, other processes respected."""

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cse_bench.run import run, run_directory
from tests.cli.command import Answer, run_command
from tests.tiny import config_in, overrides_in, task_overrides
from tests.training.trained import signal_at


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> Answer:
    return run_command(monkeypatch, "-m", *overrides_in(folder, "trainer.max_steps=1", *overrides))


def results(folder: Path) -> dict[int, dict[str, Any]]:
    """Results of the runs by seed."""
    found = [json.loads(path.read_text()) for path in (folder / "outputs").glob("simcse-*/results.json")]
    return {result["seed"]: result for result in found}


def written(folder: Path) -> dict[str, int]:
    """When each result was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "outputs").glob("*/results.json")}


def change(folder: Path, seed: int, **content: Any) -> None:
    """Writes something else into the result of a run."""
    name = results(folder)[seed]["name"]
    path = folder / "outputs" / name / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def test_only_what_is_missing_or_failed_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = sweep(monkeypatch, tmp_path, "seed=0,1,2")
    assert first.code == 0
    assert "finished before" not in first.out
    change(tmp_path, 1, status="failed")
    before = written(tmp_path)
    again = sweep(monkeypatch, tmp_path, "seed=0,1,2,3")
    assert again.code == 0
    assert "2 of 4 runs were finished before (overwrite=true runs them again)" in again.out
    assert "4 runs" in again.out
    assert "n=4" in again.out
    after = written(tmp_path)
    redone = {results(tmp_path)[seed]["name"] for seed in (1, 3)}
    assert {name for name, when in after.items() if before.get(name) != when} == redone
    assert {result["status"] for result in results(tmp_path).values()} == {"complete"}

    idle = sweep(monkeypatch, tmp_path, "seed=0,1,2,3")
    assert "4 of 4 runs were finished before" in idle.out
    assert "Launching" not in idle.out
    assert written(tmp_path) == after
    assert not list((tmp_path / "outputs").glob(".sweep-*"))

    assert "finished before" not in sweep(monkeypatch, tmp_path, "seed=0,1", "overwrite=true").out
    assert sum(before != after for before, after in zip(after.values(), written(tmp_path).values(), strict=True)) == 2


def test_a_changed_corpus_is_another_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep(monkeypatch, tmp_path, "seed=0,1")
    with (tmp_path / "sentences.txt").open("a") as file:
        file.write("one more sentence\n")
    assert "finished before" not in sweep(monkeypatch, tmp_path, "seed=0,1").out
    assert len(written(tmp_path)) == 4


def test_a_run_whose_baseline_is_gone_is_not_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scored = [*task_overrides(), "evaluation.baseline=true"]
    sweep(monkeypatch, tmp_path, "seed=0", *scored)
    (baseline,) = (tmp_path / "outputs").glob("untrained-*/results.json")
    trained = written(tmp_path)[results(tmp_path)[0]["name"]]
    baseline.unlink()
    assert sweep(monkeypatch, tmp_path, "seed=0", *scored).code == 0
    assert baseline.is_file()
    assert written(tmp_path)[results(tmp_path)[0]["name"]] == trained


def test_other_code_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep(monkeypatch, tmp_path, "seed=0,1,2")
    assert "note:" not in sweep(monkeypatch, tmp_path, "seed=0,1,2").out
    environment = results(tmp_path)[0]["environment"]
    change(tmp_path, 0, environment=environment | {"code": "f" * 64, "git": {"commit": "0123456789ab", "dirty": False}})
    change(tmp_path, 1, environment=environment | {"versions": environment["versions"] | {"torch": "1.0"}})
    told = sweep(monkeypatch, tmp_path, "seed=0,1,2").out
    assert "note: 1 of them were made with other cse_bench code (commit 012345678 then, " in told
    assert "note: 1 of them were made with other torch (1.0 then, " in told
    single = run_command(monkeypatch, *overrides_in(tmp_path, "trainer.max_steps=1", "seed=0"))
    assert "this run was finished before" in single.out
    assert "note: it was made with other cse_bench code" in single.out


def test_other_code_of_baseline_and_teacher_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def change_version(which: str) -> None:
        for path in (tmp_path / "outputs").glob(f"{which}-*/results.json"):
            found = json.loads(path.read_text())
            found["environment"]["versions"]["torch"] = "1.0"
            path.write_text(json.dumps(found))

    tiny = overrides_in(tmp_path, "trainer.max_steps=1", *task_overrides(), "evaluation.baseline=true")
    assert "note:" not in run_command(monkeypatch, *tiny).out
    change_version("untrained")
    baseline = "note: its baseline was made with other torch (1.0 then, "
    assert baseline in run_command(monkeypatch, *tiny).out
    assert baseline in run_command(monkeypatch, *tiny, "optimizer.lr=2e-3").out  # which is trained now
    both = sweep(monkeypatch, tmp_path, *task_overrides(), "evaluation.baseline=true", "optimizer.lr=1e-3,2e-3").out
    assert "note: 1 of their baselines were made with other torch (1.0 then, " in both

    student = overrides_in(tmp_path / "student", "trainer.max_steps=1", "method=debcse")
    assert "note:" not in run_command(monkeypatch, *student).out
    (teacher,) = (tmp_path / "student" / "outputs").glob("simcse-*/results.json")
    found = json.loads(teacher.read_text())
    found["environment"]["code"] = "f" * 64
    teacher.write_text(json.dumps(found))
    assert "note: 1 of the runs that it needed first were made with other cse_bench code" in (
        run_command(monkeypatch, *student).out
    )


def test_a_run_that_goes_on_under_other_code_says_so_and_keeps_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = overrides_in(tmp_path, "trainer.max_steps=5", "seed=0")
    with monkeypatch.context() as patch:
        patch.setattr("cse_bench.run.extra_loggers", lambda *_: [signal_at(3, signal.SIGTERM)])
        assert run_command(monkeypatch, *arguments).code == 128 + signal.SIGTERM
    then = results(tmp_path)[0]["environment"]
    then["versions"]["torch"] = "1.0"
    change(tmp_path, 0, environment=then)
    went_on = run_command(monkeypatch, *arguments)
    assert went_on.code == 0
    assert "goes on from steps that were taken with other torch (1.0 then, " in went_on.out
    kept = results(tmp_path)[0]
    assert kept["environment"]["versions"]["torch"] != "1.0"
    assert kept["earlier_environments"] == [then]
    assert "note: a part of it was made with other torch (1.0 then, " in run_command(monkeypatch, *arguments).out
    assert run_command(monkeypatch, *arguments, "overwrite=true").code == 0
    assert "earlier_environments" not in results(tmp_path)[0]


def test_what_is_wrong_is_told_by_the_job_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep(monkeypatch, tmp_path, "seed=0")
    answer = sweep(monkeypatch, tmp_path, "seed=0", "optimizer.lr=1e-3,-1")
    assert answer.code == 2
    assert "1 of 2 runs were finished before" in answer.out
    assert "1 runs, and 1 that failed" in answer.out
    assert "optimizer.lr: must be greater than 0" in answer.err


def test_a_run_that_another_process_is_at_is_come_back_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = run_directory(config_in(tmp_path, "trainer.max_steps=1", "seed=0"))
    order: list[str] = []

    def another_process() -> None:
        with held.locked():
            order.append("held")
            while not any('"busy"' in path.read_text() for path in (tmp_path / "outputs").glob(".sweep-*")):
                time.sleep(0.01)
            while 1 not in results(tmp_path) or results(tmp_path)[1]["status"] != "complete":
                time.sleep(0.01)  # the sweep goes on with its other run meanwhile
            order.append("free")

    other = threading.Thread(target=another_process)
    other.start()
    while not order:
        time.sleep(0.01)
    answer = sweep(monkeypatch, tmp_path, "seed=0,1")
    other.join(timeout=60)
    assert order == ["held", "free"]
    assert answer.code == 0
    assert "another process is at it; this sweep goes on and comes back to it" in answer.out
    assert "2 runs" in answer.out
    assert results(tmp_path)[0]["status"] == "complete"


def test_where_the_sweep_hears_nothing_of_a_job_it_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a Ray cluster that was there before: its jobs do not have the environment of the sweep."""
    held = run_directory(config_in(tmp_path, "trainer.max_steps=1", "seed=0"))
    is_held, is_asked = threading.Event(), threading.Event()

    def another_process() -> None:
        with held.locked():
            is_held.set()
            is_asked.wait(timeout=60)
            time.sleep(1)

    def asked(*arguments: Any, **options: Any) -> Any:
        is_asked.set()
        return run(*arguments, **options)

    other = threading.Thread(target=another_process)
    other.start()
    is_held.wait(timeout=60)
    monkeypatch.setattr("cse_bench.run.run", asked)
    answer = sweep(monkeypatch, tmp_path, "seed=0,1", "+hydra.job.env_set.CSE_BENCH_SWEEP_MANIFEST=''")
    other.join(timeout=60)
    assert answer.code == 0
    assert {seed: result["status"] for seed, result in results(tmp_path).items()} == {0: "complete", 1: "complete"}


def test_a_single_run_that_another_process_is_at_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = run_directory(config_in(tmp_path, "trainer.max_steps=1", "seed=0"))
    with held.locked():
        answer = run_command(monkeypatch, *overrides_in(tmp_path, "trainer.max_steps=1", "seed=0"))
    assert answer.code == 2
    assert "another process is running" in answer.err
