"""`python -m cse_bench.search` inside the test process: neighbours, queries from everywhere, and what is refused."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cse_bench.encode import encode
from cse_bench.encoders.artifact import load_encoder
from cse_bench.errors import CSEBenchError
from cse_bench.inference.streaming import unit
from cse_bench.search import VectorIndex, main, quoted
from tests.cli.command import Answer, run_command
from tests.cli.test_encode import defaults
from tests.cli.test_help import answer
from tests.inference.made import lines_in, saved_model


def search(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, *arguments, command=main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, sentences, and their vectors with and without their lengths."""
    folder = tmp_path_factory.mktemp("index")
    saved_model(folder / "model")
    for name, normalize in (("plain", False), ("unit", True)):
        encode(
            defaults().model_copy(
                update={
                    "model": str(folder / "model"),
                    "input": str(lines_in(folder)),
                    "output": str(folder / f"{name}.npy"),
                    "normalize": normalize,
                    "max_length": 16,
                }
            )
        )
    return folder


@pytest.mark.parametrize("name", ["plain", "unit"])
def test_neighbours_are_those_of_all_cosines(name: str, folder: Path) -> None:
    index = VectorIndex(str(folder / f"{name}.npy"), text=str(folder / "lines.txt"), accelerator="cpu")
    queries = ["the old river sings", "never walks over a stone and over another one"]
    encoder = load_encoder(folder / "model")
    sentences = [line.strip() for line in (folder / "lines.txt").read_text().splitlines()]
    rows = unit(encoder.encode(sentences, max_length=16))
    cosines = unit(encoder.encode(queries, max_length=16)) @ rows.T
    for query, found in enumerate(index.nearest(queries, top_k=7)):
        assert [one.rank for one in found] == list(range(1, 8))
        assert np.allclose([one.cosine for one in found], -np.sort(-cosines[query])[:7], atol=1e-5)
        assert [one.text for one in found] == [sentences[one.row - 1] for one in found]
    assert len(index.nearest(queries, top_k=1000)[0]) == 100


def test_a_query_on_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = (folder / "lines.txt").read_text().splitlines()[9].strip()
    done = search(monkeypatch, f"index={folder}/unit.npy", f"text={folder}/lines.txt", f"query={sentence}", "top_k=2")
    assert done.code == 0, done.err
    first, second = done.out.splitlines()
    assert first.split(maxsplit=3) == ["1", "1.0000", "10", sentence]
    assert second.split()[0] == "2"


def test_piped_queries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What's (this), and that?\n\nnever\n"))
    done = search(monkeypatch, f"index={folder}/unit.npy", "top_k=1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert (lines[0], lines[2]) == ("What's (this), and that?", "never")
    assert [len(line.split()) for line in (lines[1], lines[3])] == [3, 3]


def test_typed_queries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("never\nthe river\n\nnot any more\n"))
    done = search(monkeypatch, f"index={folder}/unit.npy", f"text={folder}/lines.txt", "top_k=2")
    assert done.code == 0, done.err
    assert done.out.count("query: ") == 3
    assert done.out.count("   1  ") == 2


