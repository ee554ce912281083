"""Published scores beside ours: a small sourced table, and the check "is this run inside the expected distribution".

What can be said depends on what was published (`published.yaml`):

* a mean over n seeds with its standard deviation s: the mean of m further runs lies, with 95 % confidence, in the
  prediction interval `mean ± t(0.975, n - 1) · s · sqrt(1/m + 1/n)` (Student's t, for normally distributed runs)
* one number, and m >= 2 runs here: the same interval the other way round, for one further run like ours
* one number, and one run here: nothing
* a value at which nothing is drawn at random (an untrained backbone): it must come out again, up to rounding

All of these need runs under the source's conditions; where they differ, the difference is named instead of a verdict.
Each verdict is one at the 95 % level: of twenty runs as expected, one is called "below" or "above" by chance.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cse_bench.results.collect import Block, Group
from cse_bench.results.published_table import Published, published
from cse_bench.results.statistics.analysis import Interval

LEVEL = 0.95
SAME_UP_TO = 0.02  # two numbers printed with two decimals, and the last digits of another machine
_DIFFERENCES_NAMED = 4

Outcome = Literal["inside", "below", "above", "no statement", "not the published setting"]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One group of runs beside one published number.

    Attributes:
        group: whose runs.
        method: of the group, and of the entry.
        backbone: likewise.
        metric: its path.
        kind: who published: the authors (`paper`), somebody else (`reproduction`), this repository (`ours`).
        variant: what the source calls it, where that is not the method's own name.
        published: the number, the mean where there were several seeds.
        published_sd: over its seeds; None where none was published.
        published_seeds: how many; None: one, or not said.
        source: where it stands.
        certain: False: `note` says what is uncertain.
        ours: mean of the runs that were compared; NaN without any.
        ours_n: number of these runs.
        outcome: where ours lies beside what the source leads to expect, or why nothing is said.
        interval: the prediction interval behind the outcome, None without one.
        verdict: the outcome as a sentence.
        note: what to keep in mind with it.
    """

    group: Group
    method: str
    backbone: str
    metric: str
    kind: str
    variant: str | None
    published: float
    published_sd: float | None
    published_seeds: int | None
    source: str
    certain: bool
    ours: float
    ours_n: int
    outcome: Outcome
    interval: Interval | None
    verdict: str
    note: str


def expectations(block: Block, *, metrics: Collection[str] | None = None) -> list[Expectation]:
    """What the table says about the groups of a block.

    An entry whose conditions a group does not meet is there once, with its headline metric. Of our own studies of a
    method, those under other conditions are left out where one was done under the same.

    Args:
        block: of comparable groups.
        metrics: only these; None: all that both sides have.
    """
    found: list[Expectation] = []
    for group in block.groups:
        entries = [
            entry
            for entry in published()
            if (entry.method, entry.backbone) == (group.method, str(group.runs[0].results["backbone"]))
            and not _differences(entry.when, group)
        ]
        checked = [row for entry in entries for row in _check(entry, group, metrics)]
        met = {row.metric for row in checked if row.kind == "ours" and row.outcome != "not the published setting"}
        found += [
            row
            for row in checked
            if not (row.kind == "ours" and row.outcome == "not the published setting" and row.metric in met)
        ]
    return found


def prediction_interval(*, mean: float, sd: float, n: int, m: int, level: float = LEVEL) -> tuple[float, float]:
    """Where the mean of m further runs lies with the given confidence, after n runs of the same normal distribution.

    `mean ± t((1 + level) / 2, n - 1) · sd · sqrt(1/m + 1/n)`

    Args:
        mean: of the n runs.
        sd: their sample standard deviation (n - 1).
        n: runs seen, at least 2.
        m: runs to come.
        level: confidence.
    """
    from scipy.stats import t

    low, high = t.interval(level, df=n - 1, loc=mean, scale=sd * math.sqrt(1 / m + 1 / n))
    return float(low), float(high)


def _check(entry: Published, group: Group, metrics: Collection[str] | None) -> Iterator[Expectation]:
    common = [
        metric
        for metric in entry.metrics
        if (metrics is None or metric in metrics) and any(metric in run.metrics for run in group.runs)
    ]
    obstacles = [*entry.differs, *_differences(entry.conditions, group)]
    if obstacles:
        shown = obstacles[:_DIFFERENCES_NAMED]
        more = [f"and {len(obstacles) - len(shown)} more differences"] if len(obstacles) > len(shown) else []
        verdict = f"not the published setting: {'; '.join(shown + more)}"
        headline = [metric for metric in common if metric.endswith("/avg")] + common
        for metric in headline[:1]:
            values = list(group.values(metric).values())
            yield _row(entry, group, metric, values, "not the published setting", verdict)
        return
    details = _differences(entry.details, group)
    for metric in common:
        yield _verdict(entry, group, metric, [f"differs in {', '.join(details)}"] if details else [])


