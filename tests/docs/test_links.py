"""Links of README and docs/: to files and headings that are there; to the outside in a form that can be right."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS, name_of, pages, tokens

PAGES = {name_of(page): page for page in pages()}
_ARXIV = re.compile(r"/(abs|pdf)/\d{4}\.\d{4,5}(v\d+)?$")


def links(page: Path) -> Iterator[str]:
    """Targets of all links and images of a page."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href" if child.type == "link_open" else "src")
            if target:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a page."""
    found: dict[str, int] = {}
    every = tokens(page)
    for number, token in enumerate(every):
        if token.type == "heading_open":
            text = "".join(child.content for child in every[number + 1].children or ())
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {slug if not n else f"{slug}-{n}" for slug, count in found.items() for n in range(count + 1)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    wrong = [f"{target}: {reason}" for target in links(PAGES[page]) if (reason := _problem(PAGES[page], target))]
    assert not wrong, f"{page}\n" + "\n".join(wrong)


def _problem(page: Path, target: str) -> str | None:
    if "://" in target or target.startswith("mailto:"):
        parts = urlsplit(target)
        if parts.scheme != "https" or "." not in parts.netloc or re.search(r"[\s<>]", target):
            return "not an https address"
        return None if parts.netloc != "arxiv.org" or _ARXIV.search(parts.path) else "not an arXiv id"
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists() or not found.is_relative_to(REPOSITORY):
        return "no such file in the repository"
    if anchor and found.suffix == ".md" and anchor not in anchors(found):
        return f"no such heading; there are {', '.join(sorted(anchors(found)))}"
    return None


@pytest.mark.parametrize(
    "target",
    ["nothing.md", "methods.md#nothing", "http://arxiv.org/abs/2104.08821", "https://arxiv.org/abs/21.1", "#x"],
)
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    assert _problem(DOCS / "index.md", target)


def test_arxiv_ids_have_their_form() -> None:
    for name, page in PAGES.items():
        for number in re.findall(r"arXiv:? (\d[\d.]*\d)", page.read_text()):
            assert re.fullmatch(r"\d{4}\.\d{4,5}", number), f"{name}: arXiv {number}"