@pytest.mark.parametrize(
    "query",
    [
        "plain",
        "What's (this), [really] = \\ {x}?",
        "${oc.env:HOME}",
        "a\\b",
        "a\\'b\\\\",
        "\\${x}",
        "5",
        "a 'b' \"c\"",
        "é",
    ],
)
def test_any_query_comes_through(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra import compose, initialize_config_dir

    from cse_bench.config.location import conf_directory

    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("search", overrides=quoted(["index=i.npy", f"query={query}"]))
    assert config.query == query
    assert quoted(["query=null", "query=", "top_k=3"]) == ["query=null", "query=", "top_k=3"]


def test_an_index_of_another_model(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder / "model", tmp_path / "moved")
    assert len(VectorIndex(str(folder / "unit.npy"), model=str(moved)).nearest(["never"], top_k=1)) == 1
    other = saved_model(tmp_path / "other", seed=1)
    with pytest.raises(CSEBenchError, match=r"is not the one that made .*unit.npy"):
        VectorIndex(str(folder / "unit.npy"), model=str(other))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_short_training_more_is_another_model(dtype: str, folder: Path, tmp_path: Path) -> None:
    """Two seeds of a training of few steps were 0.009 apart."""
    encode(
        defaults().model_copy(
            update={
                "model": str(folder / "model"),
                "input": str(folder / "lines.txt"),
                "output": str(tmp_path / "v.npy"),
                "dtype": dtype,
            }
        )
    )
    path = tmp_path / "v.npy.json"
    facts = json.loads(path.read_text())
    assert facts["settings"]["model"]["in_half_precision"] == (dtype == "bfloat16")
    identity = facts["settings"]["identity"]
    identity["probe"] = (np.array(identity["probe"]) * 1.009).tolist()
    path.write_text(json.dumps(facts))
    if dtype == "float32":
        with pytest.raises(CSEBenchError, match=r"is not the one that made"):
            VectorIndex(str(tmp_path / "v.npy"))
    else:  # there two kernels are as far apart
        VectorIndex(str(tmp_path / "v.npy"))


def test_a_model_that_is_gone(folder: Path, tmp_path: Path) -> None:
    for name in ("unit.npy", "unit.npy.json"):
        shutil.copy(folder / name, tmp_path)
    path = tmp_path / "unit.npy.json"
    facts = json.loads(path.read_text())
    facts["settings"]["model"]["name"] = f"{tmp_path}/gone"
    path.write_text(json.dumps(facts))
    with pytest.raises(CSEBenchError, match=r"gone.*if it is elsewhere now, set model="):
        VectorIndex(str(tmp_path / "unit.npy"))


def test_what_is_no_index(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("other\nsentences\n")
    lines = (folder / "lines.txt").read_text().splitlines(keepends=True)
    (tmp_path / "sorted.txt").write_text("".join(sorted(lines)))
    shutil.copy(folder / "unit.npy", tmp_path / "alone.npy")
    shutil.copy(folder / "unit.npy.json", tmp_path / "other.npy.json")
    np.save(tmp_path / "other.npy", np.zeros((3, 32), dtype=np.float32))
    shutil.copy(folder / "unit.npy.json", tmp_path / "broken.npy.json")
    (tmp_path / "broken.npy").write_bytes(b"no numbers")
    for index, text, message in (
        (f"{tmp_path}/none.npy", None, "none.npy: no such file; python -m cse_bench.encode output="),
        (f"{tmp_path}/vectors.jsonl", None, "must be a .npy file"),
        (f"{tmp_path}/alone.npy", None, "alone.npy.json is missing or damaged"),
        (f"{tmp_path}/other.npy", None, "holds (3, 32) of float32, and other.npy.json says (100, 32)"),
        (f"{tmp_path}/broken.npy", None, "broken.npy cannot be read as .npy"),
        (f"{folder}/unit.npy", f"{tmp_path}/text.txt", "is not what was encoded: 2 lines, 16 bytes; the index has 100"),
        (f"{folder}/unit.npy", f"{tmp_path}/sorted.txt", "as many lines as lines.txt had, but other sentences or an"),
        (f"{folder}/unit.npy", f"{tmp_path}/none.txt", "none.txt: no such file"),
        (f"{folder}/unit.npy", "-", "text: sentences are looked up in a file"),
    ):
        with pytest.raises(CSEBenchError) as error:
            VectorIndex(index, text=text)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "index: this key is required"),
        (["index=i.npy", "top_k=0"], "top_k: must be at least 1, got 0"),
        (["index=i.npy", "topk=3"], "topk: unknown key; did you mean 'top_k'"),
        (["index=none.npy"], "error: index: none.npy: no such file"),
    ],
)
def test_wrong_commands(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = search(monkeypatch, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_help_needs_no_torch() -> None:
    out = answer("search", "--help")
    assert "python -m cse_bench.search" in out
    assert "WITHOUT TORCH" in out
