import hashlib
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cse_bench.data.corpora import HubFile, TextFile
from cse_bench.errors import DataError


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file and returns its path."""

    def write(content: bytes, name: str = "sentences.txt") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return write


@pytest.mark.parametrize(
    "content",
    [
        b"One.\nTwo.\nThree.\n",
        b"One.\nTwo.\nThree.",
        b"One.\r\nTwo.\r\nThree.\r\n",
        b"\xef\xbb\xbfOne.\nTwo.\nThree.\n",
        b"\xef\xbb\xbfOne.\r\n  Two. \r\n\tThree.",
    ],
    ids=["plain", "no last newline", "CRLF", "byte order mark", "all at once"],
)
def test_lines(file, content):
    assert list(TextFile(path=file(content), num_lines=3).lines()) == ["One.", "Two.", "Three."]


def test_only_newlines_end_a_line(file):
    """Python's text mode and str.splitlines would also end one at a line separator, a form feed or a lone CR."""
    text = "a\u2028b\nc\x0bd\x0ce\x85f\nÇa\u00a0va\rbien\n"
    assert list(TextFile(path=file(text.encode())).lines()) == ["a\u2028b", "c\x0bd\x0ce\x85f", "Ça\u00a0va\rbien"]


def test_a_byte_order_mark_inside_is_left_alone(file):
    assert list(TextFile(path=file("a\n\ufeffb\n".encode())).lines()) == ["a", "\ufeffb"]


@pytest.mark.parametrize(("empty_lines", "expected"), [("skip", ["a", "b"]), ("keep", ["a", "", "", "b", ""])])
def test_empty_lines(file, empty_lines, expected):
    path = file(b"a\n\n  \t\nb\n\n")
    assert list(TextFile(path=path, empty_lines=empty_lines, num_lines=5).lines()) == expected


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"a\n\nb\n", {}, r":2: empty line; remove it, or set data.corpus.empty_lines=skip\|keep"),
        (b"\xef\xbb\xbf\nb\n", {}, r":1: empty line"),
        (b"a\nb\xe9b\n", {}, r":2: byte 2 \(0xe9\) of the line is not UTF-8; convert the file"),
        (b"\xef\xbb\xbfa\xff\n", {}, r":1: byte 2 \(0xff\)"),
        (b"a\n\xc3", {}, r":2: byte 1 \(0xc3\).* cut off in the middle of a character"),
        (b"", {}, r"the file is empty"),
        (b"\n\n", {"empty_lines": "skip"}, r"nothing but empty lines"),
        (b"a\nb\n", {"num_lines": 3}, r":2: the file has 2 lines, 3 were expected; was it cut off\?"),
        (b"a\nb\n", {"num_lines": 1}, r":2: the file has 2 lines, 1 were expected; is it another file\?"),
    ],
)
def test_a_damaged_file_names_file_and_line(file, content, options, message):
    path = file(content)
    with pytest.raises(DataError, match=message) as caught:
        list(TextFile(path=path, **options).lines())
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize("call", [lambda corpus: list(corpus.lines()), lambda corpus: corpus.fingerprint()])
@pytest.mark.parametrize(
    ("path", "message"),
    [("missing.txt", "no such file; data.path names"), ("", "is a directory"), ("file/below.txt", "cannot be read")],
)
def test_an_unreadable_file_is_one_error(tmp_path, call, path, message):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=message):
        call(TextFile(path=str(tmp_path / path)))


def test_fingerprint_follows_the_content_and_how_it_is_read(file):
    one = TextFile(path=file(b"a\nb\n", "one.txt"))
    copy = TextFile(path=file(b"a\nb\n", "copy.txt"))
    prints = {
        one.fingerprint(),
        TextFile(path=file(b"a\nc\n", "other.txt")).fingerprint(),
        TextFile(path=file(b"a\nb\n", "one.txt"), empty_lines="skip").fingerprint(),
    }
    assert len(prints) == 3
    assert copy.fingerprint() == one.fingerprint()


def test_checksum(file):
    path = file(b"a\nb\n")
    digest = hashlib.sha256(b"a\nb\n").hexdigest()
    corpus = TextFile(path=path, sha256=digest.upper())
    assert digest in corpus.fingerprint()
    assert corpus.describe() == {"source": "text file", "file": "sentences.txt", "sha256": digest}
    with pytest.raises(DataError, match=rf"sentences.txt: sha256 is {digest}, 0000"):
        TextFile(path=path, sha256="0" * 64).fingerprint()


