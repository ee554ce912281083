"""A sweep that has nothing to do, against what Hydra needs merely to compose its configs.

    python -m benchmarks.idle_sweep [NUMBER_OF_RUNS]

One real run and its baseline are done; its result is entered under the identity of every other seed, as `run` would
have left it. Then the command of the whole sweep is given. Times are wall and CPU of whole processes, since on a shared
machine the first says little.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from cse_bench.config.identity import group_identity, identity
from cse_bench.config.location import conf_directory
from cse_bench.config.validate import validate_run
from cse_bench.data.corpora import TextFile
from cse_bench.run import run_directory

IMPORTS = "import cse_bench.results.missing, cse_bench.methods.simcse, cse_bench.results.tables"
COMPOSE = """
from hydra import compose, initialize_config_dir
from cse_bench.config.location import conf_directory
with initialize_config_dir(str(conf_directory()), version_base="1.3"):
    for seed in range({count}):
        compose("config", overrides=[*{overrides!r}, f"seed={{seed}}"])
"""


def main() -> None:
    """Prints the times and their ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sentences.txt").write_text("".join(f"sentence number {i}\n" for i in range(1000)))
        overrides = _overrides(folder)
        _cse_bench(*overrides, "seed=0")
        _enter(folder, overrides, count)
        sweep = [sys.executable, "-m", "cse_bench", "-m", *overrides, f"seed=range({count})"]
        wall, cpu, printed = _timed(sweep)
        assert f"{count} of {count} runs were finished before" in printed, printed
        loaded, loading, _ = _timed([sys.executable, "-c", IMPORTS])
        composed, composing, _ = _timed([sys.executable, "-c", COMPOSE.format(count=count, overrides=overrides)])
    print(f"  {count} finished runs: {wall:.1f} s ({cpu:.1f} s CPU), imports {loaded:.1f} s ({loading:.1f} s) of it")
    print(f"  composing their configs by Hydra, once each: {composed:.1f} s ({composing:.1f} s CPU)")
    print(f"  a job of the sweep costs {1000 * (cpu - loading) / count:.0f} ms, Hydra's composition of it ", end="")
    print(f"{1000 * composing / count:.0f} ms; the whole sweep {cpu / composing:.2f} of the compositions (CPU)")


def _overrides(folder: Path) -> list[str]:
    given = ["method=simcse", "backbone=bert_tiny", "data=text_file", f"data.path={folder / 'sentences.txt'}"]
    given += ["evaluation=sample", "evaluation.eval_every_steps=4", "trainer=cpu", "trainer.max_steps=4"]
    return [*given, "trainer.enable_progress_bar=false", "precision=32-true", f"paths.output_dir={folder / 'outputs'}"]


def _cse_bench(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cse_bench", *arguments], check=True, stdout=subprocess.DEVNULL)


def _enter(folder: Path, overrides: list[str], count: int) -> None:
    """Enters the result of seed 0 under the identity of the other seeds."""
    (done,) = (folder / "outputs").glob("simcse-*/results.json")
    results = json.loads(done.read_text())
    fingerprint = TextFile(path=str(folder / "sentences.txt")).fingerprint()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        first = validate_run(compose("config", overrides=overrides))
    for seed in range(1, count):
        config = first.model_copy(update={"seed": seed})
        directory = run_directory(config)
        own = {
            "name": directory.name,
            "seed": seed,
            "identity": identity(config, corpus_fingerprint=fingerprint),
            "group": group_identity(config, corpus_fingerprint=fingerprint),
            "config": config.model_dump(mode="json", by_alias=True),
        }
        directory.write(results | own)


def _timed(command: list[str]) -> tuple[float, float, str]:
    """Wall time, CPU time and output of a command."""
    before, started = _cpu_of_children(), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return time.perf_counter() - started, _cpu_of_children() - before, done.stdout


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
