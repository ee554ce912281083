"""Time from the command to its first training step, and resident memory, with a corpus of a million sentences.

    python -m benchmarks.startup [NUMBER_OF_SENTENCES] [ROUNDS]

The token stores are built first; then runs that find them start in turns: from a thousand sentences, and from a
million. What comes first for any corpus, the imports, is measured by itself. Medians.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.token_store import write_sentences

IMPORTS = {
    "python": "pass",
    "the command line (python -m cse_bench --help)": "import cse_bench.__main__",
    "torch": "import torch",
    "all of a run": "import cse_bench.run",
}


def main() -> None:
    """Prints the times and peaks."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = {size: folder / f"generated_{size}.txt" for size in (1_000, count)}
        for size, corpus in corpora.items():
            write_sentences(corpus, size)
            seconds, _ = _run(corpus, folder)
            print(f"{size:>9,} sentences, token store built: first step after {seconds:.1f} s")
        found: dict[str, list[float]] = {}
        peaks: dict[int, list[float]] = {}
        for _ in range(rounds):
            for what, code in IMPORTS.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                found.setdefault(f"  imports: {what}", []).append(time.perf_counter() - started)
            for size, corpus in corpora.items():
                seconds, peak = _run(corpus, folder)
                found.setdefault(f"{size:>9,} sentences, token store found: first step after", []).append(seconds)
                peaks.setdefault(size, []).append(peak)
    for what, times in found.items():
        print(f"{what} {statistics.median(times):.1f} s")
    for size, found_peaks in peaks.items():
        print(f"{size:>9,} sentences: peak resident memory {statistics.median(found_peaks):.0f} MiB")


def _run(corpus: Path, folder: Path) -> tuple[float, float]:
    """Seconds until the loss of the first step is in the metrics log, and the run's peak memory in MiB."""
    output = folder / f"outputs-{corpus.stem}"
    command = [sys.executable, "-m", "cse_bench", "backbone=tiny_bert", "data=text_file", f"data.path={corpus}"]
    command += ["evaluation=none", "trainer.max_steps=3", "trainer.log_every_n_steps=1", "precision=32-true"]
    command += ["overwrite=true", "trainer.enable_progress_bar=false", f"paths.cache={folder}/cache"]
    for log in output.glob("*/metrics.csv"):
        log.unlink()
    started = time.perf_counter()
    process = subprocess.Popen([*command, f"paths.output_dir={output}"], stdout=subprocess.DEVNULL, env=os.environ)
    while not any("train/loss" in log.read_text() for log in output.glob("*/metrics.csv")):
        assert process.poll() is None, "the run ended before its first step"
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    assert process.wait() == 0
    results = json.loads(next(output.glob("*/results.json")).read_text())
    return seconds, float(results["metrics"]["cost/peak_memory_bytes"]) / 2**20


if __name__ == "__main__":
    main()
