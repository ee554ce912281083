"""Metrics from per-pair scores: the same numbers as the evaluation's, and what does not fit is left out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cse_bench.evaluation.spearman import spearman_mean, spearman_wmean
from cse_bench.evaluation.sts_tables import SUBSETS, TEST_PAIRS
from cse_bench.evaluation.task import run_tasks
from cse_bench.evaluation.transfer import TASKS, Transfer
from cse_bench.results.statistics.pair_scores import PairScores
from cse_bench.results.statistics.parts import composition
from tests.evaluation import transfer_folder
from tests.results.statistics.blocks import PAIRS, arrays, metrics, only_block, write_run, write_study

METRICS = [f"sts/{setting}/{task}" for setting in ("test", "test_clean") for task in ("sts12", "sickr", "avg")]


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_as_they_are_give_the_metric(tmp_path: Path, metric: str) -> None:
    write_study(tmp_path, {"simcse": 1.0, "untrained": 0.3})
    found, left_out = PairScores(only_block(tmp_path), resamples=200).of(metric)
    assert left_out == {}  # every run's contributions sum to its metric, or it would be here
    assert {key: one.replicates.shape for key, one in found.items()} == {"untrained": (1, 200), "simcse": (4, 200)}
    for group in only_block(tmp_path).groups:
        replicates, values = found[group.key].replicates, list(group.values(metric).values())
        error = replicates.std(axis=1)
        assert (error > 0.5).all()
        assert (np.abs(replicates.mean(axis=1) - values) < error).all()


def test_an_average_is_the_mean_of_its_tasks_resample_by_resample(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 1.0})
    scores = PairScores(only_block(tmp_path), resamples=50)
    tasks = [scores.of(f"sts/test/{task}")[0]["simcse"] for task in TEST_PAIRS]
    average = scores.of("sts/test/avg")[0]["simcse"]
    np.testing.assert_allclose(average.replicates, np.mean([task.replicates for task in tasks], axis=0))
    np.testing.assert_allclose(average.flipped, np.mean([task.flipped for task in tasks], axis=0))


def test_the_seed_decides(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 1.0})
    block = only_block(tmp_path)
    one, same, other = (
        PairScores(block, resamples=20, seed=seed).of("sts/test/stsb")[0]["simcse"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.replicates, same.replicates)
    np.testing.assert_array_equal(one.flipped, same.flipped)
    assert (one.replicates != other.replicates).any()


def test_a_metric_without_pairs(tmp_path: Path) -> None:
    write_study(tmp_path, {"simcse": 1.0})
    assert composition("geometry/uniformity") is None
    assert PairScores(only_block(tmp_path)).of("geometry/uniformity") == ({}, {})


def damaged(directory: Path, kind: str) -> None:
    """Spoils one run's per-pair scores."""
    path = directory / "pair_scores.npz"
    with np.load(path) as archive:
        content = dict(archive)
    gold, cosine = content["pairs/sts/test/stsb/gold"], content["pairs/sts/test/stsb/cosine"]
    match kind:
        case "missing":
            path.unlink()
            return
        case "cut off":
            path.write_bytes(path.read_bytes()[:-200])
            return
        case "empty":
            path.write_bytes(b"")
            return
        case "other grades":
            gold[0] = 5 - gold[0]
        case "other pairs":
            content["pairs/sts/test/stsb/gold"], content["pairs/sts/test/stsb/cosine"] = gold[1:], cosine[1:]
            content["pairs/sts/test/stsb/clean"] = content["pairs/sts/test/stsb/clean"][1:]
        case "without a task":
            del content["pairs/sts/test/stsb/cosine"]
        case "not finite":
            cosine[3] = np.nan
        case "other cosines":
            cosine[:] = cosine[::-1].copy()
    np.savez(path, **content)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no pair_scores.npz"),
        ("cut off", "cannot be read"),
        ("empty", "cannot be read"),
        ("other grades", "other pairs of sts/test/stsb"),
        ("other pairs", "other pairs of sts/test/stsb"),
        ("without a task", "without pairs/sts/test/stsb/cosine"),
        ("not finite", "expected at least two finite numbers"),
        ("other cosines", "its results say"),
    ],
)
def test_what_does_not_fit_is_left_out_with_its_group(tmp_path: Path, kind: str, reason: str) -> None:
    write_study(tmp_path, {"simcse": 1.0, "esimcse": 0.8})
    undisturbed = PairScores(only_block(tmp_path), resamples=20).of("sts/test/avg")[0]["simcse"]
    damaged(tmp_path / "esimcse-2", kind)
    scores = PairScores(only_block(tmp_path), resamples=20)
    found, left_out = scores.of("sts/test/avg")
    assert list(left_out) == ["esimcse"]
    assert left_out["esimcse"].startswith("esimcse-2: ")
    assert reason in left_out["esimcse"]
    np.testing.assert_array_equal(found["simcse"].replicates, undisturbed.replicates)
    if kind not in ("missing", "cut off", "empty"):
        assert scores.of("sts/test/sts12")[1] == {}


