import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from cse_bench.data import token_store as token_stores
from cse_bench.data.corpora import TextFile
from cse_bench.data.token_store import TokenStore, token_store
from cse_bench.encoders.tokenization import SentenceTokenizer, byte_tokenizer
from cse_bench.errors import DataError, EncoderError

SENTENCES = ["One.", "Two, and a little more.", "Ça va.", "x" * 100, "Five."]


def tokenizer(prompt: str | None = None, *, vocab_size: int = 320) -> SentenceTokenizer:
    plain = byte_tokenizer(vocab_size=320, decoder=False)
    plain.add_tokens([f"<{index}>" for index in range(vocab_size - len(plain))])
    return SentenceTokenizer(plain, prompt=prompt, max_positions=128)


def corpus(folder: Path, sentences: list[str] = SENTENCES, name: str = "sentences") -> TextFile:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return TextFile(path=str(path))


def open_store(folder: Path, **changes) -> TokenStore:
    options = {"tokenizer": tokenizer(), "max_length": 16} | changes
    text = options.pop("corpus", None) or corpus(folder)
    return token_store(text, options.pop("tokenizer"), cache=folder / "cache", **options)


def content(store: TokenStore) -> list[list[int]]:
    rows = store.rows(np.arange(len(store)))
    return [ids[:length].tolist() for ids, length in zip(rows.ids, rows.lengths, strict=True)]


def stores(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "tokens").iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("prompt", [None, '"{sentence}" means'])
@pytest.mark.parametrize("max_length", [3, 16, 32])
def test_the_store_holds_what_the_tokenizer_gives(tmp_path, prompt, max_length):
    store = open_store(tmp_path, tokenizer=tokenizer(prompt), max_length=max_length)
    expected = [tokenizer(prompt)([sentence], max_length=max_length)[0] for sentence in SENTENCES]
    assert content(store) == expected
    assert len(store) == len(SENTENCES)
    assert store.num_tokens == sum(len(row) for row in expected)


def test_chunks_join(tmp_path):
    """More sentences than are tokenised at once."""
    sentences = [f"Sentence {index}." for index in range(10_000)]
    seen = []
    store = open_store(tmp_path, corpus=corpus(tmp_path, sentences), on_progress=seen.append)
    assert content(store) == tokenizer()(sentences, max_length=16)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 10_000


def test_rows_in_any_order_and_repeated(tmp_path):
    store = open_store(tmp_path)
    everything = content(store)
    index = np.array([4, 0, 3, 0])
    rows = store.rows(index)
    assert [ids[:n].tolist() for ids, n in zip(rows.ids, rows.lengths, strict=True)] == [everything[i] for i in index]
    assert rows.sentence.tolist() == index.tolist()
    assert rows.view.tolist() == [0, 0, 0, 0]
    assert rows.ids.shape == (4, 16)
    assert store.rows(np.array([0])).ids.shape == (1, len(everything[0]))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(320, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_no_more_bytes_than_the_vocabulary_needs(tmp_path, vocab_size, dtype):
    of = tokenizer(vocab_size=vocab_size)
    assert max(of.tokenizer.get_vocab().values()) == vocab_size - 1
    last = of.tokenizer.convert_ids_to_tokens(vocab_size - 1)
    store = open_store(tmp_path, corpus=corpus(tmp_path, ["a", last]), tokenizer=of)
    assert store.description["dtype"] == dtype
    assert content(store)[1] == [1, vocab_size - 1, 2]  # the largest id survives
    assert (store.directory / "tokens.bin").stat().st_size == store.num_tokens * np.dtype(dtype).itemsize


def test_it_is_memory_mapped(tmp_path):
    store = open_store(tmp_path)
    assert isinstance(store._tokens, np.memmap)
    assert isinstance(store._offsets, np.memmap)
    assert not store._tokens.flags.writeable
    rows = store.rows(np.array([0]))
    rows.ids[0, 0] = 7  # a batch is a copy: what a method writes into it stays out of the store
    assert store.rows(np.array([0])).ids[0, 0] == 1


def test_it_is_used_again_without_reading_the_corpus(tmp_path):
    class ReadOnce(TextFile):
        reads = 0

        def lines(self):
            self.reads += 1
            return super().lines()

    corpus(tmp_path)
    once = ReadOnce(path=str(tmp_path / "sentences.txt"))
    first = open_store(tmp_path, corpus=once)
    second = open_store(tmp_path, corpus=once)
    assert once.reads == 1
    assert second.directory == first.directory
    assert content(second) == content(first)


def test_whatever_decides_the_tokens_decides_the_store(tmp_path):
    first = open_store(tmp_path).directory
    assert open_store(tmp_path).directory == first
    others = [
        open_store(tmp_path, corpus=corpus(tmp_path, [*SENTENCES[:-1], "Six!!"])),  # same file, same size
        open_store(tmp_path, tokenizer=tokenizer(vocab_size=321)),
        open_store(tmp_path, tokenizer=tokenizer("say {sentence}")),
        open_store(tmp_path, max_length=17),
        open_store(tmp_path, corpus=TextFile(path=corpus(tmp_path).path.__fspath__(), empty_lines="keep")),
    ]
    assert len({first, *(store.directory for store in others)}) == 6


def test_the_description_says_what_it_is(tmp_path):
    store = open_store(tmp_path)
    description = json.loads((store.directory / "store.json").read_text())
    assert description["corpus"] == corpus(tmp_path).fingerprint()
    assert description["tokenizer"] == tokenizer().fingerprint()
    assert (description["name"], description["max_length"], description["num_rows"]) == ("sentences", 16, 5)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "store.json"])
