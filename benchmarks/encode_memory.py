"""Resident memory of `cse_bench.encode` on two million generated lines, against twenty thousand.

    python -m benchmarks.encode_memory [NUMBER_OF_LINES]

A random encoder of one narrow layer, so that the time goes into reading, sorting and writing; each size in a process of
its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SMALL = 20_000


def main() -> None:
    """Prints peak memory and rate of both sizes, and their difference."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(folder)
        peaks = {}
        for size in (SMALL, count):
            lines = folder / f"lines_{size}.txt"
            write_lines(lines, size)
            started = time.perf_counter()
            peaks[size] = _encode(model, lines, folder / f"vectors_{size}.npy")
            seconds = time.perf_counter() - started
            print(f"  {size:>9,} lines: {seconds:.0f} s, peak resident memory {peaks[size]:.0f} MiB", flush=True)
        print(f"  {count:,} lines cost {peaks[count] - peaks[SMALL]:.0f} MiB more than {SMALL:,}")


def write_lines(path: Path, count: int) -> None:
    """Lines of 1 to 5 made-up words."""
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("abcdefghijklmnoprstu"), 3)) for _ in range(1000)])
    with path.open("w") as file:
        for length in generator.integers(1, 6, size=count):
            file.write(" ".join(generator.choice(words, length)) + "\n")


def _model(folder: Path) -> Path:
    """The backbone with random weights, as a saved encoder."""
    import torch

    from cse_bench import compose_config
    from cse_bench.encoders.artifact import save_encoder
    from cse_bench.encoders.encoder import build_encoder

    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
    narrow = [f"backbone.architecture.{name}={size}" for name, size in sizes.items()]
    backbone = compose_config("backbone=tiny_bert", "evaluation=none", *narrow).backbone
    torch.manual_seed(0)
    save_encoder(build_encoder(backbone), folder / "model", backbone=backbone, training={}, training_only={})
    return folder / "model"


def _encode(model: Path, lines: Path, output: Path) -> float:
    """Encodes in a process of its own; its peak resident memory in MiB."""
    command = [sys.executable, "-m", "cse_bench.encode", f"model={model}", f"input={lines}", f"output={output}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return usage.ru_maxrss / 2**10


if __name__ == "__main__":
    main()
