"""`python -m cse_bench.encode` inside the test process: what it writes, how it goes on, what it says to wrong input."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from cse_bench.config.location import conf_directory
from cse_bench.config.schema import EncodeConfig
from cse_bench.config.validate import validate_encode
from cse_bench.encode import Encoded, Interrupted, main
from cse_bench.encode import encode as encode_file
from cse_bench.encoders.artifact import load_encoder
from cse_bench.errors import ConfigError, CSEBenchError, DataError
from cse_bench.inference import partial_file
from cse_bench.inference.partial_file import PartialFile
from tests.cli.command import Answer, run_command
from tests.cli.test_help import answer
from tests.inference.made import lines_in, saved_model


def encode(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, "accelerator=cpu", "window=16", *arguments, command=main)


@functools.cache
def defaults() -> EncodeConfig:
    """What `conf/encode.yaml` says, with windows that the tests' files fill several times."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        given = ["model=m", "input=i", "output=o.npy", "accelerator=cpu", "window=16"]
        return validate_encode(compose("encode", overrides=given))


def called(**changed: Any) -> Encoded:
    """The command without its command line."""
    return encode_file(defaults().model_copy(update={key: _plain(value) for key, value in changed.items()}))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


class Cut(io.BytesIO):
    """A standard input at which someone presses Ctrl-C (or something else happens) after some lines."""

    def __init__(self, content: bytes, *, lines: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__(content)
        self.lines, self.error = lines, error

    def readline(self, size: int | None = -1, /) -> bytes:
        self.lines -= 1
        if self.lines < 0:
            raise self.error
        return super().readline(size)


def piped(monkeypatch: pytest.MonkeyPatch, stream: io.BytesIO) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return lines_in(tmp_path)


def test_vectors_their_description_and_the_second_call(
    model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [f"model={model}", f"input={lines}", f"output={tmp_path}/new/vectors.npy"]
    done = encode(monkeypatch, *command)
    assert done.code == 0, done.err
    assert "100 sentences, 1 empty (encoded as a single space), 1 cut at 512 tokens" in done.out
    assert "sentences/s" in done.out
    vectors = np.load(tmp_path / "new" / "vectors.npy")
    sentences = [line.strip() for line in lines.read_text().splitlines()]
    assert np.allclose(vectors, load_encoder(model).encode(sentences), atol=1e-5)
    facts = json.loads((tmp_path / "new" / "vectors.npy.json").read_text())
    assert (facts["rows"], facts["width"], facts["dtype"]) == (100, 32, "float32")
    assert facts["text"]["file"] == "lines.txt"
    assert facts["settings"]["model"]["pooling"] == "cls"
    assert sorted(path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")) == [
        "vectors.npy",
        "vectors.npy.json",
    ]
    written = (tmp_path / "new" / "vectors.npy").stat().st_mtime_ns
    again = encode(monkeypatch, *command)
    assert "finished before (overwrite=true encodes again)" in again.out
    assert (tmp_path / "new" / "vectors.npy").stat().st_mtime_ns == written
    over = encode(monkeypatch, *command, "normalize=true", "overwrite=true")
    assert over.code == 0, over.err
    lengths = np.linalg.norm(np.load(tmp_path / "new" / "vectors.npy"), axis=1)
    assert np.allclose(lengths, 1, atol=1e-6)


@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_an_interrupted_command_ends_in_the_same_bytes(
    ending: str, model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    content = lines.read_bytes()
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    piped(monkeypatch, io.BytesIO(content))
    called(model=model, input="-", output=whole)
    partial = cut.with_name(f"{cut.name}.partial")
    for stop in (40, 90):
        piped(monkeypatch, Cut(content, lines=stop))
        with pytest.raises(Interrupted, match=f"stopped after {stop // 16 * 16} sentences by SIGINT; saved") as stopped:
            called(model=model, input="-", output=cut)
        assert stopped.value.signal_number == signal.SIGINT
        assert not cut.exists()
        with partial.open("ab") as file:
            file.write(b"half a row, as a power cut leaves it")
    piped(monkeypatch, io.BytesIO(content))
    done = called(model=model, input="-", output=cut)
    assert done.encoded_rows == 100 - 80
    assert done.facts["text"] == json.loads(Path(f"{whole}.json").read_text())["text"]
    assert cut.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_ctrl_c_on_the_command_line(model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, Cut(lines.read_bytes(), lines=40))
    stopped = encode(monkeypatch, f"model={model}", "input=-", f"output={tmp_path}/vectors.npy")
    assert stopped.code == 130
    assert "stopped after 32 sentences by SIGINT; saved, the same command goes on from here" in stopped.err


def test_what_goes_on_must_be_the_same(
    model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, content = tmp_path / "vectors.npy", lines.read_bytes()
    piped(monkeypatch, Cut(content, lines=40))
    with pytest.raises(Interrupted):
        called(model=model, input="-", output=output)
    other_model = saved_model(tmp_path / "other", seed=1)
    for changed, message in (
        ({"model": other_model}, "vectors.npy.partial was made with another model;"),
        ({"normalize": True, "max_length": 8}, "with another max_length, normalize;"),
    ):
        piped(monkeypatch, io.BytesIO(content))
        with pytest.raises(ConfigError, match=message):
            called(**{"model": model, "input": "-", "output": output} | changed)
    piped(monkeypatch, io.BytesIO(content[1:]))
    with pytest.raises(DataError, match="the first 32 sentences are not those that were encoded before"):
        called(model=model, input="-", output=output)
    assert called(model=model, input=lines, output=output).encoded_rows == 100 - 32
    assert called(model=model, input=lines, output=output).reused
    with pytest.raises(ConfigError, match="vectors.npy was made with another normalize"):
        called(model=model, input=lines, output=output, normalize=True)
    lines.write_bytes(content[1:])
    with pytest.raises(ConfigError, match="holds the vectors of other sentences"):
        called(model=model, input=lines, output=output)


def test_overwriting_goes_on_with_itself_only(model: Path, lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npy"
    called(model=model, input=lines, output=output)
    content = lines.read_bytes()
    asked: dict[str, Any] = {"model": model, "input": lines, "output": output, "overwrite": True, "normalize": True}
    lines.write_bytes(content + b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        called(**asked)
    lines.write_bytes(content)
    assert np.linalg.norm(np.load(output)[0]) > 1.1, "the old file stays until the new one is whole"
    assert called(**asked).encoded_rows == 100 - 96
    assert np.allclose(np.linalg.norm(np.load(output), axis=1), 1, atol=1e-6)
    lines.write_bytes(content + b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        called(**asked)
    lines.write_bytes(content[1:])
    assert called(**asked).encoded_rows == 100


class Killed(BaseException):
    """What nothing catches: as if the process were gone."""


@pytest.mark.parametrize("ending", [".npy", ".jsonl"])
@pytest.mark.parametrize("step", ["before the description", "before the file", "before the leftovers"])
def test_a_kill_while_a_file_is_replaced(step: str, ending: str, model: Path, lines: Path, tmp_path: Path) -> None:
    output = tmp_path / f"vectors{ending}"
    called(model=model, input=lines, output=output)
    old = output.read_bytes()
    asked: dict[str, Any] = {"model": model, "input": lines, "output": output, "normalize": True}
    expected = called(**asked | {"output": tmp_path / f"whole{ending}"}).output.read_bytes()

    def stop(*_: object, **__: object) -> None:
        raise Killed

    real_replace = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target) == output:
            raise Killed
        real_replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        if step == "before the description":
            # The first description that is asked for after the last block, which has the sidecar's name.
            real = partial_file.write_json
            patch.setattr(
                partial_file,
                "write_json",
                lambda path, content, **given: (
                    stop() if path.suffixes[-2:] == [ending, ".json"] else real(path, content, **given)
                ),
            )
        elif step == "before the file":
            patch.setattr(partial_file.os, "replace", replace)
        else:
            patch.setattr(PartialFile, "remove", stop)
        with pytest.raises(Killed):
            called(**asked, overwrite=True)
    if output.exists():  # then the file is the one that its description means
        described = json.loads(Path(f"{output}.json").read_text())["settings"]["options"]["normalize"]
        assert output.read_bytes() == (expected if described else old)
    done = called(**asked)
    assert done.encoded_rows == 0, "nothing is encoded twice"
    assert output.read_bytes() == expected
    assert done.facts["settings"]["options"]["normalize"]


@pytest.mark.parametrize("ending", [".npy", ".jsonl"])
@pytest.mark.parametrize("written", ["the description", "an empty file", "the beginning", "what numpy reads"])
def test_an_end_before_the_first_sentence(
    ending: str, written: str, model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a kill: the same command goes on from every moment of the beginning."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    output, whole = tmp_path / f"cut{ending}", tmp_path / f"whole{ending}"
    with monkeypatch.context() as patch:
        if written == "the description":
            opened = Path.open
            patch.setattr(
                Path, "open", lambda path, *a, **b: full() if path.suffix == ".partial" else opened(path, *a, **b)
            )
        elif written == "an empty file":
            patch.setattr(PartialFile, "keep", lambda *_: _writing_fails())
        elif written == "the beginning":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr("cse_bench.inference.streaming.encode_stream", full)
        with pytest.raises((ConfigError, OSError)):
            called(model=model, input=lines, output=output)
    assert not output.exists()
    assert called(model=model, input=lines, output=output).encoded_rows == 100
    called(model=model, input=lines, output=whole)
    assert output.read_bytes() == whole.read_bytes()


def _writing_fails() -> None:
    raise ConfigError("output: no space")


def test_sigterm_while_lines_are_counted(
    model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(_: Any) -> int:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr("cse_bench.inference.texts.TextLines.count", count)
    with pytest.raises(Interrupted, match="stopped after 0 sentences by SIGTERM") as stopped:
        called(model=model, input=lines, output=tmp_path / "vectors.npy")
    assert stopped.value.signal_number == signal.SIGTERM


def test_a_damaged_partial_file_starts_over(
    model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "vectors.npy"
    piped(monkeypatch, Cut(lines.read_bytes(), lines=40))
    with pytest.raises(Interrupted):
        called(model=model, input="-", output=output)
    os.truncate(tmp_path / "vectors.npy.partial", 500)
    assert called(model=model, input=lines, output=output).encoded_rows == 100
    assert np.load(output).shape == (100, 32)


def test_two_commands_never_write_one_file(model: Path, lines: Path, tmp_path: Path) -> None:
    with PartialFile(tmp_path / "vectors.npy").locked(), pytest.raises(ConfigError, match="another process is writing"):
        called(model=model, input=lines, output=tmp_path / "vectors.npy")


def test_json_lines_in_and_out(model: Path, lines: Path, tmp_path: Path) -> None:
    sentences = [line.strip() for line in lines.read_text().splitlines()]
    source = tmp_path / "lines.jsonl"
    source.write_text("".join(json.dumps({"t": sentence}) + "\n" for sentence in sentences))
    called(model=model, input=source, field="t", output=tmp_path / "vectors.jsonl")
    read = [json.loads(line)["vector"] for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert np.allclose(np.array(read), load_encoder(model).encode(sentences), atol=1e-5)


WRONG_COMMANDS: list[tuple[list[str], list[str]]] = [
    (["outptu=x"], ["did you mean 'output'"]),
    (["model=m"], ["2 problems", "input: this key is required", "output: this key is required"]),
    (
        ["model=m", "input=i", "output=o", "input_format=csv", "output_dtype=int8", "window=0", "precision=64-true"],
        [
            "input_format: must be 'text', 'jsonl' or 'parquet', got 'csv'",
            "output_dtype: must be 'float32' or 'float16', got 'int8'",
            "window: must be at least 1, got 0",
            "precision: must be 'auto', '32-true'",
        ],
    ),
    (["model=m", "input=/none.txt", "output=o.npy"], ["error: /none.txt: no such file"]),
]


@pytest.mark.parametrize(("arguments", "messages"), WRONG_COMMANDS)
def test_wrong_commands(
    arguments: list[str], messages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command(monkeypatch, *arguments, command=main)
    assert done.code == 2
    for message in messages:
        assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


WRONG: list[tuple[dict[str, str], str]] = [
    ({"output": "{0}/v.pt"}, "output: must end in .npy, .parquet, .jsonl"),
    ({"field": "t"}, "field: goes with jsonl"),
    ({"output": "{0}/folder.npy"}, "output: {0}/folder.npy is there already"),
    ({"output": "{0}/foreign.npy"}, "foreign.npy is there already, without foreign.npy.json"),
    ({"output": "{0}/lines.txt/v.npy"}, "output: cannot write"),
    ({"model": "{0}/nothing"}, "nothing"),
    ({"pooling": "mean"}, "was made with pooling=cls"),
    ({"input": "{0}/latin.txt"}, "latin.txt:2: byte 4 (0xe9) of the line is not UTF-8"),
    ({"input": "{0}/empty.txt"}, "empty.txt: holds no sentence"),
    ({"empty_lines": "error"}, "lines.txt:3: empty line"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_what_cannot_be_encoded(
    changed: dict[str, str], message: str, model: Path, lines: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "foreign.npy").write_bytes(b"someone else's")
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    base = {"model": model, "input": lines, "output": tmp_path / "vectors.npy"}
    with pytest.raises(CSEBenchError) as error:
        called(**base | {key: value.format(tmp_path) for key, value in changed.items()})
    assert message.format(tmp_path) in str(error.value)
    assert not (tmp_path / "vectors.npy").exists()
    assert (tmp_path / "foreign.npy").read_bytes() == b"someone else's"


def test_help_needs_no_torch() -> None:
    out = answer("encode", "--help")
    assert "python -m cse_bench.encode" in out
    assert "WITHOUT TORCH" in out


def _answering_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again(model: Path, tmp_path: Path) -> None:
    lines = lines_in(tmp_path, 20_000)
    command = [sys.executable, "-m", "cse_bench.encode", f"model={model}", f"input={lines}", "window=64"]
    command += ["accelerator=cpu", f"output={tmp_path}/cut.npy"]
    state, done = tmp_path / "cut.npy.partial.json", 0
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=_answering_ctrl_c)
        while process.poll() is None and _rows(state) <= done + 500:
            time.sleep(0.003)
        process.send_signal(number)
        assert process.wait() == code
        done = _rows(state)
        assert 0 < done < 20_000
        assert not (tmp_path / "cut.npy").exists()
    assert called(model=model, input=lines, output=tmp_path / "cut.npy", window=64).encoded_rows == 20_000 - done
    called(model=model, input=lines, output=tmp_path / "whole.npy", window=64)
    assert (tmp_path / "cut.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def _rows(state: Path) -> int:
    return int(json.loads(state.read_text())["counts"].get("rows", 0)) if state.is_file() else 0