@pytest.mark.parametrize("damage", ["cut in half", "one byte less", "gone"])
def test_a_damaged_store_is_one_error(tmp_path, name, damage):
    path = open_store(tmp_path).directory / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2 if damage == "cut in half" else -1])
    if name == "store.json" and damage != "cut in half":
        # Without it there is no store yet, and one is built; its last byte is a newline.
        assert len(open_store(tmp_path)) == 5
    else:
        with pytest.raises(DataError, match=r"token store .* is damaged; delete it and run again"):
            open_store(tmp_path)


def test_an_error_while_building_leaves_nothing_behind(tmp_path):
    bad = corpus(tmp_path, ["fine"] * 9000 + [""])
    with pytest.raises(DataError, match="9001: empty line"):
        open_store(tmp_path, corpus=bad)
    assert stores(tmp_path) == []

    with pytest.raises(EncoderError):
        open_store(tmp_path, tokenizer=tokenizer("{sentence}" + "x" * 200))
    assert stores(tmp_path) == []
    assert len(open_store(tmp_path)) == 5  # and the lock is free


class Stop(BaseException):
    """As an interrupt: no error."""


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """The folder of an unfinished store, of 70 sentences, interrupted after 45 rows of which 40 were recorded."""
    monkeypatch.setattr(token_stores, "_CHUNK", 5)
    monkeypatch.setattr(token_stores, "_CHUNKS_BETWEEN_RECORDS", 4)
    sentences = [f"Sentence {index} is " + "so " * (index % 7) + "long." for index in range(70)]

    def stop(done: int) -> None:
        if done == 45:
            raise Stop

    with pytest.raises(Stop):
        open_store(tmp_path, corpus=corpus(tmp_path, sentences), on_progress=stop)
    [left] = stores(tmp_path)
    assert left.startswith(".")
    return tmp_path / "cache" / "tokens" / left, sentences


class Counting(SentenceTokenizer):
    """Notes what it is asked for."""

    seen: list[str]

    def __call__(self, sentences: list[str], **options: object) -> list[list[int]]:
        self.seen = [*getattr(self, "seen", []), *sentences]
        return super().__call__(sentences, **options)


def counting() -> Counting:
    return Counting(tokenizer().tokenizer, prompt=None, max_positions=128)


