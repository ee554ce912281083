"""Do the report's 95 % intervals cover the truth in 95 % of all studies, and do its tests raise 5 % false alarms?

    python -m benchmarks.coverage [NUMBER_OF_STUDIES]

Studies with known truth are drawn and given to the report's own functions. Run s scores pair i with

    y_si = mu + a_s + b_i + c_si,    all normal

and a study's numbers are the means over pairs. Three variances are set, each as it appears in the mean of one run over
all pairs: `seeds` (a), `pairs` (b) and `both` (c, their interaction). What matters is the ratio of the two terms of the
variance of a mean of n runs, (seeds / n) / pairs.
"""

import sys
import time
from itertools import product

import numpy as np
from scipy.stats import bootstrap

from cse_bench.results.collect import Group
from cse_bench.results.statistics.analysis import Interval
from cse_bench.results.statistics.compare import Scored, compare
from cse_bench.results.statistics.estimate import Estimate, Sample, seed_bootstrap
from cse_bench.results.statistics.power import power_of, seeds_needed
from cse_bench.results.statistics.resampling import (
    Floats,
    resampled_mean,
    resampled_spearman,
    sign_flips,
    spearman_contributions,
)

PAIRS = 200
RESAMPLES = 400
PERMUTATIONS = 199
SEEDS = (2, 3, 5, 10)
RATIOS = (1 / 32, 1 / 4, 1, 4, 8, 32)  # of the seed term to the pair term


