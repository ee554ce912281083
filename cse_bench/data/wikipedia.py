"""A small real corpus without a download: the Wikipedia sample inside gensim, as training text and held-out articles.

`gensim==4.4.0` carries the first 206 pages of an English Wikipedia dump (CC BY-SA) as test data: 106 articles and 100
redirects. Their sentences are extracted once, kept in a cache folder, and the articles are divided for good:

* `test` and `dev`: articles with enough sections, for the triplets of `cse_bench.evaluation.wiki_sections`;
* `train`: all other articles; their sentences are the training corpus `WikipediaSample`.

No sentence occurs twice, so training and evaluation share neither an article nor a sentence. A run that finds the cache
needs gensim's data file, to check it, but not its code.
"""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, get_args

from cse_bench.data.packages import PackageFile
from cse_bench.data.wikidump import Article, Section, parse_dump
from cse_bench.errors import DataError

_log = logging.getLogger(__name__)

Split = Literal["train", "dev", "test"]

DUMP = PackageFile(
    package="gensim",
    version="4.4.0",
    path="gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    sha256="a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d",
)
LICENCE = "CC BY-SA (English Wikipedia), distributed in gensim (LGPL-2.1)"

# Part of the cache's name: raise it with any change of the rules in `wikidump` or `prose`, or old caches would be used.
PARSER_VERSION = 1

SPLIT_KEY = "cse_bench/wikipedia/split/1"
TEST_ARTICLES = 22
DEV_ARTICLES = 8
# An article can be held out if it offers a choice of sections and is neither a stub nor one of the giants: then no
# article dominates the triplets, and the long texts are left to train on.
MIN_SECTIONS = 4
MIN_SECTION_SENTENCES = 3
MIN_ARTICLE_SENTENCES, MAX_ARTICLE_SENTENCES = 60, 300


class WikipediaSample:
    """Training sentences from the Wikipedia sample inside gensim, in the order of the dump.

    Only articles of the `train` split, so that the section triplets stay unseen. Shuffling is the sampler's business.

    Args:
        cache: Folder for the parsed dump; created if needed and shared by all runs.
    """

    name = "wikipedia_sample"

    def __init__(self, cache: str) -> None:
        """Keeps the folder; the dump is found, checked and parsed when the first sentence is asked for."""
        self._cache = cache

    @cached_property
    def _sentences(self) -> list[str]:
        articles = load_articles(cache=self._cache)
        return [sentence for article in split_articles(articles, split="train") for sentence in article.sentences]

    @property
    def num_lines(self) -> int:
        """Number of sentences."""
        return len(self._sentences)

    def lines(self) -> Iterator[str]:
        """One clean sentence at a time, always in the same order.

        Raises:
            DataError: The package with the dump is missing, or the dump is damaged.
        """
        yield from self._sentences

    def fingerprint(self) -> str:
        """The sha256 of the sentences, one per line in UTF-8: it changes exactly when `lines` does."""
        return _fingerprint(self._cache)

    def describe(self) -> dict[str, object]:
        """What this corpus is, for the result of a run."""
        return {
            "source": DUMP.source,
            "source_sha256": DUMP.sha256,
            "parser_version": PARSER_VERSION,
            "sha256": self.fingerprint(),
            "num_lines": self.num_lines,
            "licence": LICENCE,
        }


@cache
def _fingerprint(folder: str) -> str:
    """Found once per process: dump and parser are pinned, and a sweep asks once a job."""
    return _sha256("".join(f"{sentence}\n" for sentence in WikipediaSample(cache=folder).lines()))


def thematic_sections(article: Article) -> list[Section]:
    """The sections that triplets may use: with enough sentences, and not the lead, which speaks of everything."""
    return [s for s in article.sections if s.heading and len(s.sentences) >= MIN_SECTION_SENTENCES]


def split_articles(articles: Iterable[Article], *, split: Split) -> list[Article]:
    """The articles of one split, in the order of the dump.

    Articles that can be held out are ranked by the sha256 of `SPLIT_KEY`, a zero byte and the title. The first
    `TEST_ARTICLES` are `test`, the next `DEV_ARTICLES` are `dev`; all others, also those without sections, are `train`.
    A hash has no favourite subject and gives the same split on every machine.

    Args:
        articles: All articles of the dump.
        split: `train`, `dev` or `test`.

    Raises:
        DataError: Another name of a split.
    """
    if split not in get_args(Split):
        raise DataError(f"split={split!r} of the Wikipedia sample; allowed are {', '.join(get_args(Split))}")
    articles = list(articles)
    candidates = [article.title for article in articles if _can_be_held_out(article)]
    ranked = sorted(candidates, key=lambda title: _sha256(f"{SPLIT_KEY}\0{title}"))
    test, dev = ranked[:TEST_ARTICLES], ranked[TEST_ARTICLES : TEST_ARTICLES + DEV_ARTICLES]
    split_of: dict[str, Split] = {**dict.fromkeys(test, "test"), **dict.fromkeys(dev, "dev")}
    return [article for article in articles if split_of.get(article.title, "train") == split]


def load_articles(*, cache: str) -> list[Article]:
    """All articles of the sample: from the cache if it holds them, else parsed (a few seconds) and written there.

    The file's name contains the dump's checksum and the parser's version, its first line the checksum of the rest; a
    file that fails the check is written anew. Writing ends with a rename, so that processes that start together each
    leave a whole file.

    Args:
        cache: Folder for the parsed dump; created if needed.

    Raises:
        DataError: The package with the dump is missing, or the dump is damaged.
    """
    dump = DUMP.locate()
    file = Path(cache).expanduser() / f"wikipedia-{DUMP.sha256[:16]}-parser{PARSER_VERSION}.jsonl"
    articles = _read_cache(file)
    if articles is None:
        articles = parse_dump(dump)
        _write_cache(file, articles=articles)
    return articles


def _can_be_held_out(article: Article) -> bool:
    sections = thematic_sections(article)
    num_sentences = sum(len(section.sentences) for section in sections)
    return len(sections) >= MIN_SECTIONS and MIN_ARTICLE_SENTENCES <= num_sentences <= MAX_ARTICLE_SENTENCES


def _read_cache(file: Path) -> list[Article] | None:
    try:
        header, _, body = file.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read (%s); parsing the dump again", file, error)
        return None
    if header != _sha256(body):
        _log.warning("%s is damaged (its checksum does not match); parsing the dump again", file)
        return None
    records = [json.loads(line) for line in body.splitlines()]
    return [
        Article(title=title, sections=tuple(Section(heading, tuple(sentences)) for heading, sentences in sections))
        for title, sections in records
    ]


def _write_cache(file: Path, *, articles: list[Article]) -> None:
    lines = [json.dumps([a.title, [[s.heading, s.sentences] for s in a.sections]]) + "\n" for a in articles]
    body = "".join(lines)
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(f"{_sha256(body)}\n{body}", encoding="utf-8")
        os.replace(partial, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(
            f"the parsed Wikipedia sample cannot be written to the cache folder {file.parent} ({error}). "
            "Give a folder that can be created and written to."
        ) from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
