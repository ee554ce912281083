"""Sentences from files of any length: one a line, one a JSON object, one a row of a parquet file; in a fixed order.

Surrounding space is taken off, as in training corpora. Sentence i is line (or row) i + 1: nothing is left out.
"""

import codecs
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cse_bench.config.messages import nearest
from cse_bench.errors import ConfigError, DataError, first_line

STDIN = "-"
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_LINE_BYTES = 2**24
_JUMP = 1024  # lines between two remembered places of a file


class Texts(ABC):
    """Sentences that are read one after the other, or looked up by their position.

    Attributes:
        name: for messages.
        unit: what a sentence is in the file: `line` or `row`.
    """

    name: str
    unit: str = "line"

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """All sentences.

        Raises:
            DataError: with file and line: missing, not UTF-8, or not what the format says.
        """

    @abstractmethod
    def count(self) -> int | None:
        """How many there are; None: only reading them would tell."""

    @abstractmethod
    def at(self, positions: Sequence[int]) -> list[str]:
        """The sentences at some positions, counted from 0."""

    def size(self) -> int | None:
        """Bytes of the file; None: a stream."""
        return None

    def place(self, position: int) -> str:
        """Where the sentence at a position (from 0) stands, for messages."""
        return f"{self.name}:{position + 1}"


class TextLines(Texts):
    """A UTF-8 text file, or the standard input (`-`), with one sentence a line.

    Args:
        path: the file.

    Raises:
        DataError: no such file.
    """

    def __init__(self, path: str) -> None:
        self.is_stream = path == STDIN
        self.path = Path(path).expanduser()
        self.name = "standard input" if self.is_stream else str(self.path)
        self._jumps: list[int] | None = None  # byte at which every 1024th line starts
        self._lines = 0
        if not self.is_stream:
            _check_file(self.path)

    def __iter__(self) -> Iterator[str]:
        """See `Texts`."""
        with self._open() as file:
            for number, raw in enumerate(self._raw_lines(file), start=1):
                yield self._sentence(self._decoded(raw, number), number)

    def count(self) -> int | None:
        """See `Texts`."""
        if self.is_stream:
            return None
        if self._jumps is None:
            self._index()
        return self._lines

    def size(self) -> int | None:
        """See `Texts`."""
        return None if self.is_stream else self.path.stat().st_size

    def at(self, positions: Sequence[int]) -> list[str]:
        """See `Texts`."""
        if self._jumps is None:
            self._index()
        assert self._jumps is not None
        found = []
        with self._open() as file:
            for position in positions:
                file.seek(self._jumps[position // _JUMP])
                for _ in range(position % _JUMP):
                    file.readline()
                found.append(self._sentence(self._decoded(file.readline(), position + 1), position + 1))
        return found

    def _index(self) -> None:
        """One pass that remembers where every 1024th line starts: a look-up then reads at most so many."""
        jumps, start, count = [], 0, 0
        with self._open() as file:
            for count, raw in enumerate(self._raw_lines(file), start=1):
                if (count - 1) % _JUMP == 0:
                    jumps.append(start)
                start += len(raw)
        self._jumps, self._lines = jumps, count

    def _open(self) -> IO[bytes]:
        if self.is_stream:
            return sys.stdin.buffer
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from None

    def _raw_lines(self, file: IO[bytes]) -> Iterator[bytes]:
        number = 0
        while raw := file.readline(_LINE_BYTES + 1):
            number += 1
            if len(raw) > _LINE_BYTES:
                raise DataError(
                    f"{self.name}:{number}: the line is longer than {_LINE_BYTES >> 20} MiB; is this UTF-8 text with "
                    "one sentence a line?"
                )
            yield raw

    def _decoded(self, raw: bytes, number: int) -> str:
        # Some editors begin a file with a byte order mark; it is no part of the first sentence.
        text = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name}:{number}: byte {error.start + 1} (0x{text[error.start]:02x}) of the line is not UTF-8; "
                "convert the file, e.g. iconv -f latin1 -t utf-8"
            ) from None

    def _sentence(self, line: str, number: int) -> str:
        return line.strip()


