"""What the parts that write to Weights & Biases agree on; imports nothing, so that a dashboard needs no torch."""

import os

STEP = "trainer/global_step"
"""The optimiser step, Lightning's name of it: the x-axis of every metric (`define_metric`)."""

FINAL = "final/"
"""Before the name of every metric in a run's `results.json`, scored with the selected encoder."""


def no_telemetry() -> None:
    """For offline runs: wandb's own telemetry would look for the network every minute, offline or not."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
