"""The table of a sweep: which runs share a column, and what happens when some fail."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from cse_bench.results import sweep
from cse_bench.results.sweep import SweepTable, close_sweep, note_run, sweep_columns


def finished(folder: Path, name: str, *, group: str, score: float, status: str = "complete", **config: Any) -> Path:
    directory = folder / name
    directory.mkdir(parents=True)
    method = config.pop("method", "simcse")
    results = {
        "status": status,
        "group": group,
        "method": {"name": method, "status": "official code"},
        "backbone": "tiny_bert",
        "pooling": "cls",
        "steps": 10,
        "metrics": {"sts/test/stsb": score},
        "config": {"seed": name, "paths": {"output_dir": str(folder)}, **config},
    }
    (directory / "results.json").write_text(json.dumps(results))
    return directory


def entry(directory: Path, baseline: Path | None = None) -> dict[str, Any]:
    return {"directory": str(directory), "baseline": str(baseline) if baseline else None}


def scores(columns: dict[str, Any]) -> dict[str, list[float]]:
    return {title: [metrics["sts/test/stsb"] for metrics in runs] for title, runs in columns.items()}


def test_seeds_share_a_column_and_nothing_else_does(tmp_path: Path) -> None:
    cold = {"optimizer": {"lr": 1e-5}}
    warm = {"optimizer": {"lr": 3e-5}}
    runs = [
        finished(tmp_path, "a", group="1" * 64, score=1.0, **cold),
        finished(tmp_path, "b", group="1" * 64, score=2.0, **cold),
        finished(tmp_path, "c", group="2" * 64, score=3.0, **warm),
    ]
    assert scores(sweep_columns([entry(run) for run in runs])) == {
        "simcse (official code)\ntiny_bert, cls\noptimizer.lr=1e-05\n11111111": [1.0, 2.0],
        "simcse (official code)\ntiny_bert, cls\noptimizer.lr=3e-05\n22222222": [3.0],
    }


def test_runs_of_one_group_need_no_hash(tmp_path: Path) -> None:
    runs = [finished(tmp_path, name, group="1" * 64, score=1.0) for name in "ab"]
    assert list(sweep_columns([entry(run) for run in runs])) == ["simcse (official code)\ntiny_bert, cls"]


def test_baseline_comes_first_and_once(tmp_path: Path) -> None:
    baseline = finished(tmp_path, "untrained", group="0" * 64, score=0.5, method="untrained")
    runs = [finished(tmp_path, name, group="1" * 64, score=1.0) for name in "ab"]
    columns = scores(sweep_columns([entry(run, baseline) for run in runs]))
    assert list(columns.values()) == [[0.5], [1.0, 1.0]]
    # Asked for as a run of its own as well, it is still one run.
    columns = scores(sweep_columns([entry(baseline), *(entry(run, baseline) for run in runs)]))
    assert list(columns.values()) == [[0.5], [1.0, 1.0]]


def test_baselines_of_different_settings_do_not_mix(tmp_path: Path) -> None:
    first = finished(tmp_path, "u1", group="0" * 64, score=0.1, method="untrained", backbone={"prompt": None})
    second = finished(tmp_path, "u2", group="9" * 64, score=0.2, method="untrained", backbone={"prompt": "p"})
    runs = [finished(tmp_path, name, group=name * 64, score=1.0, backbone={"x": name}) for name in "ab"]
    columns = scores(sweep_columns([entry(runs[0], first), entry(runs[1], second)]))
    assert sorted(columns.values()) == [[0.1], [0.2], [1.0], [1.0]]


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    run = finished(tmp_path, "a", group="1" * 64, score=1.0)
    assert list(scores(sweep_columns([entry(run), entry(run)])).values()) == [[1.0]]


def test_runs_without_a_result_are_left_out(tmp_path: Path) -> None:
    failed = finished(tmp_path, "a", group="1" * 64, score=1.0, status="failed")
    assert sweep_columns([entry(failed), entry(tmp_path / "gone"), {"failed": "seed=1", "error": "no"}]) == {}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """What Hydra gives its callbacks."""
    yield OmegaConf.create({"paths": {"output_dir": str(tmp_path / "outputs")}})
    os.environ.pop(sweep._MANIFEST, None)


def job(error: Exception | None) -> JobReturn:
    made = JobReturn(overrides=["seed=1", "method=simcse"], status=JobStatus.FAILED if error else JobStatus.COMPLETED)
    made.return_value = error
    return made


def test_table_tells_of_successes_and_failures(tmp_path: Path, config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    callback = SweepTable()
    callback.on_multirun_start(config)
    note_run(finished(tmp_path, "a", group="1" * 64, score=71.25), None)
    callback.on_job_end(config, job(None))
    callback.on_job_end(config, job(ValueError("the disk is full")))
    close_sweep()  # what the command line does: Hydra calls on_multirun_end only when nothing failed
    printed = capsys.readouterr().out
    assert "71.25" in printed
    assert "1 runs, and 1 that failed" in printed
    assert "failed: seed=1 method=simcse\n  ValueError: the disk is full" in printed
    assert list((tmp_path / "outputs").iterdir()) == []
    callback.on_multirun_end(config)
    assert capsys.readouterr().out == ""  # told once


def test_outside_of_a_sweep_nothing_is_noted(tmp_path: Path, config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    note_run(tmp_path, None)
    SweepTable().on_job_end(config, job(ValueError("no")))
    close_sweep()
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "outputs").exists()


def test_sweep_in_which_nothing_finished(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    SweepTable().on_multirun_start(config)
    close_sweep()
    assert capsys.readouterr().out == ""
    assert sweep._MANIFEST not in os.environ
