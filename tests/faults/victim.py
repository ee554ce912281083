"""Runs that are killed: real processes, forked from one that has torch loaded, which takes seconds."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: exit code; negative: the signal.
        operations: how many times it had changed something below its folder (0 when it was killed from outside).
        last: what it was about to do when it killed itself.
    """

    code: int
    operations: int = 0
    last: str = ""

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Runs:
    """Starts `python -m cse_bench ...` below a folder, in a process that is forked: importing torch takes seconds."""

    def __init__(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["cse_bench.run", "cse_bench.config.validate", "tests.tiny"])

    def run(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        kill_after_s: float | None = None,
        kill_at: int = 0,
        instead: Callable[[Path], None] | None = None,
    ) -> End:
        """One process, to its end.

        Args:
            folder: what happens below it is counted; gets a log.
            arguments: of the command line.
            kill_after_s: SIGKILL from outside after so long; None: never.
            kill_at: SIGKILL before this file operation below the folder, counted from 1; 0: never.
            instead: what happens there in place of the SIGKILL.
        """
        folder.mkdir(parents=True, exist_ok=True)
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_live, args=(str(folder), list(arguments), kill_at, instead, there))
        process.start()
        there.close()
        process.join(kill_after_s)
        if process.is_alive():
            process.kill()
            process.join()
        counted, last = 0, ""
        try:
            while here.poll():
                counted, last = here.recv()
        except EOFError:
            pass
        return End(int(process.exitcode or 0), counted, last)


def _live(
    folder: str,
    arguments: list[str],
    kill_at: int,
    instead: Callable[[Path], None] | None,
    connection: Connection,
) -> None:
    log = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    count = 0

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _CHANGES and not (event == "open" and given[2] & _WRITES):
            return
        path = os.fsdecode(given[0]) if isinstance(given[0], str | bytes) else ""
        if not path.startswith(folder):
            return
        count += 1
        if count == kill_at:
            connection.send((count, f"{event} {path.removeprefix(folder)}"))
            if instead is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                instead(Path(folder))

    sys.addaudithook(watch)
    from cse_bench.__main__ import main

    sys.argv = ["cse_bench", *arguments]
    try:
        main()
    finally:
        connection.send((count, ""))
