"""Tables for people: one run beside its baseline, several runs with mean and spread."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# What a reader wants first, in this order; everything else is in results.json.
_ROWS: tuple[tuple[str, str], ...] = (
    ("sts/test/sts12", "STS12"),
    ("sts/test/sts13", "STS13"),
    ("sts/test/sts14", "STS14"),
    ("sts/test/sts15", "STS15"),
    ("sts/test/sts16", "STS16"),
    ("sts/test/stsb", "STS-B"),
    ("sts/test/sickr", "SICK-R"),
    ("sts/test/avg", "average of the seven (Spearman x100)"),
    ("sts/test_clean/avg", "leak-free average (Spearman x100)"),
    ("transfer/test/mr", "MR (accuracy %)"),
    ("transfer/test/cr", "CR (accuracy %)"),
    ("transfer/test/subj", "SUBJ (accuracy %)"),
    ("transfer/test/mpqa", "MPQA (accuracy %)"),
    ("transfer/test/sst2", "SST2 (accuracy %)"),
    ("transfer/test/trec", "TREC (accuracy %)"),
    ("transfer/test/mrpc", "MRPC (accuracy %)"),
    ("transfer/test/avg", "average of the seven transfer tasks (accuracy %)"),
    ("transfer_fast/test/avg", "average of the seven transfer tasks, 5 folds (accuracy %; not the papers')"),
    ("sts/dev/stsb", "STS-B dev (Spearman x100)"),
    ("wiki_sections/test/accuracy", "Wikipedia sections, test (accuracy %)"),
    ("wiki_sections/dev/accuracy", "Wikipedia sections, dev (accuracy %)"),
    ("lee/spearman", "Lee documents (Spearman x100)"),
    ("geometry/alignment", "alignment (lower is better)"),
    ("geometry/uniformity", "uniformity (lower is better)"),
    ("geometry/align_uniform_ratio", "align/uniform ratio * (lower)"),
    ("geometry/align_dispersion_ratio", "align/dispersion ratio * (lower)"),
)
_COST_ROWS: tuple[tuple[str, str], ...] = (
    ("cost/train_time_s", "training time (s)"),
    ("cost/train_sentences_per_s", "training sentences/s"),
    ("cost/eval_time_s", "evaluation time (s)"),
    ("cost/peak_memory_bytes", "peak memory (MiB)"),
)
_SECTION_ENDS = ("sts/test_clean/avg", "transfer/test/avg", "lee/spearman")
_RATIO_NOTE = "* ratio metrics (cse_bench definition); they inform, they never select"


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if metric == "cost/peak_memory_bytes":
        return f"{value / 2**20:.0f}"
    if metric.startswith("cost/"):
        return f"{value:.1f}"
    return f"{value:.4f}" if metric.startswith("geometry/") else f"{value:.2f}"


def _with_spread(metric: str, values: Sequence[float], *, runs: int) -> str:
    if not values:
        return "-"
    finite = all(math.isfinite(value) for value in values)
    mean, deviation = statistics.fmean(values), math.nan
    if finite and len(values) > 1:
        deviation = statistics.stdev(values)  # it cannot take NaN
    spread = f" ± {_shown(metric, deviation)}" if len(values) > 1 else ""
    return _shown(metric, mean) + spread + (f" (n={len(values)})" if len(values) != runs else "")


def run_table(results: Mapping[str, Any], baseline: Mapping[str, float] | None) -> Table:
    """One run: its scores, the untrained backbone's, and the difference.

    Args:
        results: content of `results.json`.
        baseline: metrics of the untrained backbone, or None.
    """
    metrics = results["metrics"]
    name, title = _title(results)
    table = Table(title=title, caption=_caption(results), title_justify="left", caption_justify="left")
    table.add_column("metric")
    if baseline is not None:
        table.add_column("untrained", justify="right")
    table.add_column(name, justify="right")
    if baseline is not None:
        table.add_column("difference", justify="right")
    for metric, label in _ROWS:
        if metric not in metrics:
            continue
        cells = [_shown(metric, metrics[metric])]
        if baseline is not None:
            before = baseline.get(metric)
            cells = [_shown(metric, before), *cells, _difference(metric, metrics[metric], before)]
        table.add_row(label, *cells, end_section=metric in _SECTION_ENDS)
    table.add_section()
    for metric, label in _COST_ROWS:
        if metric in metrics:
            cells = [_shown(metric, metrics[metric])]
            table.add_row(label, *(["", *cells, ""] if baseline is not None else cells))
    return table


def _title(results: Mapping[str, Any]) -> tuple[str, str]:
    """Column name and title; a model that was not trained here has no method."""
    if "method" not in results:
        return "score", f"{results['model']}, pooling {results['pooling']}"
    method = results["method"]
    seed = f", seed {results['seed']}" if results.get("steps") else ""
    title = f"{method['name']} ({method['status']}) on {results['backbone']}, pooling {results['pooling']}{seed}"
    return method["name"], title


def _difference(metric: str, after: float, before: float | None) -> str:
    if before is None:
        return "-"
    return f"{'+' if after >= before else ''}{_shown(metric, after - before)}"


def _caption(results: Mapping[str, Any]) -> str:
    lines = []
    if selection := results.get("selection"):
        kept = f"kept: step {selection['step']} of {results['steps']}"
        lines.append(f"{kept} by {selection['metric']}" if selection["metric"] else f"{kept} ({selection['rule']})")
    if precision := results.get("precision"):
        lines.append(f"scored in {precision if isinstance(precision, str) else precision['evaluation']}")
    labels = results.get("evaluation", {}).get("labels", {})
    lines += [labels["geometry"]] if "geometry" in labels else []
    if any(name.endswith("_ratio") for name in results["metrics"]):
        lines.append(_RATIO_NOTE)
    return "\n".join(lines)


def group_table(groups: Mapping[str, Sequence[Mapping[str, float]]], *, title: str) -> Table:
    """Groups of runs side by side, each cell mean ± sample standard deviation over its runs.

    Args:
        groups: column name -> metrics of its runs.
        title: of the table.
    """
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "mean ± standard deviation over runs"
    if any(metric.endswith("_ratio") for runs in groups.values() for run in runs for metric in run):
        table.caption += f"\n{_RATIO_NOTE}"
    table.add_column("metric")
    for name, runs in groups.items():
        table.add_column(escape(f"{name}\nn={len(runs)}"), justify="right")
    for metric, label in (*_ROWS, *_COST_ROWS):
        columns = [[run[metric] for run in runs if metric in run] for runs in groups.values()]
        if any(columns):
            counts = [len(runs) for runs in groups.values()]
            cells = zip(columns, counts, strict=True)
            table.add_row(label, *(_with_spread(metric, values, runs=count) for values, count in cells))
    return table


def print_table(table: Table) -> None:
    """To the terminal, or into a file or pipe as plain text that is wide enough for every column."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(110, Console(width=10_000).measure(table).maximum))
    console.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines, without markup."""
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(line, markup=False)
