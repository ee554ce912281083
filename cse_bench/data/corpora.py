"""Corpora: where training sentences come from. A corpus yields lines and can say exactly what it is."""

import codecs
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from cse_bench.data.checksums import remembered_sha256
from cse_bench.errors import DataError, first_line

EmptyLines = Literal["error", "skip", "keep"]


class Corpus(Protocol):
    """Anything that yields training sentences.

    Attributes:
        name: for tables and file names.
    """

    name: str

    def lines(self) -> Iterator[str]:
        """The sentences, in a fixed order."""
        ...

    def fingerprint(self) -> str:
        """A text that changes whenever `lines` would give something else; holds a SHA-256."""
        ...

    def describe(self) -> dict[str, Any]:
        """Source and checksum, for the result."""
        ...


class TextFile:
    """A UTF-8 text file with one sentence a line.

    Args:
        path: the file.
        num_lines: number of lines it must have; None: not checked.
        sha256: checksum it must have; None: not checked.
        empty_lines: `error`, `skip`, or `keep` (the tokenizer sees a single space, as in the official SimCSE loader).
    """

    def __init__(
        self,
        *,
        path: str,
        num_lines: Annotated[int, Field(ge=1)] | None = None,
        sha256: str | None = None,
        empty_lines: EmptyLines = "error",
    ) -> None:
        self.path = Path(path).expanduser()
        self.name = self.path.stem
        self.num_lines = num_lines
        self.sha256 = sha256
        self.empty_lines = empty_lines
        self._found_sha256: str | None = None

    def lines(self) -> Iterator[str]:
        """The sentences, without line ends and surrounding space.

        Raises:
            DataError: with file and line: the file is missing, empty, not UTF-8, has an empty line, or not the
                expected length, or no longer the one whose `fingerprint` was taken.
        """
        count = found = 0
        read = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                for count, raw in enumerate(file, start=1):
                    read.update(raw)
                    line = self._decode(raw, count).strip()
                    if not line and self.empty_lines == "error":
                        raise DataError(
                            f"{self.path}:{count}: empty line; remove it, or set data.corpus.empty_lines=skip|keep"
                        )
                    if line or self.empty_lines == "keep":
                        found += 1
                        yield line
        except OSError as error:
            raise self._unreadable(error) from None
        if self._found_sha256 is not None and read.hexdigest() != self._found_sha256:
            raise DataError(f"{self.path}: was changed while the run was reading it; run the same command again")
        if found == 0:
            raise DataError(f"{self.path}: the file {'is empty' if count == 0 else 'has nothing but empty lines'}")
        if self.num_lines is not None and count != self.num_lines:
            problem = "was it cut off?" if count < self.num_lines else "is it another file?"
            raise DataError(
                f"{self.path}:{count}: the file has {count} lines, {self.num_lines} were expected; {problem}"
            )

    def _decode(self, raw: bytes, number: int) -> str:
        # Some editors begin a file with a byte order mark; it is no part of the first sentence.
        text = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}:{number}: byte {error.start + 1} (0x{text[error.start]:02x}) of the line is not UTF-8; "
                "convert the file, e.g. iconv -f latin1 -t utf-8, or was it cut off in the middle of a character?"
            ) from None

    def _unreadable(self, error: OSError) -> DataError:
        what = "data.path names a UTF-8 text file with one sentence a line"
        if isinstance(error, FileNotFoundError):
            return DataError(f"{self.path}: no such file; {what}")
        if isinstance(error, IsADirectoryError):
            return DataError(f"{self.path}: is a directory; {what}")
        return DataError(f"{self.path}: cannot be read ({error.strerror}); {what}")

    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes, and how empty lines are read.

        Raises:
            DataError: the file cannot be read or has another checksum than `sha256`.
        """
        if self._found_sha256 is None:
            try:
                self._found_sha256 = remembered_sha256(self.path)
            except OSError as error:
                raise self._unreadable(error) from None
        if self.sha256 is not None and self._found_sha256 != self.sha256.lower():
            raise DataError(
                f"{self.path}: sha256 is {self._found_sha256}, {self.sha256} was expected; "
                "the file is damaged, cut off or another one"
            )
        return f"{self._found_sha256}-{self.empty_lines}"

    def describe(self) -> dict[str, Any]:
        """File name and checksum; not the path, which is private to a machine."""
        return {"source": "text file", "file": self.path.name, "sha256": self.fingerprint().partition("-")[0]}


class HubFile(TextFile):
    """A text file of a data set on the Hugging Face Hub, checked against the checksum the Hub declares for it.

    Args:
        repo_id: `organisation/name` of the data set repository.
        filename: the file in it.
        revision: branch, tag or commit.
        num_lines: number of lines it must have.
        empty_lines: as in `TextFile`.
        data: folder of local data; `corpus/<filename>` below it is used when it is there, and the Hub is not asked.
    """

    def __init__(
        self,
        *,
        repo_id: str,
        filename: str,
        revision: str,
        num_lines: Annotated[int, Field(ge=1)] | None = None,
        empty_lines: EmptyLines = "error",
        data: str | None = None,
    ) -> None:
        self.repo_id, self.filename, self.revision = repo_id, filename, revision
        local = Path(data).expanduser() / "corpus" / filename if data else None
        self._is_local = local is not None and local.is_file()
        self._is_fetched = False
        super().__init__(path=str(local if self._is_local else filename), num_lines=num_lines, empty_lines=empty_lines)

    def lines(self) -> Iterator[str]:
        """As `TextFile.lines`, downloaded first if need be."""
        self._fetch()
        yield from super().lines()

    def fingerprint(self) -> str:
        """As `TextFile.fingerprint`, downloaded first if need be."""
        self._fetch()
        return super().fingerprint()

    def describe(self) -> dict[str, Any]:
        """Repository, revision, file and checksum."""
        hub = {"source": "hub", "repo_id": self.repo_id, "revision": self.revision}
        return super().describe() | ({"source": "local copy"} if self._is_local else hub)

    def _fetch(self) -> None:
        if self._is_local or self._is_fetched:
            return
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            path = hf_hub_download(self.repo_id, self.filename, repo_type="dataset", revision=self.revision)
        except (HfHubHTTPError, HFValidationError, OSError) as error:  # being offline is an OSError
            raise DataError(
                f"{self.filename} is neither in paths.data (as corpus/{self.filename}) nor can it be had from the Hub "
                f"({self.repo_id}): {first_line(error)} To train without it: data=wikipedia_sample (package index) or "
                "data=text_file data.path=FILE"
            ) from error
        self.path, self._is_fetched = Path(path), True
        try:
            url = hf_hub_url(self.repo_id, self.filename, repo_type="dataset", revision=self.revision)
            declared = get_hf_file_metadata(url).etag
        except (HfHubHTTPError, OSError):
            return  # offline, with a file from the cache: its number of lines is still checked
        if declared and len(declared) == 64:  # large files are declared by their sha256, small ones by git's own hash
            self.sha256 = declared
