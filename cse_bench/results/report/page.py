"""One HTML page that needs nothing else: what the blocks have to show, with an explanation of everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from cse_bench.results.collect import Collection, Group
from cse_bench.results.report.content import BlockView, Folded, Matrix
from cse_bench.results.report.drawing import UNOFFICIAL, Drawing, Look, marker_paths
from cse_bench.results.report.findings import Evidence
from cse_bench.results.report.glossary import TERMS, Term
from cse_bench.results.report.scores import SYMBOLS, TONES, compare, sources_of_chance
from cse_bench.results.report.tables import Table, shown_p
from cse_bench.results.report.vocabulary import PLUS_MINUS, metric
from cse_bench.results.statistics.analysis import Analysis

_NO_BREAK = "\N{NO-BREAK SPACE}"
_TEMPLATES = files("cse_bench.results.report") / "templates"


@dataclass
class Help:
    """The explanations that a page refers to; what is asked for is collected and printed once.

    Attributes:
        entries: id -> term and what is said beyond it.
    """

    entries: dict[str, tuple[Term, str]] = field(default_factory=dict)
    used: dict[str, Term] = field(default_factory=dict)

    def __call__(self, term: str, extra: str = "") -> str:
        """The id of an explanation.

        Args:
            term: a key of the glossary.
            extra: what is said beyond it.
        """
        self.used[term] = TERMS[term]
        number = 0
        while True:
            key = f"help-{term}-{number}" if number else f"help-{term}"
            if self.entries.setdefault(key, (TERMS[term], extra))[1] == extra:
                return key
            number += 1

    def sorted(self) -> list[tuple[str, Term]]:
        """What was asked for, by title."""
        return sorted(self.used.items(), key=lambda item: item[1].title.lower())


def render(collection: Collection, views: Sequence[BlockView], own_looks: Mapping[str, Look], *, title: str) -> str:
    """The page.

    Args:
        collection: the runs, and what was left out.
        views: one per block.
        own_looks: label -> look of all groups.
        title: of the page.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(lambda name: (_TEMPLATES / name).read_text(encoding="utf-8")),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {Table: "table", Folded: "folded", Matrix: "matrix", Drawing: "drawing"}
    return environment.get_template("page.html.j2").render(
        title=title,
        generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        collection=collection,
        views=views,
        runs=sum(len(group.runs) for block in collection.blocks for group in block.groups),
        versions=_versions(collection),
        unofficial=any(group.status == UNOFFICIAL for block in collection.blocks for group in block.groups),
        looks=own_looks,
        markers=marker_paths(own_looks),
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        script=Markup((_TEMPLATES / "sort.js").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        explain=Help(),
        kind=lambda item: kinds[type(item)],
        is_evidence=lambda part: isinstance(part, Evidence),
        is_group=lambda part: isinstance(part, Group),
        inline=lambda drawing: Markup(drawing.inline()),  # noqa: S704 (made here; its words are escaped)
        two_lines=_two_lines,
        breakable=_breakable,
        sources_of_chance=sources_of_chance,
        cell=_matrix_cell,
        symbols=SYMBOLS,
        tones=TONES,
        metric=metric,
        shown_p=shown_p,
    )


def _breakable(label: str) -> Any:
    """A label that a narrow column breaks between its words, not inside them."""
    from markupsafe import Markup, escape

    text = str(escape(label))
    return Markup(text.replace("_", "_<wbr>").replace("=", "=<wbr>"))  # noqa: S704 (escaped above)


def _two_lines(text: str) -> str:
    """Two numbers that may stand on two lines, the word between them with the second one."""
    for joined in ("to ", f"{PLUS_MINUS} ", "(n = "):
        text = text.replace(f" {joined}", f" {joined.replace(' ', _NO_BREAK)}")
    return text


def _matrix_cell(analysis: Analysis, row: Group, column: Group) -> dict[str, Any] | None:
    """Verdict and difference as seen from the group of the row; None where two groups were not compared."""
    found = compare(analysis, row, column)
    if found is None:
        return None
    one, turned = found
    verdict: str = one.verdict
    if turned and verdict in ("better", "worse"):
        verdict = "worse" if verdict == "better" else "better"
    difference = metric(analysis.metric).shown(-one.difference if turned else one.difference, sign=True)
    number = next(index for index, other in enumerate(analysis.all_pairs) if other is one)
    return {"verdict": verdict, "difference": difference, "number": number}


def _versions(collection: Collection) -> list[tuple[str, str]]:
    """Program -> versions that the runs recorded."""
    found: dict[str, set[str]] = {}
    for block in collection.blocks:
        for group in block.groups:
            for run in group.runs:
                for name, version in run.results.get("environment", {}).get("versions", {}).items():
                    found.setdefault(name, set()).add(str(version))
    return [(name, ", ".join(sorted(versions))) for name, versions in found.items()]
