"""How figures look and become files: one colour and marker per group everywhere, SVG with text as text.

Figures are drawn once in light colours. In the page the neutral ones become the page's own (CSS variables), so that one
drawing serves light and dark.
"""

import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count, cycle
from typing import TYPE_CHECKING, Any

from cse_bench.results.collect import Block, Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Neutral colours of the files and what stands for them in the page; no other thing is drawn in these.
INK, MUTED, FAINT, PAPER = "#1b1f25", "#5c636d", "#c4c8ce", "#fefefe"
_IN_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--faint)", PAPER: "var(--paper)"}

# Neighbours differ for colour-blind readers, and each has a contrast of at least 3 to white and to the dark page.
COLOURS = (
    "#2a7fc4", "#d55e00", "#00936b", "#b5599a", "#a87900", "#7a68d0", "#d1495b", "#1f95a8", "#7d8a1f", "#a8663a",
)  # fmt: skip
BASELINE = "#7d838c"
_MARKERS = "osD^vPXp<>h*"
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

UNOFFICIAL = "own reading"
DAGGER = "\N{DAGGER}"
DAGGER_NOTE = f"{DAGGER} own reading of a paper whose details are not public"
_LONGEST_LABEL, _LONGEST_SHORTENED = 34, 48
_INCHES_PER_CHARACTER = 0.067  # of a legend, on average
_NUMBER = re.compile(r"-?\d+\.\d{3,}")  # a hundredth of a point is not seen, and takes half the bytes
_BASELINE_MARKERS = "HX8PDd>p<^o"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 7.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "figure.constrained_layout.use": True,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Look:
    """How a group is drawn.

    Attributes:
        colour: in hexadecimal.
        marker: a matplotlib marker.
        dashes: a matplotlib line style.
        short: its label, short enough for a figure.
        label: the same for matplotlib, with a dagger where the method is an own reading.
    """

    colour: str
    marker: str
    dashes: Any
    short: str
    label: str


def looks(blocks: Sequence[Block]) -> dict[str, Look]:
    """Label -> look, the same in all sections: trained groups have a colour each, baselines share a grey."""
    groups = {group.label: group for block in blocks for group in block.groups}
    short = figure_labels(list(groups))
    found: dict[str, Look] = {}
    colours, markers, grey = cycle(COLOURS), cycle(_MARKERS), cycle(_BASELINE_MARKERS)
    for index, (label, group) in enumerate(sorted(groups.items(), key=lambda item: item[1].status == "baseline")):
        if group.status == "baseline":
            found[label] = Look(BASELINE, next(grey), _DASHES[1], short[label], _marked(short[label], group))
        else:
            dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
            marked = _marked(short[label], group)
            found[label] = Look(next(colours), next(markers), dashes, short[label], marked)
    return found


def figure_labels(labels: Sequence[str]) -> dict[str, str]:
    """Label -> label for figures, all different.

    Where one label of a method is too long, all of its settings lose their names: `whitened (kind=pca, pooling=cls)`
    becomes `whitened: pca, cls`. What is still too long loses its middle.
    """
    long = {_method(label) for label in labels if len(label) > _LONGEST_LABEL}
    found: dict[str, str] = {}
    for label in labels:
        short = _settings_alone(label) if _method(label) in long else label
        if len(short) > _LONGEST_SHORTENED:
            half = _LONGEST_SHORTENED // 2
            short = f"{short[:half]}\N{HORIZONTAL ELLIPSIS}{short[1 - half :]}"
        numbered = (f"{short} #{number}" for number in count(2))
        found[label] = next(name for name in chain([short], numbered) if name not in found.values())
    return found


def _method(label: str) -> str:
    return label.partition(" (")[0]


def _settings_alone(label: str) -> str:
    method, _, settings = label.partition(" (")
    inside, _, code = settings.rpartition(")")
    values = [setting.partition("=")[2] or setting for setting in inside.split(", ")]
    return f"{method}: {', '.join(values)}{code}" if inside else label


def _marked(label: str, group: Group) -> str:
    """A label for matplotlib, which would read formulas between dollars."""
    return label.replace("$", r"\$") + (f" {DAGGER}" if group.status == UNOFFICIAL else "")


def wrapped(label: str, width: int) -> str:
    """A label in lines of at most some characters, where its words allow it."""
    return textwrap.fill(label, width, break_long_words=False, break_on_hyphens=False)


