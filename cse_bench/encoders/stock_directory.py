"""An encoder as a sentence-transformers directory without code: written, read back and compared.

* `model.safetensors`, `config.json`, tokenizer files: the body, readable by plain Transformers
* `adapter_model.safetensors`, `adapter_config.json`: instead, where an adapter is kept apart from its named body
* `modules.json`, `1_Pooling/`, ...: what reads the vector, see `cse_bench.encoders.stock_modules`
* `tower_1/`, `tower_2/`: where two encoders are summed, each a whole directory of this kind; the root adds them up
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Module, Transformer
from torch import nn

from cse_bench.config.schema import Backbone
from cse_bench.encoders.architecture import without_pooler
from cse_bench.encoders.carried_prompt import CarriedPrompt, carry_prompt
from cse_bench.encoders.encoder import Encoder, SentenceEncoder
from cse_bench.encoders.merge import merged
from cse_bench.encoders.rounding_noise import PROBES, relative_distance, rounding_noise
from cse_bench.encoders.stock_modules import has_layers_behind, reading_modules, stock_modules
from cse_bench.encoders.weights import quiet_transformers
from cse_bench.errors import EncoderError, first_line

AdapterChoice = Literal["merge", "keep"]

PROMPT_NAME = "sentence"  # of the prompt that sentence-transformers puts before every text
_SETTINGS = "sentence_bert_config.json"
# In float32: of a vector's length.
_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, for the model card.

    Attributes:
        modules: classes of the modules, in order.
        towers: directories of the encoders that are summed; none for a single one.
        options: what plain Transformers has to be given to open a body without random layers.
        prompt_is_inside: whether the tokenizer writes the prompt.
        limits: what is otherwise than in the original, in sentences.
        dtype: of the weights.
        width: of the vectors.
        max_tokens: at which a text is cut.
        difference: largest distance between a vector read back and the original one, over the length of that one.
        sentences: how many were compared.
        versions: of the libraries that wrote it.
    """

    modules: list[str]
    towers: list[str]
    options: dict[str, Any]
    prompt_is_inside: bool
    limits: tuple[str, ...]
    dtype: str
    width: int
    max_tokens: int
    difference: float
    sentences: int
    versions: dict[str, str]


def write_stock_directory(
    encoder: SentenceEncoder, directory: Path, *, backbone: Backbone, adapter: AdapterChoice
) -> Written:
    """Writes an encoder in the layout of sentence-transformers, and proves that the files give the same vectors.

    Args:
        encoder: on the CPU, as a run kept it. Its adapter is merged in place.
        directory: empty or absent.
        backbone: the entry it was built from.
        adapter: `merge`: add the low-rank updates to the weights; `keep`: write them alone and name the body.

    Raises:
        EncoderError: no stock modules compute the vectors, or the files do not give the same ones.
    """
    if has_layers_behind(encoder):
        for part in encoder.modules():
            if isinstance(part, Encoder) and part.dtype != torch.float32:
                part.float()
    probes = _probes(encoder)
    reference, noise = encoder.encode(probes), rounding_noise(encoder, probes)
    with _quiet(), tempfile.TemporaryDirectory(dir=directory.parent, prefix=".bodies-") as staging:
        bodies = _Bodies(Path(staging), backbone=backbone, adapter=adapter)
        whole = _sentence_transformer(stock_modules(encoder, bodies), bodies.made[0].prompt)
        made, modules, towers = bodies.made[0], [type(module).__name__ for module in whole], list[str]()
        if len(bodies.made) > 1:
            towers = _save_towers(whole, bodies.made, directory)
        else:
            whole.save(str(directory), create_model_card=False)
            _add_settings(directory / _SETTINGS, made.options)
        prompt, options, dtype = made.prompt, made.options, made.dtype
        del whole, made, bodies  # a large model is not to be in memory once more than it has to be
        difference = _difference(directory, probes, reference)
    tolerance = _tolerance(dtype, noise)
    if not difference <= tolerance:  # nor is NaN
        raise EncoderError(
            f"the files written give other vectors than the encoder: they differ by {difference:.1e} of their length, "
            f"and {tolerance:.1e} is allowed. Nothing was exported; please report this with the config of the run"
        )
    return Written(
        modules=modules,
        towers=towers,
        options=options,
        prompt_is_inside=prompt.is_inside,
        limits=prompt.limits,
        dtype=_name(dtype),
        width=reference.shape[1],
        max_tokens=encoder.tokenizer.max_positions,
        difference=difference,
        sentences=len(probes),
        versions={name: version(name) for name in ("sentence-transformers", "transformers", "torch")},
    )


@dataclass(frozen=True)
class _Body:
    encoder: Encoder
    module: Transformer
    prompt: CarriedPrompt
    options: dict[str, Any]
    dtype: torch.dtype


