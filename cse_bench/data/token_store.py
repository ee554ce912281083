"""The token store: a corpus tokenised once, on disk, memory-mapped. A million sentences cost their pages, not RAM.

* `tokens.bin`: token ids of all rows back to back, uint16 or uint32
* `offsets.npy`: int64, n + 1; row i is `tokens[offsets[i]:offsets[i + 1]]`
* `store.json`: what it was made from; written last, so that a directory without it is not a store
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from cse_bench.data.corpora import Corpus
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import DataError

_FORMAT = 1
_CHUNK = 1024


class TokenStore:
    """Memory-mapped token rows of a corpus. Open with `token_store`.

    Args:
        directory: a finished store.

    Raises:
        DataError: its files are not those its description states.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.description: dict[str, Any] = json.loads((directory / "store.json").read_text())
            self._tokens = np.memmap(directory / "tokens.bin", dtype=self.description["dtype"], mode="r")
            self._offsets = np.load(directory / "offsets.npy", mmap_mode="r")
            is_whole = len(self._tokens) == self.num_tokens and len(self._offsets) == len(self) + 1
        except (OSError, ValueError, KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise DataError(f"the token store {directory} is damaged; delete it and run again")

    def __reduce__(self) -> tuple[type["TokenStore"], tuple[Path]]:
        """A worker process maps the files itself; numpy would send it a copy of all tokens."""
        return TokenStore, (self.directory,)

    def __len__(self) -> int:
        return int(self.description["num_rows"])

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.description["num_tokens"])

    @property
    def tokens(self) -> np.ndarray:
        """The token ids of all rows back to back, (num_tokens,): on disk, read where they are looked at."""
        return self._tokens

    def rows(self, index: np.ndarray) -> TokenRows:
        """The rows at `index` as one view, padded on the right to the longest of them."""
        starts, ends = self._offsets[index], self._offsets[index + 1]
        lengths = ends - starts
        ids = np.zeros((len(index), int(lengths.max())), dtype=np.int64)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[row, : end - start] = self._tokens[start:end]
        return TokenRows(
            ids=torch.from_numpy(ids),
            lengths=torch.from_numpy(lengths.astype(np.int64)),
            sentence=torch.from_numpy(np.asarray(index, dtype=np.int64)),
            view=torch.zeros(len(index), dtype=torch.long),
        )


def token_store(
    corpus: Corpus,
    tokenizer: SentenceTokenizer,
    *,
    max_length: int,
    cache: Path,
    on_progress: Callable[[int], None] | None = None,
) -> TokenStore:
    """The store of a corpus under a tokenizer and a truncation; made on first use, reused afterwards.

    Two processes at once are safe: one builds, the other waits and then reads.

    Args:
        corpus: the sentences.
        tokenizer: turns them into ids, prompt included.
        max_length: truncation.
        cache: folder for stores.
        on_progress: called with the number of sentences done so far.

    Raises:
        DataError: the corpus is not what it should be, or the cache folder cannot be written.
    """
    key = {
        "format": _FORMAT,
        "corpus": corpus.fingerprint(),
        "tokenizer": tokenizer.fingerprint(),
        "max_length": max_length,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    directory = cache / "tokens" / f"{corpus.name}-{max_length}-{digest}"
    if (directory / "store.json").is_file():
        return TokenStore(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(directory) + ".lock"):
            if not (directory / "store.json").is_file():
                _build(corpus, tokenizer, max_length=max_length, directory=directory, key=key, on_progress=on_progress)
    except OSError as error:
        raise DataError(
            f"the token store cannot be written under {cache} ({error}); set paths.cache to a folder with space"
        ) from error
    return TokenStore(directory)


def _build(
    corpus: Corpus,
    tokenizer: SentenceTokenizer,
    *,
    max_length: int,
    directory: Path,
    key: dict[str, Any],
    on_progress: Callable[[int], None] | None,
) -> None:
    largest = max(tokenizer.tokenizer.get_vocab().values())
    dtype = np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)
    # Always of the same name, so that what a killed process left is overwritten.
    temporary = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        lengths: list[np.ndarray] = []
        done = 0
        with (temporary / "tokens.bin").open("wb") as file:
            for chunk in _chunks(corpus.lines()):
                rows = tokenizer(chunk, max_length=max_length, training=True)
                lengths.append(np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows)))
                file.write(np.fromiter((token for row in rows for token in row), dtype=dtype).tobytes())
                done += len(rows)
                if on_progress is not None:
                    on_progress(done)
        offsets = np.concatenate(([0], np.cumsum(np.concatenate(lengths)))).astype(np.int64)
        np.save(temporary / "offsets.npy", offsets)
        counts = {"num_rows": done, "num_tokens": int(offsets[-1])}
        description = {**key, "name": corpus.name, "dtype": dtype.name, **counts}
        (temporary / "store.json").write_text(json.dumps(description, indent=2) + "\n")
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(lines, _CHUNK)):
        yield chunk
