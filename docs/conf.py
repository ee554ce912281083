"""Sphinx: the pages of this folder and the docstrings of the package. `make docs` builds them; warnings are errors."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from cse_bench import __version__

project = "cse_bench"
author = "the authors of cse_bench"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cse_bench {__version__}"
html_copy_source = False

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may go from its title to a third level

default_role = "code"  # a name in backticks in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "all"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
viewcode_line_numbers = True

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
# Where the repository can be read, e.g. https://HOST/NAME/blob/main. Links to its other files lead there; without it,
# to copies.
REPOSITORY_URL = os.environ.get("CSE_BENCH_REPOSITORY_URL", "").rstrip("/")

# Files that are read where they are and are pages here too: their page holds one link to them, and nothing else.
_BORROWED = re.compile(r"\s*\[[^\]]+\]\(((?:\.\./)+[^)]+\.md)\)\s*")
_FENCE = re.compile(r"^\s*(```|~~~)")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _set_apart, priority=100)  # before napoleon
    return {"parallel_read_safe": True}


def _set_apart(app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """In a docstring, what is indented below a line that ends in a colon is shown as it stands: a formula, a table."""
    for number in range(len(lines) - 2):
        line, below = lines[number], lines[number + 2]
        opens = line.endswith(":") and not line.endswith("::") and not lines[number + 1].strip()
        if opens and _indentation(below) > _indentation(line):
            lines[number] = f"{line}:"


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    """A page's text, with links that work on the page as well as in the repository."""
    path = DOCS / f"{page}.md"
    if not path.is_file():
        return
    origin, text = path, source[0]
    if borrowed := _BORROWED.fullmatch(text):
        origin = (path.parent / borrowed[1]).resolve()
        app.env.note_dependency(str(origin))
        text = origin.read_text()
    in_fence = False
    lines = []
    for line in text.splitlines():
        in_fence ^= bool(_FENCE.match(line))
        lines.append(line if in_fence else _LINK.sub(lambda link: _link(link, origin=origin, page=path), line))
    source[0] = "\n".join(lines) + "\n"


def _link(link: re.Match[str], *, origin: Path, page: Path) -> str:
    """One link of a text that lies at `origin` and is shown at `page`; one that leads nowhere stays, and fails."""
    image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    found = (origin.parent / target).resolve()
    if "://" in target or not found.is_relative_to(REPOSITORY) or not found.exists():
        return link[0]
    if (own := _page_of(found)) is not None:
        return f"[{text}]({os.path.relpath(own, page.parent)}{anchor})"
    if image:
        return f"![{text}]({os.path.relpath(found, page.parent)})"
    if REPOSITORY_URL:
        return f"[{text}]({REPOSITORY_URL}/{found.relative_to(REPOSITORY)}{anchor})"
    if found.is_dir():
        return text
    if found.suffix != ".md":
        return f"[{text}]({os.path.relpath(found, page.parent)})"
    return f"{{download}}`{text.replace('`', '')} <{os.path.relpath(found, page.parent)}>`"


def _page_of(path: Path) -> Path | None:
    """The page that shows a Markdown file."""
    if path.suffix != ".md":
        return None
    if path.is_relative_to(DOCS):
        return path
    return _borrowed_pages().get(path)


def _borrowed_pages() -> dict[Path, Path]:
    found = {}
    for page in DOCS.rglob("*.md"):
        if borrowed := _BORROWED.fullmatch(page.read_text()):
            found[(page.parent / borrowed[1]).resolve()] = page
    return found
