"""SIGTERM, as a scheduler sends it, at any moment: the run ends as interrupted, and the same command goes on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cse_bench.results.run_directory import read_results
from cse_bench.run import run
from cse_bench.training.resume import Interrupted
from tests.cli.command import run_command
from tests.faults.trouble import HAPPENS, troubled
from tests.tiny import composed


def be_terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (("corpus", 2), "stopped by SIGTERM outside of the steps"),  # while it is tokenised
        pytest.param(
            ("dev", 3), "stopped at step 6 by SIGTERM; saved", marks=pytest.mark.slow
        ),  # while training evaluates
        (("test", 1), "stopped by SIGTERM outside of the steps"),  # in the last evaluation
    ],
)
def test_sigterm_is_answered_wherever_it_comes(
    tmp_path: Path, moment: Any, said: str, ends_the_same: Callable[..., None]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    HAPPENS[moment] = be_terminated
    with pytest.raises(Interrupted, match=said) as stopped:
        run(composed(*troubled(tmp_path)))
    assert stopped.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    (directory,) = (tmp_path / "outputs").iterdir()
    assert read_results(directory)["status"] == "interrupted"
    unfinished = tmp_path / "cache" / "tokens"
    assert len(list(unfinished.glob(".*.new"))) == (1 if moment[0] == "corpus" else 0)  # gone on with
    ends_the_same(tmp_path)
    assert list(unfinished.glob(".*.new")) == []


def test_the_exit_code_is_that_of_a_preempted_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HAPPENS["corpus", 2] = be_terminated
    answer = run_command(monkeypatch, *troubled(tmp_path))
    assert answer.code == 143
    assert "stopped by SIGTERM outside of the steps; the same command goes on" in answer.err
    assert "Traceback" not in answer.err


def test_a_scheduler_that_ends_the_process_by_itself_leaves_an_interrupted_run(
    tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    """submitit answers the signal of a time limit by queueing the job again and `sys.exit`."""

    def leave() -> None:
        raise SystemExit(-1)

    HAPPENS["dev", 3] = leave
    with pytest.raises(SystemExit):
        run(composed(*troubled(tmp_path)))
    (directory,) = (tmp_path / "outputs").iterdir()
    assert read_results(directory)["status"] == "interrupted"
    ends_the_same(tmp_path)
