"""The directory of a run: it explains itself, holds one run only, and is complete when its `results.json` says so.

- `results.json`: status, config hash, versions, data checksums, metrics, costs
- `config.yaml`: the resolved config
- `metrics.csv`: the metrics log
- `pair_scores.npz`: per-pair scores of the test tasks
- `model/`: the selected encoder (see cse_bench.encoders.artifact)
- `checkpoints/`: state to resume from, until the run is complete
"""

import contextlib
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
from cse_bench.errors import BusyError, ConfigError


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
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Holds the directory: two processes never write the same run.

        Args:
            wait: for another process that holds it, instead of refusing.

        Raises:
            BusyError: another process holds it.
            ConfigError: it cannot be written.
        """
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                if not wait:
                    raise
                print(f"waiting for {self.path}, which another process is running", flush=True)
                lock.acquire(blocking=True)
        except Timeout:
            raise BusyError(
                f"another process is running {self.path} now; wait for it, or change what makes this run different "
                "(e.g. seed)"
            ) from None
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def start(self, config: RunConfig, results: dict[str, Any]) -> None:
        """Writes the config and the first results; an old run's leftovers go.

        Raises:
            ConfigError: the directory cannot be written.
        """
        # In this order, so that a kill in between leaves either the finished run or one that starts over.
        if self.is_complete():
            self.clear()
        self.write(results)
        try:
            if not any(self.checkpoint.parent.glob("*.ckpt")):
                for leftover in ("metrics.csv", "pair_scores.npz"):
                    (self.path / leftover).unlink(missing_ok=True)
                shutil.rmtree(self.model, ignore_errors=True)
            with replacing(self.config) as temporary:
                OmegaConf.save(OmegaConf.create(config.model_dump(mode="json", by_alias=True)), temporary)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def write(self, results: dict[str, Any]) -> None:
        """Replaces `results.json` atomically.

        Raises:
            ConfigError: it cannot be written; what was there before stays.
        """
        write_json(self.path / "results.json", results)

    def write_pair_scores(self, arrays: dict[str, np.ndarray]) -> None:
        """Per-pair scores, as `pair_scores.npz` (read with numpy.load; no pickles).

        Raises:
            ConfigError: it cannot be written.
        """
        if arrays:
            with replacing(self.path / "pair_scores.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # arrays, not its options

    def clear(self) -> None:
        """Removes the state of an earlier run with this identity."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def method_name(config: RunConfig) -> str:
    """The module of the method's class, which is also its config choice."""
    return config.method.target.split(".")[-2]


def write_json(path: Path, content: dict[str, Any], *, key: str = "paths.output_dir") -> None:
    """Replaces a JSON file atomically; NaN and infinities become null, which JSON has.

    Args:
        path: of the file; its folder is made if need be.
        content: to be written.
        key: the config key that says where, for the message.

    Raises:
        ConfigError: it cannot be written; what was there before stays.
    """
    text = json.dumps(_jsonable(content), indent=2, allow_nan=False) + "\n"
    with replacing(path, key=key) as temporary:
        temporary.write_text(text)


@contextmanager
def replacing(path: Path, *, key: str = "paths.output_dir") -> Iterator[Path]:
    """A file to write to that takes the place of `path` once it is whole.

    Raises:
        ConfigError: it cannot be written; names the config key.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # a machine that goes down keeps names before contents otherwise
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error, key=key) from error


def cannot_write(path: Path, error: OSError, *, key: str = "paths.output_dir") -> ConfigError:
    """What is told when a file cannot be written, whatever the reason.

    Args:
        path: of the file.
        error: what the system said.
        key: the config key that says where.
    """
    return ConfigError(f"{key}: cannot write {path} ({error}); choose a writable folder with space")


def read_results(directory: Path) -> dict[str, Any]:
    """The content of a run's `results.json`, or an empty dict; NaN is written as null and comes back as NaN."""
    try:
        results = json.loads((directory / "results.json").read_text())
        if "metrics" in results:
            metrics = results["metrics"]
            results["metrics"] = {name: math.nan if value is None else value for name, value in metrics.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # missing, cut off, or not what we write
    return results if isinstance(results, dict) else {}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None  # JSON has no NaN
    if isinstance(value, np.integer):
        return int(value)
    return value
