"""From a MediaWiki dump to articles, sections and clean sentences.

gensim removes the mark-up, `prose` finds the sentences.
"""

import bz2
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

from cse_bench.data.prose import is_clean, split_sentences
from cse_bench.errors import DataError

# Sections whose lines are lists and citations. Their sentences are neither prose nor about the section's heading.
_APPARATUS = frozenset(
    {
        "bibliography",
        "citations",
        "external links",
        "footnotes",
        "further reading",
        "gallery",
        "notes",
        "notes and references",
        "references",
        "see also",
        "sources",
        "works cited",
    }
)
_HEADING = re.compile(r"^(={2,6})\s*(.+?)\s*\1$")
_FILE_LINK = re.compile(r"\[\[(?:file|image):(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*\]\]", re.IGNORECASE)
_EMPHASIS = re.compile(r"'{2,}")
# First character of list items, indented formulas and rows of tables.
_NOT_PROSE = tuple("*#:;|!{}")


@dataclass(frozen=True)
class Section:
    """Sentences under one heading of any level, up to the next heading. The lead of an article has the heading `""`."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Article:
    """One Wikipedia article in reading order."""

    title: str
    sections: tuple[Section, ...]

    @property
    def sentences(self) -> list[str]:
        """All sentences of the article in reading order."""
        return [sentence for section in self.sections for sentence in section.sentences]


def parse_dump(dump: Path) -> list[Article]:
    """Articles, sections and clean sentences of a MediaWiki XML dump (bz2); redirects and empty pages are left out.

    A sentence that occurs twice anywhere in the dump is kept where it comes first.

    Args:
        dump: The compressed XML file.

    Raises:
        DataError: The file cannot be read to its end as bz2 and XML.
    """
    articles: list[Article] = []
    seen: set[str] = set()
    for title, text in _read_pages(dump):
        if not text.lstrip().lower().startswith("#redirect"):
            article = _parse_article(title, text=text, seen=seen)
            if article.sections:
                articles.append(article)
    return articles


def _read_pages(dump: Path) -> list[tuple[str, str]]:
    # Imported where it is needed: it takes a second, and a run that finds the cache can do without.
    from gensim.corpora.wikicorpus import extract_pages

    try:
        with bz2.open(dump) as file:
            return [(title, text) for title, text, _ in extract_pages(file, filter_namespaces=("0",)) if text]
    except (OSError, EOFError, ParseError, ValueError, AttributeError) as error:  # the last: a page without a namespace
        raise DataError(
            f"{dump} cannot be read as a bz2 compressed MediaWiki dump ({type(error).__name__}: {error}). "
            "It is truncated or damaged; install or fetch it again."
        ) from error


def _parse_article(title: str, *, text: str, seen: set[str]) -> Article:
    from gensim.corpora.wikicorpus import filter_wiki

    # Captions describe pictures; gensim would glue them to the paragraph that follows.
    plain = filter_wiki(_FILE_LINK.sub("\n", text))
    sections: list[Section] = []
    heading = ""
    sentences: list[str] = []
    for line in [*plain.splitlines(), "== end =="]:
        line = _EMPHASIS.sub("", line.replace("\xa0", " ")).strip()
        if found := _HEADING.match(line):
            if sentences:
                sections.append(Section(heading=heading, sentences=tuple(sentences)))
            heading, sentences = found[2], []
        elif line and not line.startswith(_NOT_PROSE) and heading.lower() not in _APPARATUS:
            for sentence in split_sentences(line):
                if sentence not in seen and is_clean(sentence):
                    seen.add(sentence)
                    sentences.append(sentence)
    return Article(title=title, sections=tuple(sections))
