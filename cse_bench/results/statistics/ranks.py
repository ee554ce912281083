"""Who is best, how surely, and whether the seeds agree about the order."""

from collections.abc import Sequence

import numpy as np

from cse_bench.results.statistics.analysis import RankStability
from cse_bench.results.statistics.compare import Scored
from cse_bench.results.statistics.resampling import Floats


def probability_best(groups: Sequence[Scored], *, sign: float, resamples: int, seed: int) -> list[float]:
    """Share of bootstrap replicates in which each group is best; they sum to 1.

    In replicate b, test pairs are resample b, the same for all groups, and the seeds are drawn anew: n - 1 of n with
    replacement, so that their mean varies by s^2 / n as it does between studies (n of n: by (n - 1) / n of that;
    Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", section 8.5). Groups with the same seeds draw
    the same ones. Groups that tie for best share the replicate.

    Args:
        groups: at least one; trained ones with at least two runs. Either all with replicates or none, which leaves the
            seeds alone.
        sign: 1 where higher is better, -1 where lower is.
        resamples: number of replicates, if the groups bring none.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    drawn: dict[tuple[int | None, ...], Floats] = {}
    means = []
    for scored in groups:
        replicates = scored.sample.replicates
        if replicates is None:
            replicates = np.repeat(scored.sample.values[:, None], resamples, axis=1)
        n, count = replicates.shape
        seeds = tuple(scored.seeds)
        if seeds not in drawn:
            size = max(n - 1, 1)
            drawn[seeds] = random.multinomial(size, np.full(n, 1 / n), size=count).T / size
        # By deviations from the first run, so that groups of equal values tie whatever is drawn.
        means.append(replicates[0] + (drawn[seeds] * (replicates - replicates[0])).sum(axis=0))
    scores = sign * np.stack(means)
    best = scores == scores.max(axis=0)
    return [float(share) for share in (best / best.sum(axis=0)).mean(axis=1)]


def rank_stability(groups: Sequence[Scored], *, sign: float) -> RankStability | None:
    """Kendall's W of the orders of the groups that single seeds give, and Friedman's test.

    W = chi^2 / (n (k - 1)) for n seeds and k groups, with Friedman's chi^2 corrected for ties: 1 if every seed gives
    the same order, 0 if the mean ranks are all equal (Kendall and Babington Smith 1939, Annals of Mathematical
    Statistics 10(3)). The p-value is that of the chi^2 distribution with k - 1 degrees of freedom, which is
    conservative for few seeds.

    Args:
        groups: trained ones; those with one run are not counted.
        sign: 1 where higher is better, -1 where lower is.

    Returns:
        None with fewer than three groups, fewer than two seeds that all of them have, or if every seed gives all groups
        the same score.
    """
    from scipy.stats import friedmanchisquare, rankdata

    repeated = [scored for scored in groups if scored.sample.trained and scored.sample.n > 1]
    shared = [seed for seed in repeated[0].seeds if all(seed in other.seeds for other in repeated)] if repeated else []
    if len(repeated) < 3 or len(shared) < 2:
        return None
    values = [sign * scored.sample.values[[list(scored.seeds).index(seed) for seed in shared]] for scored in repeated]
    if not np.ptp(values, axis=0).any():
        return None
    test = friedmanchisquare(*values)
    ranks = rankdata(-np.array(values), axis=0)
    return RankStability(
        kendall_w=float(test.statistic / (len(shared) * (len(repeated) - 1))),
        p=float(test.pvalue),
        groups=[scored.group for scored in repeated],
        seeds=[seed for seed in shared if seed is not None],
        mean_rank=[float(rank) for rank in ranks.mean(axis=1)],
    )
