"""One line per finished run, and a table of mean and spread over seeds.

    python -m experiments.collect outputs > experiments/<study>/results.csv      # the table goes to standard error

Runs are grouped by everything but the seed (`group` of results.json). What has not finished is named and left out.
"""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

METRICS = [
    *(f"sts/test/{task}" for task in ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr", "avg")),
    "sts/test_clean/avg",
    "sts/dev/stsb",
    "geometry/alignment",
    "geometry/uniformity",
    "geometry/align_uniform_ratio",
    "geometry/align_dispersion_ratio",
    "cost/train_time_s",
    "cost/preparation_time_s",
    "cost/prerequisites_time_s",
    "cost/inference_parameters",
]
SHOWN = ("sts/test/avg", "sts/test_clean/avg", "sts/dev/stsb", "geometry/alignment", "geometry/uniformity")


def main(folders: list[str]) -> None:
    """Writes the lines to standard output."""
    found = [json.loads(path.read_text()) for folder in folders for path in Path(folder).glob("*/results.json")]
    for run in found:
        if run["status"] != "complete":
            print(f"left out: {run['name']} is {run['status']}", file=sys.stderr)
    runs = sorted(
        (run for run in found if run["status"] == "complete"),
        key=lambda run: (run["method"]["name"], run["group"], run["seed"]),
    )
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["method", "status", "backbone", "pooling", "group", "seed", "steps", "selected_step", *METRICS])
    for run in runs:
        writer.writerow([*_facts(run), *(_number(run["metrics"].get(metric)) for metric in METRICS)])
    _table(runs)


def _facts(run: dict[str, Any]) -> list[Any]:
    method, trained = run["method"], run["steps"] > 0
    seed, step = (run["seed"], run["selection"]["step"]) if trained else ("", "")
    group = run["group"][:8]
    return [method["name"], method["status"], run["backbone"], run["pooling"], group, seed, run["steps"], step]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _table(runs: list[dict[str, Any]]) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["group"], []).append(run)
    print(f"| method | status | n | {' | '.join(SHOWN)} |\n|{'---|' * (3 + len(SHOWN))}", file=sys.stderr)
    for group in groups.values():
        method = group[0]["method"]
        cells = []
        for metric in SHOWN:
            values = [run["metrics"][metric] for run in group if metric in run["metrics"]]
            digits = 4 if metric.startswith("geometry") else 2
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.{digits}f}{spread}" if values else "-")
        print(f"| {method['name']} | {method['status']} | {len(group)} | {' | '.join(cells)} |", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
