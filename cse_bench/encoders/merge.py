"""Merging: low-rank updates added into the weights they belong to, so that no adapter is needed any more."""

import copy
from typing import Any

import torch

from cse_bench.encoders.encoder import Encoder
from cse_bench.errors import EncoderError


def merged(encoder: Encoder) -> Encoder:
    r"""An encoder whose body is a plain Transformers model; the one given stays as it is.

    .. math::
        W' = W + \frac{\alpha}{r} B A

    Summed in float32 and rounded once to the dtype of W. So the embeddings are those of the adapter up to rounding: in
    float32 the last digits differ; in bfloat16 an update below about 1/256 of its weight is lost, and a merged encoder
    should be evaluated again.

    Args:
        encoder: with low-rank updates; without them it is returned itself. To save the result, name the entry it was
            built from with `adapter=None`.

    Raises:
        EncoderError: the body is kept in four bits, which hold no sum; or the sum is not finite.
    """
    if encoder.body is encoder.plain_body:
        return encoder
    if getattr(encoder.plain_body, "is_loaded_in_4bit", False):
        raise EncoderError(
            "low-rank updates cannot be merged into four-bit weights; keep the adapter, or load the encoder with "
            "backbone.adapter.type=lora, whose weights are whole"
        )
    from peft.tuners.lora import LoraLayer

    # The tokenizer has no weights and is shared.
    whole = copy.deepcopy(encoder, {id(encoder.tokenizer): encoder.tokenizer})
    adapted: Any = whole.body
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            _add_updates(layer, name)
    whole.body = adapted.unload()
    whole.body.requires_grad_()
    return whole


def _add_updates(layer: Any, name: str) -> None:
    """PEFT's own merging would round the update to the dtype of the weights before it is added."""
    weight = layer.get_base_layer().weight
    total = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    for adapter in layer.active_adapters:
        total = total + layer.get_delta_weight(adapter).detach()
    if not torch.isfinite(total).all():
        raise EncoderError(f"the adapter cannot be merged: its update of '{name}' is not finite; the run diverged")
    weight.data = total.to(weight.dtype)
