"""Freed blocks go back to the system: seen in the resident memory of a process of its own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cse_bench.training import allocator

# Large blocks come and go, a small one stays after each: as pieces of a step and their results do.
PATTERN = """
import importlib.util, pathlib, sys
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
spec = importlib.util.spec_from_file_location("allocator", sys.argv[1])
allocator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(allocator)
if sys.argv[2] == "yes":
    allocator.give_back_large_blocks()
before, kept = resident(), []
for number in range(64):
    large = [b"x" * (2 << 20) for _ in range(4)]
    kept.append(b"y" * (100 << 10))
    del large
print(resident() - before - sum(map(len, kept)))
"""


# Blocks on the heap below one that stays: glibc gives back what lies at its end by itself.
BELOW_ONE_THAT_STAYS = """
blocks = [bytearray(64 << 10) for _ in range(2048)]
kept = blocks.pop()
del blocks
before = resident()
if sys.argv[2] == "yes":
    allocator.give_back_freed_memory()
print(before - resident())
"""
BEGINNING = PATTERN[: PATTERN.index("if sys")]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_goes_back_when_asked() -> None:
    command = [sys.executable, "-c", BEGINNING + BELOW_ONE_THAT_STAYS, str(Path(allocator.__file__))]
    given_back = [int(subprocess.run([*command, answer], **OPTIONS).stdout) for answer in ("yes", "no")]
    assert given_back[0] > 100 * 2**20
    assert given_back[1] < 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_is_freed_does_not_stay_with_the_process() -> None:
    left = [
        int(subprocess.run([sys.executable, "-c", PATTERN, str(Path(allocator.__file__)), answer], **OPTIONS).stdout)
        for answer in ("yes", "no")
    ]
    assert left[0] < 2**20
    assert left[1] > 3 * 2**20  # what is prevented


OPTIONS = {"check": True, "capture_output": True, "text": True}
