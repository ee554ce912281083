"""The numbers of a report before they are rendered: what the groups of one block say about one metric.

Three sources of chance stand behind a score, and every interval says which of them it covers:

* *seeds*: another set of seeds would give another mean, on these test pairs
* *test pairs*: another set of test pairs would give another score, of these runs
* *both*: neither the seeds nor the test pairs are special
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cse_bench.results.collect import Block, Group

Verdict = Literal["better", "worse", "not told apart", "too few seeds", "no test"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: its lower end.
        high: its upper end.
        level: its confidence, 0.95 for 95 %.
        of: what it is an interval of, and how it was made, in words for the reader.
    """

    low: float
    high: float
    level: float
    of: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """One group in one metric.

    Attributes:
        group: whose score it is.
        values: the metric by seed (None: an untrained backbone).
        mean: over the runs; NaN when one of them is NaN.
        sd: sample standard deviation over the seeds (n - 1); NaN for one run.
        minimum: smallest value.
        maximum: largest value.
        over_seeds: Student's t-interval of the mean; None for one run.
        over_seeds_bootstrap: bootstrap interval of the mean; None for one run.
        over_pairs: bootstrap over test pairs, the seeds as they are; None without per-pair scores.
        over_both: both sources together; None without either.
        probability_best: share of bootstrap replicates (seeds and test pairs) in which this group is best; None where
            it cannot be computed.
        reason: why the mean is NaN, or None.
    """

    group: Group
    values: Mapping[int | None, float]
    mean: float
    sd: float
    minimum: float
    maximum: float
    over_seeds: Interval | None
    over_seeds_bootstrap: Interval | None
    over_pairs: Interval | None
    over_both: Interval | None
    probability_best: float | None
    reason: str | None

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Is `first` better than `second`? Differences are first - second.

    Attributes:
        first: the group in question.
        second: what it is compared with.
        difference: of the means, over the seeds that both have when these are at least two, else over all of each.
        paired_seeds: seeds that both have; below two the comparison is not paired.
        over_seeds: t-interval of the difference; None with fewer than two seeds.
        over_pairs: bootstrap over test pairs; None without per-pair scores.
        over_both: both sources together.
        p_seeds: sign-flip permutation test over paired seeds, exact; None when not paired.
        p_pairs: permutation test over test pairs; None without per-pair scores.
        p: two-sided p-value that belongs to `over_both` (to `over_seeds` where there are no per-pair scores).
        p_adjusted: `p` corrected for the number of comparisons of its family.
        effect_size: difference over the seeds' standard deviation (paired: of the differences), small-sample corrected.
        seeds_needed: paired seeds in all with which the test of `p` would tell a difference of this size with power 0.8
            at 0.05, on as many test pairs as here; None where it cannot be computed, or no number is enough.
        verdict: at 0.05 after correction; without a p-value, "too few seeds" where a single run stands for its seeds,
            else "no test": nothing varies, no seed is involved where there are no per-pair scores, or a resample of the
            test pairs has no score.
        seeds_needed_reason: why no number of seeds is enough, or None.
    """

    first: Group
    second: Group
    difference: float
    paired_seeds: int
    over_seeds: Interval | None
    over_pairs: Interval | None
    over_both: Interval | None
    p_seeds: float | None
    p_pairs: float | None
    p: float | None
    p_adjusted: float | None
    effect_size: float | None
    seeds_needed: int | None
    verdict: Verdict
    seeds_needed_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """Do the seeds agree about the order of the groups?

    Attributes:
        kendall_w: Kendall's coefficient of concordance of the orders that single seeds give, 0..1.
        p: of Friedman's test that there is no order at all.
        groups: the groups it was computed of.
        seeds: the seeds that all of these have.
        mean_rank: mean rank of each of `groups`, 1 is best.
    """

    kendall_w: float
    p: float
    groups: Sequence[Group]
    seeds: Sequence[int]
    mean_rank: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is said about one metric in one block.

    Attributes:
        metric: its path, e.g. `sts/test/avg`.
        block: the comparable groups.
        reference: what `comparisons` compare with; None in a block with a single group.
        scores: best first; groups whose mean is NaN last.
        comparisons: every other group against the reference, corrected as one family.
        all_pairs: every two groups, corrected as one family.
        ranks: None with fewer than two seeds or three groups.
        notes: what a reader must know, e.g. groups without per-pair scores.
    """

    metric: str
    block: Block
    reference: Group | None
    scores: Sequence[Score]
    comparisons: Sequence[Comparison]
    all_pairs: Sequence[Comparison]
    ranks: RankStability | None
    notes: Sequence[str] = field(default_factory=tuple)
