"""The identity of a run: the hash of everything in its config that decides its numbers.

The whole resolved config counts, less the keys listed here, so that no option can be forgotten: matching runs by a
hand-picked list of keys resumes the wrong run sooner or later.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cse_bench.config.bind import locate
from cse_bench.config.schema import RunConfig

# Where things are kept, how they are shown and how fast they are read: the numbers do not depend on these.
_NOT_IDENTITY = ("paths", "logger", "study", "dry_run", "overwrite", "checkpoint_every_steps")
# Without training nothing depends on how others are trained; the sentences that are read are in their fingerprint.
_ONLY_TRAINING = ("data", "optimizer", "trainer", "precision")
_ONLY_TRAINING_IN_EVALUATION = ("eval_every_steps", "eval_last_step", "selection_metric")
_NOT_IDENTITY_IN_DATA = ("num_workers", "path")
_NOT_IDENTITY_IN_TRAINER = ("enable_progress_bar", "log_every_n_steps", "enable_model_summary")
_NOT_IDENTITY_IN_EVALUATION = ("baseline", "batch_tokens")


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
    return content | {"corpus_fingerprint": corpus_fingerprint if method.reads_corpus(config) else None}


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
    if backbone.get("source") != "random":
        backbone.pop("architecture", None)  # describes the weights that are loaded; only `random` is built from it
    if not trains:
        for key in _ONLY_TRAINING:
            content.pop(key, None)
        for key in _ONLY_TRAINING_IN_EVALUATION:
            evaluation.pop(key, None)
        backbone.pop("dropout", None)
        if (backbone.get("adapter") or {}).get("type") == "lora":
            backbone["adapter"] = None  # low-rank updates start at zero
        if backbone.get("source") != "random":
            content.pop("seed", None)
    return content


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