def test_subset_aggregations(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    gold = np.round(random.random(TEST_PAIRS["sts16"]) * 5)
    for seed in (0, 1):
        cosine = np.tanh(gold / 5 + random.normal(size=len(gold)))
        ends = np.cumsum(list(SUBSETS["sts16"].values()))[:-1]
        subsets = list(zip(np.split(cosine, ends), np.split(gold, ends), strict=True))
        told = {"sts/test_mean/sts16": spearman_mean(subsets), "sts/test_wmean/sts16": spearman_wmean(subsets)}
        of = {"pairs/sts/test/sts16/cosine": cosine, "pairs/sts/test/sts16/gold": gold}
        write_run(tmp_path, "simcse", seed, of=of, told=told)
    scores = PairScores(only_block(tmp_path), resamples=20)
    for metric in ("sts/test_mean/sts16", "sts/test_wmean/sts16"):
        found, left_out = scores.of(metric)
        assert left_out == {}
        assert found["simcse"].replicates.shape == (2, 20)


def test_means_per_item(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for seed in (0, 1):
        of = {f"pairs/transfer/test/{task}/correct": random.integers(0, 2, size=PAIRS) for task in TASKS}
        of |= {f"pairs/transfer/test/{task}/weight": np.ones(PAIRS) for task in TASKS}
        told = {
            f"transfer/test/{task}": 100 * float(of[f"pairs/transfer/test/{task}/correct"].mean()) for task in TASKS
        }
        told["transfer/test/avg"] = float(np.mean(list(told.values())))
        of["pairs/wiki_sections/test/accuracy"] = 100 * random.random(PAIRS)
        told["wiki_sections/test/accuracy"] = float(of["pairs/wiki_sections/test/accuracy"].mean())
        write_run(tmp_path, "simcse", seed, of=of, told=told)
    scores = PairScores(only_block(tmp_path), resamples=400)
    for metric, pairs in (("transfer/test/mr", PAIRS), ("transfer/test/avg", 7 * PAIRS)):
        found, left_out = scores.of(metric)
        assert left_out == {}
        assert found["simcse"].replicates[0].std() == pytest.approx(50 / pairs**0.5, rel=0.15)
    assert scores.of("wiki_sections/test/accuracy")[1] == {}


def test_folds_of_different_sizes_give_the_reported_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = transfer_folder.write(tmp_path / "data", transfer_folder.contents(per_class=12), monkeypatch)
    task = Transfer(data=str(data), cache="unused", folds=5)  # 24 examples in 5 folds
    result = run_tasks([task], lambda sentences: word_counts(sentences)[:, :4])
    pooled = 100 * result.arrays["pairs/transfer_fast/test/mr/correct"].mean()
    assert abs(pooled - result.metrics["transfer_fast/test/mr"]) > 1e-3  # else nothing is tested here
    write_run(tmp_path / "runs", "simcse", 0, of=result.arrays, told=result.metrics)
    scores = PairScores(only_block(tmp_path / "runs"), resamples=400)
    for task_name in (*TASKS, "avg"):
        metric = f"transfer_fast/test/{task_name}"
        found, left_out = scores.of(metric)
        assert left_out == {}
        assert found["simcse"].replicates.mean() == pytest.approx(result.metrics[metric], abs=2)


def test_other_weights_are_other_examples(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        weight = np.linspace(0.9, 1.1, PAIRS)[:: -1 if seed == 2 else 1]
        correct = np.random.default_rng(seed).integers(0, 2, size=PAIRS)
        of = {"pairs/transfer/test/cr/correct": correct, "pairs/transfer/test/cr/weight": weight}
        write_run(tmp_path, "simcse", seed, of=of, told={"transfer/test/cr": 100 * float((correct * weight).mean())})
    found, left_out = PairScores(only_block(tmp_path)).of("transfer/test/cr")
    assert found == {}
    assert "simcse-2: scored on other pairs" in left_out["simcse"]


def word_counts(sentences: Sequence[str]) -> np.ndarray:
    words = transfer_folder.WORDS
    counts = [[1 + sentence.split().count(word) for word in words] for sentence in sentences]
    return np.array(counts, dtype=np.float32)


def test_parts_weigh_one() -> None:
    named = ["sts/test/avg", "sts/test_clean/avg", "sts/test_mean/sts14", "sts/test_wmean/sts14", "sts/dev/stsb"]
    for metric in [*named, "transfer/test/avg", "lee/spearman", "wiki_sections/test/accuracy"]:
        composed = composition(metric)
        assert composed is not None
        assert sum(part.weight for part in composed.parts) == pytest.approx(1)


def test_all_seven_tasks_are_needed(tmp_path: Path) -> None:
    of = arrays(np.random.default_rng(0), quality=1.0)
    told = metrics(of)
    del of["pairs/sts/test/sickr/gold"]
    write_run(tmp_path, "simcse", 0, of=of, told=told)
    found, left_out = PairScores(only_block(tmp_path)).of("sts/test/avg")
    assert found == {}
    assert "without pairs/sts/test/sickr/gold" in left_out["simcse"]
