"""One run from its config to its results, in miniature and for real."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_evaluate
from cse_bench.encoders.artifact import load_encoder
from cse_bench.errors import DataError, TrainingError
from cse_bench.evaluate import evaluate
from cse_bench.evaluation.suite import Evaluator, build_tasks
from cse_bench.results.metrics_log import read_metrics
from cse_bench.results.run_directory import RunDirectory
from cse_bench.run import run
from cse_bench.training.cost import _CLEAR_REFS, peak_memory_bytes
from cse_bench.training.resume import Interrupted
from tests.conftest import REPOSITORY
from tests.tiny import PairScore, config_in, made_up_sentences, metric_rows, task_overrides

TASKS = (*task_overrides(), "evaluation.eval_every_steps=2", "evaluation.baseline=true", "trainer.max_steps=4")


def on_disk(results: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(results["directory"]) / "results.json").read_text())
    return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run of most tests here lies; it is made once."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def config(place: Path) -> RunConfig:
    """Its config."""
    return config_in(place, *TASKS)


@pytest.fixture(scope="module")
def results(config: RunConfig) -> dict[str, Any]:
    """What `run` returned."""
    return run(config)


def test_directory_explains_itself(results: dict[str, Any], config: RunConfig) -> None:
    directory = Path(results["directory"])
    assert re.fullmatch(r"simcse-tiny_bert-s42-[0-9a-f]{10}", directory.name)
    assert {path.name for path in directory.iterdir()} == {
        "results.json",
        "config.yaml",
        "metrics.csv",
        "pair_scores.npz",
        "model",
        ".lock",
    }
    assert RunConfig.model_validate(yaml.safe_load((directory / "config.yaml").read_text())) == config
    rows = read_metrics(directory / "metrics.csv")
    assert [step for step, _ in metric_rows(rows, "train/loss")] == [1, 2, 3, 4]
    assert [step for step, _ in metric_rows(rows, "pairs/dev/score")] == [2, 4]
    with np.load(directory / "pair_scores.npz") as scores:
        assert {name: scores[name].shape for name in scores.files} == {
            "pairs/dev/norms": (12,),
            "pairs/test/norms": (12,),
        }


def test_results_say_everything(results: dict[str, Any], config: RunConfig) -> None:
    found = on_disk(results)
    assert found["status"] == "complete"
    assert found["identity"].startswith(results["name"].rpartition("-")[2])
    assert found["config"] == config.model_dump(mode="json", by_alias=True)
    assert found["method"] == {
        "name": "simcse",
        "status": "official code",
        "citation": "Gao, Yao and Chen, EMNLP 2021, arXiv 2104.08821",
        "version": 1,
        "is_backbone": False,
        "notes": {},
    }
    assert found["prerequisites"] == {}
    assert (found["backbone"], found["pooling"], found["seed"], found["steps"]) == ("tiny_bert", "cls", 42, 4)
    assert found["precision"] == {"training": "32-true", "evaluation": "32-true"}
    assert {"python", "torch", "transformers", "lightning", "cse_bench"} <= found["environment"]["versions"].keys()
    if (REPOSITORY / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert found["environment"]["git"]["commit"] == head.stdout.strip()
    else:  # an unpacked archive
        assert found["environment"]["git"] is None
    corpus = found["data"]["corpus"]
    assert (corpus["sentences"], corpus["source"]) == (100, "text file")
    assert re.fullmatch(r"[0-9a-f]{64}", corpus["sha256"])
    assert found["data"]["evaluation"] == {"made-up-dev": "0" * 64, "made-up-test": "0" * 64}
    assert found["evaluation"]["task_versions"] == {"pairs_dev": 1, "pairs_test": 1}
    assert found["selection"]["step"] in (2, 4)
    assert found["started"] <= found["finished"]
    assert "error" not in found


def test_costs_are_measured(results: dict[str, Any]) -> None:
    metrics = on_disk(results)["metrics"]
    assert metrics["cost/train_sentences"] == 64
    assert 0 < metrics["cost/train_time_s"] < 60
    assert metrics["cost/train_sentences_per_s"] == pytest.approx(64 / metrics["cost/train_time_s"])
    assert metrics["cost/eval_time_s"] > 0
    assert 50 * 2**20 < metrics["cost/peak_memory_bytes"] < 20 * 2**30
    assert metrics["cost/inference_flops"] > 1e4
    assert metrics["cost/inference_parameters"] == on_disk(results)["encoder"]["parameters"]["inference"]


@pytest.mark.skipif(not _CLEAR_REFS.exists(), reason="only Linux can start the peak anew")
def test_memory_peak_is_this_runs(tmp_path: Path) -> None:
    block = np.ones(2**30 // 8)  # whatever ran before in this process needed a GiB
    before = peak_memory_bytes()
    del block
    results = run(config_in(tmp_path, "trainer.max_steps=1"))
    assert results["metrics"]["cost/peak_memory_bytes"] < before - 2**29


def test_saved_encoder_evaluates_to_the_recorded_scores(results: dict[str, Any], config: RunConfig) -> None:
    encoder = load_encoder(Path(results["directory"]) / "model")
    evaluator = Evaluator(
        module=encoder,
        embed=encoder,
        tokenizer=encoder.tokenizer,
        precision="32-true",
        batch_tokens=config.evaluation.batch_tokens,
    )
    again = evaluator(build_tasks(config.evaluation.dev) + build_tasks(config.evaluation.test)).metrics
    recorded = {name: value for name, value in results["metrics"].items() if name.startswith("pairs/")}
    assert again == pytest.approx(recorded, rel=1e-12)
    # The selected score of the training log is that of the saved encoder, too.
    log = dict(metric_rows(read_metrics(Path(results["directory"]) / "metrics.csv"), "pairs/dev/score"))
    # (It was scored with one task, here with two at once: another padding, other last digits.)
    assert recorded["pairs/dev/score"] == pytest.approx(log[results["selection"]["step"]], abs=0.1)
    assert log[results["selection"]["step"]] == max(log.values())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_is_scored_in_its_own_precision(tmp_path: Path, precision: str) -> None:
    """And `evaluate` scores it in that again, whatever the hardware could do."""
    config = config_in(tmp_path, *TASKS, f"precision={precision}", "+backbone.architecture.initializer_range=0.3")
    results = run(config)
    assert on_disk(results)["precision"] == {"training": precision, "evaluation": precision}
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        overrides = [f"model={results['directory']}", "evaluation=none", "accelerator=cpu"]
        settings = validate_evaluate(compose("evaluate", overrides=overrides))
    scores = {}
    for asked in ("auto", "32-true", "bf16-mixed"):
        evaluation = config.evaluation.model_copy(update={"precision": asked})
        found = evaluate(settings.model_copy(update={"evaluation": evaluation}))
        assert found["precision"] == (precision if asked == "auto" else asked)
        scores[asked] = found["metrics"]["pairs/test/score"]
    assert settings.evaluation.precision == "auto"
    assert scores["auto"] == scores[precision] == pytest.approx(results["metrics"]["pairs/test/score"], rel=1e-12)
    assert scores["32-true"] != scores["bf16-mixed"]


def test_baseline_is_the_untrained_backbone_of_the_same_seed(results: dict[str, Any], config: RunConfig) -> None:
    baseline = RunDirectory(Path(results["baseline_directory"])).results()
    assert baseline["method"]["name"] == "untrained"
    assert (baseline["steps"], baseline["selection"]) == (0, None)
    assert results["baseline"] == baseline["metrics"]
    assert results["baseline"]["pairs/test/score"] != results["metrics"]["pairs/test/score"]


def test_same_config_again_is_reused(results: dict[str, Any], config: RunConfig) -> None:
    PairScore.embeddings.clear()
    again = run(config)
    assert again["reused"]
    assert PairScore.embeddings == []  # nothing was computed, the baseline neither
    for key in ("metrics", "directory", "finished", "baseline", "baseline_directory"):
        assert again[key] == results[key]


def test_baseline_is_shared_by_runs_that_train_differently(place: Path, results: dict[str, Any]) -> None:
    other = run(config_in(place, *TASKS, "optimizer.lr=1e-4"))
    assert other["directory"] != results["directory"]
    assert other["baseline_directory"] == results["baseline_directory"]


def test_keys_that_decide_no_number_find_the_same_run(place: Path, results: dict[str, Any]) -> None:
    assert run(config_in(place, *TASKS, "trainer.log_every_n_steps=2", "checkpoint_every_steps=1"))["reused"]


def test_overwrite_runs_again_and_gives_the_same(place: Path, results: dict[str, Any]) -> None:
    PairScore.embeddings.clear()
    again = run(config_in(place, *TASKS, "overwrite=true"))
    assert not again["reused"]
    assert len(PairScore.embeddings) == 4  # twice in training, then dev and test; the baseline is not run again
    assert again["directory"] == results["directory"]
    for metric in ("pairs/dev/score", "pairs/test/score"):
        assert again["metrics"][metric] == results["metrics"][metric]


def test_failed_run_says_why_and_runs_again(tmp_path: Path) -> None:
    overrides = ["trainer.max_steps=6", "optimizer.lr=1e36"]
    for _ in range(2):
        with pytest.raises(TrainingError, match="loss is nan"):
            run(config_in(tmp_path, *overrides))
        (directory,) = (tmp_path / "outputs").iterdir()
        found = RunDirectory(directory).results()
        assert found["status"] == "failed"
        assert found["error"].startswith("step ")
        assert "metrics" not in found


def test_error_of_ours_is_named_with_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PairScore.evaluate

    def broken(self: PairScore, encode: Any) -> Any:
        if self.split == "test":
            raise ZeroDivisionError("a bug in a task")
        return right(self, encode)

    monkeypatch.setattr(PairScore, "evaluate", broken)
    with pytest.raises(ZeroDivisionError):
        run(config_in(tmp_path, *task_overrides(), "trainer.max_steps=2"))
    (directory,) = (tmp_path / "outputs").iterdir()
    assert RunDirectory(directory).results()["error"] == "ZeroDivisionError: a bug in a task"
    monkeypatch.undo()
    assert run(config_in(tmp_path, *task_overrides(), "trainer.max_steps=2"))["status"] == "complete"


def test_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from tests.training.trained import signal_at

    config = config_in(tmp_path, "trainer.max_steps=5")
    with monkeypatch.context() as patch:
        patch.setattr("cse_bench.run.extra_loggers", lambda *_: [signal_at(3, signal.SIGTERM)])
        with pytest.raises(Interrupted):
            run(config)
    (directory,) = (tmp_path / "outputs").iterdir()
    assert RunDirectory(directory).results()["status"] == "interrupted"
    assert RunDirectory(directory).checkpoint.is_file()
    results = run(config)
    assert (results["status"], results["steps"]) == ("complete", 5)
    rows = read_metrics(directory / "metrics.csv")
    assert [step for step, _ in metric_rows(rows, "train/loss")] == [1, 2, 3, 4, 5]
    assert not RunDirectory(directory).checkpoint.parent.exists()


def test_changed_corpus_is_another_run(tmp_path: Path) -> None:
    config = config_in(tmp_path, "trainer.max_steps=1")
    first = run(config)
    (tmp_path / "sentences.txt").write_text("\n".join(made_up_sentences(100, seed=9)) + "\n")
    second = run(config)
    assert not second["reused"]
    assert second["directory"] != first["directory"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("one\ntwo\n", "2 sentences, fewer than one batch of 16"), ("one\n\ntwo\n", "sentences.txt:2: empty line")],
)
def test_corpus_is_checked_before_weights_are_loaded(
    tmp_path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path)
    (tmp_path / "sentences.txt").write_text(content)
    monkeypatch.setattr("cse_bench.training.train.build_encoder", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(DataError, match=message):
        run(config)
    assert not (tmp_path / "outputs").exists()


def test_run_that_another_process_finished_meanwhile_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline of a parallel sweep: one process does it, the others wait and find it done."""
    config = config_in(tmp_path, "trainer.max_steps=1")
    first = run(config)
    answers = iter([False, True, True])
    monkeypatch.setattr(RunDirectory, "is_complete", lambda self: next(answers))
    again = run(config, wait=True)
    assert again["reused"]
    assert again["finished"] == first["finished"]
