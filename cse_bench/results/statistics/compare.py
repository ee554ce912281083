"""Is one group better than another? Paired over seeds and over test pairs, corrected for the number of comparisons.

Runs with the same seed are subtracted from each other where two groups share at least two seeds; otherwise the two
means are independent (Welch). An untrained backbone has no seeds: the other group's runs are compared with one number.
Test pairs are the same for all runs, so over them every comparison is paired.

Three p-values, of three null hypotheses:

* `p`: the two groups' means over all seeds and all test pairs are equal. The verdict's.
* `p_seeds`: the sign of every seed's difference is as likely the other one; exact by all 2^n sign vectors. Five seeds
  cannot get below 2 / 32.
* `p_pairs`: for every test pair it is as likely that the two encoders had given each other's rank of its cosine. Of
  these runs, not of others: seeds are averaged, and all runs of a group change sides together. Ranks are exchanged
  because cosines of different encoders are on different scales (for a mean per item, the values themselves are). A
  score is a sum of the pairs' contributions (`spearman_contributions`), so an exchange changes the sign of that pair's
  difference, and a permutation is a vector of random signs. One matrix product serves all comparisons, where
  scipy.stats.permutation_test takes 6 s for each.

Measured by `python -m benchmarks.coverage 500` (standard error 1.0), rejections at 0.05 of two methods that do not
differ, with 2, 3, 5 and 10 seeds and a seed term of 0, 1/32 to 32 times the pair term, and without pairs: `p` 1.8 to
6.2 %, `p_seeds` of ten seeds 4.0 % where pairs do not matter, `p_pairs` 5.2 to 6.0 % where seeds do not. Methods that
are equal over all test pairs still differ on these: where the terms of pairs and seeds are equal, `p_seeds` of ten
seeds rejects 13 % of them, and 70 % where that of pairs is 32 times larger, so it must not be read as the answer for
other test pairs; nor `p_pairs` as the one for other seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cse_bench.results.collect import Group
from cse_bench.results.statistics.analysis import Comparison, Verdict
from cse_bench.results.statistics.estimate import Estimate, Sample
from cse_bench.results.statistics.power import hedges_correction, seeds_needed

ALPHA = 0.05

_ALL_SIGNS_UP_TO = 2**14  # sign vectors; above, as many random ones


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A group and its runs in one metric; row i of `sample` belongs to `seeds[i]`."""

    group: Group
    seeds: Sequence[int | None]
    sample: Sample


def compare(first: Scored, second: Scored, *, what: str, seed: int) -> Comparison:
    """One comparison, not yet corrected for others: see `corrected`.

    Args:
        first: the group in question.
        second: what it is compared with.
        what: is resampled over test pairs, in words.
        seed: of random sign vectors, if there are too many seeds for all of them.
    """
    common = [number for number in first.seeds if number is not None and number in second.seeds]
    if len(common) > 1:
        paired = _at(first, common).minus(_at(second, common))
        estimate = Estimate.of(paired)
        deviation, terms = _deviation([paired])
    else:
        paired = None
        estimate = Estimate.of(first.sample, second.sample)
        deviation, terms = _deviation([first.sample, second.sample])
    p = estimate.p()
    needed: int | None = None
    reason: str | None = None
    if p is not None and deviation is not None:
        needed, reason = seeds_needed(estimate.value / deviation, pairs=(estimate.pair_variance or 0.0) / deviation**2)
    return Comparison(
        first=first.group,
        second=second.group,
        difference=estimate.value,
        paired_seeds=len(common),
        over_seeds=estimate.over_seeds(),
        over_pairs=estimate.over_pairs(what),
        over_both=estimate.over_both(what),
        p_seeds=None if paired is None else sign_flip_p(paired, seed=seed),
        p_pairs=estimate.p_pairs(),
        p=p,
        p_adjusted=None,
        effect_size=None if deviation is None else math.sqrt(terms) * estimate.value / deviation,
        seeds_needed=needed,
        verdict="too few seeds" if estimate.seed_terms is None else "no test",  # until there is a p-value: `corrected`
        seeds_needed_reason=reason,
    )


def sign_flip_p(differences: Sample, *, seed: int) -> float:
    """Two-sided p-value of the mean difference under random signs of the seeds' differences.

    Args:
        differences: by seed.
        seed: of the sign vectors, where not all are tried.
    """
    from scipy.stats import permutation_test

    return float(
        permutation_test(
            (differences.values,),
            lambda values, axis: values.mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=_ALL_SIGNS_UP_TO,
            random_state=np.random.default_rng(seed),
        ).pvalue
    )


def corrected(comparisons: Sequence[Comparison], *, sign: float) -> list[Comparison]:
    """The comparisons as one family: adjusted p-values and verdicts.

    Benjamini and Hochberg 1995 ("Controlling the false discovery rate", JRSS B 57(1)): of the comparisons called better
    or worse, at most 5 % are expected to be no difference. It holds for independent tests and for positively dependent
    ones (Benjamini and Yekutieli 2001, Annals of Statistics 29(4)), as one-sided comparisons with one reference are;
    for two-sided ones and for all pairs it is not proven, but no violation is known.

    Args:
        comparisons: of one metric; those without a p-value do not count.
        sign: 1 where higher is better, -1 where lower is.
    """
    from scipy.stats import false_discovery_control

    told = [comparison.p for comparison in comparisons if comparison.p is not None]
    adjusted = iter(false_discovery_control(told, method="bh") if told else ())
    result = []
    for comparison in comparisons:
        p = None if comparison.p is None else float(next(adjusted))
        verdict = comparison.verdict if p is None else _verdict(p, sign * comparison.difference)
        result.append(replace(comparison, p_adjusted=p, verdict=verdict))
    return result


def _verdict(p: float, gain: float) -> Verdict:
    if p >= ALPHA or gain == 0:
        return "not told apart"
    return "better" if gain > 0 else "worse"


def _at(scored: Scored, seeds: Sequence[int]) -> Sample:
    return scored.sample.rows([list(scored.seeds).index(seed) for seed in seeds])


def _deviation(samples: Sequence[Sample]) -> tuple[float | None, int]:
    """Standard deviation over seeds of a difference of two runs, divided by Hedges's correction, and its terms.

    One sample of differences (or of runs against an untrained backbone) has its own deviation, that of d_z. A
    difference of two independent runs varies with the sum of the variances; the common measure of its effect size is
    the root of their mean, hence the number of terms.

    Returns:
        None for what has no deviation: a single run, equal values, or one degree of freedom.
    """
    trained = [sample for sample in samples if sample.trained]
    if not trained or any(sample.n < 2 for sample in trained):
        return None, len(trained)
    total = math.fsum(sample.variance for sample in trained)
    correction = hedges_correction(sum(sample.n - 1 for sample in trained))
    return math.sqrt(total) / correction if total > 0 and correction > 0 else None, len(trained)
