r"""What a body in four bits takes, for plans made without bitsandbytes and without a GPU.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3) keeps the weights of the linear layers in blocks of 64, each
weight as one of 16 levels and each block with a scale. With double quantisation the scales themselves are kept in 8
bits, in blocks of 256 with a float32 scale each. Bits per weight:

.. math::
    4 + \frac{32}{64} = 4.5
    \qquad\text{with double quantisation}\qquad
    4 + \frac{8}{64} + \frac{32}{64 \cdot 256} \approx 4.127

Beside them, once per layer: the 16 levels, and with double quantisation the 256 levels of the scales and their mean.
For a product the weights of one layer are made whole, in the forward and again in the backward; neither they nor the
layer's input are kept.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from cse_bench.config.schema import QLoraAdapter

_BLOCK, _SCALES_BLOCK = 64, 256  # bitsandbytes' own


class FourBitLinear(nn.Module):
    """A linear layer as bitsandbytes stores and computes it, without content: right in shapes and bytes only.

    Args:
        rows: outputs.
        columns: inputs.
        bias: of the layer, or None; stays as it is.
        dtype: the weights' before they were quantised, and again when they are made whole.
        adapter: quantisation.
    """

    def __init__(
        self, rows: int, columns: int, *, bias: nn.Parameter | None, dtype: torch.dtype, adapter: QLoraAdapter
    ) -> None:
        super().__init__()
        self.shape, self.dtype = (rows, columns), dtype
        self.compute_dtype = getattr(torch, adapter.compute_dtype)
        self.bias = bias
        blocks = -(-rows * columns // _BLOCK)
        packed = torch.empty(-(-rows * columns // 2), 1, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("levels", torch.empty(16))
        if adapter.double_quant:
            self.register_buffer("scales", torch.empty(blocks, dtype=torch.uint8))
            self.register_buffer("scales_of_scales", torch.empty(-(-blocks // _SCALES_BLOCK)))
            self.register_buffer("levels_of_scales", torch.empty(256))
            self.register_buffer("mean_of_scales", torch.empty(()))
        else:
            self.register_buffer("scales", torch.empty(blocks))

    def forward(self, states: Tensor) -> Tensor:
        """(..., columns) -> (..., rows), in the dtype of the input."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        product: Tensor = _Product.apply(states.to(self.compute_dtype), bias, self.shape, self.dtype)
        return product.to(states.dtype)


class _Product(torch.autograd.Function):
    """Nothing is saved for the backward: the weights are made whole again."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, bias: Tensor | None, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype = shape, dtype
        return F.linear(states, torch.empty(shape, dtype=dtype).to(states.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        return gradient @ torch.empty(ctx.shape, dtype=ctx.dtype).to(gradient.dtype), None, None, None


def store_in_four_bits(body: PreTrainedModel, adapter: QLoraAdapter) -> None:
    """Puts stand-ins in the place of a body's linear layers, and all its other weights into float32, as PEFT does.

    Args:
        body: on the meta device; low-rank updates on its layers stay as they are.
        adapter: quantisation.
    """
    for name, layer in list(body.named_modules()):
        if ".lora_" in f".{name}" or not isinstance(layer, nn.Linear | Conv1D):
            continue
        rows, columns = layer.weight.shape if isinstance(layer, nn.Linear) else reversed(layer.weight.shape)
        parent, _, own = name.rpartition(".")
        with torch.device("meta"):
            stand_in = FourBitLinear(rows, columns, bias=layer.bias, dtype=layer.weight.dtype, adapter=adapter)
        setattr(body.get_submodule(parent), own, stand_in)
    for parameter in body.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