class JsonLines(TextLines):
    """A file, or the standard input, with one JSON object a line, one field of which is the sentence.

    Args:
        path: the file, or `-`.
        field: of each object.
    """

    def __init__(self, path: str, *, field: str) -> None:
        super().__init__(path)
        self.field = field

    def _sentence(self, line: str, number: int) -> str:
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DataError(f"{self.name}:{number}: is not JSON ({error}); every line is one object") from None
        if not isinstance(content, dict):
            raise DataError(f"{self.name}:{number}: is {_json_type(content)}; every line is one object")
        if self.field not in content:
            raise DataError(
                f"{self.name}:{number}: has no field '{self.field}'{nearest(self.field, content)} "
                f"(it has: {', '.join(content)})"
            )
        text = content[self.field]
        if not isinstance(text, str):
            raise DataError(f"{self.name}:{number}: field '{self.field}' is {_json_type(text)}, not text")
        if not text.isascii():  # JSON can name halves of characters, which no encoding holds
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DataError(f"{self.name}:{number}: field '{self.field}' holds half a character") from None
        return text.strip()


class ParquetColumn(Texts):
    """A column of text of a parquet file.

    Args:
        path: the file.
        column: its name.

    Raises:
        DataError: no such file or column, or not text.
    """

    unit = "row"

    def __init__(self, path: str, *, column: str) -> None:
        parquet, arrow = pyarrow_or_refuse("input")
        self.path = Path(path).expanduser()
        self.name = str(self.path)
        self.column = column
        _check_file(self.path)
        try:
            self._file = parquet.ParquetFile(self.path)
        except (arrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{self.path}: is not a parquet file ({first_line(error)})") from None
        columns = self._file.schema_arrow.names
        if column not in columns:
            raise DataError(
                f"{self.path}: has no column '{column}'{nearest(column, columns)} (it has: {', '.join(columns)})"
            )
        kind = self._file.schema_arrow.field(column).type
        plain = kind.value_type if arrow.types.is_dictionary(kind) else kind
        if not (
            arrow.types.is_string(plain) or arrow.types.is_large_string(plain) or arrow.types.is_string_view(plain)
        ):
            raise DataError(f"{self.path}: column '{column}' is {kind}, not text")

    def __iter__(self) -> Iterator[str]:
        """See `Texts`."""
        position = 0
        for batch in self._file.iter_batches(columns=[self.column], batch_size=_JUMP):
            for text in batch.column(0).to_pylist():
                yield self._sentence(text, position)
                position += 1

    def count(self) -> int:
        """See `Texts`."""
        return int(self._file.metadata.num_rows)

    def size(self) -> int:
        """See `Texts`."""
        return self.path.stat().st_size

    def at(self, positions: Sequence[int]) -> list[str]:
        """See `Texts`."""
        metadata = self._file.metadata
        found: dict[int, str] = {}
        start = 0
        for group in range(metadata.num_row_groups):
            end = start + metadata.row_group(group).num_rows
            if here := [position for position in positions if start <= position < end]:
                column = self._file.read_row_group(group, columns=[self.column]).column(0)
                found |= {position: self._sentence(column[position - start].as_py(), position) for position in here}
            start = end
        return [found[position] for position in positions]

    def _sentence(self, text: str | None, position: int) -> str:
        if text is None:
            raise DataError(f"{self.place(position)}: column '{self.column}' is null; fill it, or leave the row out")
        return text.strip()


def open_texts(path: str, *, format: str | None, field: str | None, column: str | None, key: str = "input") -> Texts:
    """The sentences of a file.

    Args:
        path: of the file; `-`: the standard input.
        format: `text`, `jsonl` or `parquet`; None: as the file's name ends, else text.
        field: of `jsonl`.
        column: of `parquet`.
        key: the config key of the path, for messages.

    Raises:
        ConfigError: field or column is missing, or does not go with the format.
        DataError: the file cannot be read.
    """
    kind = format or _FORMATS.get(Path(path).suffix.lower(), "text")
    for name, value, goes_with in (("field", field, "jsonl"), ("column", column, "parquet")):
        if value is not None and kind != goes_with:
            raise ConfigError(f"{name}: goes with {goes_with}, and '{path}' is read as {kind}; leave it out")
        if value is None and kind == goes_with:
            raise ConfigError(f"{name}: {goes_with} needs the {name} that holds the sentence; set {name}=NAME")
    if kind == "jsonl":
        assert field is not None
        return JsonLines(path, field=field)
    if kind == "parquet":
        assert column is not None
        if path == STDIN:
            raise ConfigError(f"{key}: parquet is not read from the standard input; give a file, or pipe jsonl")
        return ParquetColumn(path, column=column)
    return TextLines(path)


def pyarrow_or_refuse(key: str) -> tuple[Any, Any]:
    """`pyarrow.parquet` and `pyarrow`.

    Raises:
        ConfigError: not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"{key}: parquet needs pyarrow; pip install 'cse_bench[parquet]', or use jsonl") from None
    return pyarrow.parquet, pyarrow


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: is a directory; give a file")
    if not path.exists():
        raise DataError(f"{path}: no such file")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
