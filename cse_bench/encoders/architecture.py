"""Architectures: from a registry entry to a Transformers config, and what can be told from it before any weights are loaded."""

from typing import Any

from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from cse_bench.config.schema import Backbone
from cse_bench.errors import EncoderError

# The names under which Transformers configs keep dropout probabilities that act in the body.
_DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "embedding_dropout",
    "mlp_dropout",
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
            f"backbone={backbone.name} describes no architecture, so nothing can be planned before its config is downloaded; "
            "give backbone.architecture or use a named entry"
        )
    sizes = dict(backbone.architecture)
    try:
        return AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    except (KeyError, ValueError, TypeError) as error:
        raise EncoderError(f"backbone.architecture of {backbone.name} is not one Transformers can build: {error}") from error


def load_config(path: str, *, trust_remote_code: bool, revision: str | None = None) -> PretrainedConfig:
    """A model's own config, from a directory or the Hub.

    Raises:
        EncoderError: there is none, or Transformers does not know it.
    """
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise EncoderError(f"no model config at '{path}': {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    """Sets every dropout probability of the body in place; None leaves the pretrained ones."""
    if dropout is not None:
        for key in dropout_probabilities(config):
            setattr(config, key, dropout)


def dropout_probabilities(config: PretrainedConfig) -> dict[str, float]:
    """The dropout probabilities that act in the body of a model, by config key."""
    found = {key: getattr(config, key, None) for key in _DROPOUT_KEYS}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def body_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of the model without any head.

    Raises:
        EncoderError: Transformers has no such model.
    """
    try:
        return AutoModel._model_mapping[type(config)]
    except KeyError as error:
        raise EncoderError(f"Transformers has no base model for '{config.model_type}'") from error


def without_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """The arguments that leave out a pretrained pooler (BERT, RoBERTa), which no method here reads."""
    import inspect

    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(body_class(config).__init__).parameters else {}


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether attention is causal, told from the model's type (as listed by Transformers) and the config's own flag."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return causal or bool(getattr(config, "is_decoder", False))


def max_positions(config: PretrainedConfig) -> int:
    """The longest row the body takes, in tokens, special ones included."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 512
    # RoBERTa numbers positions from padding_idx + 1, so its table is two rows longer than its longest input.
    offset = 2 if config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0
    return int(limit) - offset
