"""The four sources of weights: a Hub id, a local directory, an installed package, or random numbers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from cse_bench.config.schema import Backbone, PackageSource
from cse_bench.data.packages import package_folder
from cse_bench.encoders.adapters import quantisation
from cse_bench.encoders.architecture import architecture_config, set_dropout, without_pooler
from cse_bench.encoders.tokenization import byte_tokenizer
from cse_bench.errors import EncoderError, first_line

# What a saved encoder keeps beside its body, see `cse_bench.encoders.artifact`.
READOUT_FILE, MAP_FILE = "readout.safetensors", "affine_map.safetensors"

# Packages whose own dependencies are not wanted: the weights are read, the package is never imported.
_PIP_OPTIONS = "--no-deps"


def load_body(backbone: Backbone) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """The model without head or pooler, its tokenizer, and where they come from.

    Raises:
        EncoderError: the weights or the tokenizer cannot be had; the message says from where and what to do.
        DataError: the package is missing, or its files are not the ones named.
    """
    if backbone.source == "random":
        return (*_random(backbone), {"source": "random"})
    if backbone.source == "package":
        package = backbone.package
        assert package is not None
        folder = _package_folder(package)
        provenance: dict[str, Any] = {"package": f"{package.name}=={package.version}", "sha256": package.sha256}
        loaded = load_pretrained(str(folder), backbone, gguf_file=package.gguf_file)
        return (*loaded, {"source": "package", **provenance})
    if backbone.source == "local":
        path = Path(str(backbone.path)).expanduser()
        if not (path / "config.json").is_file():
            raise EncoderError(f"backbone.path='{backbone.path}' is not a model directory: it has no config.json")
        # Left out, they would give other vectors than the encoder that was saved, without a word.
        if beside := [name for name in (READOUT_FILE, MAP_FILE) if (path / name).is_file()]:
            raise EncoderError(
                f"backbone.path='{backbone.path}' is a saved encoder whose vectors come from {beside[0]}, not from its "
                "body; python -m cse_bench.evaluate model=... reads it as it is. If its bare body is meant, copy the "
                "directory without that file"
            )
        return (*load_pretrained(str(path), backbone), {"source": "local", "path": str(backbone.path)})
    body, tokenizer = load_pretrained(str(backbone.hub_id), backbone)
    provenance = {"hub_id": backbone.hub_id, "revision": backbone.revision}
    return body, tokenizer, {"source": "hub", **provenance, "commit": getattr(body.config, "_commit_hash", None)}


def _package_folder(package: PackageSource) -> Path:
    return package_folder(
        package.name,
        version=package.version,
        folder=package.directory,
        sha256=package.sha256,
        pip_options=_PIP_OPTIONS,
    )


def pretrained_pooler(backbone: Backbone) -> dict[str, Tensor] | None:
    """`weight` and `bias` of the dense layer that BERT's pretraining put behind the first token.

    `load_body` leaves it out: no embedding reads it.

    Returns:
        None where the checkpoint has none (RoBERTa's has none, though its architecture does).

    Raises:
        EncoderError: the weights cannot be had.
        DataError: the package is missing, or its files are not the ones named.
    """
    if backbone.source == "random":
        return None
    path = str(backbone.hub_id)
    if backbone.source == "package":
        assert backbone.package is not None
        path = str(_package_folder(backbone.package))
    elif backbone.source == "local":
        path = str(Path(str(backbone.path)).expanduser())
    source = {"revision": backbone.revision or "main", "trust_remote_code": backbone.trust_remote_code}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, **source)
            if not without_pooler(config):
                return None
            whole, report = AutoModel.from_pretrained(
                path, config=config, **source, add_pooling_layer=True, output_loading_info=True
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"the pooler of backbone={backbone.name} cannot be loaded: {first_line(error)}") from error
    dense = getattr(whole.pooler, "dense", None)
    if dense is None or any(str(key).startswith("pooler.") for key in report["missing_keys"]):
        return None
    return {name: tensor.detach().clone() for name, tensor in dense.state_dict().items()}


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
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        advice = "; without network use backbone.source=local backbone.path=DIRECTORY, or backbone=bert_tiny"
        raise EncoderError(
            f"backbone={backbone.name} cannot be loaded from {backbone.source} '{path}': "
            f"{first_line(error)}{advice if backbone.source == 'hub' else ''}"
        ) from error


def _load(path: str, backbone: Backbone, gguf_file: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source: dict[str, Any] = {
        "revision": backbone.revision or "main",
        "trust_remote_code": backbone.trust_remote_code,
        **({"gguf_file": gguf_file} if gguf_file else {}),
    }
    config = AutoConfig.from_pretrained(path, **source)
    set_dropout(config, backbone.dropout)  # before the body is built: its modules copy the probabilities
    body, report = AutoModel.from_pretrained(
        path,
        config=config,
        **source,
        **without_pooler(config),
        **quantisation(backbone.adapter),
        dtype=getattr(torch, backbone.dtype),
        attn_implementation=backbone.attention,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, by name
    )
    # Transformers would fill missing weights with random numbers and go on: a different, worse encoder without a word.
    if absent := sorted(report["missing_keys"]):
        raise EncoderError(f"'{path}' lacks weights of its own architecture: {', '.join(absent[:5])}")
    if other := sorted(str(key) for key, *_ in report["mismatched_keys"]):
        raise EncoderError(f"'{path}' has weights of another size than its config.json says: {', '.join(other[:5])}")
    if gguf_file:
        _forget_quantisation(body)
    return body, AutoTokenizer.from_pretrained(path, **source)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without Transformers' bar and table per load: what matters of them, missing weights, is an error here."""
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
    with quiet_transformers():  # special ids beyond a small vocabulary are told there, and put right here
        config = architecture_config(backbone)
        tokenizer = byte_tokenizer(vocab_size=config.vocab_size, decoder=backbone.family == "decoder")
        # The config's special ids are those of another tokenizer. RoBERTa counts positions by the padding id, and every
        # body keeps the embedding of that id at zero.
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
            if hasattr(config, name):
                setattr(config, name, getattr(tokenizer, name))
    set_dropout(config, backbone.dropout)
    try:
        body = random_body(config, attention=backbone.attention, dtype=getattr(torch, backbone.dtype))
    except (ValueError, ImportError) as error:
        raise EncoderError(f"backbone={backbone.name} cannot be built: {first_line(error)}") from error
    return body, tokenizer


def random_body(config: PretrainedConfig, *, attention: str, dtype: torch.dtype) -> PreTrainedModel:
    """A body with random weights, drawn from torch's global generator (on the meta device: none are drawn)."""
    return AutoModel.from_config(config, attn_implementation=attention, dtype=dtype, **without_pooler(config))


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of every tensor of a module's state, with its name, shape and dtype."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _forget_quantisation(body: Any) -> None:
    """A GGUF file is de-quantised on loading, yet the model still says it is quantised and then refuses to be saved."""
    if hasattr(body.config, "quantization_config"):
        del body.config.quantization_config
    body.hf_quantizer = None
    body.is_quantized = False
