"""The figures of the embeddings: alignment and uniformity over training, cosines by grade, singular values."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cse_bench.results.collect import Block, Group
from cse_bench.results.report.drawing import PAPER, Drawing, legend
from cse_bench.results.report.plots import NARROW, Looks, grid, new_figure, note_below, outer_labels, panel_title
from cse_bench.results.report.series import (
    BUCKETS,
    Floats,
    cosines_by_grade,
    log_gaps,
    pair_gaps,
    series,
    spectrum,
    start_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLANE = ("geometry/uniformity", "geometry/alignment")
_POINTS = 64


def plane_drawing(block: Block, groups: Sequence[Group], looks: Looks, name: str) -> Drawing | None:
    """Alignment and uniformity over training; None where they were not measured."""
    shown = [group for group in groups if len(_selected(group))]
    if not shown:
        return None
    ends = ", ".join(
        f"{group.label} uniformity {_selected(group)[:, 0].mean():.2f} alignment {_selected(group)[:, 1].mean():.3f}"
        for group in shown
    )
    alt = f"Plane of uniformity (to the right) and alignment (up), one path per group. Selected encoders: {ends}."
    title = "Alignment and uniformity over training"
    gaps = dict.fromkeys(gap for path in _PLANE for gap in log_gaps(shown, path))
    return Drawing(name, title, "plane", alt, partial(_draw_plane, block, shown, looks), tuple(gaps))


def _selected(group: Group) -> Floats:
    """`(r, 2)` uniformity and alignment of the selected encoders."""
    points = [
        [run.metrics[path] for path in _PLANE] for run in group.runs if all(path in run.metrics for path in _PLANE)
    ]
    finite = np.array([point for point in points if np.isfinite(point).all()])
    return finite.reshape(-1, 2)


def _path(group: Group, block: Block) -> Floats:
    """`(s, 2)` mean over the runs by step, from the untrained backbone on."""
    found = [series(group, path) for path in _PLANE]
    if found[0] is None or found[1] is None:
        return np.empty((0, 2))
    line = np.stack([one.values.mean(axis=0) for one in found if one is not None], axis=1)
    start = [start_of(group, block, path) for path in _PLANE]
    if start[0] is not None and start[1] is not None:
        line = np.concatenate([np.array([start], dtype=float), line])
    return line[np.isfinite(line).all(axis=1)]


def _draw_plane(block: Block, groups: Sequence[Group], looks: Looks, *, narrow: bool) -> "Figure":
    figure = new_figure(NARROW if narrow else 7.0, 2.9 if narrow else 3.9)
    axes = figure.add_subplot()
    handles: dict[str, Any] = {}
    for group in groups:
        look, line, ends = looks[group.label], _path(group, block), _selected(group)
        axes.plot(*line.T, color=look.colour, linestyle=look.dashes, linewidth=1.3, marker=".", markersize=3)
        if len(ends) > 1:
            axes.plot(*ends.T, ".", color=look.colour, markersize=4, alpha=0.5, mew=0)
        (handles[group.label],) = axes.plot(
            *ends.mean(axis=0), look.marker, color=look.colour, markersize=6.5, linestyle="", mec=PAPER, mew=0.8
        )
    axes.set_xlabel("uniformity (lower is better)")
    axes.set_ylabel("alignment (lower is better)")
    axes.margins(0.08)
    legend(figure, handles, looks, groups)
    return figure


def density_drawing(groups: Sequence[Group], looks: Looks, name: str) -> Drawing | None:
    """Cosines of STS-B pairs by grade, one panel per group; None without per-pair scores."""
    found = [(group, scores) for group in groups if (scores := cosines_by_grade(group)) is not None]
    if not found:
        return None
    split = ", ".join(sorted({scores[0] for _, scores in found}))
    panels = [(group, _hills(scores[1])) for group, scores in found]
    medians = "; ".join(
        f"{group.label} {np.median(scores[1][0]):.2f} to {np.median(scores[1][-1]):.2f}"
        for group, scores in found
        if len(scores[1][0]) and len(scores[1][-1])
    )
    title = f"Cosines by grade, STS-B {split}"
    alt = f"Distributions of cosines by grade, one panel per group. Median from lowest to highest grades: {medians}."
    return Drawing(name, title, "density", alt, partial(_draw_density, panels, looks), pair_gaps(groups))


def _hills(buckets: Sequence[Floats]) -> list[tuple[Floats, Floats] | None]:
    """Positions and heights (at most 1) of each bucket's density; None for a bucket without a spread."""
    from scipy.stats import gaussian_kde

    hills: list[tuple[Floats, Floats] | None] = []
    for cosines in buckets:
        if len(cosines) < 3 or np.ptp(cosines) < 1e-9:
            hills.append(None)
            continue
        room = 0.1 * np.ptp(cosines)
        at = np.linspace(max(cosines.min() - room, -1.0), min(cosines.max() + room, 1.0), _POINTS)
        height = gaussian_kde(cosines)(at)
        hills.append((at, height / height.max()))
    return hills


def _draw_density(panels: Sequence[Any], looks: Looks, *, narrow: bool) -> "Figure":
    from matplotlib.colors import to_rgba

    figure, all_axes = grid(len(panels), narrow=narrow, height=1.75)
    names = [f"{low:g} to {high:g}" for low, high in BUCKETS]
    for axes, (group, hills) in zip(all_axes, panels, strict=True):
        look = looks[group.label]
        for bucket, hill in reversed(list(enumerate(hills))):
            if hill is not None:
                at, height = hill
                axes.fill(
                    np.concatenate([at[:1], at, at[-1:]]),
                    bucket + 1.15 * np.concatenate([[0.0], height, [0.0]]),
                    facecolor=to_rgba(look.colour, 0.16 + 0.11 * bucket), edgecolor=look.colour, linewidth=0.8,
                )  # fmt: skip
        panel_title(axes, look, narrow=narrow)
        axes.set_yticks(range(len(BUCKETS)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    outer_labels(all_axes, x="cosine", y="grade")
    note_below(figure, [group for group, _ in panels])
    return figure


def spectrum_drawing(groups: Sequence[Group], looks: Looks, name: str) -> Drawing | None:
    """Singular values by rank; None where they were not kept."""
    found = [(group, values) for group in groups if (values := spectrum(group)) is not None]
    if not found:
        return None
    middles = ", ".join(f"{group.label} {values[len(values) // 2]:.3f}" for group, values in found)
    alt = f"Singular values by rank on a logarithmic scale, one line per group. Values at half the width: {middles}."
    draw = partial(_draw_spectrum, found, looks)
    return Drawing(name, "Singular values of the embeddings", "spectrum", alt, draw, pair_gaps(groups))


def _draw_spectrum(found: Sequence[Any], looks: Looks, *, narrow: bool) -> "Figure":
    figure = new_figure(NARROW if narrow else 6.2, 2.5 if narrow else 2.9)
    axes = figure.add_subplot()
    handles: dict[str, Any] = {}
    for group, values in found:
        look, rank = looks[group.label], np.arange(1, len(values) + 1)
        positive = values > 1e-6
        (handles[group.label],) = axes.plot(
            rank[positive], values[positive], color=look.colour, linestyle=look.dashes, marker=look.marker,
            markersize=4.5, markevery=max(len(values) // 8, 1), mec=PAPER, mew=0.4,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("rank of the singular value")
    axes.set_ylabel("in proportion to the largest")
    legend(figure, handles, looks, [group for group, _ in found])
    return figure