def _verdict(entry: Published, group: Group, metric: str, notes: list[str]) -> Expectation:
    import numpy as np

    by_seed, number, sd = group.values(metric), entry.metrics[metric], entry.sd.get(metric)
    repeated = sorted(seed for seed in by_seed if seed in entry.seed_list and seed is not None)
    values = [value for seed, value in by_seed.items() if seed not in repeated]
    if repeated and not values:
        own = [by_seed[seed] for seed in repeated]
        verdict = (
            f"no statement: seeds {_words(repeated)} are the source's own, so these runs repeat it and test nothing: "
            f"{np.mean(own):.2f} here, {number:.2f} over its {entry.seeds}"
        )
        return _row(entry, group, metric, own, "no statement", verdict, notes)
    if repeated:
        notes = [*notes, f"seeds {_words(repeated)} are the source's own and left out"]
    mean, m = float(np.mean(values)), len(values)
    spread = float(np.std(values, ddof=1)) if m > 1 else math.nan
    interval: Interval | None = None
    if not math.isfinite(mean):
        outcome: Outcome = "no statement"
        words = "a run has no number here"
    elif entry.deterministic:
        outcome = _place(mean, number - SAME_UP_TO, number + SAME_UP_TO)
        words = f"{mean - number:+.2f}; nothing is drawn at random, so only rounding ({SAME_UP_TO}) may differ"
    elif sd is not None and entry.seeds is not None:
        low, high = prediction_interval(mean=number, sd=sd, n=entry.seeds, m=m)
        of = f"{_of_runs(m)} like the {entry.seeds} of the source"
        interval = Interval(low=low, high=high, level=LEVEL, of=f"{of}, by its mean and standard deviation")
        outcome = _place(mean, low, high)
        words = f"{mean:.2f}, where {low:.2f} to {high:.2f} is expected of {of}"
    elif m > 1 and spread > 0:
        low, high = prediction_interval(mean=mean, sd=spread, n=m, m=1)
        of = f"one further run like the {m} here"
        interval = Interval(low=low, high=high, level=LEVEL, of=f"{of}, by their mean and standard deviation")
        where = _place(number, low, high)  # of the published number; ours lies on the other side of it
        outcome = "above" if where == "below" else "below" if where == "above" else "inside"
        words = f"the published {number:.2f} is {where} {low:.2f} to {high:.2f}, expected of {of}"
    else:
        outcome = "no statement"
        words = (
            f"the {m} runs here do not differ, so they show no spread"
            if m > 1
            else "one run against one number, of neither of which the spread is known; two or more seeds here tell"
        )
    return _row(entry, group, metric, values, outcome, f"{outcome}: {words}", notes, interval)


def _place(value: float, low: float, high: float) -> Literal["inside", "below", "above"]:
    return "below" if value < low else "above" if value > high else "inside"


def _of_runs(m: int) -> str:
    return "one run" if m == 1 else f"the mean of {m} runs"


def _words(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _row(
    entry: Published,
    group: Group,
    metric: str,
    values: Sequence[float],
    outcome: Outcome,
    verdict: str,
    notes: Sequence[str] = (),
    interval: Interval | None = None,
) -> Expectation:
    return Expectation(
        group=group,
        method=entry.method,
        backbone=entry.backbone,
        metric=metric,
        kind=entry.kind,
        variant=entry.variant,
        published=entry.metrics[metric],
        published_sd=entry.sd.get(metric),
        published_seeds=entry.seeds,
        source=entry.source,
        certain=entry.certain,
        ours=sum(values) / len(values) if values else math.nan,
        ours_n=len(values),
        outcome=outcome,
        interval=interval,
        verdict=verdict,
        note="; ".join([*notes, *([entry.note] if entry.note else [])]),
    )


def _differences(conditions: Mapping[str, Any], group: Group) -> list[str]:
    """What a group's runs have that the conditions do not allow, in words; all runs of a group agree in these."""
    results = group.runs[0].results
    return [
        f"{path.removeprefix('config.')} is {_shown(actual)}, there {_shown(expected)}"
        for path, expected in conditions.items()
        if not _agrees(actual := _at(results, path), expected)
    ]


def _agrees(actual: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        return any(_agrees(actual, one) for one in expected["any"])
    if isinstance(expected, float) and isinstance(actual, int | float):
        return math.isclose(actual, expected)
    return bool(actual == expected)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " or ".join(map(_shown, value["any"])) if "any" in value else "set"
    return "none" if value is None else str(value)


def _at(results: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = results
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
