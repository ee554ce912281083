"""Every fault in the table of docs/faults.md has a test, and every test that it names exists."""

import ast
import re

import pytest

from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "faults.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| fault"))]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_every_row_names_a_test() -> None:
    table = [row for row in ROWS if row.count("|") == 4]
    assert len(table) > 20
    assert [row for row in table if "::test_" not in row] == []


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    content = ast.parse((REPOSITORY / path).read_text())
    assert name in {node.name for node in content.body if isinstance(node, ast.FunctionDef)}
