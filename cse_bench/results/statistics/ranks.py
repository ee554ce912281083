"""Who is best, how surely, and whether the seeds agree about the order."""

import math
from collections.abc import Sequence

import numpy as np

from cse_bench.results.statistics.analysis import RankStability
from cse_bench.results.statistics.compare import Scored
from cse_bench.results.statistics.resampling import Floats


def probability_best(groups: Sequence[Scored], *, sign: float, resamples: int, seed: int) -> list[float]:
    """Share of bootstrap replicates in which each group is best; they sum to 1.

    In replicate b, test pairs are resample b, the same for all groups, and every seed gets a weight, the same in all
    groups that have it: exponential, and scaled to sum 1 within a group (Rubin 1981, "The Bayesian bootstrap", Annals
    of Statistics 9(1)). A mean of n seeds then varies by (n - 1) / (n (n + 1)) s^2; between studies it does by s^2 / n,
    so deviations from the mean are stretched by sqrt((n + 1) / (n - 1)). Groups that tie for best share the replicate.

    No test: it knows no tails but those of a few seeds, and takes all seeds of a group where a comparison takes those
    that both have. 0.99 can stand beside a comparison that is not told apart.

    Args:
        groups: at least one; trained ones with at least two runs. Either all with replicates or none, which leaves the
            seeds alone.
        sign: 1 where higher is better, -1 where lower is.
        resamples: number of replicates, if the groups bring none.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    drawn: dict[int | None, Floats] = {}
    means = []
    for scored in groups:
        replicates = scored.sample.replicates
        if replicates is None:
            replicates = np.repeat(scored.sample.values[:, None], resamples, axis=1)
        n, count = replicates.shape
        for number in scored.seeds:
            if number not in drawn:
                drawn[number] = random.standard_exponential(size=(count,))
        weights = np.stack([drawn[number] for number in scored.seeds])
        stretch = math.sqrt((n + 1) / max(n - 1, 1))
        weights = 1 / n + stretch * (weights / weights.sum(axis=0) - 1 / n)
        # By deviations from the first run, so that groups of equal values tie whatever is drawn.
        means.append(replicates[0] + (weights * (replicates - replicates[0])).sum(axis=0))
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
