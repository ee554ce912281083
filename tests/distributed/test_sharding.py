"""Weights in shards (FSDP) over two processes train as one process does: same losses, same parameters, exact resume."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from cse_bench.config.bind import build
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, TrainingError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.results.metrics_log import read_metrics
from cse_bench.training.finite import check_gradients, check_parameters
from cse_bench.training.precision import autocast
from cse_bench.training.sharding import ShardedStrategy, layers, shard, unshardable, whole, whole_weights
from tests.distributed.command import finish, runs_in, start
from tests.distributed.pool import Ranks
from tests.distributed.steps import batches
from tests.tiny import composed, largest_difference, task_overrides, tiny_method

# Dropout masks differ between ranks by design: the same numbers are only to be had without them.
LLAMA = ("method=cse_sfp", "backbone=tiny_llama", "backbone.dropout=0")
LORA = (*LLAMA, "backbone.adapter={type:lora,r:4,alpha:8,dropout:0,target_modules:all-linear}")
SENTENCES = ["a river", "the old bird sings", "who walks over the red stone"]
CASES: dict[str, tuple[tuple[str, ...], int | None]] = {
    "lora": (LORA, None),
    "lora, gradient caching": (LORA, 8),
    "lora, gradient checkpointing": ((*LORA, "backbone.gradient_checkpointing=true"), None),
    "lora, both": ((*LORA, "backbone.gradient_checkpointing=true"), 8),
    "all weights": (LLAMA, None),
    "all weights of another decoder": (("method=cse_sfp", "backbone=tiny_opt", "backbone.dropout=0"), 16),
    "an encoder with a head": (("method=simcse", "backbone=tiny_bert"), None),
}
SLOW = ("lora, gradient caching", "lora, gradient checkpointing", "all weights of another decoder")

Weights = dict[str, np.ndarray]


def built(overrides: tuple[str, ...], cache_rows: int | None = None) -> ContrastiveMethod:
    spread = "init_std" if "backbone=tiny_opt" in overrides else "initializer_range"
    method = tiny_method(*overrides, f"+backbone.architecture.{spread}=0.3", cache_rows=cache_rows)
    return method if "method=cse_sfp" in overrides else method.eval()  # two dropout views are compared without dropout


def optimizer_of(method: ContrastiveMethod) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-2, fused=True)


def take_steps(
    method: ContrastiveMethod, optimizer: torch.optim.Optimizer, *, rank: int, ranks: int, numbers: range
) -> list[float]:
    losses = []
    for number in numbers:
        rows = batches(method)[number % 2]
        size = len(rows) // ranks
        local = rows.take(torch.arange(rank * size, (rank + 1) * size), length=int(rows.lengths.max()))
        loss = method.loss_of(local)["loss"]
        loss.backward()
        method.configure_gradient_clipping(optimizer, 1.0, None)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def sharded(
    rank: int, overrides: tuple[str, ...], cache_rows: int | None
) -> tuple[list[float], Weights, np.ndarray, float]:
    method = built(overrides, cache_rows)
    shard(method, init_device_mesh("cpu", (2,)))
    parameters = [parameter for parameter in method.parameters() if isinstance(parameter, DTensor)]
    assert len(parameters) == len(list(method.parameters()))
    share = sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)
    optimizer = optimizer_of(method)
    losses = take_steps(method, optimizer, rank=rank, ranks=2, numbers=range(2))
    method.encoder.encode(SENTENCES)  # an evaluation in between
    losses += take_steps(method, optimizer, rank=rank, ranks=2, numbers=range(2, 4))
    vectors = method.encoder.encode(SENTENCES)
    with whole_weights(method, frozen=True):
        found = {name: parameter.detach() for name, parameter in method.named_parameters()}
        assert not any(isinstance(tensor, DTensor) for tensor in found.values()) or rank == 1
        weights = {name: tensor.numpy().copy() for name, tensor in found.items()} if rank == 0 else {}
    assert all(isinstance(parameter, DTensor) for parameter in method.parameters())
    return losses, weights, vectors, share


@pytest.mark.parametrize(
    ("overrides", "cache_rows"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in CASES.items()],
)
def test_two_processes_with_shards_equal_one(ranks: Ranks, overrides: tuple[str, ...], cache_rows: int | None) -> None:
    method = built(overrides, cache_rows)
    before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    losses = take_steps(method, optimizer_of(method), rank=0, ranks=1, numbers=range(4))
    after = {name: parameter.detach() for name, parameter in method.named_parameters()}
    assert largest_difference(before, after) > 1e-2
    first, second = ranks.run(sharded, overrides, cache_rows)
    for found_losses, _, vectors, share in (first, second):
        assert found_losses == pytest.approx(losses, abs=1e-8)
        np.testing.assert_allclose(vectors, method.encoder.encode(SENTENCES), atol=1e-5)
        assert share < 0.55
    assert first[1].keys() == after.keys()
    for name, expected in after.items():
        np.testing.assert_allclose(first[1][name], expected.numpy(), atol=1e-7, err_msg=name)


def half_precision(rank: int) -> tuple[list[float], set[str]]:
    """Adapters in float32 on a frozen bfloat16 body, as the entries of the large decoders have them."""
    entry = ("backbone.dtype=bfloat16", "+backbone.architecture.initializer_range=0.3")
    config = composed(*LORA, *entry, "evaluation=none", "data=wikipedia_sample")
    torch.manual_seed(0)
    method: ContrastiveMethod = build(
        config.method, encoder=build_encoder(config.backbone), optimizer=config.optimizer, split_rows_by_length=False
    )
    if rank >= 0:
        shard(method, init_device_mesh("cpu", (2,)))
    optimizer, ranks, losses = optimizer_of(method), 1 if rank < 0 else 2, []
    for number in range(3):
        with autocast("bf16-mixed", "cpu"):  # of one step: it remembers the weights it has cast
            losses += take_steps(method, optimizer, rank=max(rank, 0), ranks=ranks, numbers=range(number, number + 1))
    return losses, {str(parameter.dtype) for parameter in method.parameters()}


def test_adapters_and_body_may_differ_in_dtype(ranks: Ranks) -> None:
    expected, dtypes = half_precision(-1)
    assert dtypes == {"torch.float32", "torch.bfloat16"}
    assert expected[2] < expected[0] - 0.1  # the same sentences, two steps later
    for losses, found in ranks.run(half_precision):
        assert found == dtypes
        assert losses == pytest.approx(expected, rel=0.02)


def restored(rank: int, overrides: tuple[str, ...]) -> float:
    """How far a run that was cut in two ends from one that was not."""

    def started(model: dict[str, Any] | None = None, moments: dict[str, Any] | None = None) -> ShardedStrategy:
        method = built(overrides)
        if model is not None:
            method.load_state_dict(model, strict=False)
        shard(method, init_device_mesh("cpu", (2,)))
        strategy = ShardedStrategy()
        strategy._lightning_module = method
        strategy.optimizers = [optimizer_of(method)]
        if moments is not None:
            strategy.load_optimizer_state_dict({"optimizer_states": [moments]})
        return strategy

    def go_on(strategy: ShardedStrategy, numbers: range) -> None:
        method: Any = strategy.lightning_module
        take_steps(method, strategy.optimizers[0], rank=rank, ranks=2, numbers=numbers)

    one = started()
    go_on(one, range(4))
    first = started()
    go_on(first, range(2))
    frozen = first.lightning_module.frozen_state()
    model = {name: value for name, value in first.lightning_module_state_dict().items() if name not in frozen}
    moments = first.optimizer_state(first.optimizers[0])
    assert not any(isinstance(value, DTensor) for value in model.values())
    assert not any(isinstance(v, DTensor) for of_one in moments["state"].values() for v in of_one.values())
    second = started(model, moments)
    go_on(second, range(2, 4))
    ends = [{n: whole(p.detach()) for n, p in s.lightning_module.named_parameters()} for s in (one, first, second)]
    assert largest_difference(ends[0], ends[1]) > 1e-3
    return largest_difference(ends[0], ends[2])


@pytest.mark.parametrize("overrides", [LORA, LLAMA], ids=["lora", "all weights"])
def test_a_checkpoint_goes_on_exactly(ranks: Ranks, overrides: tuple[str, ...]) -> None:
    assert ranks.run(restored, overrides) == [0.0, 0.0]


def noticed(rank: int, where: str) -> list[bool]:
    """Whether this rank stops: as long as all is well, and after a NaN in the last shard of one parameter."""
    method = built(LORA)
    shard(method, init_device_mesh("cpu", (2,)))
    method.loss_of(batches(method)[0])["loss"].backward()
    found = []
    for broken in (False, True):
        if broken and rank == 1:
            parameter = next(p for name, p in method.named_parameters() if "lora_B" in name)
            tensor: Any = parameter.grad if where == "gradient" else parameter.detach()
            tensor.to_local().fill_(float("nan"))
        try:
            if where == "gradient":
                check_gradients(method, sentences=[1, 2], step=3)
            else:
                check_parameters(method, step=3)
            found.append(False)
        except TrainingError as error:
            found.append("lora_B" in str(error))
    return found


@pytest.mark.parametrize("where", ["gradient", "parameter"])
def test_all_ranks_notice_what_one_shard_holds(ranks: Ranks, where: str) -> None:
    assert ranks.run(noticed, where) == [[False, True], [False, True]]


@pytest.mark.parametrize("backbone", ["tiny_bert", "tiny_llama", "tiny_mistral", "tiny_opt"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_units_are_the_layers(backbone: str, adapter: str) -> None:
    method = tiny_method(f"backbone={backbone}", f"adapter={adapter}")
    assert len(layers(method.encoder.body)) == method.encoder.config.num_hidden_layers == 2
    assert unshardable(method) is None


def test_what_has_other_weights_is_refused() -> None:
    fsdp = ("trainer=ddp_cpu_2", "trainer.strategy=fsdp", "evaluation=none", "data=wikipedia_sample")
    bert = (*fsdp, "backbone=tiny_bert", "data.split_rows_by_length=false")
    with pytest.raises(ConfigError, match="trainer.strategy: fsdp splits the body.*'momentum_encoder"):
        composed(*bert, "method=esimcse")
    with pytest.raises(ConfigError, match="data.split_rows_by_length: makes as many pieces"):
        composed(*fsdp, "backbone=tiny_bert")
    with pytest.raises(ConfigError, match="data.gradient_cache_rows: with trainer.strategy=fsdp.*drop_last=true"):
        composed(*bert, "data.gradient_cache_rows=8")
    composed(*bert, "data.gradient_cache_rows=8", "data.drop_last=true")
    with pytest.raises(TrainingError, match="cannot be split over ranks"):
        shard(tiny_method("method=esimcse"), None)  # type: ignore[arg-type]  # refused before it is looked at


@pytest.mark.slow
def test_the_command_trains_in_shards_as_with_copies(tmp_path: Path) -> None:
    tasks = (*task_overrides(), "evaluation.eval_every_steps=2", "checkpoint_every_steps=3")
    common = (*LORA, *tasks, "trainer.max_steps=6", "trainer.log_every_n_steps=1", "data.split_rows_by_length=false")
    results, losses, vectors = [], [], []
    for strategy in ("ddp", "fsdp"):
        folder = tmp_path / strategy
        finish(start(folder, f"trainer.strategy={strategy}", *common))
        (directory,) = runs_in(folder).values()
        results.append(json.loads((directory / "results.json").read_text()))
        losses.append([value for _, name, value in read_metrics(directory / "metrics.csv") if name == "train/loss"])
        vectors.append(load_encoder(directory / "model").encode(SENTENCES))
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-4)
    assert results[0]["selection"]["step"] == results[1]["selection"]["step"]
    for metric in ("pairs/dev/score", "pairs/test/score"):
        assert results[1]["metrics"][metric] == pytest.approx(results[0]["metrics"][metric], abs=0.05)
