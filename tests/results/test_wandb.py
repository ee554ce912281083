"""wandb for real, offline: what a run leaves, and that the runs of a sweep stay apart."""

import os
from pathlib import Path

import pytest

wandb = pytest.importorskip("wandb")

from cse_bench.run import run  # noqa: E402
from tests.results.offline_wandb import isolate, recorded  # noqa: E402
from tests.tiny import config_in, task_overrides  # noqa: E402

OFFLINE = ("logger=wandb", "logger.wandb.offline=true", "trainer.max_steps=2", "study=a_study")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def test_a_run_leaves_its_metrics_config_and_place_but_no_secret(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, *OFFLINE, *task_overrides(), "evaluation.eval_every_steps=1"))
    found = recorded(results["directory"])
    assert (found["run"].run_group, found["run"].job_type, found["run"].project) == ("a_study", "simcse", "cse_bench")
    assert found["run"].run_id == found["run"].display_name == results["name"]
    assert found["config"]["method"]["temperature"] == 0.05
    assert found["config"]["run"] | {"repetitions": ""} == {
        "method": "simcse",
        "status": "official code",
        "backbone": "tiny_bert",
        "study": "a_study",
        "repetitions": "",
    }
    assert list(found["run"].tags) == ["official code"]
    history = [row for row in found["history"] if "train/loss" in row]
    assert [row["trainer/global_step"] for row in history] == [1, 2]
    final = next(row for row in found["history"] if "final/pairs/test/score" in row)
    assert final["final/pairs/test/score"] == results["metrics"]["pairs/test/score"]
    assert final["trainer/global_step"] == results["steps"]
    in_summary = {name: value for name, value in found["summary"].items() if name.startswith("final/")}
    assert in_summary == {f"final/{name}": value for name, value in results["metrics"].items()}
    assert found["step_metrics"]["*"] == "trainer/global_step"
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


def test_the_untrained_backbone_is_there_to_compare_with(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, *OFFLINE, *task_overrides(), "evaluation.baseline=true"))
    found = recorded(results["baseline_directory"])
    assert (found["run"].run_group, found["run"].job_type) == ("a_study", "untrained")
    assert found["summary"]["final/pairs/test/score"] == results["baseline"]["pairs/test/score"]
    assert found["exit"] == 0
