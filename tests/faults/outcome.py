"""What a folder of runs holds, in a form that two folders can be compared by: everything but time and memory."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from cse_bench.results.run_directory import read_results

_MEASURED = ("time", "per_s", "memory")
_OF_THE_RUN = ("status", "identity", "group", "steps", "selection", "data", "evaluation", "encoder", "prerequisites")


def outcome(outputs: Path) -> dict[str, Any]:
    """Every run of a folder by name: its files, numbers, log, scores and weights."""
    return {path.name: _run(path) for path in sorted(outputs.iterdir()) if path.is_dir()}


def _run(directory: Path) -> dict[str, Any]:
    results = read_results(directory)
    log = directory / "metrics.csv"
    scores = directory / "pair_scores.npz"
    weights = {str(path.relative_to(directory)): load_file(path) for path in sorted(directory.rglob("*.safetensors"))}
    facts = {key: results.get(key) for key in _OF_THE_RUN}
    facts["evaluation"] = {key: value for key, value in (facts["evaluation"] or {}).items() if key != "time_s"}
    facts["encoder"] = {**(facts["encoder"] or {}), "provenance": None}  # names the folder
    return {
        "files": sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()),
        "facts": facts,
        "metrics": {k: v for k, v in results.get("metrics", {}).items() if not any(word in k for word in _MEASURED)},
        "log": log.read_text() if log.is_file() else None,
        "scores": dict(np.load(scores)) if scores.is_file() else {},
        "weights": weights,
    }


def differences(expected: Any, found: Any, *, at: str = "") -> list[str]:
    """Where two outcomes differ; arrays to the last bit."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = sorted(expected.keys() | found.keys())
        missing = object()
        return [
            one
            for name in names
            for one in differences(expected.get(name, missing), found.get(name, missing), at=f"{at}/{name}")
        ]
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        same = expected.dtype == found.dtype and expected.shape == found.shape
        same = same and expected.tobytes() == found.tobytes()
    else:
        same = type(expected) is type(found) and (expected == found or (expected != expected and found != found))
    return [] if same else [at]
