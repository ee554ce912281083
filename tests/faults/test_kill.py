"""SIGKILL: nothing is asked, nothing can be said. The same command ends where it would have ended without.

`python -m benchmarks.kills` does this fifty times over all methods; here is one life of one of them.
"""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cse_bench.results.metrics_log import read_metrics
from cse_bench.results.run_directory import read_results
from tests.conftest import REPOSITORY
from tests.faults.outcome import differences, outcome
from tests.faults.trouble import troubled
from tests.faults.victim import Runs


def test_the_comparison_sees_a_single_bit(untroubled: Callable[..., dict[str, Any]]) -> None:
    expected = untroubled()
    assert differences(expected, expected) == []
    ((name, _),) = expected.items()
    for change, where in (
        (lambda run: run["weights"]["model/model.safetensors"].popitem()[1].view(np.uint8)[0].__ixor__(1), "weights"),
        (lambda run: run["scores"].popitem(), "scores"),
        (
            lambda run: run["metrics"].update(
                {"pairs/test/score": np.nextafter(run["metrics"]["pairs/test/score"], 0)}
            ),
            "",
        ),
        (lambda run: run.update(log=run["log"].replace("1", "2", 1)), "log"),
        (lambda run: run["files"].append("last.tmp"), "files"),
    ):
        changed = copy.deepcopy(expected)
        change(changed[name])
        assert differences(expected, changed), where


@pytest.mark.slow
def test_killed_again_and_again_at_file_operations_and_at_any_time(tmp_path: Path, runs: Runs) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    end = runs.run(whole, troubled(whole))
    assert end.code == 0, (whole / "log.txt").read_text()
    arguments, happened = troubled(killed), []
    for share in (0.1, 0.3, 0.5, 0.7, 0.3):
        found = runs.run(killed, arguments, kill_at=max(1, int(share * end.operations)))
        if found.was_killed:
            happened.append(found.last)
    assert len(happened) >= 3, happened
    again = runs.run(killed, arguments)
    assert again.code == 0, (killed / "log.txt").read_text()
    assert differences(outcome(whole / "outputs"), outcome(killed / "outputs")) == [], happened


def cut_store(folder: Path) -> None:
    """Leaves the first page of the store, which is mapped."""
    (store,) = (folder / "cache").glob("tokens/*/tokens.bin")
    os.truncate(store, 100)


@pytest.mark.slow
def test_a_token_store_that_is_cut_off_under_a_run_is_told_when_it_starts_again(tmp_path: Path, runs: Runs) -> None:
    """The kernel ends a process that reads where a file no longer is; there is nothing to catch."""
    whole, hit = tmp_path / "whole", tmp_path / "hit"
    end = runs.run(whole, troubled(whole))
    assert end.code == 0
    arguments = troubled(hit)
    assert runs.run(hit, arguments, kill_at=end.operations // 2, instead=cut_store).code == -signal.SIGBUS
    (directory,) = (hit / "outputs").iterdir()
    assert read_results(directory)["status"] == "running"
    end = runs.run(hit, arguments)
    assert end.code == 2
    assert re.search(r"the token store .* is damaged; delete it and run again", (hit / "log.txt").read_text())
    (store,) = (hit / "cache").glob("tokens/*/tokens.bin")
    shutil.rmtree(store.parent)
    assert runs.run(hit, arguments).code == 0
    assert differences(outcome(whole / "outputs"), outcome(hit / "outputs")) == []


def _on_two_ranks(folder: Path) -> list[str]:
    again = ("trainer.max_steps=40", "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false")
    return [sys.executable, "-m", "cse_bench", *troubled(folder, "trainer=ddp_cpu_2", *again)]


@pytest.mark.slow
def test_two_ranks_killed_with_their_parent_go_on_exactly(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(_on_two_ranks(whole), cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    command = _on_two_ranks(killed)
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not any(len(read_metrics(log)) > 13 for log in killed.glob("outputs/*/metrics.csv")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (directory,) = (killed / "outputs").iterdir()
    assert read_results(directory)["status"] == "running"
    assert list((directory / "checkpoints").glob("*.ckpt"))
    deadline = time.monotonic() + 60
    while _at_work(killed):  # ranks end with their parent; then nobody writes here any more
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert differences(outcome(whole / "outputs"), outcome(killed / "outputs")) == []


def _at_work(folder: Path) -> bool:
    """Whether any process names the folder on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.parent.name != str(os.getpid()) and str(folder).encode() in path.read_bytes():
                return True
        except OSError:
            continue  # gone meanwhile
    return False
