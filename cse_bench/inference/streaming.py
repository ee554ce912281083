"""A stream of sentences through an encoder, a window at a time: memory does not grow with the number of sentences.

Within a window sentences are sorted by length and forwarded in batches of about as many padded tokens; the vectors
come out in the order of the sentences. Where windows end depends on the sentences alone, so a stream that goes on at
the end of a window gives the same bytes as one that was never interrupted.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.encoders.encoding import encode_sentences
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import DataError
from cse_bench.evaluation.vectors import first_unusable_row
from cse_bench.inference.texts import Texts
from cse_bench.training.precision import autocast

_WINDOW_CHARACTERS = 2**22  # windows of long documents end earlier


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What decides the vectors beside the model.

    Attributes:
        max_length: tokens at which a sentence is cut; None: the model's limit.
        precision: of the forward (`32-true`, `bf16-mixed`, `16-mixed`).
        normalize: scale every vector to length 1.
        dtype: of the result: `float32` or `float16`.
        empty_lines: `keep` (the tokenizer sees a single space) or `error`.
        window: sentences that are sorted by length together.
        batch_tokens: padded tokens per forward.
    """

    max_length: int | None
    precision: str
    normalize: bool
    dtype: str
    empty_lines: str
    window: int
    batch_tokens: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What went through so far.

    Attributes:
        rows: sentences.
        sha256: of these.
        empty: of these, how many are empty.
        cut: of these, how many are longer than the limit.
    """

    rows: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    empty: int = 0
    cut: int = 0


class CountingTokenizer(SentenceTokenizer):
    """Counts the sentences that are longer than the limit and are cut there.

    Args:
        tokenizer: does the work.
    """

    def __init__(self, tokenizer: SentenceTokenizer) -> None:
        super().__init__(
            tokenizer.tokenizer,
            prompt=tokenizer.prompt,
            max_positions=tokenizer.max_positions,
            clean_text=tokenizer.clean_text,
        )
        self.cut = 0

    def _cut(self, texts: list[str], *, max_length: int) -> list[str]:
        kept = super()._cut(texts, max_length=max_length)
        self.cut += sum(short != text for short, text in zip(kept, texts, strict=True))
        return kept

    def _ids(self, texts: list[str], *, max_length: int | None = None, special_tokens: bool = True) -> list[list[int]]:
        rows = super()._ids(texts, max_length=max_length, special_tokens=special_tokens)
        if max_length is not None:
            # A row of just the limit's length may be whole: those few are looked at again.
            full = [text for text, row in zip(texts, rows, strict=True) if len(row) >= max_length]
            self.cut += sum(len(row) > max_length for row in super()._ids(full))
        return rows


class TextDigest:
    """SHA-256 of sentences one after the other."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, sentences: Iterable[str]) -> None:
        """Each with its length before it, so that no two lists of sentences give the same bytes."""
        for sentence in sentences:
            content = sentence.encode()
            self._sha256.update(len(content).to_bytes(8, "little"))
            self._sha256.update(content)

    def hexdigest(self) -> str:
        """Of all sentences so far."""
        return self._sha256.hexdigest()


def windows(sentences: Iterable[str], *, size: int) -> Iterator[list[str]]:
    """Consecutive sentences, at most `size` and, for long ones, at most about four million characters."""
    window: list[str] = []
    characters = 0
    for sentence in sentences:
        window.append(sentence)
        characters += len(sentence)
        if len(window) == size or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def encode_stream(
    texts: Texts,
    encoder: SentenceEncoder,
    options: StreamOptions,
    *,
    done: Counts,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Iterator[tuple[np.ndarray, Counts]]:
    """The vectors of all sentences, window by window: (n, d) in the order of the sentences, and the counts so far.

    Args:
        texts: the sentences.
        encoder: the model, on its device.
        options: see `StreamOptions`.
        done: what was encoded before; it is read and compared, not encoded.
        on_progress: called with the number of sentences done so far, after each forward.

    Raises:
        DataError: the sentences cannot be read; those at the beginning are not what was encoded before; an empty one
            that may not be; a vector that is zero or not finite. Names the line.
    """
    stream, digest = iter(texts), TextDigest()
    _skip(stream, digest, texts, done)
    tokenizer = CountingTokenizer(encoder.tokenizer)
    device = next(encoder.parameters()).device.type
    rows, empty = done.rows, done.empty
    for window in windows(stream, size=options.window):
        empty += _count_empty(window, texts, start=rows, is_error=options.empty_lines == "error")
        with autocast(options.precision, device):
            vectors = encode_sentences(
                encoder,
                encoder,
                tokenizer,
                window,
                batch_tokens=options.batch_tokens,
                max_length=options.max_length,
                on_progress=lambda encoded, before=rows: on_progress(before + encoded),  # type: ignore[misc]
            )
        vectors = _converted(vectors, options, texts, start=rows)
        digest.add(window)
        rows += len(window)
        yield vectors, Counts(rows=rows, sha256=digest.hexdigest(), empty=empty, cut=done.cut + tokenizer.cut)


def _count_empty(window: list[str], texts: Texts, *, start: int, is_error: bool) -> int:
    empty = [position for position, sentence in enumerate(window, start=start) if not sentence]
    if empty and is_error:
        raise DataError(
            f"{texts.place(empty[0])}: empty {texts.unit}; fill it, or set empty_lines=keep (a single space is encoded)"
        )
    return len(empty)


def _skip(stream: Iterator[str], digest: TextDigest, texts: Texts, done: Counts) -> None:
    skipped = 0
    while chunk := list(islice(stream, min(4096, done.rows - skipped))):
        digest.add(chunk)
        skipped += len(chunk)
    if skipped < done.rows or digest.hexdigest() != done.sha256:
        raise DataError(
            f"{texts.name}: the first {done.rows:,} sentences are not those that were encoded before; give the same "
            "input, or start over with overwrite=true"
        )


def _converted(vectors: np.ndarray, options: StreamOptions, texts: Texts, *, start: int) -> np.ndarray:
    """Vectors as they are written; each of them has a direction."""
    _refuse_unusable(vectors, texts, start=start, advice="was the model's training unstable? Or set precision=32-true")
    if options.normalize:
        vectors = unit(vectors)
    with np.errstate(over="ignore"):  # told in the next line
        converted = vectors.astype(options.dtype, copy=False)
    _refuse_unusable(converted, texts, start=start, advice="set output_dtype=float32 or normalize=true")
    return converted


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, (n, d), in float32."""
    rows = vectors.astype(np.float32)
    rows /= np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows


def _refuse_unusable(vectors: np.ndarray, texts: Texts, *, start: int, advice: str) -> None:
    if (unusable := first_unusable_row(vectors)) is not None:
        row, reason = unusable
        raise DataError(f"{texts.place(start + row)}: the vector, in {vectors.dtype}, {reason}; {advice}")


def sha256_of(texts: Iterable[str]) -> str:
    """Of all sentences, as in the last `Counts` of a stream."""
    digest = TextDigest()
    digest.add(texts)
    return digest.hexdigest()


def begins_with(texts: Texts, done: Counts) -> bool:
    """Whether the sentences of a file begin with those that were encoded; a stream, read only once, is not asked."""
    return texts.size() is not None and sha256_of(islice(texts, done.rows)) == done.sha256
