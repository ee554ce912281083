"""A run that nothing happened to, as what all others are compared with; disks that can be filled; forked runs."""

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cse_bench.run import run
from tests.faults.outcome import differences, outcome
from tests.faults.trouble import nothing_happens, troubled
from tests.faults.victim import Runs
from tests.tiny import composed


@pytest.fixture(autouse=True)
def as_new() -> Iterator[None]:
    """Nothing is left over from another test."""
    nothing_happens()
    yield
    nothing_happens()


@pytest.fixture(scope="session")
def untroubled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What a folder of runs holds when nothing happens, once per config."""

    @cache
    def made(*overrides: str) -> dict[str, Any]:
        nothing_happens()
        folder = tmp_path_factory.mktemp("untroubled")
        run(composed(*troubled(folder, *overrides)))
        nothing_happens()
        return outcome(folder / "outputs")

    return made


@pytest.fixture
def ends_the_same(untroubled: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Runs the same command once more and checks that its folder holds what it would without any trouble."""

    def check(folder: Path, *overrides: str) -> None:
        expected = untroubled(*overrides)
        nothing_happens()
        results = run(composed(*troubled(folder, *overrides)))
        assert results["status"] == "complete"
        assert differences(expected, outcome(folder / "outputs")) == []

    return check


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 32 MiB, which the test may fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk to fill needs the right to mount: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="session")
def runs() -> Runs:
    """Forks runs that can be killed."""
    return Runs()
