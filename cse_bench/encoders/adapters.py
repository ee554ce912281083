"""Adapters: low-rank updates of frozen weights, through PEFT."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from cse_bench.config.schema import LoraAdapter, QLoraAdapter
from cse_bench.errors import ConfigError, EncoderError, first_line


def require_peft() -> None:
    """Raises a ConfigError that says how to install PEFT where it is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "backbone.adapter needs the package peft: pip install 'cse_bench[llm]', "
            "or train all weights with backbone.adapter=null"
        ) from error


def quantisation_problem(*, accelerator: str = "auto") -> str | None:
    """Why four-bit weights cannot be had here, or None.

    Args:
        accelerator: of the trainer.
    """
    # bitsandbytes quantises on a CPU too, but packs the weights anew there for inference, and those cannot be trained.
    if accelerator == "cpu":
        return "four-bit weights need a CUDA GPU, not trainer.accelerator=cpu"
    if not torch.cuda.is_available():
        return "four-bit weights need a CUDA GPU and this machine has none"
    if importlib.util.find_spec("bitsandbytes") is None:
        return "four-bit weights need the package bitsandbytes: pip install 'cse_bench[llm]'"
    return None


def quantisation(adapter: LoraAdapter | None) -> dict[str, Any]:
    """The arguments by which Transformers loads a body in four bits; none without QLoRA.

    Raises:
        ConfigError: no GPU, or bitsandbytes is missing.
    """
    if not isinstance(adapter, QLoraAdapter):
        return {}
    if problem := quantisation_problem():
        raise ConfigError(f"backbone.adapter: {problem}")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quant_type,
        bnb_4bit_use_double_quant=adapter.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, adapter.compute_dtype),
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def add_lora(body: PreTrainedModel, adapter: LoraAdapter) -> nn.Module:
    """The body with its weights frozen and low-rank updates added (Hu et al. 2021, arXiv 2106.09685).

    The update starts at zero (B = 0), so the embeddings are those of the body until the first step. Adapter weights are
    kept in fp32 whatever the body's dtype (PEFT's `autocast_adapter_dtype`).
    """
    require_peft()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # only ever divided by r
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        bias="none",
    )
    with _quiet_peft():
        return get_peft_model(_prepared(body), config)


def _prepared(body: PreTrainedModel) -> PreTrainedModel:
    """A four-bit body with norms and embeddings in float32, in training and wherever it is read again."""
    from peft import prepare_model_for_kbit_training

    if not getattr(body, "is_loaded_in_4bit", False):
        return body
    prepared: PreTrainedModel = prepare_model_for_kbit_training(body, use_gradient_checkpointing=False)
    return prepared


def load_lora(body: PreTrainedModel, directory: Path) -> nn.Module:
    """The body with the low-rank updates saved in `directory`.

    Raises:
        EncoderError: they are missing, damaged, or not all there: PEFT would go on with updates of zero.
    """
    require_peft()
    from peft import PeftModel, get_peft_model_state_dict

    try:
        saved = load_file(directory / "adapter_model.safetensors")
        with _quiet_peft(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)  # see below
            adapted: nn.Module = PeftModel.from_pretrained(_prepared(body), str(directory))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise EncoderError(f"the adapter in '{directory}' is missing or damaged: {first_line(error)}") from error
    if missing := get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() - saved.keys():
        raise EncoderError(f"the adapter in '{directory}' lacks {len(missing)} tensors, e.g. {min(missing)}")
    return adapted


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without the warnings that are between PEFT and Transformers, and those about what PEFT then does right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)  # GPT-2
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def state_without_lora(body: nn.Module) -> dict[str, Tensor]:
    """The weights of a body that carries low-rank updates, under the names they have without them."""
    state = {name: tensor for name, tensor in body.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}
