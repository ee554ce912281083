"""From a block of runs to what they say about one metric."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from cse_bench.config.messages import nearest
from cse_bench.errors import ConfigError
from cse_bench.results.collect import Block, Group
from cse_bench.results.statistics.analysis import Analysis, Comparison, Score
from cse_bench.results.statistics.compare import Scored, compare, corrected
from cse_bench.results.statistics.directions import is_score, lower_is_better, sign
from cse_bench.results.statistics.estimate import Estimate, Sample, seed_bootstrap
from cse_bench.results.statistics.pair_scores import PairScores, Resampled
from cse_bench.results.statistics.parts import Composition, composition
from cse_bench.results.statistics.ranks import probability_best, rank_stability
from cse_bench.results.statistics.reference import default_reference, find_group


def analyse(
    block: Block,
    *,
    metric: str,
    against: str | None = None,
    resamples: int = 1000,
    permutations: int = 999,
    seed: int = 0,
    pairs: PairScores | None = None,
) -> Analysis:
    """Scores, intervals, comparisons and ranks of the groups of a block in one metric.

    Args:
        block: comparable groups.
        metric: path, e.g. `sts/test/avg`.
        against: label or method of the group to compare with; None takes the untrained backbone, without one the
            group with the most runs (see `default_reference`).
        resamples: bootstrap resamples, of test pairs and of seeds.
        permutations: random exchanges of two encoders over the test pairs; 999 give p-values in steps of 0.001.
        seed: of all random numbers: the same call gives the same analysis.
        pairs: per-pair scores of this block, to read and resample them once for several metrics; its own numbers of
            resamples and permutations and its seed then hold for the test pairs.

    Raises:
        ConfigError: no run has the metric, it is no score (see `is_score`), or `against` names no group or several.
        ValueError: `pairs` are those of another block.
    """
    if pairs is not None and pairs.block is not block:
        raise ValueError("pairs: these are the per-pair scores of another block; make them with PairScores(block)")
    scored_groups = [group for group in block.groups if group.values(metric)]
    if not scored_groups:
        known = sorted({name for group in block.groups for run in group.runs for name in run.metrics})
        raise ConfigError(f"metric: no run has '{metric}'{nearest(metric, known)} (they have: {', '.join(known)})")
    if not is_score(metric):
        raise ConfigError(f"metric: '{metric}' is no score (neither more nor less of it is better); give one that is")
    chosen = find_group(block, against) if against is not None else None
    composed = composition(metric)
    pairs = pairs or PairScores(block, resamples=resamples, permutations=permutations, seed=seed)
    resampled, left_out = pairs.of(metric)
    scored = [_scored(group, metric, resampled.get(group.key)) for group in scored_groups]
    finite = [one for one in scored if math.isfinite(one.sample.mean)]
    finite.sort(key=lambda one: -sign(metric) * one.sample.mean)
    best = _probabilities(finite, metric=metric, resamples=resamples, seed=seed)
    reference = _reference(finite, block=block, chosen=chosen)

    def compared(chosen_pairs: Iterable[tuple[Scored, Scored]]) -> list[Comparison]:
        what = composed.what if composed else ""
        family = [compare(first, second, what=what, seed=seed) for first, second in chosen_pairs]
        return corrected(family, sign=sign(metric))

    ordered = finite + [one for one in scored if one not in finite]
    return Analysis(
        metric=metric,
        block=block,
        reference=reference.group if reference else None,
        scores=[
            _score(one, composed=composed, metric=metric, best=best.get(one.group.key), resamples=resamples, seed=seed)
            for one in ordered
        ],
        comparisons=compared((one, reference) for one in finite if reference and one is not reference),
        all_pairs=compared(combinations(finite, 2)),
        ranks=rank_stability(finite, sign=sign(metric)),
        notes=[
            *_notes_on_groups(block, metric=metric, scored=scored, left_out=left_out, best=best),
            *_notes_on_comparisons(finite, composed=composed, chosen=chosen, reference=reference, metric=metric),
        ],
    )


def _scored(group: Group, metric: str, resampled: Resampled | None) -> Scored:
    values = group.values(metric)
    sample = Sample(
        values=np.array(list(values.values()), dtype=np.float64),
        replicates=None if resampled is None else resampled.replicates,
        flipped=None if resampled is None else resampled.flipped,
        trained=group.runs[0].seed is not None,
    )
    return Scored(group=group, seeds=list(values), sample=sample)


def _score(
    scored: Scored, *, composed: Composition | None, metric: str, best: float | None, resamples: int, seed: int
) -> Score:
    sample, what = scored.sample, composed.what if composed else ""
    finite = math.isfinite(sample.mean)
    estimate = Estimate.of(sample) if finite else None
    return Score(
        group=scored.group,
        values=scored.group.values(metric),
        mean=sample.mean,
        sd=math.sqrt(sample.variance) if finite and sample.n > 1 else math.nan,
        minimum=float(sample.values.min()),
        maximum=float(sample.values.max()),
        over_seeds=estimate.over_seeds() if estimate else None,
        over_seeds_bootstrap=seed_bootstrap(sample, resamples=resamples, seed=seed) if finite else None,
        over_pairs=estimate.over_pairs(what) if estimate else None,
        over_both=estimate.over_both(what) if estimate else None,
        probability_best=best,
        reason=None if finite else _reason(scored.group, metric),
    )


def _reason(group: Group, metric: str) -> str:
    """Why a group's mean is NaN: what the evaluation of each such run noted."""
    reasons: dict[str, list[str]] = {}
    for run in group.runs:
        if not math.isfinite(run.metrics.get(metric, 0.0)):
            note = run.results["evaluation"].get("notes", {}).get(metric, "the evaluation gives no reason")
            reasons.setdefault(str(note), []).append("the run" if run.seed is None else f"seed {run.seed}")
    return "; ".join(f"{', '.join(runs)}: {note}" for note, runs in reasons.items())


