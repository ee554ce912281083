"""Peak memory of one training step against the global batch, with gradient caching and without.

    python -m benchmarks.global_batch [cache_rows=64] [most=8192] [most_without=1024] [method=simcse]

BERT-tiny, rows of 16 tokens, fp32, one process per number. Resident: how far the step lifts the resident memory of the
process above what it has after a small step. Tensors: bytes of all tensors alive at once, less parameters and their
gradients. Both count the optimiser's part not at all: it does not depend on the batch.
"""

import json
import subprocess
import sys
import time

import torch

SIZES = (64, 256, 1024, 4096, 8192)
LENGTH = 16


def main() -> None:
    """Prints one line per batch size."""
    options = {"cache_rows": "64", "most": "8192", "most_without": "1024", "method": "simcse"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    cache_rows, method = options["cache_rows"], options["method"]
    print(f"{method}, MiB above a small step; gradient_cache_rows={cache_rows} | off")
    print(f"{'batch':>6}  {'resident':>17}  {'tensors':>17}  {'seconds':>17}")
    for size in (size for size in SIZES if size <= int(options["most"])):
        cached = _in_process(method, size, cache_rows)
        plain = _in_process(method, size, "null") if size <= int(options["most_without"]) else {}
        cells = (
            f"{cached[key]:8.{digits}f} {plain.get(key, float('nan')):8.{digits}f}"
            for key, digits in (("resident", 0), ("tensors", 0), ("seconds", 1))
        )
        print(f"{size:>6}  " + "  ".join(cells), flush=True)


def _in_process(method: str, size: int, cache_rows: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.global_batch", "--step", method, str(size), cache_rows]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _step(name: str, size: int, cache_rows: int | None) -> dict[str, float]:
    """One step of `size` sentences in this process; MiB, and seconds of processor time."""
    from hydra import compose, initialize_config_dir

    from cse_bench.config.bind import build
    from cse_bench.config.location import conf_directory
    from cse_bench.config.validate import validate_run
    from cse_bench.data.rows import TokenRows, rows_of
    from cse_bench.encoders.encoder import build_encoder
    from cse_bench.methods.base import ContrastiveMethod
    from cse_bench.training.allocator import give_back_large_blocks
    from cse_bench.training.cost import peak_memory_bytes, reset_peak_memory
    from cse_bench.training.memory import LiveBytes

    overrides = [f"method={name}", "backbone=bert_tiny", "data=wikipedia_sample", "evaluation=none", "dry_run=true"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = validate_run(compose("config", overrides=[*overrides, "precision=32-true"]))
    torch.manual_seed(0)
    method: ContrastiveMethod = build(
        config.method,
        encoder=build_encoder(config.backbone),
        optimizer=config.optimizer,
        seed=0,
        gradient_cache_rows=cache_rows,
    )
    method.train()
    draw = torch.Generator().manual_seed(0)

    def rows(count: int) -> TokenRows:
        ids = torch.randint(1000, 30000, (count, LENGTH), generator=draw)
        return rows_of(ids.tolist())

    def step(batch: TokenRows) -> None:
        method.loss_of(batch)["loss"].backward()

    if cache_rows is not None:
        give_back_large_blocks()
    step(rows(16))  # kernels are chosen and gradients made
    batch = rows(size)
    reset_peak_memory()
    before = peak_memory_bytes()
    own = [*method.parameters(), *method.buffers(), *(parameter.grad for parameter in method.parameters())]
    with LiveBytes([*own, batch.ids]) as live:
        alive = live.live
        started = time.process_time()
        step(batch)
    mebibyte = 2**20
    return {
        "resident": (peak_memory_bytes() - before) / mebibyte,
        "tensors": (live.peak - alive) / mebibyte,
        "seconds": time.process_time() - started,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        given = sys.argv[2:]
        print(json.dumps(_step(given[0], int(given[1]), None if given[2] == "null" else int(given[2]))))
    else:
        main()
