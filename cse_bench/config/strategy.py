"""What `trainer.strategy=fsdp` asks of the rest of a config, told before anything is loaded."""

from collections.abc import Iterator

from cse_bench.config.messages import Problem
from cse_bench.config.schema import QLoraAdapter, RunConfig

FSDP = "fsdp"
"""In `trainer.strategy`: weights in shards over the ranks, see `cse_bench.training.sharding`."""


def sharding_problems(run: RunConfig) -> Iterator[Problem]:
    """Settings that cannot be trained in shards; nothing for other strategies."""
    if run.trainer.arguments().get("strategy") == FSDP:
        yield from _settings(run)


def unshardable_problems(run: RunConfig) -> Iterator[Problem]:
    """A method that cannot be trained in shards; nothing for other strategies.

    Args:
        run: a config that nothing else is wrong with, since the method is built, without weights.
    """
    if run.trainer.arguments().get("strategy") == FSDP:
        yield from _weights_beside_the_encoder(run)


def _settings(run: RunConfig) -> Iterator[Problem]:
    """Every forward of a sharded body is an operation of all ranks together: all of them must forward equally often."""
    trainer = run.trainer.arguments()
    devices = trainer.get("devices", 1)
    devices = devices if isinstance(devices, int) else 1  # "auto" is refused elsewhere
    ranks = devices * int(trainer.get("num_nodes", 1))
    if run.data.split_rows_by_length:
        yield Problem(
            "data.split_rows_by_length",
            "makes as many pieces as each rank's own sentences ask for, but with trainer.strategy=fsdp all ranks must "
            "forward equally often; set it to false",
        )
    if run.data.gradient_cache_rows is not None and not (
        run.data.drop_last and run.data.global_batch_size % ranks == 0
    ):
        yield Problem(
            "data.gradient_cache_rows",
            f"with trainer.strategy=fsdp all ranks must forward equally often: set data.drop_last=true and a "
            f"data.global_batch_size that {ranks} divides, or data.gradient_cache_rows=null",
        )
    if run.backbone.compile is not None:
        yield Problem("backbone.compile", "was never tried with fsdp; set it to null")
    if run.backbone.packed is True:
        yield Problem("backbone.packed", "calls parts of layers, which fsdp gathers as a whole; set it to auto")
    if isinstance(run.backbone.adapter, QLoraAdapter):
        yield Problem(
            "backbone.adapter", "weights in four bits cannot be split; use adapter=lora, or trainer.strategy=ddp"
        )
    if run.precision == "16-mixed":
        yield Problem("precision", "16-mixed scales the loss by what each rank sees; use bf16-mixed with fsdp")


def _weights_beside_the_encoder(run: RunConfig) -> Iterator[Problem]:
    if run.backbone.source != "local" and run.backbone.architecture is None:
        return  # not known before the download; asked again when the weights are split
    from cse_bench.methods.base import ContrastiveMethod
    from cse_bench.plan import method_on_meta
    from cse_bench.training.sharding import unshardable

    method = method_on_meta(run)
    assert isinstance(method, ContrastiveMethod)  # asked of what trains only
    if name := unshardable(method):
        yield Problem(
            "trainer.strategy",
            f"fsdp splits the body of the encoder and a training head, and this method has other weights ('{name}'); "
            "use ddp",
        )
