"""The figures of scores: at a glance, by task, over training, against cost."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cse_bench.results.collect import Block, Group
from cse_bench.results.report.descriptions import cost_values, families
from cse_bench.results.report.drawing import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    Drawing,
    Look,
    is_unofficial,
    legend,
    wrapped,
)
from cse_bench.results.report.scores import widest
from cse_bench.results.report.series import log_gaps, selected, selection_metric, series, start_of
from cse_bench.results.report.tables import mean_and_sd, with_status
from cse_bench.results.report.vocabulary import FAMILIES, metric, task_title
from cse_bench.results.statistics.analysis import Analysis, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = Mapping[str, Look]
WIDE, NARROW = 7.4, 3.7  # inches
_INCHES_PER_LETTER = 0.07
_ROWS_SEEN_AT_ONCE = 16
_HIGHER, _LOWER = "#2a7fc4", "#d55e00"


def new_figure(width: float, height: float) -> "Figure":
    """A figure without the global state of pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def note_below(figure: "Figure", groups: Sequence[Group]) -> None:
    """Explains the dagger in a figure without a legend."""
    from cse_bench.results.report.drawing import DAGGER_NOTE

    if is_unofficial(groups):
        figure.supxlabel(DAGGER_NOTE, x=0.01, ha="left", fontsize=7.5, color=MUTED)


def panel_title(axes: "Axes", look: Look, *, narrow: bool) -> None:
    """Names a panel of small multiples."""
    axes.set_title(wrapped(look.label, 20 if narrow else 30), color=INK, fontsize=8 if narrow else 9)


def row_labels(groups: Sequence[Group], looks: Looks, *, narrow: bool) -> list[str]:
    """Labels of rows; in lines on a phone, where they would take the room of what they name."""
    labels = [looks[group.label].label for group in groups]
    return [wrapped(label, 18) for label in labels] if narrow else labels


def row_height(labels: Sequence[str]) -> float:
    """Inches that a row needs for its label."""
    return 0.16 + 0.14 * max((label.count("\n") + 1 for label in labels), default=1)


def grid(panels: int, *, narrow: bool, height: float, wide_columns: int = 3) -> tuple["Figure", list["Axes"]]:
    """Axes for small multiples, sharing both scales."""
    columns = min(panels, 2 if narrow else wide_columns)
    rows = math.ceil(panels / columns)
    figure = new_figure(
        (NARROW if narrow else WIDE) * max(columns / (2 if narrow else wide_columns), 0.6), height * rows + 0.5
    )
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for empty in axes[panels:]:
        empty.set_visible(False)
    for index in range(max(panels - columns, 0), panels):
        axes[index].tick_params(labelbottom=True)
    return figure, axes[:panels]


def score_drawing(analysis: Analysis, looks: Looks, name: str) -> Drawing:
    """All runs, their means and intervals, best on top."""
    shown = metric(analysis.metric)
    usable = [score for score in analysis.scores if math.isfinite(score.mean)]
    words = ", ".join(f"{score.group.label} {shown.shown(score.mean)}" for score in usable)
    alt = f"One row per group, best first. Means of {shown.title}: {words or 'none'}."
    return Drawing(
        name, f"Scores at a glance: {shown.title}", "forest", alt, partial(_draw_scores, usable, looks, shown.title)
    )


def _draw_scores(scores: Sequence[Score], looks: Looks, title: str, *, narrow: bool) -> "Figure":
    labels = row_labels([score.group for score in scores], looks, narrow=narrow)
    figure = new_figure(NARROW if narrow else 6.2, row_height(labels) * len(scores) + 0.9)
    axes = figure.add_subplot()
    for row, score in enumerate(scores):
        look = looks[score.group.label]
        values = np.array(list(score.values.values()), dtype=float)
        spread = 0.16 * ((np.arange(len(values)) * 0.618) % 1.0 - 0.5)  # so that equal scores do not hide each other
        if len(values) > 1:
            axes.plot(values, row + 0.26 + spread, "o", color=look.colour, markersize=2.8, alpha=0.6, mew=0)
        if interval := widest(score):
            axes.plot([interval.low, interval.high], [row, row], "-", color=look.colour, linewidth=2.2, alpha=0.55)
        axes.plot([score.mean], [row], look.marker, color=look.colour, markersize=6.5, mec=PAPER, mew=0.7)
    axes.set_yticks(range(len(scores)), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=7 if narrow else 8)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    if len(scores) > _ROWS_SEEN_AT_ONCE:
        for row in range(1, len(scores), 2):  # the eye loses its row on the way from the label
            axes.axhspan(row - 0.5, row + 0.5, color=FAINT, alpha=0.25, lw=0)
        axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(title)
    note_below(figure, [score.group for score in scores])
    return figure


