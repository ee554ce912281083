"""What one block of comparable runs has to show, in the order of the page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cse_bench.results.collect import Block, Group
from cse_bench.results.report.descriptions import (
    cost_table,
    families,
    geometry_table,
    overlap_table,
    run_table,
    setup_table,
    task_tables,
)
from cse_bench.results.report.drawing import Drawing
from cse_bench.results.report.embedding_plots import density_drawing, plane_drawing, spectrum_drawing
from cse_bench.results.report.findings import Part, explained, findings
from cse_bench.results.report.plots import Looks, cost_drawing, curve_drawing, score_drawing, task_drawings
from cse_bench.results.report.scores import comparison_table, published_table, score_table
from cse_bench.results.report.tables import Table, with_status
from cse_bench.results.report.vocabulary import Metric, is_main, metric
from cse_bench.results.statistics.analysis import Analysis, Comparison

if TYPE_CHECKING:
    from cse_bench.results.published import Expectation

_MANY_ROWS = 20
_SIDE_BY_SIDE = 12  # columns of one number each that a wide screen holds

_FACT_TERMS = {
    "backbone": "backbone",
    "evaluation data": "evaluation_data",
    "task versions": "task_versions",
    "evaluation precision": "precision",
    "training precision": "precision",
    "training text": "training_text",
}


@dataclass(frozen=True)
class Matrix:
    """Every two groups of an analysis.

    Attributes:
        analysis: that it shows.
        groups: of rows and columns, best first; of many the best ones, the table below has all.
        name: unique in the page.
    """

    analysis: Analysis
    groups: Sequence[Group]
    name: str

    def holds(self, comparison: Comparison) -> bool:
        """Whether a comparison has its cell."""
        keys = {group.key for group in self.groups}
        return comparison.first.key in keys and comparison.second.key in keys


@dataclass(frozen=True)
class Folded:
    """A table that is shown on request.

    Attributes:
        table: the table.
    """

    table: Table


Item = Table | Drawing | Matrix | Folded


@dataclass(frozen=True)
class Section:
    """A part of a block with its own heading.

    Attributes:
        key: unique in the page, for links.
        title: its heading.
        term: the glossary term that explains it.
        items: what it shows.
    """

    key: str
    title: str
    term: str
    items: Sequence[Item]


@dataclass(frozen=True)
class BlockView:
    """One block.

    Attributes:
        key: unique in the page.
        title: its heading.
        facts: name, value and glossary term of what all runs share.
        metric: the one that ranks; None without an analysis.
        summary: numbers of groups, runs and seeds in words.
        findings: sentences.
        explained: words of the findings, and the glossary term of each.
        sections: what has something to show.
    """

    key: str
    title: str
    facts: Sequence[tuple[str, str, str]]
    metric: Metric | None
    summary: str
    findings: Sequence[Sequence[Part]]
    explained: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    def tables(self) -> list[Table]:
        """All tables."""
        items = [item for section in self.sections for item in section.items]
        return [item.table if isinstance(item, Folded) else item for item in items if isinstance(item, Table | Folded)]

    def drawings(self) -> list[Drawing]:
        """All figures."""
        return [item for section in self.sections for item in section.items if isinstance(item, Drawing)]


def block_view(
    block: Block,
    analyses: "Sequence[Analysis]",
    expectations: "Sequence[Expectation]",
    looks: Looks,
    *,
    key: str,
    prefix: str,
) -> BlockView:
    """All that is said about a block.

    Args:
        block: the block.
        analyses: of it; the first one ranks.
        expectations: published numbers; may be empty.
        looks: of all groups of the page.
        key: unique in the page.
        prefix: start of the names of its files.
    """
    groups = [score.group for score in analyses[0].scores] if analyses else list(block.groups)
    said = findings(analyses)
    sections = [
        Section(f"{key}-scores", "Scores", "score", _score_items(analyses, looks, prefix)),
        Section(f"{key}-comparisons", "Comparisons", "verdict", _comparison_items(analyses, prefix)),
        Section(f"{key}-tasks", "Scores by task", "task_table", _task_items(block, analyses, groups, looks, prefix)),
        Section(
            f"{key}-published",
            "Published numbers",
            "published",
            _published_items(expectations, analyses, prefix),
        ),
        Section(f"{key}-curves", "Training", "curves", _some(curve_drawing(block, groups, looks, f"{prefix}curves"))),
        Section(
            f"{key}-geometry",
            "Geometry of the embeddings",
            "geometry",
            _some(
                geometry_table(groups, f"{prefix}geometry"),
                plane_drawing(block, groups, looks, f"{prefix}plane"),
                spectrum_drawing(groups, looks, f"{prefix}spectrum"),
            ),
        ),
        Section(
            f"{key}-density", "Cosines by grade", "density", _some(density_drawing(groups, looks, f"{prefix}density"))
        ),
        Section(
            f"{key}-cost",
            "Cost",
            "cost",
            _some(
                cost_drawing(analyses[0], looks, f"{prefix}cost") if analyses else None,
                cost_table(groups, f"{prefix}cost"),
            ),
        ),
        Section(f"{key}-overlap", "Overlap of the tests", "overlap", _some(overlap_table(block, f"{prefix}overlap"))),
        Section(f"{key}-runs", "Runs and settings", "runs", _run_items(block, analyses, groups, prefix)),
    ]
    return BlockView(
        key=key,
        title=_title(block),
        facts=[(name, value, _FACT_TERMS.get(name, "fact")) for name, value in block.facts.items()],
        metric=metric(analyses[0].metric) if analyses else None,
        summary=_summary(block),
        findings=said,
        explained=explained(said),
        sections=[section for section in sections if section.items],
    )


def _some(*items: Item | None) -> list[Item]:
    return [item for item in items if item is not None]


def _title(block: Block) -> str:
    text = block.facts.get("training text")
    backbone = block.facts.get("backbone", "runs")
    if text is None:
        return f"{backbone}, not trained"
    done = "trained on" if any(group.is_trained for group in block.groups) else "fitted to"
    return f"{backbone}, {done} {text.partition(' (')[0]}"


def _summary(block: Block) -> str:
    runs = sum(len(group.runs) for group in block.groups)
    trained = Counter(len(group.runs) for group in block.groups if group.is_trained)
    baselines = len(block.groups) - trained.total()
    parts = [f"{runs} run{'s' if runs > 1 else ''} in {len(block.groups)} group{'s' if len(block.groups) > 1 else ''}"]
    if trained:
        low, high = min(trained), max(trained)
        seeds = f"{low}" if low == high else f"{low} to {high}"
        parts.append(f"{seeds} seed{'' if high == 1 else 's'} for each trained group")
    if baselines:
        parts.append(f"{baselines} baseline{'s' if baselines > 1 else ''} without training")
    return "; ".join(parts) + "."


def _score_items(analyses: Sequence[Analysis], looks: Looks, prefix: str) -> list[Item]:
    if not analyses:
        return []
    first, *others = analyses
    title = f"Scores: {metric(first.metric).title}"
    items: list[Item] = [
        score_table([first], f"{prefix}scores", title=title, beside=True),
        score_drawing(first, looks, f"{prefix}scores"),
    ]
    for other in others:
        if is_main(other.metric):
            title = f"Scores: {metric(other.metric).title}"
            items.append(Folded(score_table([other], f"{prefix}scores_{_slug(other)}", title=title, beside=False)))
    if len(others) > 1:
        table = score_table(analyses, f"{prefix}scores_all", title="Scores in every metric", beside=False)
        items.append(Folded(table))
    return items


def _comparison_items(analyses: Sequence[Analysis], prefix: str) -> list[Item]:
    compared = [analysis for analysis in analyses if analysis.comparisons and analysis.reference is not None]
    items: list[Item] = []
    for analysis in compared:
        first = analysis is analyses[0]
        if not first and not is_main(analysis.metric):
            continue
        found = [(analysis.metric, one) for one in analysis.comparisons]
        name = f"{prefix}comparisons" if first else f"{prefix}comparisons_{_slug(analysis)}"
        table = comparison_table(found, name, title=f"Against {_reference(analysis)}: {metric(analysis.metric).title}")
        items.append(table if first else Folded(table))
    if analyses and analyses[0].all_pairs:
        items[1:1] = _every_two(analyses[0], prefix)
    if len(compared) > 2:
        found = [(analysis.metric, one) for analysis in compared for one in analysis.comparisons]
        title = f"Against {_reference(compared[0])} in every metric"
        items.append(Folded(comparison_table(found, f"{prefix}comparisons_all", title=title)))
    return items


def _every_two(analysis: Analysis, prefix: str) -> list[Item]:
    groups = [score.group for score in analysis.scores][:_SIDE_BY_SIDE]
    found = [(analysis.metric, one) for one in analysis.all_pairs]
    title = f"Every two groups as a table: {metric(analysis.metric).title}"
    return [
        Matrix(analysis, groups, f"{prefix}matrix"),
        Folded(comparison_table(found, f"{prefix}all_pairs", title=title)),
    ]


def _reference(analysis: Analysis) -> str:
    assert analysis.reference is not None
    return with_status(analysis.reference)


def _slug(analysis: Analysis) -> str:
    return "".join(character if character.isalnum() else "_" for character in analysis.metric)


def _task_items(
    block: Block, analyses: Sequence[Analysis], groups: Sequence[Group], looks: Looks, prefix: str
) -> list[Item]:
    tables = list(task_tables(block, groups, f"{prefix}tasks_"))
    heats = task_drawings(analyses[0], groups, looks, f"{prefix}tasks_") if analyses else []
    items: list[Item] = []
    for number, (family, table) in enumerate(zip(families(block), tables, strict=True)):
        # the same tasks counted in another way are there for who looks for them
        items.append(Folded(table) if number and family.startswith("sts/") else table)
        items += [heat for heat in heats if heat.name == table.name and not isinstance(items[-1], Folded)]
    return items


def _published_items(expectations: "Sequence[Expectation]", analyses: Sequence[Analysis], prefix: str) -> list[Item]:
    """Those of the analysed metrics at once, the others on request."""
    first = {analysis.metric for index, analysis in enumerate(analyses) if index == 0 or is_main(analysis.metric)}
    main = [one for one in expectations if one.metric in first]
    others = [one for one in expectations if one.metric not in first]
    items: list[Item] = []
    if main:
        items.append(published_table(main, f"{prefix}published", title="Published numbers beside ours"))
    if others:
        title = "Published numbers beside ours, other metrics"
        items.append(Folded(published_table(others, f"{prefix}published_other", title=title)))
    return items


def _run_items(block: Block, analyses: Sequence[Analysis], groups: Sequence[Group], prefix: str) -> list[Item]:
    items: list[Item] = [setup_table(groups, f"{prefix}setup")]
    if analyses:
        table = run_table(block, analyses[0].metric, f"{prefix}runs")
        items.append(table if len(table.rows) <= _MANY_ROWS else Folded(table))
    return items
