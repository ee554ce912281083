"""Small studies on disk, as runs write them: scores, logs over training, scores of pairs, and what can be missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")
NASTY = 'evil<script>alert("x")</script>_&_50%_of|the*$10$~a^label#that{goes}on\\and on'
STEPS = (10, 20, 30)
_PAIRS = 40


def write_run(folder: Path, method: str, seed: int, **options: Any) -> Path:
    """One finished run.

    Args:
        folder: of the study.
        method: its name; `untrained` and `whitened` are not trained.
        seed: of the run.
        options: `status`, `backbone`, `metrics` (instead of STS), `nan` (a score is not defined), `pairs` and `log`
            (False: without), `quality` (0..1, how well cosines follow the grades).
    """
    trained = method not in ("untrained", "whitened")
    quality = options.get("quality", 0.5)
    random = np.random.default_rng([seed, sum(map(ord, method))])
    metrics, arrays = dict(options.get("metrics", {})), {}
    if not metrics:
        metrics, arrays = _sts(random, quality)
    if options.get("nan"):
        metrics["sts/test/avg"] = None
    metrics |= {"cost/peak_memory_bytes": 2.0**30 + 2.0**24 * random.random(), "cost/inference_parameters": 4.4e6}
    if trained:
        metrics |= {"cost/train_time_s": 100.0 + 10 * seed, "cost/prerequisites_time_s": 0}
    results = {
        "status": "complete",
        "identity": f"{method}-{seed}-{folder.name}",
        "group": f"{method}-{folder.name}",
        "method": {
            "name": method,
            "status": options.get("status", "official code"),
            "citation": "Somebody 2020",
            "is_backbone": method == "untrained",
        },
        "backbone": options.get("backbone", "bert_tiny"),
        "pooling": "cls",
        "seed": seed,
        "steps": STEPS[-1] if trained else 0,
        "finished": "2026-11-21T12:00:00+00:00",
        "precision": {"training": "bf16-mixed" if trained else None, "evaluation": "32-true"},
        "selection": {"metric": "sts/dev/stsb", "value": 60.0, "step": 20} if trained else None,
        "config": {"optimizer": {"lr": 3e-5}, "data": {"global_batch_size": 64}, "backbone": {"source": "package"}},
        "environment": {"git": {"commit": "0123456789abcdef", "dirty": True}, "versions": {"torch": "2.13.0"}},
        "data": {
            "corpus": {"name": "wiki", "sha256": "ab", "sentences": 5} if trained else None,
            "evaluation": {"sts12": "cd"},
        },
        "evaluation": {
            "task_versions": {"sts": 1},
            "labels": {"sts/test": "what these scores are", "lee/": "what Lee is", "geometry": "which positives"},
            "notes": {"sts/test/avg": "collapsed"} if options.get("nan") else {},
        },
        "metrics": metrics,
    }
    directory = folder / f"run-{len(list(folder.glob('run-*'))):03d}"
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(results))
    if trained and options.get("log", True):
        (directory / "metrics.csv").write_text(_log(random))
    if arrays and options.get("pairs", True):
        np.savez_compressed(directory / "pair_scores.npz", **arrays)
    return directory


def _sts(random: np.random.Generator, quality: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    metrics: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for index, task in enumerate(TASKS):
        gold = np.random.default_rng(index).uniform(0.0, 5.0, _PAIRS)
        cosine = np.clip(quality * gold / 5 + (1 - quality) * random.uniform(0.0, 1.0, _PAIRS), -1.0, 1.0)
        score = 100 * float(spearmanr(cosine, gold).statistic)
        metrics |= {f"sts/test/{task}": score, f"sts/test_clean/{task}": score}
        arrays |= {f"pairs/sts/test/{task}/cosine": cosine, f"pairs/sts/test/{task}/gold": gold}
        arrays[f"pairs/sts/test/{task}/clean"] = np.ones(_PAIRS)
    average = float(np.mean([metrics[f"sts/test/{task}"] for task in TASKS]))
    metrics |= {"sts/test/avg": average, "sts/test_clean/avg": average, "sts/dev/stsb": 60.0 + random.normal()}
    metrics |= {"geometry/alignment": 0.2 + 0.1 * random.random(), "geometry/uniformity": -2.0 - random.random()}
    arrays["geometry/singular_values"] = np.sort(random.uniform(0.1, 3.0, 16))[::-1]
    return metrics, arrays


def _log(random: np.random.Generator) -> str:
    lines = ["step,metric,value"]
    for step in STEPS:
        lines.append(f"{step},sts/dev/stsb,{60 + step / 10 + random.normal()!r}")
        lines.append(f"{step},geometry/alignment,{0.3 - step / 300!r}")
        lines.append(f"{step},geometry/uniformity,{-1.5 - step / 30!r}")
    return "\n".join(lines) + "\n"


def write_study(folder: Path) -> None:
    """Three blocks: a usual one, one of twelve groups with a test of the quickstart alone, one lonely run."""
    usual = folder / "usual"
    write_run(usual, "untrained", 0, status="baseline", quality=0.3)
    for seed in range(3):
        write_run(usual, "simcse", seed, quality=0.5)
        write_run(usual, "jtcse", seed, quality=0.7, status="own reading")
    write_run(usual, NASTY, 0, status="own reading", pairs=False, log=False)
    write_run(usual, "collapsed", 0, nan=True, quality=0.4)
    (usual / "run-broken").mkdir()
    (usual / "run-broken" / "results.json").write_text("{")
    many = folder / "many"
    for number in range(12):
        for seed in range(2):
            score = 60.0 + number + 0.3 * seed
            metrics = {"wiki_sections/test/accuracy": score, "lee/spearman": score / 2}
            write_run(many, f"method_{number}", seed, metrics=metrics, backbone="other", log=False)
    write_run(folder / "alone", "untrained", 0, status="baseline", backbone="lonely", pairs=False)
