"""One rank of a run: `torchrun ... -m cse_bench.worker <run directory> [--until-stdin-ends]`.

Reads the resolved config there; nothing else decides. With the option the rank ends when its standard input does, that
is when the process that started it is gone.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from cse_bench.config.schema import RunConfig
from cse_bench.errors import CSEBenchError
from cse_bench.results.run_directory import RunDirectory

if TYPE_CHECKING:
    from cse_bench.training.launch import RankFiles

UNTIL_STDIN_ENDS = "--until-stdin-ends"
_LOOKS_EVERY_S = 0.5


def main(path: str, *, until_stdin_ends: bool) -> None:
    """Trains as one rank.

    Args:
        path: the run directory, with `config.yaml`.
        until_stdin_ends: end with the process that holds the other end of standard input.
    """
    if until_stdin_ends:
        _in_background(_end_with_stdin)
    from cse_bench.results.loggers import close_loggers, extra_loggers
    from cse_bench.training.launch import RankFiles
    from cse_bench.training.resume import Interrupted
    from cse_bench.training.train import train

    if torch.cuda.is_available():  # before anything is loaded or mined there
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    directory = RunDirectory(Path(path))
    files = RankFiles(directory.path)
    config = RunConfig.model_validate(OmegaConf.to_container(OmegaConf.load(directory.config)))
    first = int(os.environ.get("RANK", "0")) == 0
    _in_background(_stop_before_training, files)
    loggers = []
    try:
        loggers = extra_loggers(config, directory) if first else []
        summary = train(
            config, directory, loggers=loggers, prerequisites=files.read_prerequisites(), stop_file=files.stop
        )
        if first:
            files.write_summary(summary)
        close_loggers(loggers)
    except Interrupted as stop:
        if first:
            files.write_interrupted(stop)
        close_loggers(loggers, failed=True)
    except CSEBenchError as error:
        files.write_failure(str(error))
        close_loggers(loggers, failed=True)
        sys.exit(1)
    except BaseException as error:
        note = files.write_lost if _is_of_connection(error) else files.write_failure
        note(f"{type(error).__name__}: {error}")
        close_loggers(loggers, failed=True)
        raise
    # Together: a rank that leaves its connections to chance can be aborted by the end of another one.
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _end() -> None:
    """Ends a rank whose work is done and written, without Python's own clearing up.

    PyTorch keeps a group with its threads in spite of `destroy_process_group` (with FSDP2 it does); one that wants
    Python while that is being taken down aborts the process (pytorch/pytorch#179291), and the run with it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _in_background(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _end_with_stdin() -> None:
    """Nothing is ever written there: reading comes back when the other end is closed, or its process is dead."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _stop_before_training(files: "RankFiles") -> None:
    """Answers a request to stop that comes before the ranks are connected; later they answer it together.

    Until then they tokenise, mine and load: a later start finds what is done of it and does the rest again.
    """
    from cse_bench.training.resume import Interrupted

    while not dist.is_initialized():
        if files.stop.is_file() and (number := files.stop.read_text()):
            files.write_interrupted(Interrupted(int(number), None))
            os._exit(1)  # torchrun ends the others when one rank ends so
        time.sleep(_LOOKS_EVERY_S)


def _is_of_connection(error: BaseException) -> bool:
    """Whether a rank failed because another one is gone: what it says is not the reason."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], [UNTIL_STDIN_ENDS]):
        sys.exit(__doc__)
    main(arguments[0], until_stdin_ends=len(arguments) == 2)
    _end()
