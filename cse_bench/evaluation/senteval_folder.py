"""Where SentEval's files are: a given folder, else SimCSE's archive on the Hub, else an error that says what to do."""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cse_bench.errors import DataError

HUB_REPOSITORY = "princeton-nlp/datasets-for-simcse"
HUB_FILE = "senteval.tar"


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """Files of SentEval that are found and fetched together.

    Attributes:
        what: Their name in messages.
        sha256: By path, e.g. `STSBenchmark/sts-dev.csv`.
        parents: Folders below the root that may hold these paths; the first is where fetched files go.
        cache: Name of the folder for fetched files.
        how_to_get: What messages advise.
    """

    what: str
    sha256: Mapping[str, str]
    parents: tuple[str, ...]
    cache: str
    how_to_get: str


class SentEvalFolder:
    """The files of a set in one folder; finding and reading happen at the first access.

    Args:
        files: Which files.
        data: Folder that holds them in a known layout (`paths.data`), or a SentEval `downstream` folder; None takes
            them from the Hub.
        cache: Folder to unpack the Hub's archive into when `data` is None; reused when it already holds the files.
    """

    def __init__(self, files: FileSet, *, data: str | None, cache: str) -> None:
        self.files = files
        self.sources: dict[str, str] = {}
        """sha256 of every file read so far, by folder and name, the same for every layout."""
        self._data = data
        self._cache = cache
        self._root: Path | None = None

    def read(self, file: str) -> tuple[bytes, Path]:
        """Content and path of a file, e.g. `STSBenchmark/sts-dev.csv`.

        Raises:
            DataError: The folder does not exist or has no such file, or the archive cannot be had from the Hub.
        """
        path = self.find(file)
        content = path.read_bytes()
        self.sources[file] = hashlib.sha256(content).hexdigest()
        return content, path

    def find(self, file: str) -> Path:
        """Path of a file in any of the known layouts.

        Raises:
            DataError: As of `read`.
        """
        if self._root is None:
            self._root = self._find_root()
        for parent in self.files.parents:
            path = self._root / parent / file
            if path.is_file():
                return path
        tried = ", ".join(str(self._root / parent / file) for parent in self.files.parents)
        raise DataError(f"{self.files.what} file {file} is missing (tried {tried}); {self.files.how_to_get}")

    def _find_root(self) -> Path:
        if self._data is None:
            return _from_hub(Path(self._cache).expanduser() / self.files.cache, self.files)
        root = Path(self._data).expanduser()
        if not root.is_dir():
            raise DataError(f"paths.data is {self._data!r}, which is not a folder; {self.files.how_to_get}")
        return root


def unpack(archive: Path, target: Path, files: FileSet) -> None:
    """Unpacks the wanted files of a SentEval archive to `target/<first parent>/...`, wherever the archive keeps them.

    Only plain files with a known folder and name are taken, each to the path given here, so no member decides where it
    lands. The target appears at once or not at all: an interrupted process leaves no half-filled folder, and of several
    processes one wins.

    Raises:
        DataError: The archive is damaged or lacks a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        # A new folder inside the temporary one, which has mode 0700: other users may share the cache.
        unpacked = Path(staging) / target.name
        unpacked.mkdir()
        found = set()
        try:
            with tarfile.open(archive) as members:
                for member in members:
                    ends = ("/".join(PurePosixPath(member.name).parts[-depth:]) for depth in (2, 3))
                    file = next((end for end in ends if end in files.sha256), None)
                    if member.isreg() and file is not None:
                        name = f"{files.parents[0]}/{file}"
                        members.extract(member.replace(name=name, deep=False), unpacked, filter="data")
                        found.add(file)
        except (tarfile.TarError, EOFError) as error:
            message = f"{archive} cannot be unpacked ({error}); delete it to fetch it again, or {files.how_to_get}"
            raise DataError(message) from error
        missing = sorted(files.sha256.keys() - found)
        if missing:
            lacks = f"lacks {len(missing)} {files.what} files, the first is {missing[0]}"
            raise DataError(f"{archive} {lacks}; {files.how_to_get}")
        try:
            os.replace(unpacked, target)
        except OSError:
            # Another process was faster; the files' checksums are asserted when they are read.
            if not target.is_dir():
                raise


def _from_hub(target: Path, files: FileSet) -> Path:
    if target.is_dir():
        return target
    # Slow to import, and needed only where no folder is given.
    from huggingface_hub import hf_hub_download

    try:
        archive = hf_hub_download(repo_id=HUB_REPOSITORY, filename=HUB_FILE, repo_type="dataset")
    # All failures of the client derive from OSError: no network, offline mode, an HTTP status, no such file.
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        message = (
            f"the {files.what} files are missing and cannot be fetched from the Hub ({reason}); {files.how_to_get}"
        )
        raise DataError(message) from error
    unpack(Path(archive), target, files)
    return target
