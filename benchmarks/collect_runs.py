"""Reading a thousand finished runs, against merely parsing their files.

    python -m benchmarks.collect_runs [NUMBER_OF_RUNS]

One real run is copied under other names (20 groups), then `collect` and a bare reading of the same `results.json` files
take turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cse_bench.results.collect import collect

ROUNDS = 5
GROUPS = 20


def main() -> None:
    """Prints both times and their ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        _copy(_real_run(Path(folder, "real")), Path(folder, "runs"), count)
        collecting, parsing = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            found = collect([f"{folder}/runs"])
            collecting.append(time.perf_counter() - started)
            started = time.perf_counter()
            for path in Path(folder, "runs").glob("*/results.json"):
                json.loads(path.read_text())
            parsing.append(time.perf_counter() - started)
    assert sum(len(group.runs) for block in found.blocks for group in block.groups) == count
    ours, bare = statistics.median(collecting), statistics.median(parsing)
    print(f"  {count} runs collected in {ours:.2f} s, {ours / bare:.1f} times the bare parsing ({bare:.2f} s)")


def _real_run(folder: Path) -> dict[str, object]:
    """The results of a short real run."""
    command = [sys.executable, "-m", "cse_bench", "experiment=quickstart", "backbone=tiny_bert", "trainer.max_steps=4"]
    command += [f"paths.output_dir={folder}", "trainer.enable_progress_bar=false", "hydra.mode=RUN", "seed=0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results: dict[str, object] = json.loads(next(folder.glob("simcse-*/results.json")).read_text())
    return results


def _copy(results: dict[str, object], folder: Path, count: int) -> None:
    for number in range(count):
        directory = folder / f"run-{number}"
        directory.mkdir(parents=True)
        own = {"identity": f"{number:064x}", "group": f"{number % GROUPS:064x}", "seed": number // GROUPS}
        (directory / "results.json").write_text(json.dumps(results | own, indent=2))


if __name__ == "__main__":
    main()
