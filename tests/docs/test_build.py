"""The pages are built by Sphinx, with warnings as errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "html" / "studies" / "bert_tiny_methods.html").read_text()
    assert "Do the encoder methods improve BERT-tiny" in shown  # a page that is read where its file is
    assert (tmp_path / "html" / "api" / "losses.html").read_text().count("info_nce") > 3
