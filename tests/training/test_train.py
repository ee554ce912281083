"""A whole training in one process: what is kept, when it is evaluated, and what stops it."""

import math
from pathlib import Path

import pytest
import torch

from cse_bench.encoders.artifact import load_encoder, read_description
from cse_bench.errors import TrainingError
from cse_bench.results.metrics_log import read_metrics
from tests.tiny import PairScore, made_up_sentences, metric_rows, task_overrides
from tests.training.trained import kept_weights, train_in

# The learning rate does not depend on the length of the run: k steps of a long run are a run of k steps.
CONSTANT = ("optimizer.schedule=constant",)


def scripted(scores: list[float], **arguments: int) -> list[str]:
    """A dev task that gives these scores, one every two steps."""
    # `.nan` is YAML's; Hydra's command line spells it nan.
    listed = "[" + ",".join("nan" if math.isnan(score) else str(score) for score in scores) + "]"
    steps = 2 * len(scores)
    return [
        *task_overrides(scores=listed, **arguments),
        f"trainer.max_steps={steps}",
        "evaluation.eval_every_steps=2",
        *CONSTANT,
    ]


def weights_after(folder: Path, steps: int) -> dict[str, torch.Tensor]:
    _, directory = train_in(folder, f"trainer.max_steps={steps}", *CONSTANT)
    return kept_weights(directory)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([1.0, 2.0, 3.0], 6),
        ([3.0, 2.0, 1.0], 2),
        ([1.0, 3.0, 3.0, 2.0], 4),  # the first of equal ones
        ([math.nan, 2.0, math.nan], 4),  # NaN is better than nothing, but than no number
        ([-5.0, -7.0], 2),  # negative scores are scores
    ],
)
def test_the_strictly_best_encoder_is_kept(tmp_path: Path, scores: list[float], kept: int) -> None:
    summary, directory = train_in(tmp_path / "a", *scripted(scores))
    best = max(score for score in scores if not math.isnan(score))
    assert summary.selection == {"metric": "pairs/dev/score", "value": best, "step": kept, "rule": "strictly best"}
    assert summary.steps == 2 * len(scores)
    assert same(kept_weights(directory), weights_after(tmp_path / "b", kept))
    assert read_description(directory.model)["training"]["step"] == kept


@pytest.mark.parametrize("overrides", [["trainer.max_steps=4", *CONSTANT], scripted([math.nan, math.nan])])
def test_last_weights_are_kept_when_nothing_selected(tmp_path: Path, overrides: list[str]) -> None:
    summary, directory = train_in(tmp_path / "a", *overrides)
    assert (summary.selection["metric"], summary.selection["step"]) == (None, 4)
    assert same(kept_weights(directory), weights_after(tmp_path / "b", 4))
    assert not same(kept_weights(directory), weights_after(tmp_path / "c", 3))


@pytest.mark.parametrize(("last", "expected"), [("false", [3, 6]), ("true", [3, 6, 7])])
def test_evaluated_at_multiples_of_the_interval_and_never_at_step_0(
    tmp_path: Path, last: str, expected: list[int]
) -> None:
    overrides = (*task_overrides(), "evaluation.eval_every_steps=3", f"evaluation.eval_last_step={last}")
    _, directory = train_in(tmp_path, *overrides, "trainer.max_epochs=1")  # 7 steps
    rows = read_metrics(directory.metrics)
    assert [step for step, _ in metric_rows(rows, "pairs/dev/score")] == expected


def test_last_step_is_evaluated_once_when_it_is_due_anyway(tmp_path: Path) -> None:
    overrides = (*task_overrides(), "evaluation.eval_every_steps=2", "evaluation.eval_last_step=true")
    _, directory = train_in(tmp_path, *overrides, "trainer.max_steps=4")
    rows = read_metrics(directory.metrics)
    assert [step for step, _ in metric_rows(rows, "pairs/dev/score")] == [2, 4]


