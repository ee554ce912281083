"""The report in brief, for the terminal: the headline scores of each block, what may be said, and where the rest is."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from cse_bench.results.collect import Block, Collection, Group
from cse_bench.results.report.findings import Evidence, findings
from cse_bench.results.report.scores import score_table
from cse_bench.results.report.tables import Table, with_status
from cse_bench.results.report.vocabulary import metric
from cse_bench.results.statistics.analysis import Analysis
from cse_bench.results.tables import print_lines, print_table

_SHOWN = ("method", "n", "mean", "both", "seeds", "p_best")
_BROADER = ("both", "seeds")  # where a group has neither, its interval over test pairs is shown
_LEFT_OUT_SHOWN = 10
_NAMED = 3


def print_report(collection: Collection, analyses: Sequence[Sequence[Analysis]], page: Path) -> None:
    """Prints the headline of each block, the findings, what was left out, and where the page is."""
    for block, of_block in zip(collection.blocks, analyses, strict=True):
        if not of_block:
            print_lines([_without_metrics(block), ""])
            continue
        first = of_block[0]
        facts = ", ".join(f"{name} {value}" for name, value in first.block.facts.items())
        print_table(_brief(score_table([first], "scores", title=metric(first.metric).title, beside=False), facts))
        print_lines(f"- {''.join(map(_words, sentence))}" for sentence in findings(of_block))
        print_lines([""])
    left_out = [f"left out: {directory.name}: {reason}" for directory, reason in collection.left_out]
    print_lines(left_out[:_LEFT_OUT_SHOWN])
    if len(left_out) > _LEFT_OUT_SHOWN:
        print_lines([f"left out: {len(left_out) - _LEFT_OUT_SHOWN} more, see the page"])
    print_lines([f"report: {page}"])


def _without_metrics(block: Block) -> str:
    names = [run.directory.name for group in block.groups for run in group.runs]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"not compared, without any of the usual metrics: {', '.join(names[:_NAMED])}{more}; name a metric with "
        "metric=..., or leave them out of runs=..."
    )


def _words(part: str | Group) -> str:
    if isinstance(part, Evidence):
        return f" {part}"
    return with_status(part) if isinstance(part, Group) else part


def _brief(table: Table, caption: str) -> RichTable:
    brief = RichTable(title=table.title, caption=caption, title_justify="left", caption_justify="left")
    keys = [column.key for column in table.columns]
    broader = [keys.index(key) for key in _BROADER if key in keys]
    pairs = [row[keys.index("pairs")].text for row in table.rows] if "pairs" in keys else []
    lacking = any(
        text and not any(row[index].text for index in broader) for text, row in zip(pairs, table.rows, strict=False)
    )
    shown = [index for index, key in enumerate(keys) if key in _SHOWN or (key == "pairs" and lacking)]
    for index in shown:
        column = table.columns[index]
        brief.add_column(column.title, justify="left" if column.text else "right")
    for row in table.rows:
        brief.add_row(*(_words(row[index].group or row[index].text) for index in shown))
    return brief
