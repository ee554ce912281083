"""Checksums of files that are asked for again and again: each file is read once per process, unless it changes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cse_bench.data.packages import file_sha256

# Path, inode, size and time of the last change in nanoseconds -> checksum. A sweep asks for that of its corpus once a
# job, and a corpus may be gigabytes.
_known: dict[tuple[str, int, int, int], str] = {}


def remembered_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, read again only when its inode, size or modification time changed.

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = file_sha256(path)
    return _known[key]


def folder_sha256(folder: Path, *, patterns: Iterable[str]) -> str:
    """The SHA-256 of the names and contents of files below a folder; where the folder lies does not matter.

    Args:
        folder: any depth; hidden files and those in hidden folders are left out.
        patterns: which files count, e.g. `*.json`.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    found = {file for pattern in patterns for file in folder.rglob(pattern) if file.is_file()}
    for name, file in sorted((file.relative_to(folder).as_posix(), file) for file in found):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{remembered_sha256(file)}\n".encode())
    return digest.hexdigest()
