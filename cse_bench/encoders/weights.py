"""The four sources of weights: a Hub id, a local directory, an installed package, or random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cse_bench.config.schema import Backbone
from cse_bench.data.packages import package_folder
from cse_bench.encoders.architecture import architecture_config, load_config, set_dropout, without_pooler
from cse_bench.encoders.tokenization import byte_tokenizer
from cse_bench.errors import EncoderError

# Packages whose own dependencies are not wanted: the weights are read, the package is never imported.
_PIP_OPTIONS = "--no-deps"


def load_body(backbone: Backbone) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """The model without head or pooler, its tokenizer, and where they come from.

    Raises:
        EncoderError: the weights or the tokenizer cannot be had; the message says from where and what to do.
    """
    if backbone.source == "random":
        return (*_random(backbone), {"source": "random"})
    if backbone.source == "package":
        assert backbone.package is not None
        package = backbone.package
        folder = package_folder(
            package.name, version=package.version, folder=package.directory, sha256=package.sha256, pip_options=_PIP_OPTIONS
        )
        loaded = load_pretrained(str(folder), backbone, gguf_file=package.gguf_file)
        return (*loaded, {"source": "package", "package": f"{package.name}=={package.version}", "sha256": package.sha256})
    if backbone.source == "local":
        if not Path(str(backbone.path), "config.json").is_file():
            raise EncoderError(f"backbone.path='{backbone.path}' is not a model directory: it has no config.json")
        return (*load_pretrained(str(backbone.path), backbone), {"source": "local", "path": str(backbone.path)})
    body, tokenizer = load_pretrained(str(backbone.hub_id), backbone)
    commit = getattr(body.config, "_commit_hash", None)
    return body, tokenizer, {"source": "hub", "hub_id": backbone.hub_id, "revision": backbone.revision, "commit": commit}


def load_pretrained(
    path: str, backbone: Backbone, *, gguf_file: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Transformers checkpoint in the dtype and with the kernel and dropout the entry asks for.

    Raises:
        EncoderError: it cannot be loaded, or parts of the body are missing from it.
    """
    try:
        with quiet_transformers():
            return _load(path, backbone, gguf_file)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EncoderError(
            f"backbone={backbone.name} cannot be loaded from {backbone.source} '{path}': {reason} "
            "(no network? use backbone.source=local backbone.path=DIRECTORY, or backbone=bert_tiny from the package index)"
        ) from error


def _load(path: str, backbone: Backbone, gguf_file: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    hub = {"revision": backbone.revision or "main", "trust_remote_code": backbone.trust_remote_code}
    gguf: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    config, pooler = None, {}
    if not gguf_file:
        config = load_config(path, trust_remote_code=backbone.trust_remote_code, revision=backbone.revision)
        set_dropout(config, backbone.dropout)
        pooler = without_pooler(config)
    body, report = AutoModel.from_pretrained(
        path,
        **({"config": config} if config is not None else {}),
        **hub,
        **gguf,
        **pooler,
        dtype=getattr(torch, backbone.dtype),
        attn_implementation=backbone.attention,
        output_loading_info=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(path, **hub, **gguf)
    if report["missing_keys"]:
        # Transformers would fill these with random numbers and go on: a different, worse encoder without a word.
        raise EncoderError(f"'{path}' lacks weights of its own architecture: {', '.join(sorted(report['missing_keys'])[:5])}")
    if gguf_file:
        _forget_quantisation(body)
        set_dropout(body.config, backbone.dropout)
        _apply_attention_dropout(body, backbone.dropout)
    return body, tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without Transformers' bar and table per load: what matters of them, missing weights, is an error here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _random(backbone: Backbone) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config = architecture_config(backbone)
    set_dropout(config, backbone.dropout)
    decoder = backbone.family == "decoder"
    tokenizer = byte_tokenizer(vocab_size=config.vocab_size, decoder=decoder)
    body = random_body(config, attention=backbone.attention, dtype=getattr(torch, backbone.dtype))
    return body, tokenizer


def random_body(config: PretrainedConfig, *, attention: str, dtype: torch.dtype) -> PreTrainedModel:
    """A body with random weights, drawn from torch's global generator (on the meta device: none are drawn)."""
    if config.model_type == "bert" and config.vocab_size < 1000:
        config.pad_token_id = 0
    return AutoModel.from_config(config, attn_implementation=attention, dtype=dtype, **without_pooler(config))


def _forget_quantisation(body: PreTrainedModel) -> None:
    """A GGUF file is de-quantised on loading, yet the model still says it is quantised and then refuses to be saved."""
    if hasattr(body.config, "quantization_config"):
        del body.config.quantization_config
    body.hf_quantizer = None
    body.is_quantized = False


def _apply_attention_dropout(body: PreTrainedModel, dropout: float | None) -> None:
    """A GGUF model is built before its config can be changed, and attention modules copy the probability when they are built."""
    if dropout is None:
        return
    for module in body.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout


