"""Precision: what `auto` means on this machine."""

import torch


def has_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulation, which is slower than float32, does not count.

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_precision(precision: str, *, accelerator: str) -> str:
    """Lightning's name for the precision: `auto` becomes `bf16-mixed` where the hardware has it, else `32-true`.

    Args:
        precision: a Lightning precision, or `auto`.
        accelerator: `cpu`, `gpu` or `auto` (GPU when there is one).
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bfloat16(device_type(accelerator)) else "32-true"


def device_type(accelerator: str) -> str:
    """`cuda` or `cpu`."""
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cpu" if accelerator == "cpu" else "cuda"


def autocast(precision: str, device: str) -> torch.autocast:
    """The autocast context of a mixed precision; disabled for the true ones."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
