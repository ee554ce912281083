"""The two processes of all tests here."""

from collections.abc import Iterator

import pytest

from tests.distributed.pool import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two gloo processes."""
    pool = Ranks(tmp_path_factory.mktemp("ranks"))
    yield pool
    pool.close()
