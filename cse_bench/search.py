"""`python -m cse_bench.search index=vectors.npy text=lines.txt query=...`: tries a model by hand."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from cse_bench.__main__ import command_line, past_hydra
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import SearchConfig
from cse_bench.errors import DataError, EncoderError

if TYPE_CHECKING:
    import numpy as np

    from cse_bench.encoders.encoder import SentenceEncoder
    from cse_bench.inference.texts import Texts

# Of two machines in float32; two seeds of a training of few steps are 0.009 apart.
_SAME_MODEL = 1e-4
# Two kernels that round to bfloat16 differ by about 0.01: in half precision a short training is not told from another.
_SAME_MODEL_IN_HALF = 0.03
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One answer.

    Attributes:
        rank: from 1.
        cosine: with the query.
        row: its line in the text, from 1; the row of the index is one less.
        text: the sentence; None: no text was given.
    """

    rank: int
    cosine: float
    row: int
    text: str | None


class VectorIndex:
    """The vectors that `cse_bench.encode` wrote, the model that made them, and the sentences if they are at hand.

    Args:
        index: the `.npy` file.
        text: what was encoded; None: not at hand.
        model: where the model is now; None: where it was.
        trust_remote_code: run code that comes with the model.
        accelerator: of the model.

    Raises:
        DataError: the index or the text is not what the sidecar says.
        EncoderError: the model cannot be had, or is another one.
    """

    def __init__(
        self,
        index: str,
        *,
        text: str | None = None,
        model: str | None = None,
        trust_remote_code: bool = False,
        accelerator: str = "auto",
    ) -> None:
        path = Path(index).expanduser()
        self.facts = _facts(path)
        self.vectors = _vectors(path, self.facts)
        self.texts = None if text is None else _texts(text, self.facts)
        self.encoder = _model(
            self.facts, model, trust_remote_code=trust_remote_code, accelerator=accelerator, index=path
        )

    def nearest(self, queries: Sequence[str], *, top_k: int) -> list[list[Neighbour]]:
        """The neighbours of each query, best first."""
        from cse_bench.inference.nearest import nearest_rows

        found = self.encoder.encode(queries, max_length=self.facts["settings"]["options"]["max_length"])
        k = min(top_k, len(self.vectors))
        scores, rows = nearest_rows(self.vectors, found, k=k, is_normalized=self.facts["normalized"])
        return [
            [
                Neighbour(rank=rank, cosine=float(score), row=int(row) + 1, text=text)
                for rank, (score, row, text) in enumerate(zip(own, its_rows, self._texts(its_rows), strict=True), 1)
            ]
            for own, its_rows in zip(scores, rows, strict=True)
        ]

    def _texts(self, rows: "np.ndarray") -> list[str] | list[None]:
        return [None] * len(rows) if self.texts is None else self.texts.at(rows.tolist())


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="search")
def compose_and_search(config: DictConfig) -> None:
    """Composes, checks, searches, prints."""
    from cse_bench.config.validate import validate_search

    with past_hydra():
        search(validate_search(config))


def search(config: SearchConfig) -> None:
    """Prints the neighbours of the query, or of every query that is typed or piped.

    Raises:
        CSEBenchError: index, text and model do not belong together, or are not there.
    """
    index = VectorIndex(
        config.index,
        text=config.text,
        model=config.model,
        trust_remote_code=config.trust_remote_code,
        accelerator=config.accelerator,
    )
    is_asked = config.query is None and sys.stdin.isatty()
    queries = iter([config.query]) if config.query is not None else _asked() if is_asked else _piped()
    # Piped queries share a pass over the index.
    while chunk := list(islice(queries, 1 if is_asked else _QUERIES_AT_ONCE)):
        for query, neighbours in zip(chunk, index.nearest(chunk, top_k=config.top_k), strict=True):
            if config.query is None and not is_asked:
                print(query)
            for one in neighbours:
                print(_line(one))


def _line(neighbour: Neighbour) -> str:
    text = "" if neighbour.text is None else f"  {' '.join(neighbour.text.split())}"
    return f"{neighbour.rank:>4}  {neighbour.cosine:.4f}  {neighbour.row:>9}{text}"


