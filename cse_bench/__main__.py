"""`python -m cse_bench`: composes the config and hands over. torch is imported only when a run starts."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cse_bench.config.location import conf_directory
from cse_bench.config.messages import refuse
from cse_bench.config.overrides import check_overrides
from cse_bench.errors import BusyError, CSEBenchError
from cse_bench.results.sweep import close_sweep

_CONF = conf_directory()


class Refused(BaseException):
    """Carries a user's error past Hydra, which would print the overrides (and any secret among them) before it."""


@hydra.main(version_base="1.3", config_path=str(_CONF), config_name="config")
def compose_and_run(config: DictConfig) -> float | None:
    """One job: a plain run, or one of a sweep. Returns the selection metric, which is what a sweeper optimises."""
    with past_hydra():
        return _run(config)


def _run(config: DictConfig) -> float | None:
    from cse_bench.config.validate import validate_run

    run_config = validate_run(config)
    if run_config.dry_run:
        from cse_bench.plan import plan
        from cse_bench.results.plan_table import plan_table
        from cse_bench.results.tables import print_table

        print_table(plan_table(plan(run_config)))
        return None
    from pathlib import Path

    from cse_bench.results.missing import reuse_notes
    from cse_bench.results.sweep import comes_back, note_busy, note_run, reaches_sweep
    from cse_bench.results.tables import print_lines, print_table, run_table
    from cse_bench.run import run, run_directory

    job = HydraConfig.get()
    in_sweep = job.mode == RunMode.MULTIRUN
    try:
        # Left to another process is only what the sweep hears of, so that it can come back to it.
        results = run(run_config, wait=in_sweep and not (comes_back(job.sweeper) and reaches_sweep()))
    except BusyError:
        if not in_sweep:
            raise
        directory = run_directory(run_config).path
        note_busy(directory, list(job.overrides.task))
        print_lines([f"{directory}: another process is at it; this sweep goes on and comes back to it"])
        return None
    if results["reused"]:
        print_lines(["this run was finished before (overwrite=true runs it again)"])
    print_lines(reuse_notes([results]))  # a run that was done now may stand on others that were done before
    print_table(run_table(results, results["baseline"]))
    print_lines([f"results: {results['directory']}"])
    baseline = results["baseline_directory"]
    note_run(Path(results["directory"]), Path(baseline) if baseline else None)
    metric = run_config.evaluation.selection_metric
    return results["metrics"].get(metric) if metric else None


@contextmanager
def past_hydra() -> Iterator[None]:
    """A user's error ends a single run with its message alone; in a sweep Hydra notes it, and the other runs go on."""
    try:
        yield
    except (CSEBenchError, OmegaConfBaseException) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        raise Refused(error) from error


def main() -> None:
    """The command line."""
    command_line(compose_and_run, config_name="config")


def command_line(entry: Callable[[], object], *, config_name: str) -> None:
    """Runs a Hydra entry point; answers a user's error with its message alone.

    Args:
        entry: a function decorated with `hydra.main`.
        config_name: its primary config.
    """
    # Threads that wait actively for each other stand still as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Hydra would print its own short message and exit; we want to add what is allowed.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # What they say at import: fonts that were looked for, and CPU kernels that nothing here would use.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    arguments = sys.argv[1:]
    try:
        if not {"--help", "-h", "--hydra-help", "--version"} & set(arguments):
            refuse(check_overrides(arguments, conf=_CONF, config_name=config_name))
        try:
            entry()
        finally:
            close_sweep()
    except Refused as refused:
        fail(refused.args[0])
    except (CSEBenchError, HydraException, OmegaConfBaseException) as error:
        fail(error)
    except KeyboardInterrupt:
        stop("stopped at once; the same command goes on from the last checkpoint", code=130)
    except BaseException as error:
        if type(error).__name__ == "Interrupted":  # by name: torch is not imported until a run starts
            stop(str(error), code=128 + error.signal_number)  # type: ignore[attr-defined]
        raise


def fail(error: Exception) -> NoReturn:
    """Prints one message and exits with 2."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def stop(message: str, *, code: int) -> NoReturn:
    """Prints why the run stopped and exits."""
    print(f"\n{message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
