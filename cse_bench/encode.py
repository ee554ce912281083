"""`python -m cse_bench.encode model=... input=... output=...`: sentences in, vectors out, any number of them."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import EncodeConfig
from cse_bench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cse_bench.encoders.encoder import SentenceEncoder
    from cse_bench.inference.partial_file import PartialFile
    from cse_bench.inference.streaming import Counts, StreamOptions
    from cse_bench.inference.texts import Texts
    from cse_bench.inference.vector_files import VectorFormat

SIDECAR_FORMAT = 1
# What of the config says how a model is opened, and what decides the vectors beside it.
_OPENING = ("pooling", "prompt", "padding_side", "dtype", "attention")
_DECIDING = ("max_length", "normalize", "empty_lines", "window", "batch_tokens", "output_dtype")
# The same weights on the same machine; one optimiser step more is above it. Twice the encoder's own rounding, too.
_SAME_MODEL = 1e-5


class Interrupted(BaseException):
    """Encoding was asked to stop; what is done is on the disk.

    Args:
        signal_number: what asked for it.
        rows: sentences done.
    """

    def __init__(self, signal_number: int, rows: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped after {rows:,} sentences by {name}; saved, the same command goes on from here")
        self.signal_number = signal_number


class _Terminated(BaseException):
    """SIGTERM arrived."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a finished command leaves.

    Attributes:
        output: the file.
        facts: the content of its sidecar.
        encoded_rows: sentences that this call encoded.
        time_s: that it took, without loading the model.
        limit: tokens at which sentences were cut.
        reused: the file was finished before.
    """

    output: Path
    facts: dict[str, Any]
    encoded_rows: int
    time_s: float
    limit: int
    reused: bool = False


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="encode")
def compose_and_encode(config: DictConfig) -> None:
    """Composes, checks, encodes, prints."""
    from cse_bench.config.validate import validate_encode
    from cse_bench.results.tables import print_lines

    with past_hydra():
        print_lines(_told(encode(validate_encode(config))))


def encode(config: EncodeConfig) -> Encoded:
    """Writes the vectors of all sentences; goes on with what an interrupted call left, finds what is finished.

    Raises:
        CSEBenchError: the sentences, the model or the output are not what the config needs.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from cse_bench.encoders.loading import open_encoder
    from cse_bench.inference.identity import is_in_half_precision, model_identity
    from cse_bench.inference.partial_file import PartialFile
    from cse_bench.inference.streaming import StreamOptions
    from cse_bench.inference.texts import open_texts
    from cse_bench.inference.vector_files import vector_format
    from cse_bench.training.precision import device_type, resolve_precision

    output = Path(config.output).expanduser()
    kind = vector_format(output)
    texts = open_texts(config.input, format=config.input_format, field=config.field, column=config.column)
    file = PartialFile(output)
    with file.locked():
        _refuse_foreign(file, overwrite=config.overwrite)
        opening = {name: getattr(config, name) for name in _OPENING}
        encoder = open_encoder(config.model, **opening, trust_remote_code=config.trust_remote_code)
        identity = model_identity(encoder)
        encoder.to(device_type(config.accelerator))
        options = StreamOptions(
            max_length=config.max_length,
            precision=resolve_precision(config.precision, accelerator=config.accelerator),
            normalize=config.normalize,
            dtype=config.output_dtype,
            empty_lines=config.empty_lines,
            window=config.window,
            batch_tokens=config.batch_tokens,
        )
        settings = {
            "identity": identity,
            "model": {"name": config.model, "opened_with": opening}
            | {"pooling": encoder.pooling, "prompt": encoder.tokenizer.prompt}
            | {"in_half_precision": is_in_half_precision(encoder)},
            "input": {name: getattr(config, name) for name in ("input_format", "field", "column")},
            "options": {name: getattr(config, name) for name in _DECIDING} | {"precision": options.precision},
        }
        vectors = kind(width=identity["width"], dtype=config.output_dtype)
        return _encode_into(file, texts, encoder, options, settings, vectors, overwrite=config.overwrite)


