"""A stream through an encoder: the same vectors as all at once, whatever the windows, and every sentence counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.errors import DataError
from cse_bench.inference import streaming
from cse_bench.inference.identity import identity_distance, is_same_model, model_identity
from cse_bench.inference.streaming import Counts, StreamOptions, encode_stream, sha256_of, unit, windows
from cse_bench.inference.texts import TextLines, Texts
from tests.inference.made import lines_in, saved_model

OPTIONS = {
    "max_length": None,
    "precision": "32-true",
    "normalize": False,
    "dtype": "float32",
    "empty_lines": "keep",
    "window": 16,
    "batch_tokens": 256,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEncoder:
    return load_encoder(saved_model(tmp_path_factory.mktemp("model")))


def streamed(
    texts: Texts, encoder: SentenceEncoder, *, done: Counts | None = None, **changed: object
) -> tuple[np.ndarray, Counts]:
    options = StreamOptions(**(OPTIONS | changed))
    blocks = list(encode_stream(texts, encoder, options, done=done or Counts()))
    return np.concatenate([vectors for vectors, _ in blocks]), blocks[-1][1]


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_windows_change_no_vector(window: int, encoder: SentenceEncoder, tmp_path: Path) -> None:
    texts = TextLines(str(lines_in(tmp_path)))
    vectors, counts = streamed(texts, encoder, window=window)
    assert np.allclose(vectors, encoder.encode(list(texts)), atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 0.1
    assert counts == Counts(rows=100, sha256=sha256_of(texts), empty=1, cut=1)


def test_long_sentences_end_a_window_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_WINDOW_CHARACTERS", 10)
    assert list(windows(["aaa", "b" * 12, "c", "d", "e"], size=2)) == [["aaa", "b" * 12], ["c", "d"], ["e"]]
    assert list(windows(["b" * 12, "c"], size=2)) == [["b" * 12], ["c"]]


def test_going_on_gives_the_same_bits(encoder: SentenceEncoder, tmp_path: Path) -> None:
    texts = TextLines(str(lines_in(tmp_path)))
    options = StreamOptions(**OPTIONS)
    whole = list(encode_stream(texts, encoder, options, done=Counts()))
    for left in (1, 3, len(whole) - 1):
        rest = list(encode_stream(texts, encoder, options, done=whole[left - 1][1]))
        assert [counts for _, counts in rest] == [counts for _, counts in whole[left:]]
        assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(rest, whole[left:], strict=True))
    assert not list(encode_stream(texts, encoder, options, done=whole[-1][1]))


def test_going_on_with_other_sentences(encoder: SentenceEncoder, tmp_path: Path) -> None:
    path = lines_in(tmp_path)
    texts = TextLines(str(path))
    (_, first), *_ = encode_stream(texts, encoder, StreamOptions(**OPTIONS), done=Counts())
    for content in (path.read_text().replace("a", "A", 1), "only one\n"):
        path.write_text(content)
        with pytest.raises(DataError, match="the first 16 sentences are not those that were encoded before"):
            next(encode_stream(texts, encoder, StreamOptions(**OPTIONS), done=first))


@pytest.mark.parametrize("max_length", [3, 8, 40, None])
@pytest.mark.parametrize("prompt", [None, "backbone.prompt='Say \"{sentence}\" in a word:'"])
def test_cut_sentences_are_counted(max_length: int | None, prompt: str | None, tmp_path: Path) -> None:
    overrides = () if prompt is None else (prompt,)
    encoder = load_encoder(saved_model(tmp_path / "model", *overrides))
    path = lines_in(tmp_path)
    _, counts = streamed(TextLines(str(path)), encoder, max_length=max_length)
    # One token a byte: what a sentence may have is known without the tokenizer.
    special = 2
    limit = max_length or encoder.tokenizer.max_positions
    if prompt is None:
        room = limit - special
    else:
        around = len((encoder.tokenizer.prompt or "").replace("{sentence}", ""))
        room = min(limit, encoder.tokenizer.max_positions - special - around)
    sentences = [line.strip() for line in path.read_text().splitlines()]
    assert counts.cut == sum(len(sentence.encode()) > room for sentence in sentences)
    assert counts.cut > 0


def test_normalised_half_precision(encoder: SentenceEncoder, tmp_path: Path) -> None:
    texts = TextLines(str(lines_in(tmp_path)))
    plain, _ = streamed(texts, encoder)
    vectors, _ = streamed(texts, encoder, normalize=True, dtype="float16")
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, unit(plain).astype(np.float16))
    assert np.allclose(np.linalg.norm(unit(plain), axis=1), 1, atol=1e-6)


def test_empty_lines_that_may_not_be(encoder: SentenceEncoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lines.txt:3: empty line; fill it, or set empty_lines=keep"):
        streamed(TextLines(str(lines_in(tmp_path))), encoder, empty_lines="error")


def test_vectors_that_are_none_are_named(tmp_path: Path) -> None:
    import torch

    encoder = load_encoder(saved_model(tmp_path / "model"))
    path = lines_in(tmp_path)
    words = encoder.plain_body.get_input_embeddings().weight  # type: ignore[attr-defined]
    with torch.no_grad():
        words[encoder.tokenizer(["w"], max_length=None)[0][1]] = torch.inf
    first = next(number for number, line in enumerate(path.read_text().splitlines(), 1) if "w" in line)
    with pytest.raises(
        DataError, match=rf"lines.txt:{first}: the vector, in float32, holds a value that is not finite"
    ):
        streamed(TextLines(str(path)), encoder)
    with torch.no_grad():
        encoder.plain_body.encoder.layer[-1].output.LayerNorm.weight *= 1e6  # type: ignore[attr-defined]
        words[encoder.tokenizer(["w"], max_length=None)[0][1]] = 0
    with pytest.raises(DataError, match=r"lines.txt:1: the vector, in float16, .* set output_dtype=float32"):
        streamed(TextLines(str(path)), encoder, dtype="float16")


def test_an_identity_is_what_the_model_computes(encoder: SentenceEncoder, tmp_path: Path) -> None:
    same = load_encoder(saved_model(tmp_path / "same"))
    other = load_encoder(saved_model(tmp_path / "other", seed=1))
    pooled = load_encoder(saved_model(tmp_path / "pooled", "backbone.pooling=mean"))
    wide = load_encoder(saved_model(tmp_path / "wide", "backbone.architecture.hidden_size=64"))
    mine = model_identity(encoder)
    assert identity_distance(mine, model_identity(same)) < 1e-6
    for one in (other, pooled):
        assert identity_distance(mine, model_identity(one)) > 0.1
    assert identity_distance(mine, model_identity(wide)) == float("inf")


def test_rounding_that_a_map_multiplies_is_no_other_model(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = model_identity(encoder)
    probe, real = np.array(mine["probe"]), encoder.encode

    def moved(by: float) -> dict[str, Any]:
        return mine | {"probe": (probe * (1 + by)).tolist()}

    def with_noise(by: float) -> None:
        """As a map behind it that divides by small deviations: together, vectors are not what they are one by one."""
        monkeypatch.setattr(encoder, "encode", lambda rows, **given: real(rows) * (1 + by * ("batch_tokens" in given)))

    assert is_same_model(moved(9e-6), encoder, mine, tolerance=1e-5)
    assert not is_same_model(moved(2e-5), encoder, mine, tolerance=1e-5)
    with_noise(1.4e-5)
    assert is_same_model(moved(2e-5), encoder, mine, tolerance=1e-5)
    assert not is_same_model(moved(4e-5), encoder, mine, tolerance=1e-5)
    with_noise(0.1)
    assert not is_same_model(moved(9e-3), encoder, mine, tolerance=1e-4), "another training, whatever the noise"
