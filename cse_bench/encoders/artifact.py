"""Saved encoders: a Transformers directory plus `sentence_encoder.json`, which writes down how vectors are read off.

A checkpoint without its pooling, prompt and head is half a model: most failed reproductions of SimCSE come from
evaluating with another pooler than the one trained. An encoder saved here can only be loaded the way it was trained.

* `model.safetensors`, `config.json`, tokenizer files: the body, readable by plain Transformers (without an adapter)
* `adapter/`: PEFT's files when an adapter was trained; the body is then named, not copied
* `base/`: the body beneath an adapter, when it came from nowhere (random weights)
* `readout.safetensors`: trained layers that read the vector off the token states, where there are any
* `affine_map.safetensors`: mean and matrix of a map behind the vectors, where there is one
* `tower_1/`, `tower_2/`, ...: whole saved encoders whose vectors are added; of the above only a map is then beside them
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cse_bench import __version__
from cse_bench.config.schema import Backbone, LoraAdapter
from cse_bench.encoders.adapters import load_lora, state_without_lora
from cse_bench.encoders.affine_map import AffineMap, MappedEncoder
from cse_bench.encoders.architecture import max_positions
from cse_bench.encoders.encoder import Encoder, SentenceEncoder
from cse_bench.encoders.readout import Readout
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.text_cnn import TextCNN
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.encoders.weights import MAP_FILE, READOUT_FILE, load_body, load_pretrained, quiet_transformers
from cse_bench.errors import EncoderError, first_line

DESCRIPTION = "sentence_encoder.json"
_FORMAT = 1
# The only classes that a file can name.
_READOUTS: dict[str, type[Readout]] = {TextCNN.name: TextCNN}
_BASE, _ADAPTER = "base", "adapter"


def save_encoder(
    encoder: SentenceEncoder,
    directory: Path,
    *,
    backbone: Backbone,
    training: dict[str, Any],
    training_only: dict[str, Tensor],
) -> None:
    """Writes an encoder so that the directory is complete or absent, whatever interrupts the writing.

    Args:
        encoder: what to save.
        directory: is replaced if it exists.
        backbone: the entry the encoder was built from.
        training: facts for the reader: method, truncation, step, selection.
        training_only: tensors that inference does not use, by name.

    Raises:
        EncoderError: the disk is full or cannot be written; what was there before stays.
    """
    # Always of the same name, so that what a killed process left is overwritten.
    temporary = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        own: dict[str, Any] = {}
        read = encoder
        if isinstance(encoder, MappedEncoder):
            own, read = _write_map(encoder.affine_map, temporary), encoder.encoder
        if isinstance(read, SummedEncoders):
            own["sum_of"] = []
            for number, tower in enumerate(read.towers, start=1):
                assert isinstance(tower, Encoder)
                name = f"tower_{number}"
                save_encoder(tower, temporary / name, backbone=backbone, training=training, training_only={})
                own["sum_of"].append(name)
        else:
            assert isinstance(read, Encoder)
            own |= _write_encoder(read, temporary, backbone)
        _save_tensors(training_only, temporary / "training_only.safetensors")
        description = {
            "format": _FORMAT,
            "cse_bench": __version__,
            **own,
            "backbone": backbone.model_dump(mode="json"),
            "provenance": encoder.provenance,
            "training": training,
            "training_only": sorted(training_only),
        }
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        replace_directory(temporary, directory)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # Tokenizers have no class of their own for what the disk says.
        if isinstance(error, OSError | SafetensorError) or type(error) is Exception:
            raise EncoderError(
                f"the encoder cannot be written to {directory} ({first_line(error)}); free some space and run the same "
                "command"
            ) from error
        raise


def _write_encoder(encoder: Encoder, directory: Path, backbone: Backbone) -> dict[str, Any]:
    """Weights and tokenizer; what says how they are used."""
    with quiet_transformers():
        _write_weights(encoder, directory, backbone)
        encoder.tokenizer.tokenizer.save_pretrained(directory)
    readout = None
    if encoder.readout is not None:
        _save_tensors(encoder.readout.state_dict(), directory / READOUT_FILE)
        readout = {"name": encoder.readout.name, "arguments": encoder.readout.arguments()}
    return {
        "pooling": encoder.pooling,
        "readout": readout,
        "prompt": encoder.tokenizer.prompt,
        "clean_text": encoder.tokenizer.clean_text,
        "padding_side": encoder.padding_side,
        "family": encoder.family,
    }


def _write_map(affine_map: AffineMap, directory: Path) -> dict[str, Any]:
    tensors = affine_map.state_dict()
    _save_tensors(tensors, directory / MAP_FILE)
    sizes = {"width": affine_map.width, "dimensions": affine_map.dimensions}
    return {"affine_map": {"name": affine_map.name, **sizes, "tensors": sorted(tensors)}}


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    if tensors:
        # Copied, since safetensors refuses tensors that share memory.
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)


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


def replace_directory(source: Path, target: Path) -> None:
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
    directory: Path,
    *,
    dtype: str | None = None,
    attention: str | None = None,
    trust_remote_code: bool | None = None,
    adapter: LoraAdapter | None = None,
) -> SentenceEncoder:
    """An encoder as it was saved, in eval mode.

    Args:
        directory: written by `save_encoder`.
        dtype: of the weights; None: as saved.
        attention: kernel; None: as saved.
        trust_remote_code: run code that comes with the model; None: as saved, for directories of one's own.
        adapter: how the body beneath the saved updates is kept (whole, or in four bits); None: as saved.

    Raises:
        EncoderError: the directory is not a saved encoder, or is damaged, or was written by a later version.
    """
    description = read_description(directory)
    given: dict[str, Any] = {"dtype": dtype, "attention": attention, "trust_remote_code": trust_remote_code}
    given["adapter"] = None if adapter is None else adapter.model_dump()
    changed = {name: value for name, value in given.items() if value is not None}
    encoder = _load_unmapped(directory, description, changed)
    if (mapping := description.get("affine_map")) is not None:
        encoder = MappedEncoder(encoder, _load_map(directory, mapping))
    return encoder.eval()


def _load_unmapped(directory: Path, description: dict[str, Any], changed: dict[str, Any]) -> SentenceEncoder:
    if towers := description.get("sum_of"):
        loaded = [load_encoder(directory / name, **changed) for name in towers]
        single = [tower for tower in loaded if isinstance(tower, Encoder)]
        if len(single) != len(towers):
            raise EncoderError(f"'{directory / DESCRIPTION}' sums encoders that are sums themselves")
        return SummedEncoders(single)
    try:
        backbone = Backbone(**(description["backbone"] | changed))
        prompt = description["prompt"]
        clean_text = description.get("clean_text", "none")
        options = {name: description[name] for name in ("pooling", "padding_side", "family")}
        provenance = description["provenance"] | {"saved_encoder": str(directory)}
        readout = _load_readout(directory, description.get("readout"))
    except (KeyError, TypeError, ValidationError) as error:
        raise EncoderError(f"'{directory / DESCRIPTION}' is damaged: {type(error).__name__} {error}") from error
    body, tokenizer = _load_weights(directory, backbone)
    encoder = Encoder(
        body,
        SentenceTokenizer(tokenizer, prompt=prompt, max_positions=max_positions(body.config), clean_text=clean_text),
        **options,
        provenance=provenance,
        readout=readout,
    )
    if readout is not None:  # in float32 beside a body in half precision, too
        readout.to(torch.float64 if encoder.dtype == torch.float64 else torch.float32)
    return encoder


def _load_map(directory: Path, description: dict[str, Any]) -> AffineMap:
    try:
        stored = description["tensors"]
        tensors = load_file(directory / MAP_FILE) if stored else {}
        return AffineMap(
            name=description["name"],
            width=description["width"],
            dimensions=description["dimensions"],
            mean=tensors["mean"] if "mean" in stored else None,
            matrix=tensors["matrix"] if "matrix" in stored else None,
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EncoderError(
            f"'{directory / MAP_FILE}' is missing or damaged: {type(error).__name__} {first_line(error)}"
        ) from error


def _load_readout(directory: Path, description: dict[str, Any] | None) -> Readout | None:
    if description is None:
        return None
    readout = _READOUTS[description["name"]](**description["arguments"])
    try:
        readout.load_state_dict(load_file(directory / READOUT_FILE), assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EncoderError(f"'{directory / READOUT_FILE}' is missing or damaged: {first_line(error)}") from error
    return readout


def _load_weights(directory: Path, backbone: Backbone) -> tuple[Any, PreTrainedTokenizerBase]:
    """The body, adapter on, and the tokenizer."""
    if backbone.adapter is None:
        return load_pretrained(str(directory), _at(directory, backbone))
    if backbone.source == "random":
        body, tokenizer = load_pretrained(str(directory / _BASE), _at(directory / _BASE, backbone))
    else:
        body, tokenizer, _ = load_body(backbone)
    return load_lora(body, directory / _ADAPTER), tokenizer


def check_saved(directory: Path) -> dict[str, Any]:
    """The description of a saved encoder, after a look at its weight files, which are not loaded.

    Raises:
        EncoderError: something is missing, or shorter than it says it is.
    """
    description = read_description(directory)
    for tower in description.get("sum_of", []):
        check_saved(directory / tower)
    is_body_here = any(directory.glob("model*.safetensors")) or any(directory.glob(f"{_ADAPTER}/*.safetensors"))
    if not is_body_here and "sum_of" not in description:
        raise EncoderError(f"'{directory}' has no weights")
    for file in sorted(directory.rglob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise EncoderError(f"'{file}' is damaged: {first_line(error)}") from error
    return description


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
