"""The package mteb on our encoders, with local data in the place of what it would fetch: its scores are ours."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from cse_bench.errors import ConfigError, DataError
from cse_bench.evaluation.sts import STSTest
from cse_bench.evaluation.sts_files import STSFiles
from cse_bench.evaluation.sts_tables import TEST_PAIRS
from cse_bench.evaluation.task import run_tasks
from tests.tiny import made_up_sentences, tiny_method

NAMES = {"stsb": "STSBenchmark", "sickr": "SICK-R"}


@pytest.fixture(scope="module")
def mteb_run():
    """The module under test; importing mteb takes seconds, so not while tests are collected."""
    pytest.importorskip("mteb", reason="the extra 'mteb' is not installed")
    from cse_bench.evaluation import mteb_run

    return mteb_run


def with_data(mteb_run, name, pairs):
    """A task of mteb that has its data already."""
    from datasets import Dataset

    with warnings.catch_warnings():
        (task,) = mteb_run.tasks_named([name])
    sides = {
        "sentence1": [text for one in pairs for text in one.left],
        "sentence2": [text for one in pairs for text in one.right],
        "score": np.concatenate([one.gold for one in pairs]),
    }
    task.dataset = {"default": {"test": Dataset.from_dict(sides)}}
    task.data_loaded = True
    return task


@pytest.fixture(scope="module")
def encoder():
    return spread(0)


def spread(seed):
    """Random weights, five times as large: as drawn, cosines are equal to the digits that mteb computes with."""
    encoder = tiny_method("method=simcse", seed=seed).encoder.float().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter *= 5 if parameter.ndim == 2 else 1
    return encoder


def wrapped(mteb_run, encoder):
    return mteb_run.MTEBEncoder(encoder, name="mine", precision="32-true", batch_tokens=16384)


@pytest.mark.filterwarnings("ignore:The task .* is superseded:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("task", ["sts13", "stsb"])
def test_scores_on_the_same_pairs_are_ours(task, mteb_run, encoder, shared_data: Path, tmp_path: Path) -> None:
    assert task in TEST_PAIRS
    pairs = STSFiles(data=str(shared_data), cache=str(tmp_path)).test(task)
    name = NAMES.get(task, task.upper())
    scores = mteb_run.run_mteb(
        wrapped(mteb_run, encoder), [with_data(mteb_run, name, pairs)], folder=tmp_path, overwrite=False
    )
    ours = run_tasks([STSTest(data=str(shared_data), cache=str(tmp_path))], encoder.encode).metrics
    # mteb computes cosines in float32, so that pairs of almost the same cosine may change places.
    assert scores[name] == pytest.approx(ours[f"sts/test/{task}"], abs=5e-3)
    (file,) = tmp_path.rglob(f"{name}.json")
    assert json.loads(file.read_text())["task_name"] == name
    # A finished task is found again; other vectors under the same name are not taken for it.
    again = mteb_run.run_mteb(
        wrapped(mteb_run, encoder), [with_data(mteb_run, name, pairs)], folder=tmp_path, overwrite=False
    )
    assert again == pytest.approx(scores, abs=1e-3)  # rounded in the file
    assert len(list(tmp_path.rglob(f"{name}.json"))) == 1


def test_the_revision_follows_the_vectors(mteb_run, encoder) -> None:
    other = spread(1)
    first, second = (wrapped(mteb_run, one).mteb_model_meta for one in (encoder, other))
    assert first.revision == wrapped(mteb_run, encoder).mteb_model_meta.revision != second.revision
    assert first.name == second.name == "cse_bench/mine"


def test_every_text_keeps_its_row(mteb_run, encoder) -> None:
    texts = [*made_up_sentences(5), *made_up_sentences(3)]
    batches = [{"text": texts[:4]}, {"text": texts[4:]}]
    np.testing.assert_allclose(wrapped(mteb_run, encoder).encode(batches), encoder.encode(texts), atol=1e-6)


@pytest.mark.slow  # lists all of mteb's tasks
def test_wrong_names_and_missing_data(mteb_run, encoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task 'STSBenchmar'; did you mean 'STSBenchmark'"):
        mteb_run.tasks_named(["STSBenchmar"])
    with pytest.raises(ConfigError, match="is about .*image.*; give tasks of text"):
        mteb_run.tasks_named(["STS12VisualSTS"])
    with pytest.raises(DataError, match=r"the data of mteb's task 'STS12' cannot be loaded from 'mteb/sts12-sts'"):
        mteb_run.run_mteb(wrapped(mteb_run, encoder), mteb_run.tasks_named(["STS12"]), folder=tmp_path, overwrite=False)
