"""Adapters: low-rank updates of frozen weights, through PEFT."""

import torch
from transformers import PreTrainedModel

from cse_bench.config.schema import LoraAdapter
from cse_bench.errors import ConfigError


def require_peft() -> None:
    """Raises a ConfigError that says how to install PEFT where it is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "backbone.adapter needs the package peft: pip install 'cse_bench[llm]', or train all weights with backbone.adapter=null"
        ) from error


def add_lora(body: PreTrainedModel, adapter: LoraAdapter) -> torch.nn.Module:
    """The body with its weights frozen and low-rank updates added (Hu et al. 2021, arXiv 2106.09685).

    The update starts at zero (B = 0), so the embeddings are those of the body until the first step. Adapter weights are kept in
    fp32 whatever the body's dtype (PEFT's `autocast_adapter_dtype`).
    """
    require_peft()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.r, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=adapter.target_modules, bias="none"
    )
    return get_peft_model(body, config)
