"""Vectors into files that grow row by row: npy, parquet, jsonl.

While it grows a file is a prefix of fixed length and then blocks of rows, so that it can be cut back to the end of any
block and go on from there; `finish` makes the format's own file of it.

Shapes: n rows, d width.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

import numpy as np

from cse_bench.errors import ConfigError
from cse_bench.inference.texts import pyarrow_or_refuse

_ROWS_AT_ONCE = 8192


class VectorFormat(ABC):
    """How rows become bytes.

    Args:
        width: d.
        dtype: `float32` or `float16`.
    """

    def __init__(self, *, width: int, dtype: str) -> None:
        self.width = width
        self.dtype = np.dtype(dtype).newbyteorder("<")

    def prefix(self, rows: int = 0) -> bytes:
        """What stands before the first row; as long for any number of rows."""
        return b""

    @abstractmethod
    def block(self, vectors: np.ndarray) -> bytes:
        """Some rows, (n, d), of the dtype."""

    def finish(self, file: Path, *, rows: int) -> Path:
        """Makes a whole file of a grown one; its path."""
        return file


class Npy(VectorFormat):
    """NumPy's own: byte for byte what `numpy.save` writes. `numpy.load(path, mmap_mode="r")` reads it from the disk."""

    def prefix(self, rows: int = 0) -> bytes:
        """The header. NumPy pads it so that the number of rows can grow in place."""
        from io import BytesIO

        header = BytesIO()
        shape = (rows, self.width)
        np.lib.format.write_array_header_1_0(header, {"descr": self.dtype.str, "fortran_order": False, "shape": shape})
        return header.getvalue()

    def block(self, vectors: np.ndarray) -> bytes:
        """The numbers."""
        return np.ascontiguousarray(vectors, dtype=self.dtype).tobytes()

    def finish(self, file: Path, *, rows: int) -> Path:
        """Writes the number of rows into the header."""
        with file.open("r+b") as stream:
            stream.write(self.prefix(rows))
            _to_disk(stream)
        return file


class JsonLines(VectorFormat):
    """One object a line: `{"vector": [...]}`; the numbers come back exactly."""

    def block(self, vectors: np.ndarray) -> bytes:
        """The lines."""
        number = "%.9g" if self.dtype.itemsize == 4 else "%.5g"  # digits that tell any two numbers of the dtype apart
        line = f'{{"vector": [{", ".join([number] * self.width)}]}}\n'
        return "".join(line % tuple(row) for row in vectors.tolist()).encode()


class Parquet(VectorFormat):
    """One column, `vector`, of lists of d numbers. Grows as plain numbers: no parquet file can be added to."""

    def __init__(self, *, width: int, dtype: str) -> None:
        pyarrow_or_refuse("output")
        super().__init__(width=width, dtype=dtype)

    def block(self, vectors: np.ndarray) -> bytes:
        """The numbers."""
        return np.ascontiguousarray(vectors, dtype=self.dtype).tobytes()

    def finish(self, file: Path, *, rows: int) -> Path:
        """Writes the parquet file beside the numbers, a block at a time, and removes them."""
        parquet, arrow = pyarrow_or_refuse("output")
        whole = file.with_name(f"{file.name}.parquet")
        kind = arrow.list_(arrow.from_numpy_dtype(self.dtype), self.width)
        schema = arrow.schema([arrow.field("vector", kind, nullable=False)])
        with file.open("rb") as numbers, whole.open("wb") as stream:
            with parquet.ParquetWriter(stream, schema) as writer:
                for start in range(0, rows, _ROWS_AT_ONCE):
                    count = min(_ROWS_AT_ONCE, rows - start)
                    flat = np.frombuffer(numbers.read(count * self.width * self.dtype.itemsize), dtype=self.dtype)
                    column = arrow.FixedSizeListArray.from_arrays(arrow.array(flat), type=kind)
                    writer.write_table(arrow.Table.from_arrays([column], schema=schema))
            _to_disk(stream)
        return whole


VECTOR_FORMATS: dict[str, type[VectorFormat]] = {".npy": Npy, ".parquet": Parquet, ".jsonl": JsonLines}


def vector_format(output: Path) -> type[VectorFormat]:
    """The format that a file's name asks for.

    Raises:
        ConfigError: none has this ending.
    """
    if output.suffix not in VECTOR_FORMATS:
        raise ConfigError(f"output: must end in {', '.join(VECTOR_FORMATS)}, which says the format; got '{output}'")
    return VECTOR_FORMATS[output.suffix]


def _to_disk(stream: IO[bytes]) -> None:
    """A machine that goes down keeps names before contents otherwise."""
    import os

    stream.flush()
    os.fsync(stream.fileno())
