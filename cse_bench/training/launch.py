"""Starting the ranks of a run: `torchrun -m cse_bench.worker <run directory>`.

Ranks read the resolved config from the run directory and never the command line, so sweeps and several devices compose.
On several machines the scheduler starts the same worker on each, see `cse_bench.training.devices`.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import asdict
from pathlib import Path

from cse_bench.config.schema import RunConfig
from cse_bench.errors import TrainingError
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.devices import ON_EVERY_MACHINE
from cse_bench.training.resume import Interrupted, signals_to
from cse_bench.training.train import TrainingSummary


class RankFiles:
    """What the ranks of a run and the process that started them tell each other, by files in the run directory.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.prerequisites = directory / "prerequisites.json"
        self.summary = directory / "training.json"
        self.interrupted = directory / "interrupted"
        self.failed = directory / "failed"
        self.lost = directory / "lost"
        self.stop = directory / "stop"

    def clear(self) -> None:
        """Removes them: they mean nothing once they were read."""
        for path in vars(self).values():
            path.unlink(missing_ok=True)

    def write_prerequisites(self, encoders: dict[str, Path]) -> None:
        """Where the encoders lie that the method asked for; written before the ranks start."""
        self.prerequisites.write_text(json.dumps({name: str(path) for name, path in encoders.items()}))

    def read_prerequisites(self) -> dict[str, Path]:
        """See `write_prerequisites`; none for a rank that somebody else started without them."""
        if not self.prerequisites.is_file():
            return {}
        return {name: Path(path) for name, path in json.loads(self.prerequisites.read_text()).items()}

    def write_summary(self, summary: TrainingSummary) -> None:
        """Training has finished."""
        self.summary.write_text(json.dumps(asdict(summary)))

    def write_failure(self, reason: str) -> None:
        """A rank has failed; the first one says why, the others fail because of it."""
        try:
            with self.failed.open("x") as file:
                file.write(reason)
        except FileExistsError:
            pass

    def write_lost(self, reason: str) -> None:
        """A rank no longer hears another one. Why, that one would have to say; it does not if it was killed."""
        self.lost.write_text(reason)

    def write_interrupted(self, stop: Interrupted) -> None:
        """The ranks were asked to stop and have saved their state."""
        self.interrupted.write_text(json.dumps([int(stop.signal_number), stop.step]))


def number_of_ranks(config: RunConfig) -> int:
    """Processes that the trainer config asks for, over all machines."""
    devices, machines = _devices_and_machines(config)
    return devices * machines


def _devices_and_machines(config: RunConfig) -> tuple[int, int]:
    trainer = config.trainer.arguments()
    return int(trainer.get("devices", 1)), int(trainer.get("num_nodes", 1))


def train_on_ranks(config: RunConfig, directory: RunDirectory, *, prerequisites: dict[str, Path]) -> TrainingSummary:
    """Trains with one process per device and waits for them.

    Ctrl-C and SIGTERM reach the ranks through a file: torchrun would pass a signal on a second time, which means "at
    once", and would kill ranks whose step takes longer than its patience.

    The ranks do not outlive this process, however it ends: their standard input is a pipe that only this process holds
    open. (torchrun gives every rank a session of its own, so killing its process group would not reach them.)

    Raises:
        TrainingError: a rank failed.
        Interrupted: the ranks were asked to stop and have saved their state, also where that was after the last step.
        KeyboardInterrupt: Ctrl-C a second time; the ranks were killed.
    """
    files = RankFiles(directory.path)
    files.clear()
    files.write_prerequisites(prerequisites)
    # Without this every rank would start as many threads as there are cores.
    own = max(1, (os.cpu_count() or 1) // _devices_and_machines(config)[0])
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(own))}
    # In a session of its own: the terminal's Ctrl-C comes to this process only.
    process = subprocess.Popen(
        _command(config, directory), env=os.environ | threads, stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None

    def pass_on(number: int) -> None:
        if files.stop.exists() and number == signal.SIGINT:
            raise KeyboardInterrupt
        files.stop.write_text(str(int(number)))
        print(
            f"\n{signal.Signals(number).name}: finishing this step and saving; Ctrl-C again stops at once", flush=True
        )

    try:
        with signals_to(pass_on):
            code = process.wait()
        return _outcome(files, directory.name, code, saved_at_end=config.checkpoint_every_steps > 0)
    finally:
        process.stdin.close()  # ranks that are still there end now
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        files.clear()


def _command(config: RunConfig, directory: RunDirectory) -> list[str]:
    """What starts all ranks."""
    devices, machines = _devices_and_machines(config)
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices}"]
    worker = ["-m", "cse_bench.worker", str(directory.path.resolve())]
    if machines == 1:
        return [*torchrun, "--standalone", *worker, "--until-stdin-ends"]
    # The ranks meet at this machine, which is one of them. Whether standard input reaches the others, and stays open
    # there, is up to the scheduler; it also ends what the run leaves behind.
    meeting = [f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}", "--rdzv-backend=c10d"]
    start = shlex.split(os.environ[ON_EVERY_MACHINE])
    return [*start, *torchrun, f"--nnodes={machines}", *meeting, f"--rdzv-id={uuid.uuid4().hex}", *worker]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _outcome(files: RankFiles, name: str, code: int, *, saved_at_end: bool) -> TrainingSummary:
    if files.summary.is_file() and code == 0:
        # The ranks look for the file until their last step only. What they did then is saved, or would be lost by this.
        if saved_at_end and files.stop.is_file():
            raise Interrupted(int(files.stop.read_text() or signal.SIGTERM), None)
        return TrainingSummary(**json.loads(files.summary.read_text()))
    if files.interrupted.is_file():
        raise Interrupted(*json.loads(files.interrupted.read_text()))
    if files.failed.is_file():
        raise TrainingError(files.failed.read_text())
    heard = f"the others no longer heard it ({files.lost.read_text()}). " if files.lost.is_file() else ""
    raise TrainingError(
        f"a rank of {name} was lost (exit code {code}); its last words are above. Nothing there? Then it was killed "
        f"from outside, e.g. for lack of memory. {heard}The same command goes on from the last checkpoint"
    )
