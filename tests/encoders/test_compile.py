"""`backbone.compile`: compiled in training, as it stands in an evaluation, and never carried into a copy."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, EncoderError
from tests.tiny import composed, gradients, largest_difference, tiny_method, token_rows
from tests.training.trained import train_in

LENGTHS = [5, 12, 9, 12]
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler here"
)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()
    counters.clear()


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("backbone", ["tiny_bert", "tiny_llama"])
def test_same_loss_and_gradients(backbone: str) -> None:
    found = []
    for mode in ("null", "default"):
        options = (f"backbone={backbone}", "backbone.packed=false", "backbone.dropout=0", "method.views=identical")
        method = tiny_method(*options, f"backbone.compile={mode}").train()
        assert not method.packs(token_rows(LENGTHS))
        loss = method.loss_of(token_rows(LENGTHS))["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert counters["stats"]["unique_graphs"] >= 1
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-10)
    assert largest_difference(found[0][1], found[1][1]) < 1e-10
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-4
