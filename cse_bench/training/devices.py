"""Devices: whether this machine has what the trainer config asks for, told before anything is loaded."""

import os
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

from cse_bench.config.messages import Problem

# The start of a command that runs the rest of it once on every machine, e.g. `srun --ntasks-per-node=1`.
ON_EVERY_MACHINE = "CSE_BENCH_ON_EVERY_MACHINE"


def device_problems(trainer: dict[str, Any], *, global_batch_size: int) -> Iterator[Problem]:
    """What of accelerator, devices, strategy and steps cannot work here.

    Args:
        trainer: arguments of Lightning's Trainer.
        global_batch_size: sentences per step over all devices.
    """
    import torch

    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", 1)
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        yield Problem("trainer.devices", f"a number of devices, 1 or more, got {devices!r}")
        return
    if accelerator not in ("cpu", "gpu", "auto"):
        yield Problem("trainer.accelerator", f"cpu, gpu or auto, got {accelerator!r}")
        return
    if accelerator == "gpu" and (found := torch.cuda.device_count()) < devices:
        yield Problem(
            "trainer",
            f"asks for {devices} GPU{'s' if devices > 1 else ''} on this machine, which has {found or 'none'}; "
            "use trainer=cpu, set trainer.devices, or plan without them: dry_run=true",
        )
    yield from step_problems(trainer)
    if problem := machines_problem(int(trainer.get("num_nodes", 1))):
        yield Problem("trainer.num_nodes", problem)
    ranks = devices * int(trainer.get("num_nodes", 1))
    if ranks > 1 and trainer.get("strategy", "auto") == "auto":
        yield Problem("trainer.strategy", f"{ranks} devices need a strategy; set trainer.strategy=ddp")
    if global_batch_size < 2 * ranks:
        yield Problem(
            "data.global_batch_size",
            f"{global_batch_size} sentences over {ranks} devices leaves fewer than two for each; raise it",
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        yield Problem(
            "trainer.devices",
            "this command starts the ranks itself, and was started as one of them by torchrun; start it without",
        )


def machines_problem(machines: int) -> str | None:
    """Why ranks on several machines cannot be started, if so.

    Args:
        machines: number of them.
    """
    start = shlex.split(os.environ.get(ON_EVERY_MACHINE, ""))
    if machines == 1 or (start and shutil.which(start[0])):
        return None
    found = f"'{start[0]}' is not there" if start else f"{ON_EVERY_MACHINE} is not set"
    return (
        f"{machines} machines are started by their scheduler, but {found}; set it to what runs a command once on each "
        "machine, in a SLURM batch script 'srun --ntasks-per-node=1' (docs/scaling.md)"
    )


def step_problems(trainer: dict[str, Any]) -> Iterator[Problem]:
    """Step and epoch counts that would train nothing or never end."""
    steps, epochs = trainer.get("max_steps", -1), trainer.get("max_epochs", 1)
    if isinstance(steps, int) and steps != -1 and steps < 1:
        yield Problem("trainer.max_steps", f"a number of steps, 1 or more, or -1 for whole epochs, got {steps}")
    if steps == -1 and (not isinstance(epochs, int) or epochs < 1):
        yield Problem(
            "trainer.max_epochs", f"a number of passes, 1 or more, when trainer.max_steps is -1, got {epochs!r}"
        )
