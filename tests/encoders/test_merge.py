"""A merged body gives the embeddings of body and adapter."""

from typing import Any

import numpy as np
import pytest
import torch

from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.merge import merged
from cse_bench.errors import EncoderError

LORA = {"type": "lora", "r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}
SENTENCES = ["a b c", "a longer sentence than that one", "x"]


def trained(tiny: Any, name: str, **changes: Any) -> Encoder:
    """With updates that are not zero, as after some steps."""
    encoder: Encoder = tiny(name, adapter=LORA, **changes)
    draw = torch.Generator().manual_seed(0)
    for key, parameter in encoder.body.named_parameters():
        if ".lora_B." in key:
            parameter.data = torch.randn(parameter.shape, generator=draw).mul(0.1).to(parameter.dtype)
    return encoder.eval()


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gpt2", "tiny_opt", "tiny_llama"])
def test_embeddings_stay(tiny: Any, name: str) -> None:
    encoder = trained(tiny, name)
    before = encoder.encode(SENTENCES)
    with encoder.body.disable_adapter():
        assert np.abs(encoder.encode(SENTENCES) - before).max() > 1e-2
    plain = merged(encoder)
    assert plain.body is plain.plain_body
    assert not any("lora" in key for key, _ in plain.named_parameters())
    np.testing.assert_allclose(plain.encode(SENTENCES), before, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(SENTENCES), before)
    assert plain.tokenizer is encoder.tokenizer
    assert not plain.training


def test_the_sum_by_hand(tiny: Any) -> None:
    encoder = trained(tiny, "tiny_llama")
    key = "layers.1.mlp.up_proj"
    layer = encoder.plain_body.get_submodule(key)
    update = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (layer.base_layer.weight + update).detach()
    torch.testing.assert_close(merged(encoder).plain_body.get_parameter(f"{key}.weight").detach(), expected)


def test_half_precision_is_rounded_once(tiny: Any) -> None:
    """To the nearest bfloat16 of the exact sum, which has 8 bits."""
    encoder = trained(tiny, "tiny_llama", dtype="bfloat16")
    layer = encoder.plain_body.get_submodule("layers.0.self_attn.q_proj")
    assert layer.lora_A["default"].weight.dtype == torch.float32
    update = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (layer.base_layer.weight.float() + update).detach().bfloat16()
    found = merged(encoder).plain_body.get_parameter("layers.0.self_attn.q_proj.weight")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=0)


def test_without_an_adapter_there_is_nothing_to_do(tiny: Any) -> None:
    encoder = tiny("tiny_bert")
    assert merged(encoder) is encoder


def test_what_cannot_be_merged_says_so(tiny: Any) -> None:
    encoder = trained(tiny, "tiny_llama")
    for key, parameter in encoder.body.named_parameters():
        if ".lora_B." in key:
            parameter.data.fill_(float("nan"))
    with pytest.raises(EncoderError, match="cannot be merged: its update of .* is not finite"):
        merged(encoder)
    encoder.plain_body.is_loaded_in_4bit = True
    with pytest.raises(EncoderError, match="cannot be merged into four-bit weights; keep the adapter"):
        merged(encoder)
