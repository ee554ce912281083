"""The directory of a run: it explains itself, holds one run only, and is complete when its `results.json` says so.

    results.json     status, config hash, versions, data checksums, metrics, costs
    config.yaml      the resolved config
    metrics.csv      the metrics log
    pair_scores.npz  per-pair scores of the test tasks
    model/           the selected encoder (see cse_bench.encoders.artifact)
    checkpoints/     state to resume from, until the run is complete
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from cse_bench.config.schema import RunConfig
from cse_bench.errors import ConfigError


class RunDirectory:
    """Paths and files of one run.

    Args:
        path: the directory; made when it is first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Readable prefix and identity."""
        return self.path.name

    @property
    def model(self) -> Path:
        """The selected encoder."""
        return self.path / "model"

    @property
    def checkpoint(self) -> Path:
        """State to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The metrics log."""
        return self.path / "metrics.csv"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    def results(self) -> dict[str, Any]:
        """What `results.json` holds; empty when there is none, or when it cannot be read."""
        return read_results(self.path)

    def is_complete(self) -> bool:
        """Whether the run here has finished."""
        return self.results().get("status") == "complete"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory: two processes never write the same run.

        Raises:
            ConfigError: another process holds it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", blocking=False)
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"another process is running {self.path} now; wait for it, or change what makes this run different (e.g. seed)"
            ) from None
        except OSError as error:
            raise ConfigError(f"paths.output_dir: cannot write {self.path} ({error}); choose a writable folder with space") from error
        try:
            yield
        finally:
            lock.release()

    def start(self, config: RunConfig, results: dict[str, Any]) -> None:
        """Writes the config and the first results; an old run's leftovers go."""
        if not self.checkpoint.is_file():
            for leftover in ("metrics.csv", "pair_scores.npz"):
                (self.path / leftover).unlink(missing_ok=True)
            shutil.rmtree(self.model, ignore_errors=True)
        OmegaConf.save(OmegaConf.create(config.model_dump(mode="json", by_alias=True)), self.config)
        self.write(results)

    def write(self, results: dict[str, Any]) -> None:
        """Replaces `results.json` atomically."""
        write_json(self.path / "results.json", results)

    def write_pair_scores(self, arrays: dict[str, np.ndarray]) -> None:
        """Per-pair scores, as `pair_scores.npz` (read with numpy.load; no pickles)."""
        if not arrays:
            return
        temporary = self.path / ".pair_scores.npz"
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, self.path / "pair_scores.npz")

    def clear(self) -> None:
        """Removes the state of an earlier run with this identity."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def finish(self) -> None:
        """A complete run does not resume: its checkpoint goes."""
        self.clear()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file atomically; NaN and infinities become null, which JSON has."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(_jsonable(content), indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def read_results(directory: Path) -> dict[str, Any]:
    """The content of a run's `results.json`, or an empty dict; NaN is written as null and comes back as NaN."""
    try:
        results = json.loads((directory / "results.json").read_text())
    except (OSError, ValueError):
        return {}
    if "metrics" in results:
        results["metrics"] = {name: math.nan if value is None else value for name, value in results["metrics"].items()}
    return results


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None  # JSON has no NaN
    return value


