"""One rank of a run: `torchrun ... -m cse_bench.worker <run directory>`. Reads the resolved config there; nothing else decides."""

import os
import sys
from pathlib import Path

from omegaconf import OmegaConf

from cse_bench.config.schema import RunConfig
from cse_bench.results.run_directory import RunDirectory


def main(path: str) -> None:
    """Trains as one rank.

    Args:
        path: the run directory, with `config.yaml`.
    """
    from cse_bench.run import extra_loggers
    from cse_bench.training.resume import Interrupted
    from cse_bench.training.train import train

    directory = RunDirectory(Path(path))
    content = OmegaConf.to_container(OmegaConf.load(directory.config))
    config = RunConfig.model_validate(content)
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        train(config, directory, loggers=extra_loggers(config, directory) if first else [])
    except Interrupted as stop:
        if first:
            (directory.path / "interrupted").write_text(f"{int(stop.signal_number)} {stop.step}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
