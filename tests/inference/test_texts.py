"""Sentences from text, JSON lines and parquet: what is read, what is refused, and looking single ones up."""

import io
import json
import sys
from pathlib import Path

import pytest

from cse_bench.errors import ConfigError, DataError
from cse_bench.inference import texts as module
from cse_bench.inference.texts import Texts, open_texts

SENTENCES = ["first", "", "a « third » one", 'with "quotes", commas', "  spaced\t", "last"]
READ = [sentence.strip() for sentence in SENTENCES]


def written(folder: Path, kind: str, sentences: list[str]) -> Texts:
    if kind == "text":
        path = folder / "lines.txt"
        path.write_bytes("\r\n".join(sentences).encode())
        return open_texts(str(path), format=None, field=None, column=None)
    if kind == "jsonl":
        path = folder / "lines.jsonl"
        path.write_text("".join(json.dumps({"id": 1, "said": sentence}) + "\n" for sentence in sentences))
        return open_texts(str(path), format=None, field="said", column=None)
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "table.parquet"
    table = arrow.table({"number": list(range(len(sentences))), "said": sentences})
    parquet.write_table(table, path, row_group_size=2)
    return open_texts(str(path), format=None, field=None, column="said")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_read_counted_and_looked_up(kind: str, tmp_path: Path) -> None:
    texts = written(tmp_path, kind, SENTENCES)
    assert list(texts) == READ
    assert list(texts) == READ, "a second reading starts at the beginning"
    assert texts.count() == len(READ)
    assert texts.at([5, 0, 2, 2]) == [READ[5], READ[0], READ[2], READ[2]]
    assert texts.size() == next(tmp_path.iterdir()).stat().st_size


def test_looking_up_beyond_the_first_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_JUMP", 3)
    lines = [f"line {number}" for number in range(11)]
    texts = written(tmp_path, "text", lines)
    assert texts.at(list(range(11))) == lines


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\nsecond\n")
    texts = open_texts(str(path), format=None, field=None, column=None)
    assert list(texts) == ["first", "second"]
    assert texts.at([0]) == ["first"]


def test_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"t": "one"}\n{"t": "two"}')))
    texts = open_texts("-", format="jsonl", field="t", column=None)
    assert texts.count() is None
    assert list(texts) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"t": "a"}\n{"t": \n', ":2: is not JSON"),
        (b'{"t": "a"}\n\n', ":2: is not JSON"),
        (b'{"t": "a"}\n["a"]\n', ":2: is a list; every line is one object"),
        (b'{"t": "a"}\n{"text": "a", "id": 3}\n', ":2: has no field 't' (it has: text, id)"),
        (b'{"t": null}\n', ":1: field 't' is null, not text"),
        (b'{"t": 3}\n', ":1: field 't' is a number, not text"),
        (b'{"t": "\\ud83d"}\n', ":1: field 't' holds half a character"),
        (b'{"t": "a"}\n{"t": "caf\xe9"}\n', ":2: byte 11 (0xe9) of the line is not UTF-8"),
    ],
)
def test_json_lines_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(open_texts(str(path), format=None, field="t", column=None))
    assert message in str(error.value)


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINE_BYTES", 2**20)
    path = tmp_path / "binary.txt"
    path.write_bytes(b"x\n" + b"y" * (2**20 + 1))
    with pytest.raises(DataError, match=r":2: the line is longer than 1 MiB"):
        list(open_texts(str(path), format=None, field=None, column=None))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("{}/none.txt", {}, "no such file"),
        ("{}", {}, "is a directory"),
        ("{}/a.jsonl", {}, "field: jsonl needs the field that holds the sentence; set field=NAME"),
        ("{}/a.parquet", {}, "column: parquet needs the column"),
        ("{}/a.txt", {"field": "t"}, "field: goes with jsonl"),
        ("{}/a.jsonl", {"field": "t", "column": "c"}, "column: goes with parquet"),
        ("-", {"format": "parquet", "column": "c"}, "parquet is not read from the standard input"),
        ("{}/a.txt", {"format": "parquet", "column": "c"}, "is not a parquet file"),
    ],
)
def test_what_cannot_be_opened(path: str, options: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    given = {"format": None, "field": None, "column": None} | options
    with pytest.raises((ConfigError, DataError)) as error:
        open_texts(path.format(tmp_path), **given)
    assert message in str(error.value)


def test_parquet_columns(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    parquet.write_table(arrow.table({"said": ["one", None], "number": [1, 2]}), path)
    for column, message in (("sad", "has no column 'sad'; did you mean 'said'?"), ("number", "is int64, not text")):
        with pytest.raises(DataError) as error:
            open_texts(str(path), format=None, field=None, column=column)
        assert message in str(error.value)
    with pytest.raises(DataError, match=r"table.parquet:2: column 'said' is null"):
        list(open_texts(str(path), format=None, field=None, column="said"))
