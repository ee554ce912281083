"""SIGKILL at random moments: does every run end, after the same command again, where it would have ended without?

    python -m benchmarks.kills [kills=50] [seed=0] [folder=FOLDER]

Each method is run once to its end; then lives begin in folders of their own, with one to three kills each: half of the
kills come at a random time, half before a random file operation (open for writing, rename, remove, make), drawn over
all that the whole run did. After the last kill the command is given once more, and everything that the folder holds
is compared with the run that was not killed, bit for bit: weights, metrics log, numbers, per-pair scores, the list
of files. With a folder the benchmark itself goes on where it was stopped.
"""

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.outcome import differences, outcome
from tests.faults.victim import Runs
from tests.tiny import overrides_in, task_overrides

STEPS = 24
NEEDS = {
    "simcse": (),
    "esimcse": (),
    "whitenedcse": ("method.num_groups=16",),
    "debcse": (),
    "sarcse": (),
    "jtcse": (),
    "cse_sfp": ("backbone=tiny_llama",),
}


def main() -> None:
    """Prints a line for every life, and a table."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    kills, seed = int(given.get("kills", 50)), int(given.get("seed", 0))
    print(f"  {kills} kills, seed {seed}", flush=True)
    if "folder" in given:
        _all_methods(Path(given["folder"]).resolve(), kills, seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _all_methods(Path(folder).resolve(), kills, seed)


def _all_methods(folder: Path, kills: int, seed: int) -> None:
    runs = Runs()
    lives = []
    for index, method in enumerate(NEEDS):
        share = kills * (index + 1) // len(NEEDS) - kills * index // len(NEEDS)
        lives += _one_method(runs, folder / method, method, kills=share, seed=seed)
    _print_table(lives)
    if any(life["differences"] for life in lives):
        sys.exit(1)


def _arguments(folder: Path, method: str) -> list[str]:
    return overrides_in(
        folder,
        f"method={method}",
        *NEEDS[method],
        f"trainer.max_steps={STEPS}",
        "checkpoint_every_steps=2",
        *task_overrides(),
        "evaluation.eval_every_steps=3",
    )


def _one_method(runs: Runs, folder: Path, method: str, *, kills: int, seed: int) -> list[dict[str, Any]]:
    whole = folder / "whole"
    known = whole / "reference.json"
    if not known.is_file():
        shutil.rmtree(whole, ignore_errors=True)
        began = time.monotonic()
        end = runs.run(whole, _arguments(whole, method))
        if end.code != 0:
            sys.exit((whole / "log.txt").read_text())
        known.write_text(json.dumps({"operations": end.operations, "seconds": time.monotonic() - began}))
    reference = json.loads(known.read_text())
    log = folder / f"lives-{seed}.jsonl"
    lives = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    while (left := kills - sum(len(life["kills"]) for life in lives)) > 0:
        life = _life(
            runs, folder / "life", method, reference, left=left, key=(seed, list(NEEDS).index(method), len(lives))
        )
        life["differences"] += differences(outcome(whole / "outputs"), outcome(folder / "life" / "outputs"))
        lives.append(life)
        with log.open("a") as file:
            file.write(json.dumps(life) + "\n")
        bad = f": DIFFERS: {life['differences'][:5]}" if life["differences"] else ""
        print(f"  {method}: {'; '.join(life['kills']) or 'ended before its kill'}{bad}", flush=True)
        if bad:
            shutil.move(folder / "life", folder / f"differs-{len(lives)}")
    return lives


def _life(
    runs: Runs, folder: Path, method: str, reference: dict[str, Any], *, left: int, key: tuple[int, ...]
) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    draw = np.random.default_rng(key)
    arguments = _arguments(folder, method)
    found: list[str] = []
    for _ in range(min(left, int(draw.integers(1, 4)))):
        if draw.random() < 0.5:
            end = runs.run(folder, arguments, kill_at=int(draw.integers(1, reference["operations"] + 1)))
            how = f"before {end.last}"
        else:
            seconds = float(draw.uniform(0, reference["seconds"]))
            end = runs.run(folder, arguments, kill_after_s=seconds)
            how = f"after {seconds:.2f} s"
        if not end.was_killed:
            break
        found.append(f"{_place(folder)}, {how}")
    end = runs.run(folder, arguments)
    return {"method": method, "kills": found, "differences": [] if end.code == 0 else [f"exit code {end.code}"]}


def _place(folder: Path) -> str:
    """Where a run was when it was killed, from what it left."""
    left = {path.name for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"}
    parents = {path.parent.name for path in folder.rglob(".*.new")}
    for place, sign in (
        ("tokenising", "tokens" in parents),
        ("mining", "pairs" in parents),
        ("saving the encoder", left & {".model.new", ".model.old"}),
        ("writing a checkpoint", "last.tmp" in left),
        ("writing results", left & {".results.json", ".metrics.csv", ".pair_scores.npz", ".config.yaml"}),
    ):
        if sign:
            return place
    if not list(folder.glob("outputs/*/results.json")):
        return "starting"
    if list(folder.glob("outputs/*/checkpoints/*.ckpt")):
        return "training or evaluating"
    return "between trainings"


def _print_table(lives: list[dict[str, Any]]) -> None:
    methods = list(dict.fromkeys(life["method"] for life in lives))
    for method in methods:
        own = [life for life in lives if life["method"] == method]
        killed = [kill for life in own for kill in life["kills"]]
        exact = sum(not life["differences"] for life in own)
        places = Counter(kill.split(",")[0] for kill in killed)
        print(
            f"  | {method} | {len(killed)} kills in {len(own)} lives | {exact} of {len(own)} exact | {dict(places)} |"
        )
    total = sum(len(life["kills"]) for life in lives)
    exact = sum(not life["differences"] for life in lives)
    print(f"  {total} kills in {len(lives)} lives, {exact} of which ended as if there had been none")


if __name__ == "__main__":
    main()
