"""What is said of groups that are not told apart, or not tested at all."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from cse_bench.results.report.findings import explained, findings
from cse_bench.results.statistics.analyse import analyse
from cse_bench.results.statistics.analysis import Analysis
from tests.results.statistics.blocks import only_block, write_run

METRIC = "wiki_sections/test/accuracy"
ITEMS = 400


def analysed(folder: Path) -> Analysis:
    return analyse(only_block(folder), metric=METRIC, against="simcse", resamples=200, permutations=99)


def sentences(analysis: Analysis) -> list[str]:
    return ["".join(part if isinstance(part, str) else part.label for part in line) for line in findings([analysis])]


def write_group(folder: Path, method: str, *, mean: float, seeds: float, items: float, n: int = 5) -> None:
    """Runs of scores mean + seed's luck + items' luck; `seeds` and `items`: standard deviations in the run's score."""
    random = np.random.default_rng([n, *method.encode()])
    luck, item = random.normal(scale=seeds, size=n), random.normal(scale=items * math.sqrt(ITEMS), size=ITEMS)
    for seed, value in enumerate(luck - luck.mean()):
        of = mean + value + item - item.mean()
        told = {METRIC: float(of.mean())}
        write_run(folder, method, seed, of={"pairs/wiki_sections/test/accuracy": of}, told=told)


def test_how_many_seeds_would_tell(tmp_path: Path) -> None:
    write_group(tmp_path, "simcse", mean=60.0, seeds=1.0, items=0.01)
    write_group(tmp_path, "esimcse", mean=60.5, seeds=1.0, items=0.01)
    analysis = analysed(tmp_path)
    (comparison,) = analysis.comparisons
    assert comparison.seeds_needed is not None
    assert comparison.seeds_needed > 5
    assert sentences(analysis)[0] == (
        f"esimcse is not told apart from simcse. About {comparison.seeds_needed} paired seeds would tell "
        f"a difference of {abs(comparison.difference):.2f} points."
    )


def test_more_seeds_would_not_where_the_pairs_leave_it_open(tmp_path: Path) -> None:
    write_group(tmp_path, "simcse", mean=60.0, seeds=0.1, items=1.0)
    write_group(tmp_path, "esimcse", mean=60.5, seeds=0.1, items=1.0)
    first = sentences(analysed(tmp_path))[0]
    assert first == ("esimcse is not told apart from simcse. More seeds alone would not: the test pairs leave it open.")
    write_group(tmp_path, "sarcse", mean=63.0, seeds=6.0, items=0.01)
    lines = sentences(analysed(tmp_path))
    open_ones = next(line for line in lines if line.startswith(("esimcse and sarcse", "sarcse and esimcse")))
    assert re.search(r"About [\d,]+ paired seeds would tell a difference of 3\.00 points\.", open_ones)
    assert "For esimcse, more seeds alone would not: the test pairs leave it open." in open_ones


def test_no_number_of_seeds_is_printed_that_is_there(tmp_path: Path) -> None:
    write_group(tmp_path, "simcse", mean=60.0, seeds=1.0, items=0.01, n=20)
    write_group(tmp_path, "esimcse", mean=61.2, seeds=1.0, items=0.01, n=20)
    analysis = analysed(tmp_path)
    (comparison,) = analysis.comparisons
    assert comparison.verdict == "better"
    assert comparison.seeds_needed is not None
    assert comparison.seeds_needed <= 20
    tied = replace(comparison, verdict="not told apart")  # as after correction for many others
    assert sentences(replace(analysis, comparisons=[tied]))[0] == "esimcse is not told apart from simcse."


def test_what_cannot_be_tested_is_not_short_of_seeds(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for method, value in (("simcse", 60.0), ("esimcse", 61.0)):
            write_run(tmp_path, method, seed, of={}, told={METRIC: value + seed})
    lines = sentences(analysed(tmp_path))
    assert lines == ["esimcse is not compared with simcse: no test is possible."]  # once, though it is also the best


def test_many_groups_of_one_verdict_share_a_sentence(tmp_path: Path) -> None:
    write_group(tmp_path, "simcse", mean=60.0, seeds=0.1, items=0.01)
    for number in range(9):
        write_group(tmp_path, f"method_{number}", mean=62.0 + number, seeds=0.1, items=0.01)
    analysis = analysed(tmp_path)
    assert {one.verdict for one in analysis.comparisons} == {"better"}
    line = sentences(analysis)[0]
    assert line.startswith("method_8, method_7, ")
    assert " and method_0 are better than simcse by 2.00 to 10.00 points." in line
    assert re.search(r"All corrected p (\N{LESS-THAN OR EQUAL TO}|<) 0\.0\d\d\.$", line)
    told = findings([analysis])
    assert ("Corrected p", "p_adjusted") in explained(told)
    assert ("Kendall's W", "rank") in explained(told)


def test_what_has_no_seeds_differs_by_its_test_pairs_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for method, mean in (("simcse", 60.0), ("esimcse", 70.0)):
        of = mean + random.normal(size=ITEMS)
        told = {METRIC: float(of.mean())}
        write_run(tmp_path, method, None, of={"pairs/wiki_sections/test/accuracy": of}, told=told)
    line = sentences(analysed(tmp_path))[0]
    assert "esimcse is better than simcse" in line
    assert "interval over test pairs" in line
    assert "seeds" not in line
