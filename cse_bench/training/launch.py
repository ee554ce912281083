"""Starting the ranks of a run: `torchrun -m cse_bench.worker <run directory>`.

Ranks read the resolved config from the run directory and never the command line, so sweeps and several devices compose. On a cluster the
scheduler starts the same worker.
"""

import os
import signal
import subprocess
import sys

from cse_bench.config.schema import RunConfig
from cse_bench.errors import TrainingError
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.resume import Interrupted
from cse_bench.training.train import SUMMARY, TrainingSummary, read_summary



def number_of_ranks(config: RunConfig) -> int:
    """Processes on this machine that the trainer config asks for."""
    return int(config.trainer.arguments().get("devices", 1))


def train_on_ranks(config: RunConfig, directory: RunDirectory, *, ranks: int) -> TrainingSummary:
    """Trains with one process per device and waits for them.

    Raises:
        TrainingError: a rank failed; its traceback was printed.
        Interrupted: the ranks were asked to stop and have saved their state.
    """
    (directory.path / SUMMARY).unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "cse_bench.worker", str(directory.path)]
    # Without this every rank would start as many threads as there are cores.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))}
    process = subprocess.Popen(command, env=os.environ | threads)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal sent it to the ranks as well; they finish their step and save
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if (directory.path / SUMMARY).is_file() and code == 0:
        return read_summary(directory)
    marker = directory.path / "interrupted"
    if marker.is_file():
        number, step = (int(part) for part in marker.read_text().split())
        marker.unlink()
        raise Interrupted(number, step)
    raise TrainingError(f"a rank of {directory.name} failed (exit code {code}); its traceback is above")