def is_unofficial(groups: Sequence[Group]) -> bool:
    """Whether a figure of these groups has to explain the dagger."""
    return any(group.status == UNOFFICIAL for group in groups)


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes:
        name: of its files.
        title: its heading.
        term: the glossary term that explains it.
        alt: what is seen, for who cannot see it.
        draw: makes it; for a phone when called with `narrow=True`.
        notes: what is missing in it, in sentences.
    """

    name: str
    title: str
    term: str
    alt: str
    draw: "Callable[..., Figure]"
    notes: Sequence[str] = ()

    @cached_property
    def _wide(self) -> "tuple[str, Figure]":
        figure = _drawn(self.draw, narrow=False)
        return _to_svg(figure, self.name), figure

    def svg(self) -> str:
        """The file: on white, whatever it is opened in."""
        return re.sub(r"(</defs>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', self._wide[0], count=1)

    def png(self) -> bytes:
        """The file, 200 dots per inch on white."""
        import matplotlib

        with matplotlib.rc_context(_STYLE), io.BytesIO() as buffer:
            figure = self._wide[1]
            figure.set_layout_engine("none")  # everything has its place already
            figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
            return buffer.getvalue()

    def inline(self) -> str:
        """For the page: as wide as there is room for, in the page's colours."""
        wide = _inlined(self._wide[0], self.name, self, kind="wide")
        narrow_name = f"{self.name}-narrow"
        return wide + _inlined(_to_svg(_drawn(self.draw, narrow=True), narrow_name), narrow_name, self, kind="narrow")


def _drawn(draw: "Callable[..., Figure]", *, narrow: bool) -> "Figure":
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        return draw(narrow=narrow)


def _to_svg(figure: "Figure", name: str) -> str:
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", buffer.getvalue())


def _inlined(svg: str, name: str, drawing: Drawing, *, kind: str) -> str:
    """An SVG element for HTML: no header, no name that another figure has, the page's font and colours."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    assert box is not None
    body = body[body.index(">") + 1 : body.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"font: ((?:[\w.]+ )*?)([\d.]+px) [^;\"]*", _font, body)
    for colour, variable in _IN_PAGE.items():
        body = body.replace(colour, variable)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    body = re.sub(r" style=\"fill: none\"/>", ' fill="none"/>', body)
    width, height = box[1], box[2]
    return (
        f'<svg class="plot {kind}" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {width} {height}" style="--width: {float(width) * 1.3:.0f}px">'
        f'<title id="{name}-title">{escape(drawing.title)}</title><desc id="{name}-desc">{escape(drawing.alt)}</desc>'
        f"{body}</svg>"
    )


def _font(match: re.Match[str]) -> str:
    weight = "; font-weight: bold" if "bold" in match[1] or "700" in match[1] else ""
    return f"font-size: {match[2]}{weight}"


def legend(figure: "Figure", handles: Mapping[str, Any], looks: Mapping[str, Look], groups: Sequence[Group]) -> None:
    """A legend below all axes, with the meaning of the dagger; the figure grows by what it needs.

    Args:
        figure: as high as what it shows without the legend.
        handles: by the labels of the groups, so that none hides another.
        looks: of all groups.
        groups: of the figure.
    """
    names = [looks[label].label for label in handles]
    width, height = figure.get_size_inches()
    columns = min(max(int(width / (_INCHES_PER_CHARACTER * max(map(len, names), default=1) + 0.55)), 1), 3)
    figure.set_size_inches(width, height + 0.19 * -(-len(names) // columns))
    note = DAGGER_NOTE if is_unofficial(groups) else None
    figure.legend(
        list(handles.values()), names, loc="outside lower left", ncols=columns, title=note,
        alignment="left", handlelength=1.8, columnspacing=1.4,
    )  # fmt: skip


def marker_paths(all_looks: Mapping[str, Look]) -> dict[str, str]:
    """Marker -> outline for an SVG of `-1 -1 2 2`, so that words carry the same sign as the figures."""
    from matplotlib.markers import MarkerStyle

    paths = {}
    for marker in {look.marker for look in all_looks.values()}:
        style = MarkerStyle(marker)
        outline: Any = style.get_path().transformed(style.get_transform()).to_polygons(closed_only=False)
        largest = max(float(abs(part).max()) for part in outline)
        paths[marker] = "".join(
            "M" + "L".join(f"{0.9 * x / largest:.2f} {-0.9 * y / largest:.2f}" for x, y in part) + "Z"
            for part in outline
        )
    return paths
