"""The evaluation callback by itself; whole trainings with it are in tests/training/test_train.py."""

import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cse_bench.evaluation.callback import EvaluationCallback
from cse_bench.evaluation.suite import Evaluator
from cse_bench.training.cost import CostMeter
from tests.tiny import PairScore, tiny_method

Saved = list[tuple[int, float]]


def callback(
    scores: list[float], *, every: int = 1, at_last: bool = False, select: bool = True, draws: int = 0
) -> tuple[EvaluationCallback, Saved]:
    method = tiny_method(dtype=torch.float32)
    saved: Saved = []
    made = EvaluationCallback(
        [PairScore(split="dev", scores=scores, draws=draws)],
        Evaluator(
            module=method,
            embed=method.embed,
            tokenizer=method.encoder.tokenizer,
            precision="32-true",
            batch_tokens=4096,
        ),
        every_steps=every,
        at_last_step=at_last,
        selection_metric="pairs/dev/score" if select else None,
        save=lambda step, value: saved.append((step, value)),
        kept=lambda: saved[-1],
        cost=CostMeter(),
    )
    return made, saved


def steps(made: EvaluationCallback, numbers: range, *, total: int = 100, rank: int = 0) -> list[dict[str, Any]]:
    """The callback after these steps; returns what was logged."""
    logged: list[dict[str, Any]] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append({"step": step, **metrics}))
    for number in numbers:
        trainer = SimpleNamespace(
            global_step=number,
            estimated_stepping_batches=total,
            is_global_zero=rank == 0,
            loggers=[logger],
            strategy=SimpleNamespace(barrier=lambda: None),
        )
        made.on_train_batch_end(trainer, None, None, None, 0)
    return logged


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0, 5.0, 6.0, 6.0], [(1, 5.0), (3, 6.0)]),
        ([math.nan, 1.0, math.nan, 2.0], [(2, 1.0), (4, 2.0)]),
        ([-2.0, -3.0, -1.0], [(1, -2.0), (3, -1.0)]),
        ([math.nan] * 3, []),
    ],
)
def test_saves_whenever_the_score_is_strictly_better(scores: list[float], expected: Saved) -> None:
    made, saved = callback(list(scores))
    logged = steps(made, range(1, len(scores) + 1))
    assert saved == expected
    assert [entry["step"] for entry in logged] == list(range(1, len(scores) + 1))
    assert made.best_step == (expected[-1][0] if expected else None)


def test_evaluates_when_it_is_due() -> None:
    for at_last, expected in ((False, [4, 8]), (True, [4, 8, 10])):
        made, _ = callback([1.0, 2.0, 3.0], every=4, at_last=at_last)
        assert [entry["step"] for entry in steps(made, range(1, 11), total=10)] == expected


def test_without_a_selection_metric_nothing_is_saved() -> None:
    made, saved = callback([1.0, 2.0], select=False)
    assert len(steps(made, range(1, 3))) == 2
    assert (saved, made.best_step) == ([], None)


def test_the_best_so_far_survives_a_checkpoint() -> None:
    first, _ = callback([3.0, 7.0])
    steps(first, range(1, 3))
    second, saved = callback([7.0, 6.0, 8.0])
    second.load_state_dict(first.state_dict())
    steps(second, range(3, 6))
    assert saved == [(5, 8.0)]  # 7.0 again is not better
    assert first.latest["pairs/dev/score"] == 7.0


def test_random_generators_are_as_they_were() -> None:
    made, _ = callback([1.0], draws=3)

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert len(steps(made, range(1, 2))) == 1
    assert draw() == expected


def test_other_ranks_wait_and_evaluate_nothing() -> None:
    made, saved = callback([1.0])
    assert steps(made, range(1, 2), rank=1) == []
    assert saved == []


def test_its_time_is_evaluation_time() -> None:
    made, _ = callback([1.0])
    steps(made, range(1, 2))
    assert made.cost.eval_time_s > 0
    assert made.cost.train_time_s == 0
