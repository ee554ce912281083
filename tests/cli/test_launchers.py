"""Sweeps by other launchers and in several processes at once: every run is done once, and nothing is damaged."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cse_bench.config.location import conf_directory
from cse_bench.config.overrides import check_overrides
from tests.tiny import overrides_in, task_overrides


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cse_bench", "-m", *overrides_in(folder, "trainer.max_steps=2", *overrides)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return out


def results(folder: Path) -> list[dict[str, Any]]:
    """Those of all runs; a directory without a whole one fails."""
    return [json.loads(path.joinpath("results.json").read_text()) for path in (folder / "outputs").glob("*-*/")]


def names(folder: Path) -> list[str]:
    return sorted(result["name"].rpartition("-")[0] for result in results(folder) if result["status"] == "complete")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]])
def test_a_sweep_by_another_launcher(tmp_path: Path, launcher: list[str]) -> None:
    choice = f"hydra/launcher={launcher[0]}"
    scored = [*task_overrides(), "evaluation.baseline=true", "backbone.architecture.hidden_size=32"]
    out = ended(start(tmp_path, choice, *launcher[1:], "seed=0,1", *scored))
    assert "2 runs" in out
    assert names(tmp_path) == [f"simcse-tiny_bert-s{i}" for i in (0, 1)] + ["untrained-tiny_bert-cls"] * 2
    again = ended(start(tmp_path, choice, *launcher[1:], "seed=0,1", *scored))
    assert "2 of 2 runs were finished before" in again
    assert "Launching" not in again  # nothing is given to the launcher


@pytest.mark.slow
def test_a_run_that_fails_elsewhere_is_told_here(tmp_path: Path) -> None:
    process = start(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "optimizer.lr=1e-3,-1")
    out, err = process.communicate(timeout=500)
    assert process.returncode == 2
    assert "1 runs, and 1 that failed" in out
    assert "optimizer.lr: must be greater than 0" in err
    assert names(tmp_path) == ["simcse-tiny_bert-s42"]


@pytest.mark.slow
def test_the_same_sweep_started_twice_at_once(tmp_path: Path) -> None:
    overrides_in(tmp_path)  # the corpus, before both
    processes = [start(tmp_path, "seed=0,1,2") for _ in range(2)]
    printed = [ended(process) for process in processes]
    assert names(tmp_path) == [f"simcse-tiny_bert-s{seed}" for seed in (0, 1, 2)]
    assert all("n=3" in text for text in printed)  # both tables hold all runs
    # Each run was done by one of the two: the other found it finished, or was told that it is being done.
    steps = [(tmp_path / "outputs" / result["name"] / "metrics.csv").read_text() for result in results(tmp_path)]
    assert all(text.count("train/loss") == 2 for text in steps), steps


@pytest.mark.slow
def test_two_sweeps_share_a_baseline(tmp_path: Path) -> None:
    scored = [*task_overrides(), "evaluation.baseline=true", "seed=0"]
    overrides_in(tmp_path)
    processes = [start(tmp_path, f"optimizer.lr={lr},{lr[0]}.5e-3", *scored) for lr in ("2e-3", "3e-3")]
    for process in processes:
        ended(process)
    found = names(tmp_path)
    assert found.count("untrained-tiny_bert-cls") == 1
    assert found.count("simcse-tiny_bert-s0") == 4


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed here")
def test_a_launcher_that_is_not_installed_names_its_extra() -> None:
    problems = check_overrides(["-m", "hydra/launcher=ray", "seed=0,1"], conf=conf_directory(), config_name="config")
    assert [str(problem) for problem in problems] == [
        "hydra/launcher: 'ray' is not installed; pip install 'cse_bench[ray]'"
    ]


@pytest.mark.parametrize("choice", ["launcher=joblib", "launcher=submitit_slurm", "launcher=basic", "sweeper=tune"])
def test_launchers_that_are_installed(choice: str) -> None:
    assert check_overrides([f"hydra/{choice}", "seed=0,1"], conf=conf_directory(), config_name="config") == []