def test_evaluation_leaves_no_trace_in_the_training(tmp_path: Path) -> None:
    """Dropout masks, batches and modes are those of a run without evaluation, even if a task draws random numbers."""
    _, without = train_in(tmp_path / "a", "trainer.max_steps=6")
    overrides = (*task_overrides(draws=5), "evaluation.eval_every_steps=1", "evaluation.selection_metric=null")
    _, evaluated = train_in(tmp_path / "b", "trainer.max_steps=6", *overrides)
    assert len(list(metric_rows(read_metrics(evaluated.metrics), "pairs/dev/score"))) == 6
    assert same(kept_weights(without), kept_weights(evaluated))


def test_selection_by_an_unknown_metric_names_the_known_ones(tmp_path: Path) -> None:
    overrides = (*task_overrides(), "evaluation.selection_metric=sts/dev/stsb", "evaluation.eval_every_steps=1")
    with pytest.raises(TrainingError, match=r"'sts/dev/stsb' is not among the dev metrics: pairs/dev/score"):
        train_in(tmp_path, *overrides, "trainer.max_steps=2")


def test_kept_encoder_gives_the_vectors_that_were_scored(tmp_path: Path) -> None:
    overrides = (*task_overrides(), "evaluation.eval_every_steps=4", "trainer.max_steps=4")
    PairScore.embeddings.clear()
    _, directory = train_in(tmp_path, *overrides)
    (scored,) = PairScore.embeddings
    again = load_encoder(directory.model).encode(made_up_sentences(12, seed=1))
    assert again == pytest.approx(scored, abs=1e-6)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    _, directory = train_in(tmp_path, "trainer.max_steps=60", "optimizer.lr=3e-3", "backbone.dropout=0.05")
    losses = [value for _, value in metric_rows(read_metrics(directory.metrics), "train/loss")]
    assert losses[0] == pytest.approx(math.log(16), rel=0.2)  # a random encoder hardly tells 16 sentences apart
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_loss_is_logged_at_the_first_every_nth_and_the_last_step(tmp_path: Path) -> None:
    _, directory = train_in(tmp_path, "trainer.max_steps=8", "trainer.log_every_n_steps=3")
    assert [step for step, _ in metric_rows(read_metrics(directory.metrics), "train/loss")] == [1, 3, 6, 8]


def test_diverged_training_stops_at_the_step_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"step \d+: loss is nan; 'z' is not finite in \d+ of \d+ rows.*optimizer\.lr"
    ):
        train_in(tmp_path, "trainer.max_steps=8", "optimizer.lr=1e36", "trainer.log_every_n_steps=100")


def test_same_seed_same_run_and_another_seed_another(tmp_path: Path) -> None:
    runs = []
    for index, seed in enumerate((3, 3, 4)):
        _, directory = train_in(tmp_path / str(index), "trainer.max_steps=3", f"seed={seed}")
        runs.append(kept_weights(directory))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_double_precision_trains_in_double_precision(tmp_path: Path) -> None:
    _, directory = train_in(tmp_path, "trainer.max_steps=2", "precision=64-true")
    losses = [value for _, value in metric_rows(read_metrics(directory.metrics), "train/loss")]
    assert any(float(torch.tensor(loss, dtype=torch.float32)) != loss for loss in losses)


def test_summary_counts_sentences_and_tokens(tmp_path: Path) -> None:
    padded = ("data.split_rows_by_length=false", "backbone.packed=false")
    summary, _ = train_in(tmp_path, "trainer.max_epochs=1", *padded)
    tokens = [len(sentence.encode()) + 2 for sentence in made_up_sentences()]
    assert summary.metrics["cost/train_sentences"] == 100
    assert summary.metrics["cost/train_tokens_real"] == 2 * sum(min(count, 32) for count in tokens)
    assert summary.metrics["cost/train_tokens_padded"] > summary.metrics["cost/train_tokens_real"]
    assert summary.corpus["sentences"] == 100
    assert summary.parameters["total"] == summary.parameters["trainable"]
    assert summary.parameters["total"] - summary.parameters["inference"] == 32 * 32 + 32  # the head
