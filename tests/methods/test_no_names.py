"""No code outside a method's own file knows the method's name: adding one touches nothing else."""

import ast
import re
from pathlib import Path

import pytest

import cse_bench

PACKAGE = Path(cse_bench.__file__).parent
# What methods share lies beside them.
SHARED = {"__init__", "base", "contract", "head", "dropout_views", "method", "preparation", "training_free"}
EXCEPTIONS = {
    ("run.py", "untrained"),  # the baseline that every result is compared with, by design,
    ("results/tables.py", "untrained"),  # and its column
    ("results/collect.py", "untrained"),  # and its place beside what was trained from it
    ("results/report/glossary.py", "untrained"),  # a word of its sentences
    ("evaluation/senteval_folder.py", "simcse"),  # a data set on the Hub is called so
}
METHODS = sorted(path.stem for path in (PACKAGE / "methods").glob("*.py") if path.stem not in SHARED)


def code_words(source: str) -> set[str]:
    """Names, attributes, imports and strings of a module in lower case; comments and docstrings are prose."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    words: list[str] = []
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            values = value if isinstance(value, list) else [value]
            if id(node) not in prose:
                words += [item for item in values if isinstance(item, str)]
    return {word for text in words for word in re.split(r"[^a-z0-9_]+", text.lower())}


def names_in(source: str, method: str) -> bool:
    """Whether the module's code holds the name, alone or as part of a longer one (`is_simcse`, `SimCSE`).

    Not as part of another method's name (`esimcse`), which is looked for by itself.
    """
    words = code_words(source)
    for other in METHODS:
        if method in other and other != method:
            words = {word.replace(other, "").replace(other.replace("_", ""), "") for word in words}
    spellings = {method, method.replace("_", "")}
    return any(spelling in word for word in words for spelling in spellings)


def test_there_is_something_to_find() -> None:
    assert "simcse" in METHODS
    assert names_in('x = {"simcse": 1}', "simcse")
    assert names_in("from cse_bench.methods.simcse import SimCSE", "simcse")
    assert names_in("if method == 'cse_sfp': pass", "cse_sfp")
    assert names_in("def is_simcse(): pass", "simcse")
    assert not names_in("from cse_bench.methods.esimcse import ESimCSE", "simcse")
    assert not names_in('"""As in SimCSE."""\nx = 1  # simcse', "simcse")


@pytest.mark.parametrize("method", METHODS)
def test_method_is_named_in_its_own_file_only(method: str) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "methods" / f"{method}.py" and names_in(path.read_text(), method)
    }
    assert found - {file for file, name in EXCEPTIONS if name == method} == set()