def test_an_interrupted_build_goes_on_where_it_was_recorded(tmp_path, interrupted):
    _, sentences = interrupted
    of, progress = counting(), []
    store = open_store(tmp_path, corpus=corpus(tmp_path, sentences), tokenizer=of, on_progress=progress.append)
    assert of.seen == sentences[40:]
    assert progress[0] == 45
    assert content(store) == tokenizer()(sentences, max_length=16)
    assert stores(tmp_path) == [store.directory.name]
    assert sorted(path.name for path in store.directory.iterdir()) == ["offsets.npy", "store.json", "tokens.bin"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tokens.bin", "shorter"),
        ("lengths.bin", "gone"),
        ("unfinished.json", "no json"),
        ("unfinished.json", "gone"),
        ("unfinished.json", "of something else"),
    ],
)
def test_what_cannot_be_gone_on_with_is_made_anew(tmp_path, interrupted, name, damage):
    left, sentences = interrupted
    path = left / name
    match damage:
        case "shorter":
            path.write_bytes(path.read_bytes()[:20])
        case "gone":
            path.unlink()
        case _:
            path.write_text("{" if damage == "no json" else "[1]")
    of = counting()
    store = open_store(tmp_path, corpus=corpus(tmp_path, sentences), tokenizer=of)
    assert of.seen == sentences
    assert content(store) == tokenizer()(sentences, max_length=16)


def test_rows_of_a_corpus_that_was_exchanged_while_it_was_read_are_not_kept(tmp_path, interrupted):
    """The other file is there while the first part is read, and the right one again when it is gone on with."""
    left, sentences = interrupted
    others = [sentence.replace("long", "wide") for sentence in sentences]
    shutil.rmtree(left)

    class Exchanged(TextFile):
        def lines(self):
            return iter(others)

    def stop(done: int) -> None:
        if done == 45:
            raise Stop

    path = corpus(tmp_path, sentences).path
    with pytest.raises(Stop):
        open_store(tmp_path, corpus=Exchanged(path=str(path)), on_progress=stop)
    assert stores(tmp_path) == [left.name]
    of = counting()
    store = open_store(tmp_path, corpus=TextFile(path=str(path)), tokenizer=of)
    assert of.seen == sentences
    assert content(store) == tokenizer()(sentences, max_length=16)


def test_what_a_finished_store_lost_is_made_again(tmp_path):
    directory = open_store(tmp_path).directory
    (directory / "store.json").unlink()
    store = open_store(tmp_path)
    assert len(store) == 5
    assert stores(tmp_path) == [store.directory.name]


@pytest.mark.parametrize("where", ["cache", "cache/tokens"])
def test_a_cache_that_cannot_be_written_is_one_error(tmp_path, where):
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot be written under .*set paths.cache") as caught:
        open_store(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_worker_gets_the_path_and_not_the_tokens(tmp_path):
    store = open_store(tmp_path, corpus=corpus(tmp_path, ["some sentence"] * 5000))
    sent = pickle.dumps(store)
    assert len(sent) < 2000 < (store.directory / "tokens.bin").stat().st_size
    assert content(pickle.loads(sent)) == content(store)


def _build_in_process(folder, barrier, results):
    barrier.wait(timeout=120)
    built = []
    path = str(Path(folder) / "sentences.txt")
    store = token_store(
        TextFile(path=path), tokenizer(), max_length=16, cache=Path(folder) / "cache", on_progress=built.append
    )
    results.put((len(store), store.num_tokens, bool(built)))


def test_two_processes_at_once_get_one_store(tmp_path):
    sentences = [f"Sentence {index}." for index in range(20_000)]
    corpus(tmp_path, sentences)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_build_in_process, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert [size for size, _, _ in found] == [20_000, 20_000]
    assert found[0][1] == found[1][1]
    assert sorted(built for _, _, built in found) == [False, True]  # one worked, the other waited
    assert len(stores(tmp_path)) == 1
    assert (
        content(open_store(tmp_path, corpus=corpus(tmp_path, sentences)))[-1]
        == tokenizer()(sentences[-1:], max_length=16)[0]
    )
