"""Mined pairs as tables for people."""

from rich.table import Table

_MEANING = {
    "positives_not_self": "share of positives that are other sentences",
    "positive_surface": "their mean surface similarity",
    "negative_surface": "mean surface similarity of a hard negative",
    "effective_positives": "candidates that take part as positives (1 / sum of p^2)",
    "effective_negatives": "the same for hard negatives",
    "without_negatives": "share of sentences without a hard negative",
    "neighbours_above": "share of nearest neighbours at or above positive_threshold",
    "neighbours_between": "share of nearest neighbours between the thresholds",
    "neighbour_recall": "share of true neighbours that the search finds",
}


def calibration_table(calibration: dict[str, dict[str, float]]) -> Table:
    """Quantiles of the teacher's cosines, a column for each kind of pair."""
    table = Table(title="cosines of the teacher", title_justify="left")
    table.add_column("quantile")
    for kind in calibration:
        table.add_column(kind, justify="right")
    for order in next(iter(calibration.values())):
        table.add_row(order, *[f"{values[order]:.4f}" for values in calibration.values()])
    return table


def diagnosis_table(metrics: dict[str, float]) -> Table:
    """What sampling gives with the thresholds and propensities as they are set."""
    table = Table(title="sampling with these settings", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("meaning")
    for name, value in metrics.items():
        short = name.partition("/")[2]
        table.add_row(short, f"{value:.4f}", _MEANING[short])
    return table
