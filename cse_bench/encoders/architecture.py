"""Architectures: from a registry entry to a Transformers config, and what it tells before any weights are loaded."""

import inspect
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from cse_bench.config.messages import nearest
from cse_bench.config.schema import Backbone
from cse_bench.errors import EncoderError, first_line

# The names under which Transformers configs keep dropout probabilities that act in the body.
_DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "embedding_dropout",
    "mlp_dropout",
)

# RoBERTa and its kin number positions from the padding id + 1: their position table is longer than their longest input.
_POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text"}
    | {"mpnet", "longformer", "luke", "lilt", "ibert"}
)


def architecture_config(backbone: Backbone) -> PretrainedConfig:
    """The Transformers config of a backbone without loading or downloading weights.

    A `local` directory's own `config.json` is read; any other source is described by the entry's `architecture`.

    Raises:
        EncoderError: the entry describes no architecture, or one that Transformers does not know.
    """
    if backbone.source == "local":
        return load_config(str(backbone.path), trust_remote_code=backbone.trust_remote_code)
    if backbone.architecture is None:
        raise EncoderError(
            f"backbone={backbone.name} describes no architecture, so nothing can be planned before its config is "
            "downloaded; give backbone.architecture or use a named entry"
        )
    sizes = dict(backbone.architecture)
    kind = sizes.pop("model_type", None)
    if kind is None:
        raise EncoderError(f"backbone.architecture of {backbone.name} names no model_type, e.g. bert")
    try:
        known = AutoConfig.for_model(kind)
        # Transformers keeps any key it is given: a misspelt one would leave the size it means at its default.
        for key in sizes:
            if not hasattr(known, key):
                raise EncoderError(
                    f"backbone.architecture.{key}: '{kind}' has no such key{nearest(key, known.to_dict())}"
                )
        return AutoConfig.for_model(kind, **sizes)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise EncoderError(
            f"backbone.architecture of {backbone.name} is not one Transformers can build: {first_line(error)}"
        ) from error


def load_config(path: str, *, trust_remote_code: bool, revision: str | None = None) -> PretrainedConfig:
    """A model's own config, from a directory or the Hub.

    Raises:
        EncoderError: there is none, or Transformers does not know it.
    """
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, revision=revision or "main")
    except (OSError, ValueError, StrictDataclassError) as error:
        raise EncoderError(f"no model config at '{path}': {first_line(error)}") from error


def set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    """Sets every dropout probability of the body in place; None leaves the pretrained ones."""
    if dropout is not None:
        for key in dropout_probabilities(config):
            setattr(config, key, dropout)


def dropout_probabilities(config: PretrainedConfig) -> dict[str, float]:
    """The dropout probabilities that act in the body of a model, by config key."""
    found = {key: getattr(config, key, None) for key in _DROPOUT_KEYS}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def without_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """The arguments that leave out a pretrained pooler (BERT, RoBERTa), which no method here reads."""
    if type(config) not in AutoModel._model_mapping:  # a model that comes with its own code
        return {}
    body: Any = AutoModel._model_mapping[type(config)]
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(body).parameters else {}


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether attention is causal, told from the model's type (as listed by Transformers) and the config's own flag."""
    kind = config.model_type
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return causal or bool(getattr(config, "is_decoder", False))


def first_position(config: PretrainedConfig) -> int:
    """The position id of a row's first token."""
    if config.model_type not in _POSITIONS_AFTER_PADDING:
        return 0
    padding = getattr(config, "pad_token_id", None)
    return (1 if padding is None else int(padding)) + 1


def max_positions(config: PretrainedConfig) -> int:
    """The longest row the body takes, in tokens, special ones included."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 512
    return int(limit) - first_position(config)
