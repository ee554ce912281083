"""One line per finished run, and a table of mean and spread over seeds.

    python -m experiments.collect outputs [against=METHOD] > experiments/<study>/results.csv   # tables: stderr

Runs are grouped by everything but the seed; what cannot be compared is not put together. What has not finished is named
and left out. With `against`, a second table gives the difference of every group to that method in the seven-task
average: mean over the seeds that both have, and the 95 % t-interval of that mean (paired over seeds).
"""

import csv
import statistics
import sys
from typing import Any

from scipy.stats import ttest_rel

from cse_bench.results.collect import Block, Run, collect

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
SHOWN = (
    "sts/test/avg",
    "sts/test_clean/avg",
    "sts/dev/stsb",
    "geometry/alignment",
    "geometry/uniformity",
    "cost/train_time_s",
)


def main(arguments: list[str]) -> None:
    """Writes the lines to standard output."""
    against = next((text.removeprefix("against=") for text in arguments if text.startswith("against=")), None)
    collection = collect([text for text in arguments if not text.startswith("against=")])
    for directory, reason in collection.left_out:
        print(f"left out: {directory.name}: {reason}", file=sys.stderr)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["method", "status", "backbone", "pooling", "group", "seed", "steps", "selected_step", *METRICS])
    for block in collection.blocks:
        for group in block.groups:
            for run in group.runs:
                writer.writerow([*_facts(run), *(_number(run.metrics.get(metric)) for metric in METRICS)])
        _table(block)
        if against is not None:
            _differences(block, against)


def _facts(run: Run) -> list[Any]:
    results = run.results
    step = "" if run.seed is None else results["selection"]["step"]
    method = results["method"]
    head = [method["name"], method["status"], results["backbone"], results["pooling"], results["group"][:8]]
    return [*head, "" if run.seed is None else run.seed, results["steps"], step]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _table(block: Block) -> None:
    lines = [", ".join(f"{name} {value}" for name, value in block.facts.items()), ""]
    lines += [f"| method | status | n | {' | '.join(SHOWN)} |", f"|{'---|' * (3 + len(SHOWN))}"]
    for group in block.groups:
        cells = []
        for metric in SHOWN:
            values = list(group.values(metric).values())
            digits = {"geometry": 4, "cost": 0}.get(metric.partition("/")[0], 2)
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.{digits}f}{spread}" if values else "-")
        lines.append(f"| {group.method} | {group.status} | {len(group.runs)} | {' | '.join(cells)} |")
    print("\n".join(lines), file=sys.stderr)


def _differences(block: Block, against: str, metric: str = "sts/test/avg") -> None:
    print(f"\n| {metric} | seeds | difference to {against} | 95 % t-interval |\n|---|---|---|---|", file=sys.stderr)
    (reference,) = [group.values(metric) for group in block.groups if group.method == against]
    for group in block.groups:
        values = group.values(metric)
        seeds = sorted(seed for seed in values.keys() & reference.keys() if seed is not None)
        if group.method == against or len(seeds) < 2:
            continue
        test = ttest_rel([values[seed] for seed in seeds], [reference[seed] for seed in seeds])
        low, high = test.confidence_interval(0.95)
        mean = statistics.fmean(values[seed] - reference[seed] for seed in seeds)
        print(f"| {group.method} | {len(seeds)} | {mean:+.2f} | {low:+.2f} to {high:+.2f} |", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
