"""A file that grows in steps, survives any interruption between or within them, and takes its place when it is whole.

While it grows there are `<output>.partial` (the bytes) and `<output>.partial.json` (how many of them count, and what
they were made with); bytes beyond those that count are cut off when it goes on.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from cse_bench.errors import ConfigError
from cse_bench.results.run_directory import write_json


class PartialFile:
    """The file that becomes `output`.

    Args:
        output: where the whole file will be.

    Attributes:
        counts: what the user of the file noted with its last block.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.partial")
        self.state = output.with_name(f"{output.name}.partial.json")
        self.sidecar = sidecar_of(output)
        self.counts: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._size = 0
        self._file: IO[bytes] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Two processes never write the same file.

        Raises:
            ConfigError: another process holds it, or the folder cannot be written.
        """
        lock = FileLock(self.output.with_name(f".{self.output.name}.lock"), blocking=False)
        with self._writing():
            self.output.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise ConfigError(
                    f"output: another process is writing {self.output} now; wait for it, or give another name"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def made_with(self) -> dict[str, Any] | None:
        """The settings of what is here already, whose counts are noted; None: nothing that can go on."""
        content = read_json(self.state)
        if content is None or not self.path.is_file() or self.path.stat().st_size < content["size"]:
            return None
        self.counts, self._size = content["counts"], content["size"]
        settings: dict[str, Any] = content["settings"]
        return settings

    def remove(self) -> None:
        """Starts over."""
        self.counts, self._size = {}, 0
        with self._writing():
            for path in (self.path, self.state):
                path.unlink(missing_ok=True)

    @contextmanager
    def growing(self, settings: dict[str, Any], *, prefix: bytes) -> Iterator[None]:
        """Opens the file where it was left, or new.

        Args:
            settings: what decides its bytes.
            prefix: with what it begins.
        """
        is_new = self.made_with() is None
        self._settings = settings
        if is_new:
            self._note()  # before there is a file: one without a description would be taken for somebody else's
        with self._writing():
            self._file = self.path.open("wb" if is_new else "r+b")
            self._file.truncate(self._size)
            self._file.seek(self._size)
        try:
            if self._size == 0:
                self.keep(prefix, {})
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk was told when it was written to
                self._file.close()

    def keep(self, block: bytes, counts: dict[str, Any]) -> None:
        """Appends a block; from here on the file counts up to its end.

        Raises:
            ConfigError: the disk is full or not writable; what was kept before stays.
        """
        assert self._file is not None
        with self._writing():
            self._file.write(block)
            self._file.flush()
            os.fsync(self._file.fileno())
        self._size += len(block)
        self.counts = counts
        self._note()

    def _note(self) -> None:
        content = {"settings": self._settings, "size": self._size, "counts": self.counts}
        write_json(self.state, content, key="output")

    def finish(self, facts: dict[str, Any], whole: Callable[[Path], Path]) -> None:
        """Puts the whole file in its place, and beside it what is known about it.

        An old file goes first: wherever a kill falls, no file lies beside the description of another one, and while
        there is no file the grown one goes on from its end, which is to finish again.

        Args:
            facts: for the sidecar.
            whole: makes the finished file of the grown one.
        """
        with self._writing():
            file = whole(self.path)
            self.output.unlink(missing_ok=True)
            write_json(self.sidecar, facts, key="output")
            os.replace(file, self.output)
        self.remove()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"output: cannot write {self.output} ({error}); with a writable folder and enough space the same "
                "command goes on"
            ) from error


def sidecar_of(output: Path) -> Path:
    """The file that says how vectors were made: `vectors.npy.json` beside `vectors.npy`."""
    return output.with_name(f"{output.name}.json")


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON object; None: not there, or not readable as one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