def task_drawings(analysis: Analysis, groups: Sequence[Group], looks: Looks, name: str) -> list[Drawing]:
    """One heat map of differences to the reference for each family of scores that everyone has."""
    reference = analysis.reference
    if reference is None:
        return []
    drawings = []
    for prefix, paths in families(analysis.block).items():
        others = [group for group in groups if group.key != reference.key]
        usable = [path for path in paths if reference.values(path)]
        if not others or not usable or prefix in ("sts/test_mean", "sts/test_wmean"):
            continue
        table = np.array([[_mean(group, path) - _mean(reference, path) for path in usable] for group in others])
        title = f"Difference to {reference.label} by task: {FAMILIES[prefix][0]}"
        alt = (
            f"{title}. Rows: {', '.join(group.label for group in others)}. The table of scores by task has the numbers."
        )
        draw = partial(_draw_heat, table, others, usable, looks)
        drawings.append(Drawing(f"{name}{prefix.replace('/', '_')}", title, "heat", alt, draw))
    return drawings


def _mean(group: Group, path: str) -> float:
    mean, _ = mean_and_sd(list(group.values(path).values()))
    return math.nan if mean is None else mean


def _draw_heat(table: Any, groups: Sequence[Group], paths: Sequence[str], looks: Looks, *, narrow: bool) -> "Figure":
    from matplotlib.patches import Rectangle

    rows, columns = table.shape
    labels = row_labels(groups, looks, narrow=narrow)
    beside = _INCHES_PER_LETTER * max(map(len, labels))
    width = NARROW if narrow else min(WIDE, max(1.8, beside + 0.3) + 0.66 * columns)
    figure = new_figure(width, row_height(labels) * rows + (1.1 if narrow else 0.75))
    axes = figure.add_subplot()
    largest = np.nanmax(np.abs(table), initial=1e-9)
    for row in range(rows):
        for column in range(columns):
            value = table[row, column]
            if math.isfinite(value):
                colour = _HIGHER if value > 0 else _LOWER
                # transparent, so that the text on it is legible on light and on dark
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=0.5 * abs(value) / largest, lw=0)
                )
            text = f"{value:+.{1 if narrow else 2}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "NaN"
            axes.text(column, row, text, ha="center", va="center_baseline", fontsize=6.8 if narrow else 8)
    axes.set_xticks(range(columns), [task_title(path) for path in paths], rotation=90 if narrow else 0)
    axes.set_yticks(range(rows), labels)
    axes.tick_params(axis="y", labelsize=7 if narrow else 8)
    axes.tick_params(length=0, labelcolor=INK, labeltop=True, labelbottom=False)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if columns > 1 and paths[-1].endswith("/avg"):
        axes.axvline(columns - 1.5, color=MUTED, linewidth=0.8)
    note_below(figure, groups)
    return figure


def curve_drawing(block: Block, groups: Sequence[Group], looks: Looks, name: str) -> Drawing | None:
    """The dev score over training, one panel per group; None without a log of it."""
    path = selection_metric(block)
    if path is None:
        return None
    curves = [(group, found) for group in groups if (found := series(group, path)) is not None]
    if not curves:
        return None
    shown = metric(path)
    ends = ", ".join(f"{group.label} {shown.shown(float(found.values[:, -1].mean()))}" for group, found in curves)
    alt = f"{shown.title} by training step, one panel per group. Means at the last step: {ends}."
    title = f"Dev score over training: {shown.title}"
    draw = partial(_draw_curves, block, curves, looks, path)
    return Drawing(name, title, "curves", alt, draw, log_gaps(groups, path))


