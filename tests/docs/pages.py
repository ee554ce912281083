"""What README and the pages of docs/ hold: blocks of code, the files they show, and every command."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
_SHELL = ("sh", "bash", "shell", "console")
# A line of an indented or unnamed block that begins so is a command, and so is every other line of the block.
_BEGINS_A_COMMAND = re.compile(
    r"\s*(\$ )?([A-Z_]+=\S+ )*(python|pip|make|export|torchrun|srun|sbatch|ray|wandb|hf|git|ssh) "
)
_FILE = re.compile(r"# ([\w./-]+\.(py|yaml|sh|sbatch))\s*")  # the first line of a block that shows a file


@dataclass(frozen=True)
class Command:
    """One command of a page, `line` for the message of a failing test."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """As the shell would split it, without its comment, its redirections and the variables set before it."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = []
        for word in lexer:
            if set(word) <= set("|&;<>"):
                break
            words.append(word)
        while words and (words[0] in ("$", "srun", "exec") or re.match(r"^[A-Za-z_]\w*=", words[0])):
            del words[0]
        return words

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Block:
    """A block of code that is no command: Python, YAML, text."""

    page: str
    line: int
    language: str
    content: str

    @property
    def file(self) -> str | None:
        """The name of the file that it shows, if it shows one."""
        found = _FILE.match(self.content)
        return found[1] if found else None


def pages() -> list[Path]:
    """README, CONTRIBUTING and all pages of docs/, less those that only point to a file elsewhere."""
    found = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    return [page for page in found if "_build" not in page.parts and not page.read_text().startswith("[")]


def name_of(page: Path) -> str:
    """Relative to the repository."""
    return page.relative_to(REPOSITORY).as_posix()


@cache
def tokens(page: Path) -> list[Token]:
    """The page, parsed."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


@cache
def content(page: Path) -> list[Command | Block]:
    """Commands and other blocks of a page, in its order."""
    found: list[Command | Block] = []
    for token in tokens(page):
        line = (token.map or [0])[0] + 1
        if token.type == "inline":
            code = [child.content for child in token.children or () if child.type == "code_inline"]
            found += [Command(name_of(page), line, text) for text in code if re.match(r"(python -m|make) \w", text)]
        elif token.type in ("fence", "code_block"):
            language = token.info.split()[0] if token.info.split() else ""
            shell = language in _SHELL or (language in ("", "text") and _holds_a_command(token.content))
            if shell and not _FILE.match(token.content) and not token.content.startswith("#!"):
                first = line + (token.type == "fence")
                found += [Command(name_of(page), first + offset, text) for offset, text in _lines(token.content)]
            elif shell:  # a script: kept whole; its commands are checked one by one, too
                found.append(Block(name_of(page), line, "sh", token.content))
            else:
                language = language or ("python" if _is_python(token.content) else "text")
                found.append(Block(name_of(page), line, language, token.content))
    return found


def commands(page: Path) -> list[Command]:
    """Every command of a page, those inside scripts included."""
    found = []
    for part in content(page):
        if isinstance(part, Command):
            found.append(part)
        elif part.language == "sh":
            found += [Command(part.page, part.line + offset, text) for offset, text in _lines(part.content)]
    return found


def _is_python(text: str) -> bool:
    """Whether an unnamed block is Python: it can be read so, and imports or assigns something."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom | ast.Assign) for node in tree.body)


def _holds_a_command(text: str) -> bool:
    return any(_BEGINS_A_COMMAND.match(line) for line in text.splitlines())


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(offset, command) of a shell text: continued lines joined, empty and comment lines left out."""
    joined, start = "", 0
    for offset, line in enumerate(text.splitlines()):
        start = offset if not joined else start
        joined += line.strip().removesuffix("\\")
        if not line.rstrip().endswith("\\"):
            if joined and not joined.startswith("#"):
                yield start, joined
            joined = ""
