"""`python -m cse_bench trainer=ddp_cpu_2` as a user starts it: a process with two ranks below it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cse_bench.results.metrics_log import read_metrics
from tests.conftest import REPOSITORY
from tests.tiny import metric_rows, overrides_in

PATIENCE_S = 240


def start(folder: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Starts it, in a session of its own as a terminal would; what starts with a dash comes first."""
    flags = [word for word in overrides if word.startswith("-")]
    given = [word for word in overrides if word not in flags]
    return subprocess.Popen(
        [sys.executable, "-m", "cse_bench", *flags, *overrides_in(folder, "trainer=ddp_cpu_2", *given)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Waits for its end; what it said on standard error."""
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, out + errors
    return errors


def signal_all(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """As the terminal does: every process in its foreground."""
    os.killpg(process.pid, number)


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its ranks that are there now, in no order."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if "cse_bench.worker" in _words(one) and "torch.distributed.run" not in _words(one)]


def rank_of(process: psutil.Process) -> int:
    return int(process.environ()["RANK"])


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Looks again and again; a process that ends in the meantime is a failure."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        if process is not None and process.poll() is not None:
            raise AssertionError("".join(process.communicate()))
        time.sleep(0.05)


def runs_in(folder: Path) -> dict[int, Path]:
    """The run directories, by seed."""
    found = (folder / "outputs").glob("*/results.json")
    return {int(json.loads(path.read_text())["seed"]): path.parent for path in found}


def results_of(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "results.json").read_text()))


def losses(directory: Path) -> list[tuple[int, float]]:
    """Step and training loss."""
    log = directory / "metrics.csv"
    return list(metric_rows(read_metrics(log), "train/loss")) if log.is_file() else []
