"""Saved encoders: a Transformers directory plus `sentence_encoder.json`, which writes down how vectors are read off.

A checkpoint without its pooling, prompt and head is half a model: most failed reproductions of SimCSE come from
evaluating with another pooler than the one trained. An encoder saved here can only be loaded the way it was trained.

* `model.safetensors`, `config.json`, tokenizer files: the body, readable by plain Transformers (without an adapter)
* `adapter/`: PEFT's files when an adapter was trained; the body is then named, not copied
* `base/`: the body beneath an adapter, when it came from nowhere (random weights)
* `sentence_encoder.json`: pooling, prompt, padding side, truncation, provenance, what was training only
* `training_only.safetensors`: parts that training used and inference does not (SimCSE's head)
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cse_bench import __version__
from cse_bench.config.schema import Backbone
from cse_bench.encoders.adapters import load_lora, state_without_lora
from cse_bench.encoders.architecture import max_positions
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.encoders.weights import load_body, load_pretrained, quiet_transformers
from cse_bench.errors import EncoderError

DESCRIPTION = "sentence_encoder.json"
_FORMAT = 1
_BASE, _ADAPTER = "base", "adapter"


def save_encoder(
    encoder: Encoder, directory: Path, *, backbone: Backbone, training: dict[str, Any], training_only: dict[str, Tensor]
) -> None:
    """Writes an encoder so that the directory is complete or absent, whatever interrupts the writing.

    Args:
        encoder: what to save.
        directory: is replaced if it exists.
        backbone: the entry the encoder was built from.
        training: facts for the reader: method, truncation, step, selection.
        training_only: tensors that inference does not use, by name.
    """
    # Always of the same name, so that what a killed process left is overwritten.
    temporary = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with quiet_transformers():
            _write_weights(encoder, temporary, backbone)
            encoder.tokenizer.tokenizer.save_pretrained(temporary)
        if training_only:
            # Copied, since safetensors refuses tensors that share memory.
            tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in training_only.items()}
            save_file(tensors, temporary / "training_only.safetensors")
        description = {
            "format": _FORMAT,
            "cse_bench": __version__,
            "pooling": encoder.pooling,
            "prompt": encoder.tokenizer.prompt,
            "padding_side": encoder.padding_side,
            "family": encoder.family,
            "backbone": backbone.model_dump(mode="json"),
            "provenance": encoder.provenance,
            "training": training,
            "training_only": sorted(training_only),
        }
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        _replace(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_weights(encoder: Encoder, directory: Path, backbone: Backbone) -> None:
    if backbone.adapter is None:
        encoder.plain_body.save_pretrained(directory)
        return
    adapted: Any = encoder.body
    # Embeddings are never adapted here; left to itself PEFT asks the Hub whether they were resized.
    adapted.save_pretrained(directory / _ADAPTER, save_embedding_layers=False)
    if backbone.source == "random":  # nothing to load the body from again
        encoder.plain_body.save_pretrained(directory / _BASE, state_dict=state_without_lora(encoder.plain_body))
        encoder.tokenizer.tokenizer.save_pretrained(directory / _BASE)


def _replace(source: Path, target: Path) -> None:
    """Puts a finished directory in the place of an old one, which stays if that fails."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(source, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def is_saved_encoder(directory: Path) -> bool:
    """Whether `directory` was written by `save_encoder`."""
    return (directory / DESCRIPTION).is_file()


def load_encoder(
    directory: Path, *, dtype: str | None = None, attention: str | None = None, trust_remote_code: bool | None = None
) -> Encoder:
    """An encoder as it was saved, in eval mode.

    Args:
        directory: written by `save_encoder`.
        dtype: of the weights; None: as saved.
        attention: kernel; None: as saved.
        trust_remote_code: run code that comes with the model; None: as saved, for directories of one's own.

    Raises:
        EncoderError: the directory is not a saved encoder, or is damaged, or was written by a later version.
    """
    description = read_description(directory)
    given = {"dtype": dtype, "attention": attention, "trust_remote_code": trust_remote_code}
    changed = {name: value for name, value in given.items() if value is not None}
    try:
        backbone = Backbone(**(description["backbone"] | changed))
        prompt = description["prompt"]
        options = {name: description[name] for name in ("pooling", "padding_side", "family")}
        provenance = description["provenance"] | {"saved_encoder": str(directory)}
    except (KeyError, TypeError, ValidationError) as error:
        raise EncoderError(f"'{directory / DESCRIPTION}' is damaged: {type(error).__name__} {error}") from error
    body, tokenizer = _load_weights(directory, backbone)
    encoder = Encoder(
        body,
        SentenceTokenizer(tokenizer, prompt=prompt, max_positions=max_positions(body.config)),
        **options,
        provenance=provenance,
    )
    return encoder.eval()


def _load_weights(directory: Path, backbone: Backbone) -> tuple[Any, PreTrainedTokenizerBase]:
    """The body, adapter on, and the tokenizer."""
    if backbone.adapter is None:
        return load_pretrained(str(directory), _at(directory, backbone))
    if backbone.source == "random":
        body, tokenizer = load_pretrained(str(directory / _BASE), _at(directory / _BASE, backbone))
    else:
        body, tokenizer, _ = load_body(backbone)
    return load_lora(body, directory / _ADAPTER), tokenizer


def _at(directory: Path, backbone: Backbone) -> Backbone:
    return backbone.model_copy(update={"source": "local", "path": str(directory), "revision": None})


def read_description(directory: Path) -> dict[str, Any]:
    """The content of `sentence_encoder.json`.

    Raises:
        EncoderError: missing, unreadable, or of a later format.
    """
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        written = int(description["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"'{directory}' is not an encoder saved by cse_bench: {DESCRIPTION} is missing or damaged"
        ) from error
    if written > _FORMAT:
        raise EncoderError(
            f"'{path}' has format {written}, this version reads up to {_FORMAT}; install a newer cse_bench"
        )
    return description


def state_without_encoder(module: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of a method that are not its encoder's: what training needs and inference does not."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("encoder.")}