def _asked() -> Iterator[str]:
    """Queries typed at the terminal; an empty one ends."""
    print("rank, cosine, line, sentence; an empty query ends")
    while True:
        try:
            query = input("query: ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not query:
            return
        yield query


def _piped() -> Iterator[str]:
    return (line for line in map(str.strip, sys.stdin) if line)


def _facts(path: Path) -> dict[str, Any]:
    """The sidecar of an index."""
    from cse_bench.encode import SIDECAR_FORMAT
    from cse_bench.inference.partial_file import read_json, sidecar_of

    if path.suffix != ".npy":
        raise DataError(f"index: must be a .npy file, which can be read from the disk in part; got '{path}'")
    if not path.is_file():
        raise DataError(f"index: {path}: no such file; python -m cse_bench.encode output={path} makes it")
    facts = read_json(sidecar_of(path))
    if facts is None or "settings" not in facts:
        raise DataError(
            f"index: {sidecar_of(path)} is missing or damaged; it says which model made {path.name}, and is written by "
            "python -m cse_bench.encode"
        )
    if facts["format"] > SIDECAR_FORMAT:
        raise DataError(f"index: {sidecar_of(path)} has format {facts['format']}; install a newer cse_bench")
    return facts


def _vectors(path: Path, facts: dict[str, Any]) -> "np.ndarray":
    import numpy as np

    try:
        vectors: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"index: {path} cannot be read as .npy ({error}); encode again") from None
    stated = ((facts["rows"], facts["width"]), facts["dtype"])
    if (vectors.shape, vectors.dtype.name) != stated:
        raise DataError(
            f"index: {path} holds {vectors.shape} of {vectors.dtype}, and {path.name}.json says {stated[0]} of "
            f"{stated[1]}; encode again"
        )
    return vectors


def _texts(text: str, facts: dict[str, Any]) -> "Texts":
    from cse_bench.inference.streaming import sha256_of
    from cse_bench.inference.texts import STDIN, open_texts

    if text == STDIN:
        raise DataError("text: sentences are looked up in a file; the standard input is for queries")
    made, read = facts["text"], facts["settings"]["input"]
    texts = open_texts(text, format=read["input_format"], field=read["field"], column=read["column"], key="text")
    if texts.count() != facts["rows"] or made["bytes"] not in (None, texts.size()):
        raise DataError(
            f"text: {text} is not what was encoded: {texts.count():,} {texts.unit}s, {texts.size():,} bytes; the index "
            f"has {facts['rows']:,} rows, made from {made['file']}"
            + (f" with {made['bytes']:,} bytes" if made["bytes"] is not None else "")
        )
    if sha256_of(texts) != made["sha256"]:
        raise DataError(
            f"text: {text} is not what was encoded: as many {texts.unit}s as {made['file']} had, but other sentences "
            "or another order; give the file that was encoded, or encode this one"
        )
    return texts


def _model(
    facts: dict[str, Any], given: str | None, *, trust_remote_code: bool, accelerator: str, index: Path
) -> "SentenceEncoder":
    from cse_bench.encoders.loading import open_encoder
    from cse_bench.inference.identity import is_in_half_precision, is_same_model, model_identity
    from cse_bench.training.precision import device_type

    made = facts["settings"]["model"]
    name = given or made["name"]
    try:
        encoder = open_encoder(name, **made["opened_with"], trust_remote_code=trust_remote_code)
    except EncoderError as error:
        hint = "" if given else f" (the model that made {index}; if it is elsewhere now, set model=)"
        raise EncoderError(f"{error}{hint}") from error
    is_half = made.get("in_half_precision", False) or is_in_half_precision(encoder)
    tolerance = _SAME_MODEL_IN_HALF if is_half else _SAME_MODEL
    if not is_same_model(facts["settings"]["identity"], encoder, model_identity(encoder), tolerance=tolerance):
        raise EncoderError(
            f"model '{name}' is not the one that made {index} ('{made['name']}', {made['pooling']}): it embeds "
            "the same sentences elsewhere. Give that model, or encode again with this one"
        )
    return encoder.to(device_type(accelerator)).eval()


def quoted(arguments: Sequence[str]) -> list[str]:
    """The command line with its query quoted: Hydra's grammar gives commas, brackets and apostrophes a meaning."""
    found = []
    for argument in arguments:
        key, is_given, query = argument.partition("=")
        if key == "query" and is_given and query not in ("", "null"):
            plain = query[1:-1] if len(query) > 1 and query[0] == query[-1] and query[0] in "\"'" else query
            # Backslashes mean themselves, except before what has to be escaped and at the end.
            escaped = re.sub(r"(\\*)(\$\{|'|\Z)", _escaped, plain)
            found.append(f"query='{escaped}'")
        else:
            found.append(argument)
    return found


def _escaped(match: re.Match[str]) -> str:
    backslashes, special = match.groups()
    return f"{backslashes * 2}\\{special}" if special else backslashes * 2


def main() -> None:
    """The command line."""
    sys.argv = [sys.argv[0], *quoted(sys.argv[1:])]
    command_line(compose_and_search, config_name="search")


if __name__ == "__main__":
    main()
