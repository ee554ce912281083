"""The token store: a corpus tokenised once, on disk, memory-mapped. A million sentences cost their pages, not RAM.

* `tokens.bin`: token ids of all rows back to back, uint16 or uint32
* `offsets.npy`: int64, n + 1; row i is `tokens[offsets[i]:offsets[i + 1]]`
* `store.json`: what it was made from; written last, so that a directory without it is not a store

While it is made it lies in a hidden folder beside, with what is done so far written down every 65,536 rows: after
Ctrl-C or `kill -9` the next start goes on there.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
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
_CHUNK = 4096  # sentences; the tokenizer divides them among threads
_CHUNKS_BETWEEN_RECORDS = 16
_LENGTH = np.dtype(np.int32)


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

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(np.diff(self._offsets).max())

    def rows(self, index: np.ndarray, *, width: int | None = None) -> TokenRows:
        """The rows at `index` as one view, padded on the right to `width`; None: to the longest of them."""
        starts, ends = self._offsets[index], self._offsets[index + 1]
        lengths = ends - starts
        ids = np.zeros((len(index), width or int(lengths.max())), dtype=np.int64)
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
    # Always of the same name, so that what a killed process left is found.
    unfinished = directory.with_name(f".{directory.name}.new")
    largest = max(tokenizer.tokenizer.get_vocab().values())
    dtype = np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)
    try:
        with _UnfinishedStore(unfinished, dtype) as store:
            lines = corpus.lines()
            if not store.holds(islice(lines, store.rows)):
                store.clear()
                lines = corpus.lines()
            for number, chunk in enumerate(_chunks(lines), start=1):
                store.append(tokenizer(chunk, max_length=max_length, training=True), chunk)
                if number % _CHUNKS_BETWEEN_RECORDS == 0:
                    store.record()
                if on_progress is not None:
                    on_progress(store.rows)
            store.describe({**key, "name": corpus.name})
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(unfinished, directory)
    except Exception:  # an interrupt is none: what is done stays
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


class _UnfinishedStore:
    """A token store in the making; made anew, or gone on with where it was last recorded.

    Args:
        folder: of its files.
        dtype: of a token id.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self._folder, self._dtype = folder, dtype
        self._record = folder / "unfinished.json"
        self._text = hashlib.sha256()
        self.rows, self._num_tokens, self._recorded_text = self._recorded()

    def _recorded(self) -> tuple[int, int, str]:
        """Rows and tokens that are whole on the disk, and the hash of their text; no rows: nothing to go on with."""
        try:
            found = json.loads(self._record.read_text())
            rows, tokens, text = int(found["num_rows"]), int(found["num_tokens"]), str(found["text_sha256"])
            for name, size in (("tokens.bin", tokens * self._dtype.itemsize), ("lengths.bin", rows * _LENGTH.itemsize)):
                if (self._folder / name).stat().st_size < size:
                    raise ValueError(name)
                os.truncate(self._folder / name, size)
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(self._folder, ignore_errors=True)
            return 0, 0, self._text.hexdigest()
        return rows, tokens, text

    def holds(self, lines: Iterable[str]) -> bool:
        """Whether the recorded rows are of these lines: a corpus may have been exchanged while it was read."""
        self._read(lines)
        return self._text.hexdigest() == self._recorded_text

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._text.update(line.encode() + b"\n")

    def clear(self) -> None:
        """Forgets what was recorded."""
        self._record.unlink()
        for file in (self._tokens, self._lengths):
            file.truncate(0)
        self._text = hashlib.sha256()
        self.rows = self._num_tokens = 0

    def __enter__(self) -> "_UnfinishedStore":
        self._folder.mkdir(exist_ok=True)
        self._tokens = (self._folder / "tokens.bin").open("ab")
        self._lengths = (self._folder / "lengths.bin").open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._lengths.close()

    def append(self, rows: list[list[int]], lines: list[str]) -> None:
        """Adds the token rows of lines."""
        self._read(lines)
        lengths = np.fromiter((len(row) for row in rows), dtype=_LENGTH, count=len(rows))
        self._lengths.write(lengths.tobytes())
        self._tokens.write(np.fromiter(chain.from_iterable(rows), dtype=self._dtype, count=lengths.sum()).tobytes())
        self.rows += len(rows)
        self._num_tokens += int(lengths.sum())

    def record(self) -> None:
        """Writes down that everything so far is on the disk, once it is."""
        for file in (self._tokens, self._lengths):
            file.flush()
            os.fsync(file.fileno())
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps({**self._counts(), "text_sha256": self._text.hexdigest()}))
        os.replace(new, self._record)

    def describe(self, made_from: dict[str, Any]) -> None:
        """Nothing follows: the offsets, and last the description."""
        self._tokens.flush()
        self._lengths.flush()
        lengths = np.fromfile(self._folder / "lengths.bin", dtype=_LENGTH)
        np.save(self._folder / "offsets.npy", np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
        description = {**made_from, "dtype": self._dtype.name, **self._counts()}
        (self._folder / "store.json").write_text(json.dumps(description, indent=2) + "\n")
        for name in ("lengths.bin", self._record.name):
            (self._folder / name).unlink(missing_ok=True)

    def _counts(self) -> dict[str, int]:
        return {"num_rows": self.rows, "num_tokens": self._num_tokens}


def _chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(lines, _CHUNK)):
        yield chunk
