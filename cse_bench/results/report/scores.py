"""The tables that the statistics fill: scores, comparisons, every two groups, published numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cse_bench.results.collect import Group
from cse_bench.results.report.tables import (
    Cell,
    Column,
    Table,
    interval_column,
    method_column,
    of_count,
    of_group,
    of_interval,
    of_p,
    of_spread,
    of_text,
    of_value,
)
from cse_bench.results.report.vocabulary import MINUS, NOTHING, PLUS_MINUS, Metric, metric
from cse_bench.results.statistics.analysis import Analysis, Comparison, Interval, Score

if TYPE_CHECKING:
    from cse_bench.results.published import Expectation

TONES = {"better": "good", "worse": "bad", "not told apart": "even", "too few seeds": "unknown"}
TONES |= {"no test": "unknown"}
SYMBOLS = {"better": "\N{BLACK UP-POINTING TRIANGLE}", "worse": "\N{BLACK DOWN-POINTING TRIANGLE}"}
SYMBOLS |= {"not told apart": "\N{ALMOST EQUAL TO}", "too few seeds": "?", "no test": "\N{EMPTY SET}"}

# Scores that stand beside the one that ranks, where the runs have them.
_BESIDE = ("sts/test/avg", "sts/test_clean/avg", "transfer/test/avg")

_REPORTED_BY = {"paper": "authors", "reproduction": "reproduction", "ours": "this repository"}


def widest(result: Score | Comparison) -> Interval | None:
    """The interval that covers most sources of chance."""
    return result.over_both or result.over_seeds or result.over_pairs


def sources_of_chance(one: Comparison) -> str:
    """What `widest` covers, in words. Two groups without seeds differ by their test pairs alone."""
    if one.over_both:
        has_seeds = any(group.runs[0].seed is not None for group in (one.first, one.second))
        return "seeds and test pairs" if has_seeds else "test pairs"
    return "seeds" if one.over_seeds else "test pairs"


def score_table(analyses: Sequence[Analysis], name: str, *, title: str, beside: bool) -> Table:
    """One row per group and metric: the score with all its intervals.

    Args:
        analyses: one or more metrics.
        name: of the files.
        title: of the table.
        beside: adds the leak-free and dev scores.
    """
    found = [(analysis, score) for analysis in analyses for score in analysis.scores]
    others = [path for path in _beside(analyses[0]) if path != analyses[0].metric] if beside else []
    columns = [
        method_column(),
        _metric_column(),
        Column("n", "n", "n"),
        Column("mean", f"mean {PLUS_MINUS} sd", "mean", numbers=("mean", "sd")),
        Column("range", "range", "min_max", numbers=("min", "max")),
        interval_column("seeds", "over seeds", "over_seeds", [score.over_seeds for _, score in found]),
        # Too narrow for few seeds, and in the files because other reports print it.
        replace(
            interval_column(
                "seeds_bootstrap", "over seeds", "over_seeds", [score.over_seeds_bootstrap for _, score in found]
            ),
            title="bootstrap over seeds",
            in_page=False,
        ),
        interval_column("pairs", "over pairs", "over_pairs", [score.over_pairs for _, score in found]),
        interval_column("both", "over both", "over_both", [score.over_both for _, score in found]),
        Column("p_best", "P(best)", "p_best"),
        *(_spread_column(path) for path in others),
    ]
    rows = [
        [
            *_score_cells(score, metric(analysis.metric)),
            *(of_spread(metric(path), list(score.group.values(path).values())) for path in others),
        ]
        for analysis, score in found
    ]
    if len(analyses) > 1:
        return _without_empty(Table(name, title, "all_metrics", columns, rows))
    reasons = [f"{one.group.label} ({one.group.status}): {one.reason}" for _, one in found if one.reason]
    notes = [*analyses[0].notes, *(reason for reason in reasons if reason not in analyses[0].notes)]
    return _without(_without_empty(Table(name, title, "score", columns, rows, notes)), "metric")


def _score_cells(score: Score, shown: Metric) -> list[Cell]:
    deviation = f" {PLUS_MINUS} {shown.shown(score.sd)}" if math.isfinite(score.sd) else NOTHING
    span = f"{shown.shown(score.minimum)} to {shown.shown(score.maximum)}" if score.n > 1 else NOTHING
    best = NOTHING if score.probability_best is None else f"{score.probability_best:.2f}"
    return [
        of_group(score.group),
        of_text(shown.title, sort=shown.path),
        of_count(score.n),
        Cell(shown.shown(score.mean) + deviation, (score.mean, score.sd), note=score.reason or ""),
        Cell(span, (score.minimum, score.maximum)),
        of_interval(shown, score.over_seeds),
        of_interval(shown, score.over_seeds_bootstrap),
        of_interval(shown, score.over_pairs),
        of_interval(shown, score.over_both),
        Cell(best, (score.probability_best,)),
    ]


def _metric_column() -> Column:
    return Column("metric", "metric", "other_metric", text=True)


def _without(table: Table, key: str) -> Table:
    """A table without one of its columns."""
    index = [column.key for column in table.columns].index(key)
    rows = [[*row[:index], *row[index + 1 :]] for row in table.rows]
    return replace(table, columns=[*table.columns[:index], *table.columns[index + 1 :]], rows=rows)


def _beside(analysis: Analysis) -> list[str]:
    known = {path for group in analysis.block.groups for run in group.runs for path in run.metrics}
    selected = [
        run.results["selection"]["metric"]
        for group in analysis.block.groups
        for run in group.runs
        if run.results.get("selection")
    ]
    return [path for path in dict.fromkeys((*_BESIDE, *selected)) if path in known]


def _spread_column(path: str) -> Column:
    shown = metric(path)
    key = path.replace("/", "_")
    return Column(key, shown.title, shown.term, numbers=(f"{key}_mean", f"{key}_sd"))


def _without_empty(table: Table) -> Table:
    """Columns in which no row has anything are left out; the first one stays."""
    kept = [
        index
        for index, _ in enumerate(table.columns)
        if index == 0 or not table.rows or any(row[index].text for row in table.rows)
    ]
    columns = [table.columns[index] for index in kept]
    return replace(table, columns=columns, rows=[[row[index] for index in kept] for row in table.rows])


def comparison_table(found: Sequence[tuple[str, Comparison]], name: str, *, title: str) -> Table:
    """One row per comparison, with everything that is known about it.

    Args:
        found: metric and comparison.
        name: of the files.
        title: of the table.
    """
    metrics = {path for path, _ in found}
    comparisons = [one for _, one in found]
    brief = len(metrics) > 1
    points = ", points" if metric(found[0][0]).points and not brief else ""
    several = len({one.second.key for one in comparisons}) > 1
    # the page says them elsewhere: in the table of the metric that ranks, in the cells of the matrix
    details = not brief and not several
    columns = [
        Column("first", "method", "method", numbers=("first", "first_status"), text=True),
        _metric_column(),
        Column("second", "against", "reference", numbers=("second", "second_status"), text=True, in_page=several),
        Column("verdict", "verdict", "verdict", text=True),
        Column("difference", f"difference{points}", "difference"),
        interval_column("both", "over both", "over_both", [one.over_both for one in comparisons]),
        replace(
            interval_column("seeds", "over seeds", "over_seeds", [one.over_seeds for one in comparisons]),
            in_page=details,
        ),
        replace(
            interval_column("pairs", "over pairs", "over_pairs", [one.over_pairs for one in comparisons]),
            in_page=details,
        ),
        Column("p", "p", "p", in_page=False),
        Column("p_adjusted", "corrected p", "p_adjusted"),
        Column("p_seeds", "p over seeds", "p", extra="Here: over seeds alone.", in_page=False),
        Column("p_pairs", "p over pairs", "p", extra="Here: over test pairs alone.", in_page=False),
        Column("effect_size", "effect size", "effect"),
        Column("seeds_needed", "seeds needed", "seeds_needed"),
        Column("paired_seeds", "paired seeds", "paired"),
    ]
    table = Table(
        name,
        title,
        "all_metrics" if brief else "verdict",
        columns,
        [_comparison_cells(one, metric(path)) for path, one in found],
    )
    return _without_empty(table if brief else _without(table, "metric"))


def _comparison_cells(one: Comparison, shown: Metric) -> list[Cell]:
    return [
        of_group(one.first),
        of_text(shown.title, sort=shown.path),
        of_group(one.second),
        Cell(f"{SYMBOLS[one.verdict]} {one.verdict}", (one.verdict,), tone=TONES[one.verdict]),
        of_value(shown, one.difference, sign=True),
        of_interval(shown, one.over_both, sign=True),
        of_interval(shown, one.over_seeds, sign=True),
        of_interval(shown, one.over_pairs, sign=True),
        of_p(one.p),
        of_p(one.p_adjusted),
        of_p(one.p_seeds),
        of_p(one.p_pairs),
        _of_effect(one.effect_size),
        of_count(one.seeds_needed),
        of_count(one.paired_seeds),
    ]


def _of_effect(size: float | None) -> Cell:
    return Cell(NOTHING if size is None else f"{size:+.2f}".replace("-", MINUS), (size,))


def compare(analysis: Analysis, row: Group, column: Group) -> tuple[Comparison, bool] | None:
    """The comparison of two groups, and whether it is stated the other way round."""
    for one in analysis.all_pairs:
        if (one.first.key, one.second.key) == (row.key, column.key):
            return one, False
        if (one.second.key, one.first.key) == (row.key, column.key):
            return one, True
    return None


def published_table(expectations: "Sequence[Expectation]", name: str, *, title: str) -> Table:
    """Published numbers beside ours.

    Args:
        expectations: one row each.
        name: of the files.
        title: of the table.
    """
    columns = [
        method_column(),
        Column("metric", "metric", "score", text=True),
        Column("published", "published", "published_value", numbers=("published", "published_sd", "published_seeds")),
        Column("ours", "here", "ours", numbers=("ours", "ours_n")),
        Column("verdict", "is it expected?", "expected", text=True),
        Column("by", "by", "published_by", text=True),
        Column("source", "source", "source", text=True),
        Column("certain", "certainty", "published_certain", text=True),
        Column("backbone", "backbone", "backbone", text=True, in_page=False),
        Column("outcome", "outcome", "expected", text=True, in_page=False),
        replace(
            interval_column("interval", "expected", "expected", [one.interval for one in expectations]), in_page=False
        ),
    ]
    rows = []
    # what tests nothing, because the runs are the source's own, after what does
    for one in sorted(expectations, key=lambda one: one.outcome == "no statement"):
        shown = metric(one.metric)
        reported = shown.shown(one.published)
        reported += f" {PLUS_MINUS} {shown.shown(one.published_sd)}" if one.published_sd is not None else ""
        reported += f" (n = {one.published_seeds})" if one.published_seeds is not None else ""
        ours = f"{shown.shown(one.ours)} (n = {one.ours_n})" if one.ours_n else NOTHING
        rows.append(
            [
                of_group(one.group),
                of_text(shown.title, sort=one.metric),
                Cell(reported, (one.published, one.published_sd, one.published_seeds)),
                Cell(ours, (one.ours, one.ours_n)),
                of_text("; ".join(part for part in (one.verdict, one.note) if part)),
                of_text(_REPORTED_BY[one.kind]),
                of_text(f"{one.source} ({one.variant})" if one.variant else one.source),
                of_text("checked" if one.certain else "uncertain"),
                of_text(one.backbone),
                of_text(one.outcome),
                of_interval(shown, one.interval),
            ]
        )
    return _without_empty(Table(name, title, "published", columns, rows))
