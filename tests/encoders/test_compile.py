"""`backbone.compile`: compiled in training, as it stands in an evaluation, and never carried into a copy."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, EncoderError
from tests.tiny import composed, gradients, largest_difference, tiny_method, token_rows
from tests.training.trained import train_in

LENGTHS = [5, 12, 9, 12]
# torch.compile's own use of torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler on a CPU"
)


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("backbone", "rounding"), [("tiny_bert", 1e-10), ("tiny_llama", 1e-6)])  # norms in float32
def test_same_loss_and_gradients(backbone: str, rounding: float) -> None:
    found = []
    for mode in ("null", "default"):
        options = (f"backbone={backbone}", "backbone.packed=auto", "backbone.dropout=0", "method.views=identical")
        method = tiny_method(*options, f"backbone.compile={mode}")
        loss = method.loss_of(token_rows(LENGTHS))["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert counters["stats"]["unique_graphs"] >= 1
    assert found[0][0] == pytest.approx(found[1][0], abs=rounding)
    assert largest_difference(found[0][1], found[1][1]) < rounding
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-4
    graphs = counters["stats"]["unique_graphs"]
    sentences = ["A bird.", "The old river sings near the tower."]
    assert method.encoder.encode(sentences).shape == (2, 32)
    twin = copy.deepcopy(method.encoder)
    assert twin.body._compiled_call_impl is None  # it would run the weights of the one it was copied from
    assert (twin.encode(sentences) == method.encoder.encode(sentences)).all()
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
@needs_compiler
def test_a_run_with_rows_of_constant_length_compiles_once(tmp_path: Path) -> None:
    constant = ("backbone.compile=default", "data.padding=max_length", "data.split_rows_by_length=false")
    plain, _ = train_in(tmp_path / "plain", "trainer.max_steps=4", "backbone.packed=false")
    summary, _ = train_in(tmp_path / "compiled", "trainer.max_steps=4", *constant)
    assert summary.steps == plain.steps == 4
    assert counters["stats"]["unique_graphs"] <= 2  # with dropout, and where the views are checked without gradients
    assert summary.metrics["cost/train_tokens_real"] == plain.metrics["cost/train_tokens_real"]


def test_what_does_not_go_together() -> None:
    with pytest.raises(ConfigError, match="compile is of Transformers' own forward, which packed=true replaces"):
        composed("backbone=tiny_bert", "backbone.packed=true", "backbone.compile=default")
    with pytest.raises(ConfigError, match="backbone.compile: .*'default', 'reduce-overhead'"):
        composed("backbone=tiny_bert", "backbone.compile=fast")
    for given, advice in (
        (["method=jtcse", "method.towers=null"], "the layers of crossed towers are called one by one"),
        (["data=wikipedia_sample", "backbone.compile=reduce-overhead"], "data.padding=max_length"),
        (["trainer=fsdp_4gpu", "data.split_rows_by_length=false"], "fsdp"),
    ):
        with pytest.raises(ConfigError, match=f"backbone.compile: .*{advice}"):
            composed("backbone=tiny_bert", "evaluation=none", "backbone.compile=default", *given)


def test_a_compiled_encoder_is_not_packed(tiny_entry) -> None:
    assert not build_encoder(tiny_entry("tiny_bert", compile="default")).packs(token_rows(LENGTHS))
    with pytest.raises(EncoderError, match="backbone.compile compiles Transformers' own forward"):
        entry = tiny_entry("tiny_bert", compile="default")
        build_encoder(entry.model_copy(update={"packed": True}))
