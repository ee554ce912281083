"""Tables before they are rendered, and as Markdown, LaTeX and CSV.

A cell has its text for readers and, apart from it, the numbers behind it: sorting and CSV use the unrounded ones.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cse_bench.results.collect import Group
from cse_bench.results.report.vocabulary import MINUS, NOTHING, PLUS_MINUS, Metric
from cse_bench.results.statistics.analysis import Interval

Number = float | int | str | None
# Signs that LaTeX without further packages does not have in text.
_LATEX = {MINUS: "-", PLUS_MINUS: r"$\pm$"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in CSV.
        title: its heading.
        term: the glossary term that explains it.
        extra: what is to be said beyond the glossary, e.g. how the intervals of this column were made.
        numbers: names in CSV where one cell holds several numbers; `key` alone when empty.
        text: whether it holds words; they are set to the left.
        in_page: False: in the files alone, because the page says it elsewhere.
    """

    key: str
    title: str
    term: str
    extra: str = ""
    numbers: tuple[str, ...] = ()
    text: bool = False
    in_page: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in CSV."""
        return self.numbers or (self.key,)


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        numbers: what it stands for, unrounded; one per name of its column.
        group: the group whose label this is, to be shown with its status.
        tone: `good`, `bad`, `even` or `unknown` for a verdict, whose word is the only number; else empty.
        note: why a value is NaN, shown where the pointer rests.
    """

    text: str
    numbers: tuple[Number, ...] = ()
    group: Group | None = None
    tone: str = ""
    note: str = ""

    @property
    def sort_value(self) -> str:
        """What it is sorted by; empty (last) for what has no value."""
        first = self.numbers[0] if self.numbers else self.text
        if first is None or (isinstance(first, float) and not math.isfinite(first)):
            return ""
        return repr(first) if isinstance(first, float | int) else str(first)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files.
        title: its caption.
        term: the glossary term that explains it.
        columns: from left to right; the first one names the row.
        rows: one cell per column.
        notes: sentences below it.
    """

    name: str
    title: str
    term: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: a row of {len(row)} cells under {len(self.columns)} columns")


def method_column(title: str = "method") -> Column:
    """The column that names groups."""
    return Column("method", title, "method", numbers=("method", "status"), text=True)


def of_group(group: Group) -> Cell:
    """The cell that names a group; its status is always with it."""
    return Cell(group.label, (group.label, group.status), group=group)


def of_text(text: str, *, sort: Number = None) -> Cell:
    """A cell of words."""
    return Cell(text, (text if sort is None else sort,))


def of_count(value: int | None) -> Cell:
    """A cell with a whole number."""
    return Cell(NOTHING if value is None else f"{value:,}", (value,))


def of_value(metric: Metric, value: float | None, *, sign: bool = False) -> Cell:
    """A cell with one value of a metric."""
    return Cell(metric.shown(value, sign=sign), (value,))


def of_spread(metric: Metric, values: Sequence[float]) -> Cell:
    """Mean and standard deviation of some runs; of one run its value alone."""
    mean, deviation = mean_and_sd(values)
    if mean is None:
        return Cell(NOTHING, (None, None))
    shown = metric.shown(mean)
    if mean and float(shown.replace(MINUS, "-").replace(",", "")) == 0:  # there is something, too little to be shown
        return Cell(f"< {metric.smallest:g}" if mean > 0 else f"> {MINUS}{metric.smallest:g}", (mean, deviation))
    if deviation is not None and math.isfinite(deviation) and min(values) < max(values):
        shown += f" {PLUS_MINUS} {metric.shown(deviation)}"
    return Cell(shown, (mean, deviation))


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None for what a number of values does not define."""
    import numpy as np

    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def of_interval(metric: Metric, interval: Interval | None, *, sign: bool = False) -> Cell:
    """A cell with both ends of an interval."""
    if interval is None:
        return Cell(NOTHING, (None, None))
    low, high = metric.shown(interval.low, sign=sign), metric.shown(interval.high, sign=sign)
    return Cell(f"{low} to {high}", (interval.low, interval.high))


def of_p(value: float | None) -> Cell:
    """A cell with a p-value."""
    return Cell(shown_p(value), (value,))


def shown_p(value: float | None) -> str:
    """A p-value as text."""
    if value is None or math.isnan(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval_column(key: str, title: str, term: str, intervals: Sequence[Interval | None]) -> Column:
    """A column of intervals, with the level and the making that they themselves state."""
    known = [interval for interval in intervals if interval is not None]
    level = f"{100 * known[0].level:g} %" if known else "95 %"
    said = list(dict.fromkeys(interval.of for interval in known))
    extra = f"Here: {'; or '.join(said)}." if said else ""
    return Column(key, f"{level} {title}", term, extra=extra, numbers=(f"{key}_low", f"{key}_high"))


def write_table(table: Table, folder: Path) -> list[Path]:
    """Writes `name.md`, `name.tex` and `name.csv`.

    Args:
        table: what to write.
        folder: made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": as_markdown(table), "tex": as_latex(table)}
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{table.name}.{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    path = folder / f"{table.name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([name for column in table.columns for name in column.names])
        writer.writerows([_plain(number) for cell in row for number in cell.numbers] for row in table.rows)
    return [*paths, path]


def as_markdown(table: Table) -> str:
    """A table in Markdown, its title above and its notes below."""
    from tabulate import tabulate

    body = tabulate(
        [[_markdown(_exported(cell)) for cell in row] for row in table.rows],
        headers=[_markdown(column.title) for column in table.columns],
        tablefmt="pipe",
        colalign=_alignment(table),
        disable_numparse=True,
    )
    notes = "".join(f"\n{_markdown(note)}\n" for note in table.notes)
    return f"**{_markdown(table.title)}**\n\n{body}\n{notes}"


def as_latex(table: Table) -> str:
    """A table in LaTeX (package booktabs), its title in a comment."""
    from tabulate import tabulate

    body = tabulate(
        [[_for_latex(cell) for cell in row] for row in table.rows],
        headers=[column.title for column in table.columns],
        tablefmt="latex_booktabs",
        colalign=_alignment(table),
        disable_numparse=True,
    )
    lines = [table.title, *table.notes]
    for sign, command in _LATEX.items():
        body = body.replace(sign, command)
    return "".join(f"% {' '.join(line.split())}\n" for line in lines) + body + "\n"


def with_status(group: Group) -> str:
    """A group's label for places that have no badges."""
    return f"{group.label} ({group.status})"


def _exported(cell: Cell) -> str:
    return with_status(cell.group) if cell.group else cell.text


def _alignment(table: Table) -> tuple[str, ...] | None:
    # tabulate cannot align the columns of a table without rows
    return tuple("left" if column.text else "right" for column in table.columns) if table.rows else None


def _for_latex(cell: Cell) -> str:
    """The symbol of a verdict says nothing that its word does not, and pdfLaTeX does not have it."""
    return str(cell.numbers[0]) if cell.tone else _exported(cell)


def _markdown(text: str) -> str:
    for special in "\\`*_[]<>|#~":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _plain(number: Number) -> str:
    if number is None:
        return ""
    return repr(number) if isinstance(number, float) else str(number)


def by_name(tables: Sequence[Table]) -> Mapping[str, Table]:
    """Tables by name.

    Raises:
        ValueError: Two have the same one, so that their files would overwrite each other.
    """
    named = {table.name: table for table in tables}
    if len(named) != len(tables):
        raise ValueError(f"tables with the same name: {sorted(table.name for table in tables)}")
    return named
