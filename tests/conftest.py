"""Fixtures shared by all tests: where the real data is, and a visible reason where it is not."""

import os
from pathlib import Path

import pytest

# Before anything imports huggingface_hub, which reads it once: no test asks the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).parent.parent


def _shared_data() -> Path | None:
    given = os.environ.get("CSE_BENCH_DATA")
    candidates = [Path(given)] if given else [REPOSITORY.parent / "shared" / "data"]
    return next((path for path in candidates if (path / "sts").is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real STS, transfer and corpus files (`paths.data`)."""
    path = _shared_data()
    if path is None:
        pytest.skip("real STS data not found: set CSE_BENCH_DATA to a folder that holds sts/")
    return path
