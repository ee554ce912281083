"""The stand-ins of a plan against bitsandbytes itself, which quantises on the CPU too."""

from typing import Any

import pytest
import torch
from torch import nn

from cse_bench.config.bind import build
from cse_bench.config.schema import QLoraAdapter
from cse_bench.encoders.adapters import add_lora
from cse_bench.encoders.encoder import build_encoder
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.plan import plan
from cse_bench.training.four_bit import FourBitLinear, store_in_four_bits
from tests.test_plan import allocated_at_peak, real_step, saved_bytes
from tests.tiny import composed

LLAMA = ["backbone=tiny_llama", "backbone.source=hub", "backbone.hub_id=a/b"] + [
    f"backbone.architecture.{key}={value}"
    for key, value in {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4}.items()
]


def adapter(**changes: Any) -> QLoraAdapter:
    values = {"type": "qlora", "r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}
    kind = {"quant_type": "nf4", "double_quant": True, "compute_dtype": "bfloat16"}
    return QLoraAdapter.model_validate(values | kind | changes)


def bytes_of(module: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def quantised(layer: nn.Linear, options: QLoraAdapter, kind: Any) -> nn.Module:
    """A layer as bitsandbytes keeps it."""
    settings = {"compress_statistics": options.double_quant, "quant_type": options.quant_type}
    made = kind.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=getattr(torch, options.compute_dtype),
        **settings,
    )
    made.weight = kind.Params4bit(layer.weight.data, requires_grad=False, **settings)
    return made.to("cpu")


def state_bytes(layer: Any) -> int:
    """Packed weights, scales, levels."""
    state = layer.weight.quant_state
    found = [layer.weight, state.absmax, state.code, state.offset]
    if state.nested:
        found += [state.state2.absmax, state.state2.code]
    return sum(tensor.numel() * tensor.element_size() for tensor in found if tensor is not None)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (333, 257), (1024, 768)])
def test_a_layer_takes_as_many_bytes_as_in_bitsandbytes(shape: tuple[int, int], double_quant: bool) -> None:
    kind = pytest.importorskip("bitsandbytes").nn
    options = adapter(double_quant=double_quant)
    layer = nn.Linear(shape[1], shape[0], bias=False)
    stand_in = FourBitLinear(*shape, bias=None, dtype=torch.float32, adapter=options)
    assert bytes_of(stand_in) == state_bytes(quantised(layer, options, kind))


@pytest.mark.parametrize(("double_quant", "bits"), [(True, 4 + 8 / 64 + 32 / (64 * 256)), (False, 4 + 32 / 64)])
def test_bits_per_weight(double_quant: bool, bits: float) -> None:
    options = adapter(double_quant=double_quant)
    with torch.device("meta"):
        stand_in = FourBitLinear(4096, 11008, bias=None, dtype=torch.bfloat16, adapter=options)
    assert 8 * bytes_of(stand_in) / (4096 * 11008) == pytest.approx(bits, rel=1e-3)


def test_only_linear_layers_of_the_body_are_in_four_bits() -> None:
    with torch.device("meta"):
        config = composed("dry_run=true", "evaluation=none", "backbone=tiny_llama", "adapter=lora")
        encoder = build_encoder(config.backbone)
    before = {name: p.dtype for name, p in encoder.body.named_parameters() if ".lora_" in name}
    store_in_four_bits(encoder.plain_body, adapter())
    kinds = {name: type(module) for name, module in encoder.plain_body.named_modules()}
    assert sum(kind is FourBitLinear for kind in kinds.values()) == 2 * 7
    assert {name for name, kind in kinds.items() if kind is nn.Linear} == {
        name for name, kind in kinds.items() if ".lora_" in name and kind is nn.Linear
    }
    assert before == {name: p.dtype for name, p in encoder.body.named_parameters() if ".lora_" in name}
    assert encoder.plain_body.get_input_embeddings().weight.dtype == torch.float32


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_a_step_takes_what_the_plan_says(compute_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = pytest.importorskip("bitsandbytes").nn
    options = adapter(compute_dtype=compute_dtype)
    entry = ",".join(f"{key}:{value}" for key, value in options.model_dump().items())
    common = [*LLAMA, "evaluation=none", "dry_run=true", "precision=32-true", "data.global_batch_size=16"]
    config = composed(*common, f"backbone.adapter={{{entry}}}")
    made = plan(config)

    real = composed("evaluation=none", *LLAMA, "backbone.source=random")
    encoder = build_encoder(real.backbone)
    for name, layer in list(encoder.body.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, own = name.rpartition(".")
            setattr(encoder.body.get_submodule(parent), own, quantised(layer, options, kind))
    encoder.body.is_loaded_in_4bit = True
    encoder.body = add_lora(encoder.body, options)
    method: ContrastiveMethod = build(config.method, encoder=encoder, optimizer=config.optimizer).train()
    layers = [module for module in method.modules() if isinstance(module, kind.Linear4bit)]
    stored = bytes_of(method) + sum(state_bytes(layer) - bytes_of(nn.ParameterList([layer.weight])) for layer in layers)
    assert len(layers) == 2 * 7
    assert made.memory.parameters == pytest.approx(stored, rel=1e-3)

    step = real_step(method, config)
    assert saved_bytes(method, step) == pytest.approx(made.memory.activations, rel=0.05)
    assert allocated_at_peak(step) == pytest.approx(made.memory.activations + made.memory.temporaries, rel=0.15)
