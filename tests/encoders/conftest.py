"""Registry entries and tiny encoders with random weights, built in milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from cse_bench.config.schema import Backbone
from cse_bench.encoders.encoder import Encoder, build_encoder

BACKBONES = Path(__file__).parents[2] / "conf" / "backbone"

_TINY: dict[str, dict[str, Any]] = {
    "tiny_bert": {},
    "tiny_llama": {},
    "tiny_roberta": {
        "of": "tiny_bert",
        "architecture": {
            "model_type": "roberta",
            "vocab_size": 320,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 66,
            "pad_token_id": 1,
        },
    },
    "tiny_modernbert": {
        "of": "tiny_bert",
        "architecture": {
            "model_type": "modernbert",
            "vocab_size": 320,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    },
    "tiny_gpt2": {
        "of": "tiny_llama",
        "architecture": {
            "model_type": "gpt2",
            "vocab_size": 320,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 128,
        },
    },
    "tiny_opt": {
        "of": "tiny_llama",
        "architecture": {
            "model_type": "opt",
            "vocab_size": 320,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
        },
    },
}

LORA = {"type": "lora", "r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": "all-linear"}


def _entry(name: str, **changes: Any) -> Backbone:
    content = OmegaConf.to_container(OmegaConf.load(BACKBONES / f"{name}.yaml"))
    return Backbone(**(content | changes))


def _tiny_entry(name: str, **changes: Any) -> Backbone:
    settings = {**_TINY[name], **changes}
    return _entry(settings.pop("of", name), **settings)


def _tiny(name: str, *, seed: int = 0, **changes: Any) -> Encoder:
    torch.manual_seed(seed)
    encoder = build_encoder(_tiny_entry(name, **changes)).eval()
    # As drawn, every layer is close to the identity, and a mistake in it would hide below a tolerance.
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 2:
                parameter *= 5
    return encoder


@pytest.fixture(scope="session")
def entry() -> Callable[..., Backbone]:
    """`entry(name, **changes)`: an entry of conf/backbone."""
    return _entry


@pytest.fixture(scope="session")
def tiny_entry() -> Callable[..., Backbone]:
    """`tiny_entry(name, **changes)`: a small architecture with random weights."""
    return _tiny_entry


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Encoder]:
    """`tiny(name, seed=0, **changes)`: the same, built, in eval mode."""
    return _tiny


@pytest.fixture(scope="session")
def lora() -> dict[str, Any]:
    """A small adapter."""
    return LORA
