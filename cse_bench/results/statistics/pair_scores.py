"""The per-pair scores of a block's runs, read once, checked, and resampled alike for all runs.

Runs are put side by side only if they were scored on the same pairs: equally many, with equal grades. What cannot be
read, differs, or does not give the run's own metric is left out with its group, and the reason is kept.
"""

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cse_bench.results.collect import Block, Group, Run
from cse_bench.results.statistics.parts import Part, composition
from cse_bench.results.statistics.resampling import (
    Floats,
    resampled_mean,
    resampled_spearman,
    sign_flips,
    spearman_contributions,
)

_TOLERANCE = 1e-6  # between a run's metric and the same from its per-pair scores


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """One metric of one group on resampled test pairs; `n` runs in the order of `Group.values`.

    Attributes:
        replicates: `(n, b)`, the metric in bootstrap resamples; resample b is the same for every run of the block.
        flipped: `(n, p)`, the pairs' contributions to the metric summed with random signs, the same for every run.
    """

    replicates: Floats
    flipped: Floats


@dataclass(frozen=True, kw_only=True)
class _PartScores:
    """One part of all runs `r` of a block; rows of runs with a problem are NaN."""

    observed: Floats
    replicates: Floats
    flipped: Floats
    problems: Mapping[int, str]


@dataclass
class PairScores:
    """Per-pair scores of one block, resampled when first asked for and kept: metrics share parts.

    Attributes:
        block: the runs.
        resamples: bootstrap resamples of the pairs.
        permutations: random exchanges of two encoders.
        seed: of both; each part has its own stream, so a task's resamples are the same in every metric.
    """

    block: Block
    resamples: int = 1000
    permutations: int = 999
    seed: int = 0
    _known: dict[str, _PartScores] = field(default_factory=dict, init=False, repr=False)

    def of(self, metric: str) -> tuple[dict[str, Resampled], dict[str, str]]:
        """The metric on resampled pairs, by key of the group, and why groups are missing.

        Args:
            metric: its path; one without per-pair scores gives two empty dicts.
        """
        composed = composition(metric)
        if composed is None:
            return {}, {}
        parts = [self._part(part) for part in composed.parts]
        weights = np.array([part.weight for part in composed.parts])
        observed, replicates, flipped = (
            np.tensordot(weights, np.stack(arrays), axes=1)
            for arrays in zip(*((part.observed, part.replicates, part.flipped) for part in parts), strict=True)
        )
        numbers = {run.directory: number for number, run in enumerate(self._runs)}
        found, left_out = {}, {}
        for group in self.block.groups:
            rows = [numbers[run.directory] for run in _scored(group, metric)]
            problems = [part.problems[row] for row in rows for part in parts if row in part.problems]
            problems = problems or [text for row in rows if (text := self._differs(row, metric, observed[row]))]
            if problems:
                left_out[group.key] = problems[0]
            elif rows:
                found[group.key] = Resampled(replicates=replicates[rows], flipped=flipped[rows])
        return found, left_out

    @property
    def _runs(self) -> list[Run]:
        return [run for group in self.block.groups for run in group.runs]

    def _differs(self, row: int, metric: str, observed: float) -> str | None:
        run = self._runs[row]
        told = run.metrics[metric]
        if math.isnan(told) or abs(observed - told) <= _TOLERANCE:
            return None
        return f"{run.directory.name}: its per-pair scores give {observed:.6f}, its results say {told:.6f}"

    def _part(self, part: Part) -> _PartScores:
        if part.name not in self._known:
            self._known[part.name] = self._resample(part)
        return self._known[part.name]

    def _resample(self, part: Part) -> _PartScores:
        runs = self._runs
        rows: dict[int, _Row] = {}
        problems: dict[int, str] = {}
        for number, run in enumerate(runs):
            try:
                rows[number] = _read(run, part)
            except _UnreadableError as error:
                problems[number] = f"{run.directory.name}: {error}"
        # The pairs that most runs were scored on: one damaged file must not displace the others.
        prints = {number: _fingerprint(row) for number, row in rows.items()}
        if prints:
            usual = Counter(prints.values()).most_common(1)[0][0]
            for number in [number for number, own in prints.items() if own != usual]:
                problems[number] = f"{runs[number].directory.name}: scored on other pairs of {part.name} than the rest"
                del rows[number]
        scores = _PartScores(
            observed=np.full(len(runs), np.nan),
            replicates=np.full((len(runs), self.resamples), np.nan),
            flipped=np.full((len(runs), self.permutations), np.nan),
            problems=problems,
        )
        if rows:
            self._fill(scores, part, rows)
        return scores

    def _fill(self, scores: _PartScores, part: Part, rows: Mapping[int, "_Row"]) -> None:
        present = list(rows)
        values = np.stack([rows[number].values for number in present])
        gold, factor = rows[present[0]].gold, rows[present[0]].factor
        resampling, flipping = (
            np.random.default_rng([self.seed, zlib.crc32(part.name.encode()), purpose]) for purpose in (0, 1)
        )
        if gold is None:
            values = part.scale * values * (1.0 if factor is None else factor)
            contributions = values / values.shape[1]
            scores.replicates[present] = resampled_mean(values, resamples=self.resamples, random=resampling)
        else:
            contributions = spearman_contributions(values, gold)
            scores.replicates[present] = resampled_spearman(values, gold, resamples=self.resamples, random=resampling)
        scores.observed[present] = contributions.sum(axis=1)
        scores.flipped[present] = sign_flips(contributions, permutations=self.permutations, random=flipping)


