"""Two real gloo processes that run functions of the tests together; started once, importing torch takes seconds."""

import datetime
import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RANKS = 2
_PATIENCE_S = 120


def _serve(rank: int, store: Path, connection: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=_PATIENCE_S / 2),
    )
    while True:
        function, arguments = connection.recv()
        try:
            connection.send((function(rank, *arguments), None))
        except BaseException:
            connection.send((None, traceback.format_exc()))


class Ranks:
    """The processes.

    Args:
        folder: an empty one, for the rendezvous.
    """

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(RANKS):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, folder / "store", there), daemon=True)
            process.start()
            self._connections.append(here)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`function(rank, *arguments)` on all ranks at once; its results (no tensors) in rank order."""
        for connection in self._connections:
            connection.send((function, arguments))
        answers = []
        for connection in self._connections:
            assert connection.poll(_PATIENCE_S), "a rank does not answer"
            answers.append(connection.recv())
        errors = [error for _, error in answers if error]
        assert not errors, "\n".join(errors)
        return [result for result, _ in answers]

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.join()