def _probabilities(finite: Sequence[Scored], *, metric: str, resamples: int, seed: int) -> dict[str, float]:
    """Probability to be best by key of the group, among those whose noise is known."""
    usable = [one for one in finite if one.sample.n > 1 or not one.sample.trained]
    if any(one.sample.replicates is not None for one in usable):
        usable = [
            one for one in usable if one.sample.replicates is not None and np.isfinite(one.sample.replicates).all()
        ]
    if len(usable) < 2:
        return {}
    shares = probability_best(usable, sign=sign(metric), resamples=resamples, seed=seed)
    return {one.group.key: share for one, share in zip(usable, shares, strict=True)}


def _reference(finite: Sequence[Scored], *, block: Block, chosen: Group | None) -> Scored | None:
    """What the others are compared with; None if nothing is left to compare, or the chosen group has no score."""
    by_key = {one.group.key: one for one in finite}
    if len(finite) < 2:
        return None
    reference = chosen or default_reference([group for group in block.groups if group.key in by_key])
    return by_key.get(reference.key) if reference else None


def _notes_on_groups(
    block: Block, *, metric: str, scored: Sequence[Scored], left_out: Mapping[str, str], best: Mapping[str, float]
) -> Iterator[str]:
    by_key = {one.group.key: one for one in scored}
    for group in block.groups:
        one = by_key.get(group.key)
        if one is None:
            yield f"{group.label}: left out, its runs do not have {metric}"
            continue
        if one.sample.n < len(group.runs):
            yield f"{group.label}: {one.sample.n} of its {len(group.runs)} runs have {metric}"
        if not math.isfinite(one.sample.mean):
            yield f"{group.label}: no mean, and not compared ({_reason(group, metric)})"
            continue
        if one.sample.trained and one.sample.n == 1:
            yield f"{group.label}: a single run; how much its seed matters is unknown"
        if group.key in left_out:
            yield f"{group.label}: no interval over test pairs ({left_out[group.key]})"
        if best and group.key not in best:
            yield f"{group.label}: does not take part in the probability of being best"


def _notes_on_comparisons(
    finite: Sequence[Scored],
    *,
    composed: Composition | None,
    chosen: Group | None,
    reference: Scored | None,
    metric: str,
) -> Iterator[str]:
    if lower_is_better(metric):
        yield f"{metric}: lower is better"
    if composed is None:
        yield f"{metric} has no per-pair scores: intervals, p-values and probability of being best cover seeds alone"
    elif composed.caveat:
        yield composed.caveat
    if chosen is not None and reference is None and len(finite) > 1:
        yield f"no comparison with {chosen.label}: it has no finite {metric}"
    for first, second in combinations(finite, 2):
        common = [seed for seed in first.seeds if seed is not None and seed in second.seeds]
        if 1 < len(common) < max(first.sample.n, second.sample.n):
            yield (
                f"{first.group.label} and {second.group.label} are compared on the {len(common)} seeds that both have, "
                f"of {first.sample.n} and {second.sample.n}"
            )
        elif len(common) < 2 <= min(first.sample.n, second.sample.n):
            yield f"{first.group.label} and {second.group.label} share fewer than two seeds: compared unpaired"