def _encode_into(
    file: "PartialFile",
    texts: "Texts",
    encoder: "SentenceEncoder",
    options: "StreamOptions",
    settings: dict[str, Any],
    vectors: "VectorFormat",
    *,
    overwrite: bool,
) -> Encoded:
    from cse_bench.inference.partial_file import read_json
    from cse_bench.inference.streaming import Counts, begins_with, encode_stream
    from cse_bench.training.bars import progress_bar

    tokenizer = encoder.tokenizer
    limit = min(options.max_length or tokenizer.max_positions, tokenizer.max_positions)
    there = file.made_with()
    differences = partial(_differences, settings=settings, encoder=encoder)
    if overwrite:
        # An interrupted overwriting goes on, too; anything else is no longer wanted.
        if there is not None and (differences(there) or not begins_with(texts, Counts(**file.counts))):
            file.remove()
    elif file.output.is_file():
        facts = read_json(file.sidecar) or {}
        _refuse_difference(differences(facts.get("settings", {})), what=str(file.output))
        _refuse_other_text(file, texts, facts)
        return Encoded(output=file.output, facts=facts, encoded_rows=0, time_s=0.0, limit=limit, reused=True)
    elif there is not None:
        _refuse_difference(differences(there), what=str(file.path))
    started, done = time.perf_counter(), Counts()
    with file.growing(settings, prefix=vectors.prefix()), _stopping_at_sigterm():
        before = done = Counts(**file.counts)
        try:
            with progress_bar("encoding", unit=" sentences", total=texts.count(), done=done.rows) as bar:
                for block, done in encode_stream(
                    texts, encoder, options, done=before, on_progress=lambda rows: bar.update(rows - bar.n) and None
                ):
                    file.keep(vectors.block(block), asdict(done))
        except (KeyboardInterrupt, _Terminated) as stop:
            number = signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT
            raise Interrupted(number, file.counts.get("rows", 0)) from None
    if done.rows == 0:
        file.remove()
        raise DataError(f"{texts.name}: holds no sentence")
    facts = _facts(file, texts, settings, vectors, done)
    file.finish(facts, lambda path: vectors.finish(path, rows=done.rows))
    return Encoded(
        output=file.output,
        facts=facts,
        encoded_rows=done.rows - before.rows,
        time_s=time.perf_counter() - started,
        limit=limit,
    )


def _facts(
    file: "PartialFile", texts: "Texts", settings: dict[str, Any], vectors: "VectorFormat", done: "Counts"
) -> dict[str, Any]:
    """What the sidecar says."""
    from cse_bench.results.environment import environment

    counts = asdict(done)
    return {
        "format": SIDECAR_FORMAT,
        "file": file.output.name,
        "rows": counts.pop("rows"),
        "width": vectors.width,
        "dtype": vectors.dtype.name,
        "normalized": settings["options"]["normalize"],
        "text": {"file": Path(texts.name).name, "bytes": texts.size(), "sha256": counts.pop("sha256")} | counts,
        "settings": settings,
        "environment": environment(),
    }


def _refuse_foreign(file: "PartialFile", *, overwrite: bool) -> None:
    """Before any weights are loaded: files that this command did not write."""
    from cse_bench.inference.partial_file import read_json

    if overwrite:
        return
    for path, description in ((file.output, file.sidecar), (file.path, file.state)):
        if path.exists() and read_json(description) is None:
            raise ConfigError(
                f"output: {path} is there already, without {description.name}, which says how it was made; give "
                "another name, or replace it with overwrite=true"
            )


def _refuse_difference(differing: list[str], *, what: str) -> None:
    """What is on the disk must have been made as is asked for now: the same model, the same options."""
    if differing:
        raise ConfigError(
            f"output: {what} was made with another {', '.join(differing)}; give the same, another output, or start "
            "over with overwrite=true"
        )


def _differences(there: dict[str, Any], *, settings: dict[str, Any], encoder: "SentenceEncoder") -> list[str]:
    from cse_bench.inference.identity import is_same_model

    differing = [
        name
        for part in ("options", "input")
        for name, value in settings[part].items()
        if there.get(part, {}).get(name, value) != value
    ]
    is_same = "identity" in there and is_same_model(
        there["identity"], encoder, settings["identity"], tolerance=_SAME_MODEL
    )
    return differing if is_same else ["model", *differing]


def _refuse_other_text(file: "PartialFile", texts: "Texts", facts: dict[str, Any]) -> None:
    from cse_bench.inference.streaming import sha256_of

    if sha256_of(texts) != facts["text"]["sha256"]:
        raise ConfigError(
            f"output: {file.output} holds the vectors of other sentences than those of {texts.name}; give another "
            "output, or start over with overwrite=true"
        )


@contextmanager
def _stopping_at_sigterm() -> Iterator[None]:
    """SIGTERM (a scheduler's) is answered as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(done: Encoded) -> list[str]:
    """The lines for the terminal."""
    facts = done.facts
    counts = [f"{facts['rows']:,} sentences"]
    if facts["text"]["empty"]:
        counts.append(f"{facts['text']['empty']:,} empty (encoded as a single space)")
    if facts["text"]["cut"]:
        counts.append(f"{facts['text']['cut']:,} cut at {done.limit:,} tokens")
    rate = f", {done.encoded_rows / done.time_s:,.0f} sentences/s" if done.encoded_rows else ""
    lines = [f"{', '.join(counts)}{rate}"]
    if done.reused:
        lines.insert(0, "these vectors were finished before (overwrite=true encodes again)")
    return [*lines, f"vectors: {done.output} ({facts['rows']} x {facts['width']} {facts['dtype']})"]


def main() -> None:
    """The command line."""
    command_line(compose_and_encode, config_name="encode")


if __name__ == "__main__":
    main()
