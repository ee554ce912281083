"""The evaluator: its precision is its own, no result depends on batching, and the module is left as it was."""

import numpy as np
import pytest
import torch

from cse_bench.config.schema import Component
from cse_bench.errors import DataError
from cse_bench.evaluation.suite import Evaluator, build_tasks
from cse_bench.methods.base import ContrastiveMethod
from tests.tiny import PairScore, made_up_sentences, tiny_method

SENTENCES = made_up_sentences(20)


def evaluator(method: ContrastiveMethod, *, precision: str = "32-true", batch_tokens: int = 4096) -> Evaluator:
    return Evaluator(
        module=method,
        embed=method.embed,
        tokenizer=method.encoder.tokenizer,
        precision=precision,
        batch_tokens=batch_tokens,
    )


def test_precision_is_that_of_the_evaluation_whatever_the_trainers() -> None:
    method = tiny_method(dtype=torch.float32)
    alone = evaluator(method).encode(SENTENCES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = evaluator(method).encode(SENTENCES)
    assert np.array_equal(alone, inside)
    # And bfloat16 would have been seen.
    rounded = evaluator(method, precision="bf16-mixed").encode(SENTENCES)
    assert np.abs(rounded - alone).max() > 1e-4
    assert rounded.dtype == alone.dtype == np.float32


def test_no_vector_depends_on_the_batching() -> None:
    method = tiny_method()
    whole, single = (evaluator(method, batch_tokens=count).encode(SENTENCES) for count in (10**6, 1))
    assert whole == pytest.approx(single, abs=1e-6)


def test_dropout_is_off_inside_and_on_again_afterwards() -> None:
    method = tiny_method()
    method.encoder.body.encoder.layer[0].eval()  # a frozen part stays frozen
    before = [module.training for module in method.modules()]
    first, second = (evaluator(method).encode(SENTENCES) for _ in range(2))
    assert np.array_equal(first, second)
    assert [module.training for module in method.modules()] == before
    assert any(before)
    assert not all(before)


def test_runs_all_tasks_on_one_encoding() -> None:
    PairScore.embeddings.clear()
    evaluation = evaluator(tiny_method())([PairScore(split="dev"), PairScore(split="test")])
    assert set(evaluation.metrics) == {"pairs/dev/score", "pairs/test/score"}
    assert evaluation.num_sentences == len({*made_up_sentences(12, seed=1), *made_up_sentences(12, seed=2)})


def test_missing_data_is_told_when_tasks_are_built() -> None:
    component = Component.model_validate(
        {"_target_": "cse_bench.evaluation.sts.STSBenchmarkDev", "data": "/nowhere", "cache": "/nowhere/else"}
    )
    with pytest.raises(DataError):
        build_tasks({"sts_dev": component})


def test_tasks_come_in_the_order_of_the_config() -> None:
    component = {"_target_": "tests.tiny.PairScore"}
    tasks = build_tasks({split: Component.model_validate({**component, "split": split}) for split in ("test", "dev")})
    assert [task.name for task in tasks] == ["pairs_test", "pairs_dev"]