def _draw_curves(block: Block, curves: Sequence[Any], looks: Looks, path: str, *, narrow: bool) -> "Figure":
    figure, panels = grid(len(curves), narrow=narrow, height=1.5)
    for axes, (group, own) in zip(panels, curves, strict=True):
        look = looks[group.label]
        for other, found in curves:
            if other is not group:
                axes.plot(found.steps, found.values.mean(axis=0), color=FAINT, linewidth=0.9)
        if (start := start_of(group, block, path)) is not None:
            axes.axhline(start, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.fill_between(
            own.steps, own.values.min(axis=0), own.values.max(axis=0), color=look.colour, alpha=0.22, lw=0
        )
        marker = look.marker if len(own.steps) == 1 else None
        axes.plot(own.steps, own.values.mean(axis=0), color=look.colour, linewidth=1.8, marker=marker)
        kept = [point for run in group.runs if (point := selected(run, path))]
        if kept:
            axes.plot(*np.array(kept).T, ".", color=look.colour, markersize=5, mec=PAPER, mew=0.4)
        panel_title(axes, look, narrow=narrow)
        axes.margins(x=0.05)
    outer_labels(panels, x="training step", y=metric(path).title)
    note_below(figure, [group for group, _ in curves])
    return figure


def outer_labels(panels: Sequence[Any], *, x: str, y: str) -> None:
    """Names the axes of small multiples where nothing else is next to them."""
    columns = panels[0].get_subplotspec().get_gridspec().ncols
    for index, axes in enumerate(panels):
        if index % columns == 0:
            axes.set_ylabel(y)
        if index >= len(panels) - columns:
            axes.set_xlabel(x)


def cost_drawing(analysis: Analysis, looks: Looks, name: str) -> Drawing | None:
    """The score against training time, memory and inference; None where nothing was trained."""
    scores = [score for score in analysis.scores if math.isfinite(score.mean)]
    has = {path for score in scores for path in ("cost/inference_flops",) if score.group.values(path)}
    inference = "cost/inference_flops" if has else "cost/inference_parameters"
    panels = [
        path
        for path in ("cost/total_time_s", "cost/peak_memory_bytes", inference)
        if sum(bool(_trained_cost(score.group, path)) for score in scores) > 0
    ]
    if not panels:
        return None
    shown = metric(analysis.metric)
    titles = ", ".join(metric(path).title for path in panels)
    alt = f"{shown.title} against {titles}, one marker per group. The tables of scores and of cost have the numbers."
    draw = partial(_draw_cost, scores, panels, looks, shown.title)
    missing = {
        path: [one.group for one in scores if one.group.is_trained and not _trained_cost(one.group, path)]
        for path in panels
    }
    notes = [
        f"not in the panel of {metric(path).title}: {', '.join(map(with_status, groups))}, whose runs do not have it"
        for path, groups in missing.items()
        if groups
    ]
    return Drawing(name, "Score against cost", "cost_plot", alt, draw, notes)


def _trained_cost(group: Group, path: str) -> list[float]:
    """Cost values that can stand on a logarithmic axis; of what was not trained only those of inference."""
    if not group.is_trained and not path.startswith("cost/inference"):
        return []
    return [value for value in cost_values(group, path) if math.isfinite(value) and value > 0]


def _draw_cost(scores: Sequence[Score], paths: Sequence[str], looks: Looks, title: str, *, narrow: bool) -> "Figure":
    from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

    columns = 1 if narrow else len(paths)
    size = (NARROW, 2.1 * len(paths)) if narrow else (max(2.5 * columns, 4.2), 2.5)
    figure = new_figure(size[0], size[1] + 0.3)
    panels = figure.subplots(math.ceil(len(paths) / columns), columns, sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, path in zip(panels, paths, strict=True):
        shown, costs = metric(path), []
        for score in scores:
            look, values = looks[score.group.label], _trained_cost(score.group, path)
            if not values and score.group.is_trained:
                continue
            if not values:
                axes.axhline(score.mean, color=look.colour, linewidth=0.9, linestyle=(0, (4, 2)))
                continue
            cost = float(np.mean(values)) / shown.scale
            costs.append(cost)
            if interval := widest(score):
                axes.plot([cost, cost], [interval.low, interval.high], color=look.colour, linewidth=1.3, alpha=0.6)
            (handles[score.group.label],) = axes.plot(
                [cost], [score.mean], look.marker, color=look.colour, linestyle="", mec=PAPER, mew=0.6
            )
        if max(costs) > 3 * min(costs):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(_log_ticks())
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.3g}")
            )
        else:
            middle = (max(costs) + min(costs)) / 2
            half = max((max(costs) - min(costs)) * 0.6, 0.05 * middle)
            axes.set_xlim(middle - half, middle + half)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            ticks = ScalarFormatter(useOffset=False)  # as many digits as the ticks need to differ
            ticks.set_scientific(False)
            axes.xaxis.set_major_formatter(ticks)
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.margins(x=0.12)
        axes.set_xlabel(shown.title)
    figure.supylabel(title, y=0.98, va="top", fontsize=8.5, color=MUTED)
    legend(figure, handles, looks, [score.group for score in scores])
    return figure


def _log_ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=6)
