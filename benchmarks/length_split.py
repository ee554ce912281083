"""The training step with rows padded, in length-sorted pieces, and packed.

    python -m benchmarks.length_split

Interleaved: each round does a few steps of each variant, on the same batches; ratios to one padded block are taken
within a round.
"""

import itertools
import statistics
import time

import torch
from hydra import compose, initialize_config_dir

from cse_bench.config.bind import build
from cse_bench.config.location import conf_directory
from cse_bench.config.validate import validate_run
from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.encoder import build_encoder
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.training.precision import autocast
from cse_bench.training.train import quiet_lightning

ROUNDS, STEPS = 8, 5
VARIANTS = {"one padded block": (False, False), "padded pieces": (False, True), "packed": (True, True)}


def main() -> None:
    """Prints sentences/s of both variants and their ratio, for each precision."""
    quiet_lightning()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = validate_run(compose("config", overrides=["experiment=quickstart"]))
    print(f"{config.backbone.name}, batch 64, {ROUNDS} rounds of {STEPS} steps, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    encoder = build_encoder(config.backbone)
    lines = list(itertools.islice(build(config.data.corpus).lines(), 64 * STEPS * ROUNDS))
    tokens = encoder.tokenizer(lines, max_length=config.data.max_length)
    batches = [rows_of(tokens[start : start + 64]) for start in range(0, len(tokens), 64)]
    method: ContrastiveMethod = build(config.method, encoder=encoder, optimizer=config.optimizer)
    method.train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-5, fused=True)
    for precision in ("32-true", "bf16-mixed"):
        rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for name in VARIANTS:
            _steps(method, optimizer, batches[:STEPS], variant=name, precision=precision)  # warm-up
        for start in range(0, len(batches), STEPS):
            for name in VARIANTS:
                part = batches[start : start + STEPS]
                rates[name].append(_steps(method, optimizer, part, variant=name, precision=precision))
        for name, found in rates.items():
            ratios = [one / block for one, block in zip(found, rates["one padded block"], strict=True)]
            spread = f"rounds: {min(ratios):.2f} to {max(ratios):.2f}"
            rate = f"{statistics.median(found):.0f} sentences/s"
            print(f"  {precision:10s} {name:17s} {rate}, ratio {statistics.median(ratios):.2f} ({spread})")


def _steps(
    method: ContrastiveMethod,
    optimizer: torch.optim.Optimizer,
    batches: list[TokenRows],
    *,
    variant: str,
    precision: str,
) -> float:
    """Sentences per second over some training steps."""
    method.encoder.packed, method.split_rows_by_length = VARIANTS[variant]
    started = time.perf_counter()
    for batch in batches:
        with autocast(precision, "cpu"):
            loss = method.loss_of(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
    return sum(map(len, batches)) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
