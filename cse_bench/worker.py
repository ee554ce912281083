"""One rank of a run: `torchrun ... -m cse_bench.worker <run directory>`.

Reads the resolved config there; nothing else decides.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from cse_bench.config.schema import RunConfig
from cse_bench.errors import CSEBenchError
from cse_bench.results.run_directory import RunDirectory


def main(path: str) -> None:
    """Trains as one rank.

    Args:
        path: the run directory, with `config.yaml`.
    """
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
        files.write_failure(f"{type(error).__name__}: {error}")
        close_loggers(loggers, failed=True)
        raise
    # Together and before Python ends: a rank that leaves its connections to chance can be aborted at the very end.
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
