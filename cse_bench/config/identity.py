"""The identity of a run: the hash of everything in its config that decides its numbers.

The whole resolved config counts, less the keys listed here, so that no option can be forgotten: matching runs by a
hand-picked list of keys resumes the wrong run sooner or later. Beside the config count the content of what it names by
a path (corpus, weights, encoders of other runs) and the `version` of its method and tasks. Of a method or task that is
not of this package the file counts that defines it: it is edited between two runs, and nobody raises a version then.
"""

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cse_bench.config.bind import build, locate
from cse_bench.config.schema import Component, RunConfig
from cse_bench.data.checksums import folder_sha256

# Where things are kept, how they are shown and how fast they are read: the numbers do not depend on these.
_NOT_IDENTITY = ("paths", "logger", "study", "dry_run", "overwrite", "checkpoint_every_steps")
# Without training nothing depends on how others are trained; the sentences that are read are in their fingerprint.
_ONLY_TRAINING = ("data", "optimizer", "trainer", "precision")
_ONLY_TRAINING_IN_EVALUATION = ("eval_every_steps", "eval_last_step", "selection_metric")
_NOT_IDENTITY_IN_DATA = ("num_workers", "path")
_NOT_IDENTITY_IN_TRAINER = ("enable_progress_bar", "log_every_n_steps", "enable_model_summary")
_NOT_IDENTITY_IN_EVALUATION = ("baseline", "batch_tokens")
# What is read of a folder with an encoder; a README or a copy of the weights in another format decides nothing.
_READ_OF_AN_ENCODER = ("*.safetensors", "*.json", "*.txt", "*.model", "*.py")
# Read where there are no safetensors: the weights of older models.
_READ_INSTEAD_OF_SAFETENSORS = ("*.bin",)


def identity(config: RunConfig, *, corpus_fingerprint: str | None) -> str:
    """SHA-256 (hex) of the resolved config without paths, loggers and other keys that decide no number.

    Args:
        config: a validated config whose precisions are resolved.
        corpus_fingerprint: hash of the training text, so that a changed corpus is another run; None when it is not
            read.
    """
    return _hash(_identity_of(config, corpus_fingerprint))


def group_identity(config: RunConfig, *, corpus_fingerprint: str | None) -> str:
    """As `identity`, less the seed: runs with the same group identity are repetitions of one experiment."""
    content = _identity_of(config, corpus_fingerprint)
    content.pop("seed", None)
    return _hash(content)


def _identity_of(config: RunConfig, corpus_fingerprint: str | None) -> dict[str, Any]:
    method = locate(config.method.target)
    content = deciding(config.model_dump(mode="json", by_alias=True), trains=method.trains)
    for key, path in encoders_by_path(config).items():
        _replace(content, key, content_of_encoder(path))
    # Left out where it says nothing, so that runs from before such facts were there are found again.
    content |= {"beyond_config": facts} if (facts := _beyond_config(config)) else {}
    return content | {"corpus_fingerprint": corpus_fingerprint if method.reads_corpus(config) else None}


def corpus_fingerprint(config: RunConfig) -> str | None:
    """The fingerprint of the training text; None where the method does not read it.

    Raises:
        DataError: the corpus is missing or another one than was asked for.
    """
    if not locate(config.method.target).reads_corpus(config):
        return None
    fingerprint: str = build(config.data.corpus).fingerprint()
    return fingerprint


def encoders_by_path(config: RunConfig) -> dict[str, str]:
    """Config key -> path or Hub id, for everything whose weights are named so in a config of a run."""
    found = dict(locate(config.method.target).encoders_by_path(config))
    if config.backbone.source == "local" and config.backbone.path is not None:
        found["backbone.path"] = config.backbone.path
    return found


