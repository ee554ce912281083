"""From a dump to clean sentences, on a dump of a few pages built here."""

import bz2
from pathlib import Path

import pytest

from cse_bench.data.wikidump import Article, Section, parse_dump
from cse_bench.errors import DataError

pytest.importorskip("gensim", reason="gensim removes the mark-up: pip install gensim==4.4.0")

HEADER = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo><sitename>x</sitename></siteinfo>'

LEAD = "The heron is a tall bird of quiet rivers."
FOOD = "It eats mostly fish and frogs at dawn."
NEST = "The nest is built of sticks in high trees."
RIVERS = "Slow rivers with reeds are its favourite places."

HERON = f"""{{{{Infobox bird|name=Heron}}}}
'''The heron''' is a [[height|tall]] bird of quiet rivers.<ref>A book about birds.</ref> Short bit.
==Food==
[[File:h.jpg|thumb|A heron that was seen near [[Bern]] by us.]]
It eats mostly ''fish'' and [[frog]]s at dawn. It weighs {{{{convert|2|kg}}}} when it is fully grown up.
* A list item that would be a sentence otherwise.
: An indented line that would be a sentence otherwise.
===Nest&nbsp;===
{NEST}

{RIVERS}
==References==
This line of the references is a sentence, but apparatus.
==See also==
===Birds===
"""
STORK = f"""The stork brings very little except its own long legs.
==Food==
{FOOD} It also eats insects, as Dr. Stone found in 1920.
"""


def write_dump(path: Path, pages: list[tuple[str, int, str]]) -> Path:
    """A bz2 dump of pages given as title, namespace and wiki text."""
    escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    body = "".join(
        f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>"
        f"<revision><text>{text.translate(escape)}</text></revision></page>"
        for number, (title, namespace, text) in enumerate(pages)
    )
    path.write_bytes(bz2.compress(f"{HEADER}{body}</mediawiki>".encode()))
    return path


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Two articles, a redirect, an empty page and a page that is no article."""
    pages = [
        ("Heron", 0, HERON),
        ("Crane", 0, "#REDIRECT [[Heron]]"),
        ("Nothing", 0, ""),
        ("Wikipedia:Rules", 4, "This page of rules is no article at all."),
        ("Stork", 0, STORK),
    ]
    return write_dump(tmp_path / "dump.bz2", pages)


def test_articles_sections_and_sentences(dump: Path) -> None:
    heron = Article(
        title="Heron",
        sections=(
            Section(heading="", sentences=(LEAD,)),
            Section(heading="Food", sentences=(FOOD,)),
            Section(heading="Nest", sentences=(NEST, RIVERS)),
        ),
    )
    # FOOD is not repeated here: a sentence is kept only where it comes first.
    stork = Article(
        title="Stork",
        sections=(
            Section(heading="", sentences=("The stork brings very little except its own long legs.",)),
            Section(heading="Food", sentences=("It also eats insects, as Dr. Stone found in 1920.",)),
        ),
    )
    assert parse_dump(dump) == [heron, stork]
    assert heron.sentences == [LEAD, FOOD, NEST, RIVERS]


def test_an_article_that_loses_all_its_sentences_is_left_out(tmp_path: Path) -> None:
    twin = write_dump(tmp_path / "twins.bz2", [("Nest", 0, NEST), ("Nest again", 0, NEST)])
    assert [article.title for article in parse_dump(twin)] == ["Nest"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_dump_names_the_file(dump: Path, kept: float) -> None:
    content = dump.read_bytes()
    dump.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"dump\.bz2 cannot be read as a bz2 .* truncated or damaged"):
        parse_dump(dump)


def test_flipped_bytes_inside_name_the_file(dump: Path) -> None:
    content = bytearray(dump.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
    dump.write_bytes(content)
    with pytest.raises(DataError, match=r"dump\.bz2 cannot be read"):
        parse_dump(dump)


@pytest.mark.parametrize(
    "content",
    [
        b"plain text, not compressed",
        bz2.compress(b"not XML"),
        bz2.compress(f"{HEADER}<page><title>Cut".encode()),
        bz2.compress(b"<html><body>another kind of XML</body></html>"),
        bz2.compress(f"{HEADER}<page><title>No namespace</title></page></mediawiki>".encode()),
    ],
)
def test_other_content_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dump.bz2").write_bytes(content)
    with pytest.raises(DataError, match=r"dump\.bz2 cannot be read"):
        parse_dump(tmp_path / "dump.bz2")