def test_name_and_home(file, monkeypatch, tmp_path):
    file(b"a\n", "wiki.head.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    corpus = TextFile(path="~/wiki.head.txt")
    assert corpus.name == "wiki.head"
    assert list(corpus.lines()) == ["a"]


CONTENT = b"One.\nTwo.\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def hub_file(**options):
    return HubFile(repo_id="someone/sentences", filename="wiki.txt", revision="main", **options)


@pytest.fixture
def hub(file, monkeypatch):
    """A Hub that has the file; returns what it was asked, and what it declares as the file's etag."""

    class Hub:
        etag = DIGEST
        offline = False

        def __init__(self):
            self.asked = []

        def download(self, repo_id, filename, *, repo_type, revision):
            self.asked.append(f"{repo_type}:{repo_id}/{filename}@{revision}")
            return file(CONTENT, f"cache/{filename}")

        def metadata(self, url):
            if self.offline:
                raise huggingface_hub.errors.OfflineModeIsEnabled("offline")
            assert url.endswith("datasets/someone/sentences/resolve/main/wiki.txt")
            return SimpleNamespace(etag=self.etag)

    served = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", served.download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", served.metadata)
    return served


def test_a_local_copy_is_used_and_the_hub_not_asked(file, tmp_path, hub):
    file(b"Local.\n", "data/corpus/wiki.txt")
    corpus = hub_file(data=str(tmp_path / "data"))
    assert list(corpus.lines()) == ["Local."]
    assert corpus.describe() == {
        "source": "local copy",
        "file": "wiki.txt",
        "sha256": hashlib.sha256(b"Local.\n").hexdigest(),
    }
    assert hub.asked == []


@pytest.mark.parametrize("data", [None, "elsewhere"])
def test_a_file_of_the_hub_is_fetched_once(hub, data):
    corpus = hub_file(data=data, num_lines=2)
    assert hub.asked == []  # not before it is needed
    assert list(corpus.lines()) == ["One.", "Two."]
    assert corpus.fingerprint() == f"{DIGEST}-error"
    assert hub.asked == ["dataset:someone/sentences/wiki.txt@main"]
    place = {"source": "hub", "repo_id": "someone/sentences", "revision": "main"}
    assert corpus.describe() == {"file": "wiki.txt", "sha256": DIGEST} | place
    assert corpus.name == "wiki"


def test_a_file_of_that_name_where_the_command_runs_is_not_it(file, tmp_path, monkeypatch, hub):
    file(b"Another.\n", "wiki.txt")
    monkeypatch.chdir(tmp_path)
    assert list(hub_file().lines()) == ["One.", "Two."]


def test_a_fetched_file_is_checked_against_what_the_hub_declares(hub):
    hub.etag = "0" * 64
    with pytest.raises(DataError, match=rf"sha256 is {DIGEST}, 0000"):
        hub_file().fingerprint()


@pytest.mark.parametrize("etag", ["1" * 40, None])
def test_a_small_file_is_declared_by_gits_hash_and_not_checked(hub, etag):
    hub.etag = etag
    assert hub_file().fingerprint() == f"{DIGEST}-error"


def test_offline_a_cached_file_serves(hub):
    hub.offline = True
    assert list(hub_file().lines()) == ["One.", "Two."]
    with pytest.raises(DataError, match="3 were expected"):
        list(hub_file(num_lines=3).lines())


@pytest.mark.parametrize("call", [lambda corpus: list(corpus.lines()), lambda corpus: corpus.fingerprint()])
def test_offline_without_a_file_says_what_to_do(call, monkeypatch):
    def download(*args, **options):
        raise LocalEntryNotFoundError("Cannot find the file.\nAdvice.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DataError) as caught:
        call(hub_file(data="/nowhere"))
    message = str(caught.value)
    assert "\n" not in message
    for part in ("corpus/wiki.txt", "someone/sentences", "data=wikipedia_sample", "data=text_file data.path=FILE"):
        assert part in message


def test_the_real_client_offline_gives_the_same_error():
    with pytest.raises(DataError, match="nor can it be had from the Hub"):
        hub_file().fingerprint()


def test_a_repository_name_that_is_none():
    corpus = HubFile(repo_id="not a name", filename="wiki.txt", revision="main")
    with pytest.raises(DataError, match="nor can it be had from the Hub"):
        corpus.fingerprint()