class _Row(NamedTuple):
    """One part of one run, `(n,)` each: values of its own, grades and factors that all runs share."""

    values: Floats
    gold: Floats | None
    factor: Floats | None


class _UnreadableError(Exception):
    """Why a run's per-pair scores cannot be used."""


def _scored(group: Group, metric: str) -> list[Run]:
    """The runs behind `group.values(metric)`, in its order."""
    by_seed = {run.seed: run for run in group.runs if metric in run.metrics}
    return [by_seed[seed] for seed in group.values(metric)]


def _read(run: Run, part: Part) -> _Row:
    """A part of one run."""
    path = run.directory / "pair_scores.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in (part.values, part.gold, part.factor, part.keep) if name and name not in arrays]
            if missing:
                raise _UnreadableError(f"{path.name} is without {', '.join(missing)}")
            values = np.asarray(arrays[part.values], dtype=np.float64)
            gold, factor = (
                None if name is None else np.asarray(arrays[name], dtype=np.float64)
                for name in (part.gold, part.factor)
            )
            keep = slice(None) if part.keep is None else arrays[part.keep] > 0
    except FileNotFoundError:
        raise _UnreadableError(f"no {path.name}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _UnreadableError(f"{path.name} cannot be read ({error})") from None
    try:
        rows = slice(*part.rows) if part.rows else slice(None)
        values = values[keep][rows]
        gold, factor = (None if of is None else of[keep][rows] for of in (gold, factor))
    except IndexError as error:
        raise _UnreadableError(f"{path.name} is damaged at {part.name} ({error})") from None
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise _UnreadableError(f"{path.name} is damaged at {part.name}: expected at least two finite numbers")
    for of, what in ((gold, "grades and cosines"), (factor, "values and weights")):
        if of is not None and (of.shape != values.shape or not np.isfinite(of).all()):
            raise _UnreadableError(f"{path.name} is damaged at {part.name}: {what} do not fit")
    return _Row(values, gold, factor)


def _fingerprint(row: _Row) -> tuple[int, bytes, bytes]:
    """Equal for two runs that were scored on the same pairs, as far as can be seen."""
    gold, factor = (b"" if of is None else of.tobytes() for of in (row.gold, row.factor))
    return len(row.values), gold, factor
