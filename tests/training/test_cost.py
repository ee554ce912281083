"""What a run costs: clocks that do not mix, counts that add up, and a memory peak that is this run's alone."""

import math
import time
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from cse_bench.encoders.encoder import build_encoder
from cse_bench.training import cost
from cse_bench.training.cost import (
    CostMeter,
    TokenCount,
    inference_flops,
    peak_memory_bytes,
    reset_peak_memory,
)
from tests.tiny import composed

MIB = 2**20


def touched(mebibytes: int) -> np.ndarray:
    """Memory that is really resident."""
    return np.ones(mebibytes * MIB // 8)


@pytest.mark.skipif(not cost._CLEAR_REFS.exists(), reason="only Linux can start the peak anew")
def test_a_run_does_not_inherit_the_peak_of_the_one_before() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    block = touched(300)
    during = peak_memory_bytes()
    assert during - before > 250 * MIB
    del block
    assert peak_memory_bytes() == pytest.approx(during, abs=4 * MIB)  # a peak, not the present
    reset_peak_memory()
    assert during - peak_memory_bytes() > 250 * MIB


def test_without_the_linux_files_the_peak_is_the_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = peak_memory_bytes()
    monkeypatch.setattr(cost, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(cost, "_CLEAR_REFS", tmp_path / "missing" / "too")
    reset_peak_memory()
    # At least what this process holds now, and in the same unit.
    assert known * 0.5 < peak_memory_bytes() < 100 * known


def test_a_protected_file_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_CLEAR_REFS", tmp_path)  # a directory: it cannot be written
    reset_peak_memory()


def test_evaluation_is_not_training() -> None:
    meter, module, trainer = CostMeter(), lightning.LightningModule(), lightning.Trainer(logger=False)
    meter.on_train_start(trainer, module)
    time.sleep(0.05)
    with meter.evaluating():
        time.sleep(0.2)
    time.sleep(0.05)
    meter.on_train_end(trainer, module)
    time.sleep(0.1)
    assert 0.1 <= meter.train_time_s < 0.19
    assert 0.2 <= meter.eval_time_s < 0.29


def test_an_evaluation_that_fails_is_still_counted_as_one() -> None:
    meter = CostMeter()
    with pytest.raises(ValueError, match="no"), meter.evaluating():
        time.sleep(0.02)
        raise ValueError("no")
    assert meter.eval_time_s >= 0.02
    assert meter.train_time_s == 0


def test_times_go_on_after_a_resume() -> None:
    meter, module, trainer = CostMeter(), lightning.LightningModule(), lightning.Trainer(logger=False)
    meter.on_train_start(trainer, module)
    time.sleep(0.03)
    state = meter.state_dict()  # the clock is running
    again = CostMeter()
    again.load_state_dict(state)
    assert again.train_time_s >= 0.03
    again.on_train_start(trainer, module)
    time.sleep(0.03)
    again.on_train_end(trainer, module)
    assert again.train_time_s >= 0.06


def test_counts_of_ranks_add_up() -> None:
    counts = [TokenCount(real=5, padded=8, sentences=2), TokenCount(real=1, padded=2, sentences=1)]
    assert TokenCount.sum(counts) == TokenCount(real=6, padded=10, sentences=3)


def test_metrics_and_rate() -> None:
    meter = CostMeter()
    assert math.isnan(meter.sentences_per_s(TokenCount(sentences=4)))
    assert math.isnan(meter.metrics(TokenCount())["cost/train_sentences_per_s"])
    meter.train_time_s = 2.0
    metrics = meter.metrics(TokenCount(real=5, padded=8, sentences=10))
    assert metrics == {
        "cost/train_time_s": 2.0,
        "cost/train_sentences": 10.0,
        "cost/train_sentences_per_s": 5.0,
        "cost/train_tokens_real": 5.0,
        "cost/train_tokens_padded": 8.0,
    }
    assert meter.sentences_per_s(TokenCount(sentences=10)) == 5.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_peak_is_what_torch_allocated() -> None:
    reset_peak_memory()
    block = torch.ones(10 * MIB, device="cuda")
    assert peak_memory_bytes("cuda") >= block.nbytes


def test_inference_flops_are_those_of_the_matrix_products() -> None:
    encoder = build_encoder(composed("backbone=tiny_bert").backbone).eval()
    tokens = len(encoder.tokenizer([cost._TYPICAL_SENTENCE], max_length=None)[0])
    config = encoder.config
    width, inner = config.hidden_size, config.intermediate_size
    # A token: query, key, value, output (4 d^2), two feed-forward products (2 d i). A pair of tokens: score and sum.
    layer = 2 * tokens * (4 * width**2 + 2 * width * inner) + 2 * 2 * tokens**2 * width
    # Of the last layer the first token's vector is read: keys and values of all tokens, the rest of one.
    last = 2 * tokens * 2 * width**2 + 2 * (2 * width**2 + 2 * width * inner) + 2 * 2 * tokens * width
    assert inference_flops(encoder) == (config.num_hidden_layers - 1) * layer + last
    encoder.packed = False
    assert inference_flops(encoder) == config.num_hidden_layers * layer
    assert not encoder.training
