"""What a GPU keeps for the backward where the CPU keeps something else: for plans made without a GPU."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


class GpuKernels(TorchFunctionMode):
    """While it is active, operations on CPU tensors keep what they would keep on a GPU.

    Dropout keeps one byte per element on a GPU, the CPU a whole factor. Attention goes through a fused kernel, which
    keeps its inputs, its output and one number per row; the CPU has one for no dropout only, and else keeps the l x l
    probabilities. Autocast takes layer norm and softmax to float32 on a GPU only.
    """

    active = 0  # how many are entered

    def __enter__(self) -> "GpuKernels":
        """Takes effect."""
        GpuKernels.active += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends."""
        GpuKernels.active -= 1
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Exchanges the operation if it is one of these."""
        kwargs = kwargs or {}
        if func is F.dropout:
            return _gpu_dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _gpu_attention(*args, **kwargs)
        if func in (F.layer_norm, F.softmax) and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        return func(*args, **kwargs)


def runs_on_cpu(tensor: Tensor) -> bool:
    """Whether a CPU computes with it: what lies there, unless a plan is made for a GPU."""
    return tensor.device.type == "cpu" and not GpuKernels.active


def same_kernels() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `context_fn` of `torch.utils.checkpoint`: a backward is outside of the modes of its forward."""
    return nullcontext(), GpuKernels() if GpuKernels.active else nullcontext()


def _gpu_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: FBT001, FBT002
    if not training or not 0 < p < 1:
        return F.dropout(input, p, training, inplace)
    return torch.native_dropout(input, p, train=True)[0]


def _gpu_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:
    """The memory-efficient kernel, which GPUs take when there is a mask; flash attention keeps as much."""
    if query.dtype == torch.float64:  # no fused kernel for it
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    keeps = torch.is_grad_enabled()
    attention = torch.ops.aten._scaled_dot_product_efficient_attention
    output: Tensor = attention(query, key, value, attn_mask, keeps, dropout_p, is_causal, scale=scale)[0]
    return output
