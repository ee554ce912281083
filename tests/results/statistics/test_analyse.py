"""A block of runs on disk, analysed as the report does it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from cse_bench.errors import ConfigError
from cse_bench.results.statistics.analyse import analyse
from cse_bench.results.statistics.analysis import Analysis
from cse_bench.results.statistics.directions import lower_is_better
from cse_bench.results.statistics.pair_scores import PairScores
from tests.results.statistics.blocks import arrays, metrics, only_block, write_run, write_study

METRIC = "sts/test/avg"


def analysed(folder: Path, metric: str = METRIC, against: str | None = None) -> Analysis:
    return analyse(only_block(folder), metric=metric, against=against, resamples=100, permutations=99)


def order(analysis: Analysis) -> list[str]:
    return [score.group.label for score in analysis.scores]


def test_everything_is_said_about_a_study(tmp_path: Path) -> None:
    write_study(tmp_path, {"untrained": 0.2, "simcse": 0.6, "esimcse": 2.5, "sarcse": 0.61})
    found = analysed(tmp_path)
    assert order(found)[0] == "esimcse"
    assert order(found)[-1] == "untrained"
    assert found.reference is not None
    assert found.reference.method == "untrained"
    assert [one.second.method for one in found.comparisons] == ["untrained"] * 3
    assert len(found.all_pairs) == 6
    assert found.notes == []
    best = found.scores[0]
    for interval in (best.over_seeds, best.over_seeds_bootstrap, best.over_pairs, best.over_both):
        assert interval is not None
        assert interval.low < best.mean < interval.high
        assert interval.of
    assert best.probability_best == pytest.approx(1)
    assert sum(score.probability_best or 0 for score in found.scores) == pytest.approx(1)
    verdicts = {frozenset((one.first.label, one.second.label)): one.verdict for one in found.all_pairs}
    assert verdicts[frozenset(("esimcse", "simcse"))] == "better"
    assert verdicts[frozenset(("sarcse", "simcse"))] == "not told apart"
    assert found.ranks is not None
    assert [group.label for group in found.ranks.groups] == order(found)[:3]
    untrained = found.scores[-1]
    assert (untrained.n, untrained.over_seeds, untrained.over_seeds_bootstrap) == (1, None, None)
    assert untrained.over_both is not None
    assert math.isnan(untrained.sd)


def test_the_same_call_gives_the_same_analysis(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5})
    block = only_block(tmp_path)
    kept = PairScores(block, resamples=100, permutations=99)
    one, two, three = (
        analyse(block, metric=METRIC, resamples=100, permutations=99, pairs=pairs) for pairs in (None, kept, kept)
    )
    assert one == two == three
    assert analyse(block, metric=METRIC, resamples=100, permutations=99, seed=1) != one


def test_reference(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5, "sarcse": 1.0})
    shutil.rmtree(tmp_path / "simcse-0")
    shutil.rmtree(tmp_path / "esimcse-0")
    most_runs, named = analysed(tmp_path).reference, analysed(tmp_path, against="simcse")
    assert most_runs is not None
    assert most_runs.label == "sarcse"
    assert {one.second.label for one in named.comparisons} == {"simcse"}
    with pytest.raises(ConfigError, match="no group 'simsce'; did you mean 'simcse'.*esimcse, sarcse, simcse"):
        analysed(tmp_path, against="simsce")


def test_a_method_of_several_groups_is_no_reference(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5})
    for path in tmp_path.glob("esimcse-*/results.json"):
        content = json.loads(path.read_text())
        content["method"]["name"] = "simcse"
        content["pooling"] = "mean"
        path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="method of 2 groups; give the label"):
        analysed(tmp_path, against="simcse")
    label = only_block(tmp_path).groups[0].label
    assert analysed(tmp_path, against=label).reference == only_block(tmp_path).groups[0]


def test_one_group_alone(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6})
    found = analysed(tmp_path)
    assert (found.reference, found.comparisons, found.all_pairs, found.ranks) == (None, [], [], None)


def test_unknown_metric(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6})
    with pytest.raises(ConfigError, match="no run has 'sts/test/average'; did you mean 'sts/test/avg'"):
        analysed(tmp_path, "sts/test/average")


def test_lower_is_better_in_geometry_and_cost(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5, "untrained": 0.1})
    found = analysed(tmp_path, "geometry/uniformity")
    assert order(found) == ["esimcse", "simcse", "untrained"]
    assert [one.verdict for one in found.comparisons] == ["better", "better"]
    assert all(one.difference < 0 for one in found.comparisons)
    assert found.scores[0].over_both is None
    assert found.scores[0].probability_best == 1
    assert "geometry/uniformity: lower is better" in found.notes
    assert any("cover seeds alone" in note for note in found.notes)


@pytest.mark.parametrize("metric", ["transfer/l2/mr", "transfer_fast/l2/trec", "geometry/num_sentences"])
def test_what_is_no_score_is_not_analysed(tmp_path: Path, metric: str) -> None:
    write_run(tmp_path, "simcse", 0, of={}, told={metric: 1.0})
    with pytest.raises(ConfigError, match=f"'{metric}' is no score"):
        analysed(tmp_path, metric)


def test_groups_without_seeds_or_pairs_are_not_tested(tmp_path: Path) -> None:
    write_run(tmp_path, "untrained", None, of={}, told={"geometry/uniformity": -1.0})
    whitened = write_run(tmp_path, "whitening", None, of={}, told={"geometry/uniformity": -2.0})
    assert whitened.is_dir()
    (comparison,) = analysed(tmp_path, "geometry/uniformity").all_pairs
    assert (abs(comparison.difference), comparison.p, comparison.verdict) == (1, None, "no test")


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("sts/test/avg", False),
        ("geometry/alignment", True),
        ("geometry/align_uniform_ratio", True),
        ("geometry/effective_rank", False),
        ("geometry/dispersion", False),
        ("cost/train_time_s", True),
        ("cost/train_sentences_per_s", False),
        ("lee/spearman", False),
        ("transfer/test/avg", False),
    ],
)
def test_directions(metric: str, lower: bool) -> None:
    assert lower_is_better(metric) is lower


def test_a_collapsed_run_is_last_and_not_compared(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5})
    of = arrays(np.random.default_rng(0), quality=1.0)
    told: dict[str, float | None] = dict(metrics(of))
    of["pairs/sts/test/stsb/cosine"][:] = 0.5
    told["sts/test/stsb"] = told[METRIC] = None
    write_run(tmp_path, "aaa", 0, of=of, told=told)
    write_run(tmp_path, "aaa", 1, of=of, told=told)
    found = analysed(tmp_path)
    assert order(found) == ["esimcse", "simcse", "aaa"]
    assert math.isnan(found.scores[-1].mean)
    assert found.scores[-1].reason == "seed 0, seed 1: all cosines are equal"
    assert found.scores[-1].over_pairs is None
    assert {group.label for one in found.all_pairs for group in (one.first, one.second)} == {"simcse", "esimcse"}
    assert any(note.startswith("aaa: no mean") for note in found.notes)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6, "esimcse": 1.5, "sarcse": 1.0, "debcse": 0.9})
    (tmp_path / "esimcse-1" / "pair_scores.npz").unlink()
    for path in tmp_path.glob("sarcse-*/results.json"):
        content = json.loads(path.read_text())
        del content["metrics"][METRIC]
        path.write_text(json.dumps(content))
    for seed in (0, 1, 2):
        shutil.rmtree(tmp_path / f"debcse-{seed}")
    found = analysed(tmp_path)
    assert set(order(found)) == {"simcse", "esimcse", "debcse"}
    by_label = {score.group.label: score for score in found.scores}
    assert by_label["esimcse"].over_seeds is not None
    assert by_label["esimcse"].over_pairs is None
    assert by_label["debcse"].over_both is None
    assert by_label["debcse"].over_pairs is not None
    notes = "\n".join(found.notes)
    assert "sarcse: left out, its runs do not have sts/test/avg" in notes
    assert "esimcse: no interval over test pairs (esimcse-1: no pair_scores.npz)" in notes
    assert "debcse: a single run" in notes
    verdicts = {frozenset((one.first.label, one.second.label)): one for one in found.all_pairs}
    assert verdicts[frozenset(("debcse", "simcse"))].verdict == "too few seeds"
    seeds_alone = verdicts[frozenset(("esimcse", "simcse"))]
    assert seeds_alone.over_both is None
    assert seeds_alone.p is not None
    with_it = analysed(tmp_path, against="sarcse")
    assert with_it.comparisons == []
    assert "no comparison with sarcse: it has no finite sts/test/avg" in with_it.notes


def test_pairs_of_another_block_are_refused(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 0.6})
    with pytest.raises(ValueError, match="another block"):
        analyse(only_block(tmp_path), metric=METRIC, pairs=PairScores(only_block(tmp_path)))