def main() -> None:
    """Prints four tables: coverage, coverage over seeds alone, false alarms and power, and Spearman."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    random = np.random.default_rng(0)
    started = time.perf_counter()
    error = 100 * (0.95 * 0.05 / studies) ** 0.5
    print(f"{studies} studies per row, standard error of 95 or 5 %: {error:.1f}; {PAIRS} pairs, {RESAMPLES} resamples")
    print_coverage(random, studies=studies)
    print_seed_bootstrap(random, studies=studies)
    print_tests(random, studies=studies)
    print_spearman(random, studies=studies)
    print(f"{time.perf_counter() - started:.0f} s")


def print_coverage(random: np.random.Generator, *, studies: int) -> None:
    """Percent of studies whose interval holds what it is an interval of."""
    print("\nCoverage of 95 % intervals. Each of its own target, and of mu; for comparison the pigeonhole bootstrap")
    print("(pairs: 1)")
    print("  n  ratio both | over seeds  over pairs  over both | of mu: over seeds  over pairs  pigeonhole")
    for n, ratio, both in product(SEEDS, RATIOS, (0, 1)):
        hits = np.mean([covered(random, n=n, seeds=n * ratio, pairs=1, both=both) for _ in range(studies)], axis=0)
        own, of_mu = hits[:3], hits[3:]
        print(f" {n:2}  {ratio:5.2f} {both:4} | {_row(own)} | {' ' * 6} {_row(of_mu)}", flush=True)


def covered(random: np.random.Generator, *, n: int, seeds: float, pairs: float, both: float) -> list[bool]:
    """Which intervals of one study hold their targets: see the heading of `print_coverage`."""
    a, b, c = effects(random, n=n, seeds=seeds, pairs=pairs, both=both)
    sample = sample_of(a[:, None] + b + c, random)
    estimate = Estimate.of(sample)
    over_seeds, over_pairs = estimate.over_seeds(), estimate.over_pairs("pairs")
    return [
        holds(over_seeds, float(b.mean())),  # these pairs, all seeds
        holds(over_pairs, float(a.mean())),  # these seeds, all pairs
        holds(estimate.over_both("pairs"), 0.0),
        holds(over_seeds, 0.0),
        holds(over_pairs, 0.0),
        holds(pigeonhole(sample, random), 0.0),
    ]


def print_seed_bootstrap(random: np.random.Generator, *, studies: int) -> None:
    """Percent of studies whose interval over seeds holds the mean over all seeds."""
    print("\nCoverage of 95 % intervals of the mean over seeds alone")
    print("  n | Student's t  percentiles  BCa")
    for n in SEEDS:
        hits = []
        for study in range(studies):
            sample = Sample(values=random.normal(size=n), replicates=None, flipped=None, trained=True)
            bca = bootstrap(
                (sample.values,), np.mean, n_resamples=RESAMPLES, method="BCa", random_state=random
            ).confidence_interval
            percentiles = seed_bootstrap(sample, resamples=RESAMPLES, seed=study)
            hits.append([holds(Estimate.of(sample).over_seeds(), 0), holds(percentiles, 0), bca.low <= 0 <= bca.high])
        print(f" {n:2} | {_row(np.mean(hits, axis=0))}", flush=True)


def print_tests(random: np.random.Generator, *, studies: int) -> None:
    """Percent of comparisons of two methods with p < 0.05 (p_pairs: at most 0.05)."""
    print("\nComparisons of two methods with p below 0.05, at a true difference of 0 and of 3 standard errors")
    print(
        "(variances of the difference of two runs; p_seeds is about these pairs alone: its null hypothesis holds where"
    )
    print(" pairs is 0; p_pairs is about these seeds alone: its null hypothesis holds where seeds is 0)")
    print("  n  seeds / n  pairs both | at 0:   p  p_seeds  p_pairs | at 3:   p  p_seeds  p_pairs")
    mixtures = [*((ratio, 1, 0) for ratio in RATIOS), (1, 1, 1), (1, 0, 0), (0, 1, 0)]
    for n, (ratio, pairs, both) in product(SEEDS, mixtures):
        seeds = n * ratio
        error = ((seeds + both) / n + pairs) ** 0.5
        rates = []
        for difference in (0.0, 3 * error):
            found = [
                rejected(random, n=n, seeds=seeds, pairs=pairs, both=both, difference=difference)
                for _ in range(studies)
            ]
            rates.append(_row(np.mean(found, axis=0)))
        print(f" {n:2}  {ratio:9.2f} {pairs:6} {both:4} | {rates[0]} | {rates[1]}", flush=True)
    print("\nSeeds needed for power 0.8, and power found with them (pairs: their variance over that of seeds)")
    for effect, pairs in product((0.5, 1.0, 2.0), (0.0, 0.02, 0.1, 1.0)):
        needed, reason = seeds_needed(effect, pairs=pairs)
        if needed is None:
            print(f"  effect {effect}, pairs {pairs}: none ({reason})")
            continue
        power = simulated_power(random, effect=effect, n=needed, pairs=pairs, studies=4 * studies)
        formula = power_of(effect, needed, pairs=pairs)
        print(
            f"  effect {effect}, pairs {pairs}: {needed} seeds, power {power:.2f} (formula {formula:.2f})", flush=True
        )


def simulated_power(random: np.random.Generator, *, effect: float, n: int, pairs: float, studies: int) -> float:
    """Share of studies with p < 0.05; a difference has variance 1 over seeds, the mean of n has `pairs` over pairs."""
    found = []
    for _ in range(studies):
        values = random.normal(loc=effect, size=n) + random.normal(scale=pairs**0.5)
        noise = random.normal(scale=pairs**0.5, size=RESAMPLES)
        sample = Sample(values=values, replicates=values[:, None] + noise, flipped=None, trained=True)
        found.append((Estimate.of(sample).p() or 0) < 0.05)
    return float(np.mean(found))


def rejected(
    random: np.random.Generator, *, n: int, seeds: float, pairs: float, both: float, difference: float
) -> list[bool]:
    """Which p-values of one comparison are below 0.05: p, p_seeds, p_pairs."""
    a, b, c = effects(random, n=n, seeds=seeds / 2, pairs=pairs / 2, both=both / 2)
    a2, b2, c2 = effects(random, n=n, seeds=seeds / 2, pairs=pairs / 2, both=both / 2)
    shared = effects(random, n=n, seeds=1, pairs=4, both=0)  # what both methods have in common, and pairing takes out
    common = shared[0][:, None] + shared[1]
    signs = int(random.integers(2**31))
    methods = [
        scored(name, sample_of(values, random, signs=signs), n)
        for name, values in (
            ("first", common + difference + a[:, None] + b + c),
            ("second", common + a2[:, None] + b2 + c2),
        )
    ]
    found = compare(*methods, what="pairs", seed=0)
    return [p is not None and p <= 0.05 for p in (found.p, found.p_seeds, found.p_pairs)]


def print_spearman(random: np.random.Generator, *, studies: int) -> None:
    """Two encoders that correlate equally with the grades: coverage of the difference 0, and false alarms."""
    print("\nSpearman of two equal methods, 5 seeds that vary little: coverage of 0 and false alarms")
    print("  correlation | over pairs  over both |   p  p_pairs")
    for correlation in (0.3, 0.6, 0.9):
        hits = []
        for _ in range(studies // 2):
            methods = spearman_study(random, n=5, correlation=correlation)
            found = compare(*methods, what="pairs", seed=0)
            p_values = [p is not None and p <= 0.05 for p in (found.p, found.p_pairs)]
            hits.append([holds(found.over_pairs, 0), holds(found.over_both, 0), *p_values])
        rates = np.mean(hits, axis=0)
        print(f"          {correlation} | {_row(rates[:2])} | {_row(rates[2:])}", flush=True)


def spearman_study(random: np.random.Generator, *, n: int, correlation: float) -> list[Scored]:
    """Two methods whose cosines are the grade plus noise: half shared by both, the rest by the runs of a method."""
    grades, shared = random.normal(size=(2, PAIRS))
    signs = int(random.integers(2**31))
    methods = []
    for name in ("first", "second"):
        noise = np.sqrt([0.5, 0.4, 0.1]) @ np.stack(
            [
                np.broadcast_to(shared, (n, PAIRS)),
                np.tile(random.normal(size=PAIRS), (n, 1)),
                random.normal(size=(n, PAIRS)),
            ]
        ).reshape(3, -1)
        cosines = correlation * grades + np.sqrt(1 - correlation**2) * noise.reshape(n, PAIRS)
        gold = np.round(2 * grades)  # grades have ties
        contributions = spearman_contributions(cosines, gold)
        sample = Sample(
            values=contributions.sum(axis=1),
            replicates=resampled_spearman(cosines, gold, resamples=RESAMPLES // 2, random=np.random.default_rng(signs)),
            flipped=sign_flips(contributions, permutations=PERMUTATIONS, random=np.random.default_rng(signs)),
            trained=True,
        )
        methods.append(scored(name, sample, n))
    return methods


def effects(
    random: np.random.Generator, *, n: int, seeds: float, pairs: float, both: float
) -> tuple[Floats, Floats, Floats]:
    """`a` `(n,)`, `b` `(pairs,)` and `c` `(n, pairs)` with variances as in the mean over all pairs."""
    return (
        random.normal(scale=seeds**0.5, size=n),
        random.normal(scale=(pairs * PAIRS) ** 0.5, size=PAIRS),
        random.normal(scale=(both * PAIRS) ** 0.5, size=(n, PAIRS)),
    )


def sample_of(scores: Floats, random: np.random.Generator, *, signs: int | None = None) -> Sample:
    """A sample from per-pair scores `(n, pairs)`; the same `signs` give the same resamples and signs."""
    drawn = int(random.integers(2**31)) if signs is None else signs
    flipped = sign_flips(scores / PAIRS, permutations=PERMUTATIONS if signs else 1, random=np.random.default_rng(drawn))
    replicates = resampled_mean(scores, resamples=RESAMPLES, random=np.random.default_rng(drawn))
    return Sample(values=scores.mean(axis=1), replicates=replicates, flipped=flipped, trained=True)


def scored(name: str, sample: Sample, n: int) -> Scored:
    """A method with seeds 0 to n - 1."""
    return Scored(group=Group(key=name, runs=[], label=name), seeds=range(n), sample=sample)


def pigeonhole(sample: Sample, random: np.random.Generator) -> Interval:
    """Percentiles of replicates that resample seeds and pairs (Owen 2007)."""
    assert sample.replicates is not None
    weights = random.multinomial(sample.n, np.full(sample.n, 1 / sample.n), size=RESAMPLES).T / sample.n
    low, high = np.quantile((weights * sample.replicates).sum(axis=0), [0.025, 0.975])
    return Interval(low=float(low), high=float(high), level=0.95, of="both")


def holds(interval: Interval | None, truth: float) -> bool:
    """Whether an interval covers a value."""
    return interval is not None and interval.low <= truth <= interval.high


def _row(shares: Floats) -> str:
    return "  ".join(f"{100 * share:9.1f}" for share in shares)


if __name__ == "__main__":
    main()