class _Bodies:
    """Writes bodies with their tokenizers below a folder and opens them as modules; calling it makes the next one."""

    def __init__(self, folder: Path, *, backbone: Backbone, adapter: AdapterChoice) -> None:
        self.folder = folder
        self.backbone = backbone
        self.adapter = adapter
        self.made: list[_Body] = []

    def __call__(self, encoder: Encoder) -> Transformer:
        path = self.folder / str(len(self.made))
        # What the body is opened with, here and elsewhere: no pooler of random weights.
        options: dict[str, Any] = without_pooler(encoder.config)
        if encoder.pooling == "first_last_mean" and encoder.readout is None:
            encoder.config.output_hidden_states = True
        if encoder.body is not encoder.plain_body and self.adapter == "keep":
            _save_adapter(encoder, path, backbone=self.backbone)
            options["dtype"] = _name(encoder.dtype)  # the body's own files may have another one
        else:
            whole = merged(encoder)
            whole.plain_body.save_pretrained(path)
        prompt = carry_prompt(encoder.tokenizer)
        prompt.tokenizer.save_pretrained(path)
        try:
            module = Transformer(str(path), model_kwargs=dict(options))
        except (OSError, ValueError) as error:  # a body that is not found, or that has code of its own
            named = _named_body(self.backbone) if self.adapter == "keep" else str(path)
            raise EncoderError(
                f"what was written cannot be opened, with the body '{named}': {first_line(error)}"
            ) from error
        self.made.append(_Body(encoder, module, prompt, options, encoder.dtype))
        return module


def _save_adapter(encoder: Encoder, path: Path, *, backbone: Backbone) -> None:
    """PEFT's files, with the body named by what can be found elsewhere."""
    adapted: Any = encoder.body
    adapted.save_pretrained(path, save_embedding_layers=False)
    file = path / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = _named_body(backbone)
    config["revision"] = backbone.revision if backbone.source == "hub" else None
    config["task_type"] = "FEATURE_EXTRACTION"
    file.write_text(json.dumps(config, indent=2) + "\n")


def _named_body(backbone: Backbone) -> str:
    """How a body is found that is not copied; a directory from wherever it is asked for."""
    if backbone.source == "hub":
        return str(backbone.hub_id)
    return str(Path(str(backbone.path)).expanduser().resolve())


def _sentence_transformer(modules: list[Module], prompt: CarriedPrompt) -> SentenceTransformer:
    return SentenceTransformer(
        modules=list[nn.Module](modules),
        device="cpu",
        prompts={PROMPT_NAME: prompt.prefix} if prompt.prefix else None,
        default_prompt_name=PROMPT_NAME if prompt.prefix else None,
        similarity_fn_name="cosine",
    )


def _save_towers(whole: SentenceTransformer, bodies: list[_Body], directory: Path) -> list[str]:
    """The sum in the root, its bodies in directories that are whole models of their own; names of these."""
    bodies[0].module.save_in_root = False
    whole.save(str(directory), create_model_card=False)
    listed = json.loads((directory / "modules.json").read_text())
    places = [module for module in listed if module["type"].endswith(".Transformer")]
    for number, (place, body) in enumerate(zip(places, bodies, strict=True), start=1):
        shutil.rmtree(directory / place["path"])
        place["path"] = f"tower_{number}"
        body.module.save_in_root = True
        alone = _sentence_transformer([body.module, *reading_modules(body.encoder)], body.prompt)
        alone.save(str(directory / place["path"]), create_model_card=False)
        _add_settings(directory / place["path"] / _SETTINGS, body.options)
    (directory / "modules.json").write_text(json.dumps(listed, indent=2) + "\n")
    return [place["path"] for place in places]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that both libraries print per file."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers():
            yield
    finally:
        logger.setLevel(level)


def _add_settings(file: Path, options: dict[str, Any]) -> None:
    """Has sentence-transformers open a body with these options."""
    if options:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_kwargs": options}, indent=4) + "\n")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _probes(encoder: SentenceEncoder) -> list[str]:
    """What is compared: not what does not fit into a prompt, which is cut otherwise (`CarriedPrompt.limits`)."""
    tokenizer = encoder.tokenizer
    rows = tokenizer(PROBES, max_length=None)
    return [
        text
        for text, row in zip(PROBES, rows, strict=True)
        if tokenizer.prompt is None or len(row) < tokenizer.max_positions
    ]


def _difference(directory: Path, probes: list[str], reference: np.ndarray) -> float:
    """How far the vectors of the files are from the original ones, in lengths of these."""
    model = SentenceTransformer(str(directory), device="cpu")
    return relative_distance(model.encode(probes, batch_size=len(probes), show_progress_bar=False), reference)


def _tolerance(dtype: torch.dtype, noise: float) -> float:
    """What the files may differ by: in float32 twice what the encoder differs by from itself, where that is more."""
    if dtype in (torch.float32, torch.float64):
        return max(_TOLERANCE, 2 * noise)
    return 8 * torch.finfo(dtype).eps
