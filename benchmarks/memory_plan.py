"""What the dry run says a step takes, against what it takes: peak bytes alive in one process.

    python -m benchmarks.memory_plan                # on the CPU: what PyTorch's allocator gives out in a step
    python -m benchmarks.memory_plan device=cuda    # on a GPU: torch.cuda.max_memory_allocated

Weights are random, rows of full length. A step is a whole one, as Lightning does it: forward, old gradients cleared,
backward, clipping, AdamW. Measured from the second step on, when gradients and optimiser state are there.
"""

import sys
from collections.abc import Callable, Iterable

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cse_bench.config.bind import build
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_run
from cse_bench.data.rows import rows_of
from cse_bench.encoders.encoder import build_encoder
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.plan import Plan, plan
from cse_bench.training.precision import autocast
from cse_bench.training.train import quiet_lightning


def _sizes(layers: int, **sizes: int) -> list[str]:
    return [f"backbone.architecture.{key}={value}" for key, value in {"num_hidden_layers": layers, **sizes}.items()]


BERT_TINY = ("backbone=bert_tiny", "backbone.source=random")
BERT_256 = ("backbone=tiny_bert", *_sizes(4, hidden_size=256, num_attention_heads=4, intermediate_size=1024))
LLAMA_LORA = (
    *("method=cse_sfp", "backbone=tiny_llama", "adapter=lora", "backbone.dropout=0"),
    *_sizes(4, hidden_size=256, num_attention_heads=4, num_key_value_heads=4, intermediate_size=704),
)
CACHING, CHECKPOINTING = "data.gradient_cache_rows=16", "backbone.gradient_checkpointing=true"
CASES: dict[str, tuple[str, ...]] = {
    "simcse, bert_tiny": ("method=simcse", *BERT_TINY),
    "simcse, bert_tiny, bf16-mixed": ("method=simcse", *BERT_TINY, "precision=bf16-mixed"),
    "esimcse, bert_tiny": ("method=esimcse", *BERT_TINY),
    "whitenedcse, bert_tiny": ("method=whitenedcse", *BERT_TINY),
    "jtcse, bert_tiny": ("method=jtcse", "method.towers=null", "method.pooler=fresh", *BERT_TINY),
    "sarcse, bert_tiny": ("method=sarcse", *BERT_TINY),
    "simcse, 4 layers of BERT": ("method=simcse", *BERT_256),
    "  gradient caching": ("method=simcse", *BERT_256, CACHING),
    "  gradient checkpointing": ("method=simcse", *BERT_256, CHECKPOINTING),
    "  both": ("method=simcse", *BERT_256, CACHING, CHECKPOINTING),
    "cse_sfp, 4 layers of Llama, LoRA": LLAMA_LORA,
    "  bf16-mixed": (*LLAMA_LORA, "precision=bf16-mixed"),
    "  gradient caching ": (*LLAMA_LORA, CACHING),
    "  gradient checkpointing ": (*LLAMA_LORA, CHECKPOINTING),
    "  both ": (*LLAMA_LORA, CACHING, CHECKPOINTING),
}


def main() -> None:
    """Prints predicted and measured peak of every case, and their ratio."""
    quiet_lightning()
    device = dict(argument.split("=", 1) for argument in sys.argv[1:]).get("device", "cpu")
    print(f"{'peak of a step, MiB':36s} {'predicted':>10s} {'measured':>10s} {'ratio':>7s}")
    ratios = []
    for name, overrides in CASES.items():
        config = _config(*overrides, device=device)
        predicted = plan(config)
        measured = _measured(config, predicted, device=device)
        ratios.append(predicted.memory.total / measured)
        print(
            f"{name.rstrip():36s} {predicted.memory.total / 2**20:10.2f} {measured / 2**20:10.2f} {ratios[-1]:7.3f}",
            flush=True,
        )
    print(f"ratios from {min(ratios):.3f} to {max(ratios):.3f}")


def _config(*overrides: str, device: str) -> RunConfig:
    common = ["data=wikipedia_sample", "data.split_rows_by_length=false", "evaluation=none", "dry_run=true"]
    common += ["precision=32-true", f"trainer={'gpu' if device == 'cuda' else 'cpu'}"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return validate_run(compose("config", overrides=[*common, *overrides]))


def _measured(config: RunConfig, planned: Plan, *, device: str) -> int:
    """Peak bytes of a whole step, with all that lives beside it."""
    torch.manual_seed(0)
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    method: ContrastiveMethod = build(
        config.method,
        encoder=build_encoder(config.backbone),
        optimizer=config.optimizer,
        split_rows_by_length=False,
        gradient_cache_rows=config.data.gradient_cache_rows,
    )
    method.to(device).train()
    method._views_checked = True  # a look at the first batch of a run, not part of a step
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    length = config.data.max_length if config.backbone.prompt is None else planned.row_tokens
    rows = rows_of([[5] * length] * config.data.global_batch_size).to(device)

    def step() -> None:
        with autocast(config.precision, device):
            loss = method.loss_of(rows)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    # The profiler does not see that something is freed which was there before it: no gradient may be. Two steps, so
    # that the second one finds those of the first.
    optimizer.zero_grad()
    state = (value for of_one in optimizer.state.values() for value in of_one.values() if isinstance(value, Tensor))
    there = _bytes([*method.parameters(), *method.buffers(), *state])
    return there + _rise(lambda: (step(), step()))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _rise(steps: Callable[[], object]) -> int:
    """By how much steps raise what PyTorch's CPU allocator has given out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        steps()
    now = peak = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


if __name__ == "__main__":
    main()
