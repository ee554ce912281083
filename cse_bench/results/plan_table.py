"""The plan of a run as a table for people."""

from rich.table import Table

from cse_bench.plan import Plan
from cse_bench.training.schedule import Schedule

_NOT_INCLUDED = {
    "cuda": "CUDA context, cuBLAS workspace, NCCL buffers, rounding and fragmentation by the allocator, evaluation.",
    # Measured with glibc: resident memory grew by up to half more than what was alive at the peak.
    "cpu": "the program itself (about 0.5 GiB), fragmentation by the C allocator (up to a half more), evaluation.",
}
_UPPER_BOUND = "Every row is taken to be as long as allowed; shorter ones, and data.split_rows_by_length, take less."


def plan_table(plan: Plan) -> Table:
    """What a run would be, at 100 columns."""
    title = f"plan of {plan.method} ({plan.status}) on {plan.backbone}, pooling {plan.pooling}; nothing was loaded"
    caption = f"Not included: {_NOT_INCLUDED[plan.device]} {_UPPER_BOUND}"
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", show_header=False, width=100
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(ratio=1)
    _add_model(table, plan)
    if plan.schedule:
        _add_steps(table, plan, plan.schedule)
    _add_memory(table, plan)
    return table


def _add_model(table: Table, plan: Plan) -> None:
    if plan.before:
        table.add_row("runs before this one", str(len(plan.before)), "\n".join(plan.before), end_section=True)
    table.add_row("devices", f"{plan.devices} x {plan.device}", f"strategy {plan.strategy}")
    table.add_row("precision", plan.precision, plan.remarks.get("precision", ""), end_section=True)
    training = "of the method: encoder, adapter, head" if plan.trains else "of the encoder"
    table.add_row("parameters, total", _count(plan.parameters["total"]), training)
    table.add_row("parameters, trainable", _count(plan.parameters["trainable"]), _share(plan.parameters))
    table.add_row(
        "parameters, at inference",
        _count(plan.parameters["inference"]),
        "of the encoder that is kept",
        end_section=True,
    )


def _add_steps(table: Table, plan: Plan, schedule: Schedule) -> None:
    per_device = plan.rows // plan.views
    seen = "once" if plan.views == 1 else f"{plan.views} times"
    table.add_row("sentences in the corpus", _count(schedule.sentences), schedule.source)
    table.add_row("sentences per step", _count(plan.global_batch_size), f"over all devices; {per_device:,} on each")
    table.add_row("steps per epoch", _count(schedule.steps_per_epoch))
    table.add_row("steps", _count(schedule.steps), plan.remarks["steps"])
    table.add_row("sentences seen", _count(schedule.sentences_seen))
    table.add_row(
        "rows per step and device", _count(plan.rows), f"{per_device:,} sentences, each seen {seen} by the encoder"
    )
    table.add_row("tokens per row, at most", _count(plan.row_tokens), plan.remarks["row_tokens"])
    table.add_row("tokens per step, at most", _count(plan.step_tokens), "all views, over all devices")
    table.add_row("tokens in the run, at most", _count(plan.run_tokens), "padding included")
    table.add_row("negatives per anchor", _count(plan.negatives), "over all devices", end_section=True)


def _add_memory(table: Table, plan: Plan) -> None:
    memory, remarks = plan.memory, plan.remarks
    shard = f"1/{plan.devices} of them" if memory.gathered else ""
    table.add_row("memory per device: parameters", _bytes(memory.parameters), shard or remarks["parameters"])
    if plan.trains:
        table.add_row("  gradients", _bytes(memory.gradients), shard or "of the trainable parameters, in their dtype")
        table.add_row("  AdamW", _bytes(memory.optimizer), shard or "two moments of every trainable parameter")
        if memory.buckets:
            table.add_row("  DDP buckets", _bytes(memory.buckets), "the copy of the gradients that is sent")
        if memory.gathered:
            table.add_row(
                "  gathered", _bytes(memory.gathered), "FSDP by layer: two layers, and all outside the layers"
            )
        table.add_row("  kept for the backward", _bytes(memory.activations), remarks["activations"])
    table.add_row("  temporaries at the peak", _bytes(memory.temporaries), remarks["temporaries"])
    table.add_row("  peak", _bytes(memory.total), "sum of these", style="bold")


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _share(parameters: dict[str, int]) -> str:
    return f"{100 * parameters['trainable'] / parameters['total']:.3g} % of the total"


def _bytes(number: int) -> str:
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.2f} MiB"
