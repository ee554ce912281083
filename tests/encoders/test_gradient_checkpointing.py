"""Layers computed again in the backward: the same loss and gradients to the last bit, dropout masks included."""

import pytest
import torch
from torch.utils import checkpoint as recomputing

from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, EncoderError
from tests.tiny import composed, gradients, largest_difference, tiny_method, token_rows

LENGTHS = [5] * 4 + [12] * 4 + [32] * 4
ON = "backbone.gradient_checkpointing=true"


@pytest.mark.parametrize("cache_rows", [None, 5])
@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone=tiny_bert"],
        ["backbone=tiny_llama"],
        ["backbone=tiny_llama", "adapter=lora"],
        ["backbone=tiny_mistral", "adapter=lora"],
        ["backbone=tiny_opt"],
        ["method=jtcse", "method.towers=null", "method.cross_mode=off"],
    ],
    ids=" ".join,
)
def test_same_loss_and_gradients(overrides: list[str], cache_rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found, again = [], []
    run = recomputing._CheckpointFrame.__init__
    monkeypatch.setattr(
        recomputing._CheckpointFrame, "__init__", lambda *words, **named: again.append(1) or run(*words, **named)
    )
    for option in ("backbone.gradient_checkpointing=false", ON):
        method = tiny_method(*overrides, "backbone.packed=false", option, cache_rows=cache_rows)
        torch.manual_seed(1)
        loss = method.loss_of(token_rows(LENGTHS))["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method), len(again)))
    assert found[0][0] == found[1][0]
    assert largest_difference(found[0][1], found[1][1]) == 0
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-4
    assert found[1][2] > 2 * found[0][2]  # layers were computed again, more often than pieces alone


def test_nothing_is_kept_or_recomputed_in_an_evaluation() -> None:
    method = tiny_method("backbone=tiny_llama", "adapter=lora", ON)
    without = tiny_method("backbone=tiny_llama", "adapter=lora")
    sentences = ["a river", "the bird"]
    assert (method.encoder.encode(sentences) == without.encoder.encode(sentences)).all()


def test_towers_that_exchange_values_refuse_it() -> None:
    arguments = ("backbone=tiny_bert", "method=jtcse", "method.towers=null", "evaluation=none", "data=wikipedia_sample")
    for mode in ("dual", "inline"):
        with pytest.raises(ConfigError, match="backbone.gradient_checkpointing: a crossed layer computed again"):
            composed(*arguments, f"method.cross_mode={mode}", ON)
    composed(*arguments, "method.cross_mode=off", ON)


def test_an_architecture_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertModel

    monkeypatch.setattr(BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(EncoderError, match="'bert' has no gradient checkpointing.*data.gradient_cache_rows"):
        build_encoder(composed("backbone=tiny_bert", "evaluation=none", "data=wikipedia_sample", ON).backbone)
