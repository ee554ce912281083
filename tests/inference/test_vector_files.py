"""Vectors in files: as the format's own library writes them, and exactly what was computed."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from cse_bench.errors import ConfigError
from cse_bench.inference.vector_files import JsonLines, Npy, Parquet, VectorFormat, vector_format


def grown(kind: type[VectorFormat], vectors: np.ndarray, path: Path) -> Path:
    form = kind(width=vectors.shape[1], dtype=vectors.dtype.name)
    cut = len(vectors) // 3
    path.write_bytes(form.prefix() + form.block(vectors[:cut]) + form.block(vectors[cut:]))
    return form.finish(path, rows=len(vectors))


@pytest.fixture(params=["float32", "float16"])
def vectors(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((10, 7)).astype(request.param)


@pytest.mark.parametrize("rows", [1, 10, 123456])
def test_npy_is_what_numpy_writes(rows: int, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
    expected = io.BytesIO()
    np.save(expected, vectors)
    assert grown(Npy, vectors, tmp_path / "v").read_bytes() == expected.getvalue()


def test_npy_of_any_number_of_rows_begins_alike() -> None:
    form = Npy(width=4096, dtype="float16")
    assert {len(form.prefix(rows)) for rows in (0, 1, 10**7, 10**12)} == {len(form.prefix())}


def test_json_lines_come_back_to_the_last_bit(vectors: np.ndarray, tmp_path: Path) -> None:
    lines = grown(JsonLines, vectors, tmp_path / "v").read_text().splitlines()
    read = np.array([json.loads(line)["vector"] for line in lines]).astype(vectors.dtype)
    assert np.array_equal(read, vectors)


def test_parquet_comes_back_to_the_last_bit(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("cse_bench.inference.vector_files._ROWS_AT_ONCE", 4)
    column = parquet.read_table(grown(Parquet, vectors, tmp_path / "v")).column("vector")
    assert np.array_equal(np.array(column.to_pylist(), dtype=vectors.dtype), vectors)


def test_the_name_says_the_format() -> None:
    assert vector_format(Path("a/b.npy")) is Npy
    with pytest.raises(ConfigError, match=r"output: must end in .npy, .parquet, .jsonl"):
        vector_format(Path("vectors.pt"))