def content_of_encoder(path: str) -> str:
    """A hash of the files of an encoder or a run's encoder; a Hub id, whose content is not here, stays as it is."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return path
    if (folder / "results.json").is_file():  # a run: its encoder alone is read, and its log changes without it
        folder = folder / "model"
    instead = () if any(folder.glob("*.safetensors")) else _READ_INSTEAD_OF_SAFETENSORS
    return f"sha256:{folder_sha256(folder, patterns=(*_READ_OF_AN_ENCODER, *instead))}"


def _beyond_config(config: RunConfig) -> dict[str, Any]:
    """What decides numbers and stands in no config: versions of definitions, and what other runs need first."""
    facts: dict[str, Any] = {}
    tasks = {"dev": config.evaluation.dev, "test": config.evaluation.test}
    parts = {f"evaluation.{split}.{name}": task for split, group in tasks.items() for name, task in group.items()}
    for key, component in {"method": config.method, **parts}.items():
        if (version := _version(component)) > 1:
            facts[f"{key}.version"] = version
        if code := _code_from_elsewhere(component):
            facts[f"{key}.code"] = code
    for name, before in locate(config.method.target).prerequisites(config).items():
        facts |= {f"{name}: {key}": value for key, value in _beyond_config(before).items() if "evaluation." not in key}
        facts |= {f"{name}: {key}": content_of_encoder(path) for key, path in _own_encoders(before, config).items()}
    return facts


def _own_encoders(before: RunConfig, config: RunConfig) -> dict[str, str]:
    """Encoders that a prerequisite names and the run itself does not."""
    named = set(encoders_by_path(config).values())
    return {key: path for key, path in encoders_by_path(before).items() if path not in named}


def _version(component: Component) -> int:
    """The version of a definition: raised whenever the numbers of equal settings change; 1 where a class has none."""
    version = getattr(locate(component.target), "version", 1)
    return version if isinstance(version, int) else 1


def _code_from_elsewhere(component: Component) -> str | None:
    """SHA-256 of the file that defines a class of the user's own; None: a class of this package, or no file."""
    target = locate(component.target)
    if target.__module__.partition(".")[0] == __package__.partition(".")[0]:
        return None
    return _loaded_code(target)


@cache  # the class was loaded once: what is edited afterwards, in the middle of a sweep, is not what runs
def _loaded_code(target: Any) -> str | None:
    try:
        file = inspect.getsourcefile(target)
    except (TypeError, OSError):  # compiled, or typed in
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def _replace(content: dict[str, Any], key: str, value: str) -> None:
    *groups, last = key.split(".")
    for group in groups:
        content = content[group]
    content[last] = value


def deciding(config: Mapping[str, Any], *, trains: bool) -> dict[str, Any]:
    """The part of a resolved config that decides the numbers of a run.

    Args:
        config: as a run's `results.json` holds it.
        trains: whether its method takes any steps.
    """
    content: dict[str, Any] = copy.deepcopy(dict(config))
    data, backbone, evaluation = (content.setdefault(group, {}) for group in ("data", "backbone", "evaluation"))
    for key in _NOT_IDENTITY:
        content.pop(key, None)
    for group, keys in (
        (data, _NOT_IDENTITY_IN_DATA),
        (content.get("trainer", {}), _NOT_IDENTITY_IN_TRAINER),
        (evaluation, _NOT_IDENTITY_IN_EVALUATION),
    ):
        for key in keys:
            group.pop(key, None)
    # Where a corpus or a task lies is a path; what it holds is checked by checksums and the corpus fingerprint.
    corpus = data.get("corpus", {})
    corpus.pop("path", None)
    tasks = [task for split in ("dev", "test") for task in evaluation.get(split, {}).values()]
    for component in (corpus, *tasks):
        for key in ("data", "cache"):
            component.pop(key, None)
    if not backbone.get("gradient_checkpointing"):
        backbone.pop("gradient_checkpointing", None)  # runs from before the key was there are found again
    for part, key, default in (
        (backbone, "packed", "auto"),
        (backbone, "compile", None),
        (data, "padding", "longest"),
    ):
        if part.get(key) == default:  # as above; other values draw other dropout masks
            part.pop(key, None)
    if backbone.get("source") != "random":
        backbone.pop("architecture", None)  # describes the weights that are loaded; only `random` is built from it
    if not trains:
        for key in _ONLY_TRAINING:
            content.pop(key, None)
        for key in _ONLY_TRAINING_IN_EVALUATION:
            evaluation.pop(key, None)
        backbone.pop("dropout", None)
        for key in ("gradient_checkpointing", "packed", "compile"):
            backbone.pop(key, None)
        if (backbone.get("adapter") or {}).get("type") == "lora":
            backbone["adapter"] = None  # low-rank updates start at zero
        if backbone.get("source") != "random":
            content.pop("seed", None)
    return content


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
