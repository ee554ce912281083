"""Devices: whether this machine has what the trainer config asks for, told before anything is loaded."""

import os
from collections.abc import Iterator
from typing import Any

from cse_bench.config.messages import Problem


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
    if int(trainer.get("num_nodes", 1)) > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Problem(
            "trainer.num_nodes",
            "several machines are started by their scheduler, with torchrun -m cse_bench.worker on each; this command "
            "starts the devices of one",
        )
    ranks = devices * int(trainer.get("num_nodes", 1))
    if ranks > 1 and trainer.get("strategy", "auto") == "auto":
        yield Problem("trainer.strategy", f"{ranks} devices need a strategy; set trainer.strategy=ddp")
    if global_batch_size < 2 * ranks:
        yield Problem(
            "data.global_batch_size",
            f"{global_batch_size} sentences over {ranks} devices leaves fewer than two for each; raise it",
        )
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) != ranks:
        yield Problem(
            "trainer.devices", f"{ranks} ranks, but this process was started as one of {os.environ['WORLD_SIZE']}"
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
