"""Running the command line inside the test process: as a user would, without starting Python anew each time."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hydra.core.global_hydra import GlobalHydra

from cse_bench.__main__ import main


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str, command: Callable[[], None] = main) -> Answer:
    """Runs `python -m cse_bench ARGUMENTS`, or another command's `main`."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["cse_bench", *arguments])
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())
