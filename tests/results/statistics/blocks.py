"""Run directories with a known truth, written as a run writes them and collected as a report collects them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cse_bench.evaluation.spearman import spearman
from cse_bench.evaluation.sts_tables import TEST_PAIRS
from cse_bench.results.collect import Block, Group, collect
from cse_bench.results.statistics.compare import Scored
from cse_bench.results.statistics.estimate import Sample

PAIRS = 40


def sample(values: Sequence[float], *, replicates: Any = None, flipped: Any = None, trained: bool = True) -> Sample:
    return Sample(
        values=np.array(values, dtype=np.float64),
        replicates=None if replicates is None else np.array(replicates, dtype=np.float64),
        flipped=None if flipped is None else np.array(flipped, dtype=np.float64),
        trained=trained,
    )


def scored(name: str, of: Sample, seeds: Sequence[int | None] | None = None) -> Scored:
    return Scored(group=Group(key=name, runs=[], label=name), seeds=seeds or list(range(of.n)), sample=of)


def arrays(random: np.random.Generator, *, quality: float) -> dict[str, np.ndarray]:
    """Per-pair scores of the seven tasks; all runs get the same grades and the same leak-free pairs."""
    fixed = np.random.default_rng(7)
    found = {}
    for task in TEST_PAIRS:
        gold = np.round(fixed.random(PAIRS) * 5)
        path = f"pairs/sts/test/{task}"
        found[f"{path}/gold"] = gold
        found[f"{path}/clean"] = (fixed.random(PAIRS) < 0.8).astype(np.float64)
        found[f"{path}/cosine"] = np.tanh(quality * (gold - 2.5) / 2.5 + random.normal(size=PAIRS))
    return found


def metrics(of: Mapping[str, np.ndarray]) -> dict[str, float]:
    """As the evaluation computes them."""
    scores: dict[str, float] = {}
    for setting in ("test", "test_clean"):
        for task in TEST_PAIRS:
            cosine, gold, clean = (of[f"pairs/sts/test/{task}/{name}"] for name in ("cosine", "gold", "clean"))
            keep = clean > 0 if setting == "test_clean" else np.ones(PAIRS, dtype=bool)
            scores[f"sts/{setting}/{task}"] = spearman(cosine[keep], gold[keep])
        scores[f"sts/{setting}/avg"] = float(np.mean([scores[f"sts/{setting}/{task}"] for task in TEST_PAIRS]))
    return scores


def write_run(
    folder: Path, method: str, seed: int | None, *, of: Mapping[str, np.ndarray], told: Mapping[str, float | None]
) -> Path:
    directory = folder / f"{method}-{seed}"
    directory.mkdir(parents=True)
    trained = seed is not None
    content = {
        "status": "complete",
        "identity": directory.name,
        "group": method,
        "config": {},
        "method": {"name": method, "status": "official code"},
        "backbone": "bert_tiny",
        "pooling": "cls",
        "seed": seed or 0,
        "steps": 10 if trained else 0,
        "finished": "2026-11-21T12:00:00+00:00",
        "precision": {"training": "bf16-mixed" if trained else None, "evaluation": "32-true"},
        "data": {
            "corpus": {"name": "wiki", "sha256": "ab", "sentences": 5} if trained else None,
            "evaluation": {"sts12": "cd"},
        },
        "evaluation": {
            "task_versions": {"sts": 1},
            "notes": {name: "all cosines are equal" for name, value in told.items() if value is None},
        },
        "metrics": dict(told),
    }
    (directory / "results.json").write_text(json.dumps(content))
    if of:
        np.savez(directory / "pair_scores.npz", **of)  # type: ignore[arg-type]
    return directory


def write_study(folder: Path, qualities: Mapping[str, float], *, seeds: Sequence[int] = (0, 1, 2, 3)) -> None:
    """One group per method; `untrained` has no seed."""
    random = np.random.default_rng(3)
    for method, quality in qualities.items():
        for seed in [None] if method == "untrained" else seeds:
            of = arrays(random, quality=quality)
            told = metrics(of) | {"geometry/uniformity": -quality - 0.1 * float(random.random())}
            write_run(folder, method, seed, of=of, told=told)


def only_block(folder: Path) -> Block:
    (block,) = collect([str(folder)]).blocks
    return block
