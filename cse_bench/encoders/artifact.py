"""Saved encoders: a Transformers directory plus `sentence_encoder.json`, which writes down how the vectors are read off.

A checkpoint without its pooling, prompt and head is half a model: most failed reproductions of SimCSE come from evaluating with another
pooler than the one trained. An encoder saved here can only be loaded the way it was trained.

    model.safetensors, config.json, tokenizer files    the body, readable by plain Transformers (without an adapter)
    adapter/                                           PEFT's files when an adapter was trained; the body is then named, not copied
    sentence_encoder.json                              pooling, prompt, padding side, truncation, provenance, what was training only
    training_only.safetensors                          parts that training used and inference does not (SimCSE's head)
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cse_bench import __version__
from cse_bench.config.schema import Backbone
from cse_bench.encoders.architecture import max_positions
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.encoders.weights import load_body, load_pretrained, quiet_transformers
from cse_bench.errors import EncoderError

DESCRIPTION = "sentence_encoder.json"
_FORMAT = 1


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
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        with quiet_transformers():
            _write_weights(encoder, temporary, backbone)
            encoder.tokenizer.tokenizer.save_pretrained(temporary)
        if training_only:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in training_only.items()}
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
        encoder.body.save_pretrained(directory)
        return
    encoder.body.save_pretrained(directory / "adapter")
    if backbone.source == "random":  # nothing to load the body from again
        encoder.body.get_base_model().save_pretrained(directory / "base")


def _replace(source: Path, target: Path) -> None:
    """Puts a finished directory in the place of an old one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(source, target)
    shutil.rmtree(old, ignore_errors=True)


def is_saved_encoder(directory: Path) -> bool:
    """Whether `directory` was written by `save_encoder`."""
    return (directory / DESCRIPTION).is_file()


def load_encoder(directory: Path) -> Encoder:
    """An encoder as it was saved, in eval mode.

    Raises:
        EncoderError: the directory is not a saved encoder, or is damaged, or was written by a later version.
    """
    description = read_description(directory)
    backbone = Backbone(**description["backbone"])
    local = backbone.model_copy(update={"source": "local", "path": str(directory), "revision": None})
    if backbone.adapter is None:
        body, tokenizer = load_pretrained(str(directory), local)
    else:
        body, tokenizer = _load_with_adapter(directory, backbone, local)
    encoder = Encoder(
        body,
        SentenceTokenizer(tokenizer, prompt=description["prompt"], max_positions=max_positions(body.config)),
        pooling=description["pooling"],
        padding_side=description["padding_side"],
        family=description["family"],
        provenance=description["provenance"] | {"saved_encoder": str(directory)},
    )
    return encoder.eval()


def _load_with_adapter(directory: Path, backbone: Backbone, local: Backbone) -> tuple[Any, Any]:
    from peft import PeftModel
    from transformers import AutoTokenizer

    if backbone.source == "random":
        body, _ = load_pretrained(str(directory / "base"), local.model_copy(update={"path": str(directory / "base")}))
    else:
        body, _, _ = load_body(backbone)
    return PeftModel.from_pretrained(body, str(directory / "adapter")), AutoTokenizer.from_pretrained(directory)


def read_description(directory: Path) -> dict[str, Any]:
    """The content of `sentence_encoder.json`.

    Raises:
        EncoderError: missing, unreadable, or of a later format.
    """
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        written = description["format"]
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"'{directory}' is not an encoder saved by cse_bench: {DESCRIPTION} is missing or damaged") from error
    if written > _FORMAT:
        raise EncoderError(f"'{path}' has format {written}, this version reads up to {_FORMAT}; install a newer cse_bench")
    return description


def state_without_encoder(module: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of a method that are not its encoder's: what training needs and inference does not."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("encoder.")}
