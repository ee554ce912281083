"""The two processes of all tests here, and what they share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.pool import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two gloo processes."""
    pool = Ranks(tmp_path_factory.mktemp("ranks"))
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For pairs that are mined once."""
    return tmp_path_factory.mktemp("mined")
