"""Resident memory while training from a corpus of a million generated sentences, against a corpus of a thousand.

    python -m benchmarks.token_store [NUMBER_OF_SENTENCES]

The stores are built first; then each is trained from in a process of its own, and the two peaks are compared: what the
size of a corpus costs is their difference.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS = 30


def main() -> None:
    """Prints build time, and peak memory of training from both stores."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for size in (1_000, count):
            corpus = Path(folder, f"generated_{size}.txt")
            write_sentences(corpus, size)
            for part in ("build and train", "train"):
                started = time.perf_counter()
                peaks[size] = _train(corpus, Path(folder))
                seconds = time.perf_counter() - started
                print(f"  {size:>9,} sentences, {part}: {seconds:.0f} s, peak resident memory {peaks[size]:.0f} MiB")
        print(f"  a corpus of {count:,} sentences costs {peaks[count] - peaks[1_000]:.0f} MiB more than one of 1,000")


def write_sentences(path: Path, count: int) -> None:
    """Sentences of 8 to 40 made-up words, about as long as Wikipedia's."""
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("abcdefghijklmnoprstu"), 6)) for _ in range(5000)])
    with path.open("w") as file:
        for length in generator.integers(8, 41, size=count):
            file.write(" ".join(generator.choice(words, length)) + "\n")


def _train(corpus: Path, folder: Path) -> float:
    """Peak memory in MiB of a short training run, from its own result."""
    command = [
        sys.executable,
        "-m",
        "cse_bench",
        "backbone=tiny_bert",
        "data=text_file",
        f"data.path={corpus}",
        "evaluation=none",
    ]
    command += [
        f"trainer.max_steps={STEPS}",
        "precision=32-true",
        "overwrite=true",
        "trainer.enable_progress_bar=false",
    ]
    command += [f"paths.cache={folder}/cache", f"paths.output_dir={folder}/outputs-{corpus.stem}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result = next(Path(folder, f"outputs-{corpus.stem}").glob("*/results.json"))
    return float(json.loads(result.read_text())["metrics"]["cost/peak_memory_bytes"]) / 2**20


if __name__ == "__main__":
    main()
