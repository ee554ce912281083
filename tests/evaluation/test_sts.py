"""The STS tasks: numbers against slow oracles, on a small invented benchmark and on the real files."""

import math
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cse_bench.evaluation import sts, sts_overlap
from cse_bench.evaluation.geometry import alignment, dispersion, uniformity
from cse_bench.evaluation.sts import STSBenchmarkDev, STSGeometry, STSTest
from cse_bench.evaluation.sts_files import Pairs
from cse_bench.evaluation.sts_overlap import Copy
from cse_bench.evaluation.sts_tables import SUBSETS, TEST_PAIRS
from cse_bench.evaluation.task import Evaluation, run_tasks

TASKS = list(TEST_PAIRS)


def bag_of_words(sentences: Sequence[str]) -> np.ndarray:
    """A deterministic encoder: the sum of a fixed random vector per word."""
    words = {word for sentence in sentences for word in sentence.split()}
    vectors = {word: np.random.default_rng(zlib.crc32(word.encode())).normal(size=32) for word in words}
    return np.stack([np.sum([vectors[word] for word in sentence.split()], axis=0) for sentence in sentences])


def collapsed(sentences: Sequence[str]) -> np.ndarray:
    return np.tile(np.array([0.1, 0.7, -0.3], dtype=np.float32), (len(sentences), 1))


def slow_cosine(left: str, right: str) -> float:
    one, two = bag_of_words([left, right])
    return float(one @ two / math.sqrt((one @ one) * (two @ two)))


def invented(name: str, seed: int, size: int) -> Pairs:
    """Pairs of three-word sentences that share 0 to 2 words, graded at random."""
    generator = np.random.default_rng(seed)
    left = [" ".join(f"w{word}" for word in generator.integers(0, 40, 3)) for _ in range(size)]
    right = [f"{sentence.rsplit(' ', 1)[0]} w{generator.integers(0, 40)}" for sentence in left]
    return Pairs(name=name, left=left, right=right, gold=np.append(generator.uniform(0, 5, size - 1), 4.9))


class InventedFiles:
    """Stands in for `STSFiles`: a benchmark of a few pairs per task."""

    def __init__(self, *, data: str | None, cache: str) -> None:
        self.read: list[str] = []

    def test(self, task: str) -> list[Pairs]:
        self.read.append(task)
        if task not in SUBSETS:
            return [invented(task, 100 + TASKS.index(task), 9)]
        return [invented(f"{task}-{part}", 10 * TASKS.index(task) + part, 5 + part) for part in range(3)]

    def benchmark(self, split: str) -> Pairs:
        self.read.append(split)
        # The first pairs of dev are pairs of STS12, turned round.
        leaked = self.test("sts12")[0]
        own = invented(split, 1000 + len(split), 30)
        return Pairs(
            name=split,
            left=leaked.right[:2] + own.left,
            right=leaked.left[:2] + own.right,
            gold=np.concatenate([leaked.gold[:2], own.gold]),
        )

    def sources(self) -> dict[str, str]:
        return dict.fromkeys(self.read, "00")


@pytest.fixture
def invented_files(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        task: {Copy.KEPT: 18, Copy.IN_DEV: 0, Copy.REPEATED: 0, Copy.ELSEWHERE: 0}
        | ({Copy.KEPT: 9} if task not in SUBSETS else {})
        | ({Copy.KEPT: 16, Copy.IN_DEV: 2} if task == "sts12" else {})
        for task in TASKS
    }
    monkeypatch.setattr(sts, "STSFiles", InventedFiles)
    monkeypatch.setattr(sts_overlap, "OVERLAP", table)


def correlation(cosines: Sequence[float] | np.ndarray, gold: np.ndarray) -> float:
    return 100 * float(spearmanr(np.round(cosines, 10), gold).statistic)


def expected_test_metrics(tasks: Mapping[str, list[Pairs]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for task, subsets in tasks.items():
        cosines = [[slow_cosine(*sides) for sides in zip(p.left, p.right, strict=True)] for p in subsets]
        metrics[f"sts/test/{task}"] = correlation(sum(cosines, []), np.concatenate([p.gold for p in subsets]))
        if task in SUBSETS:
            each = [correlation(c, p.gold) for c, p in zip(cosines, subsets, strict=True)]
            counts = [len(p.gold) for p in subsets]
            metrics[f"sts/test_mean/{task}"] = sum(each) / len(each)
            metrics[f"sts/test_wmean/{task}"] = sum(np.multiply(each, counts)) / sum(counts)
    metrics["sts/test/avg"] = sum(metrics[f"sts/test/{task}"] for task in TASKS) / 7
    return metrics


def test_numbers_equal_a_slow_evaluation(invented_files: None) -> None:
    result = run_tasks([STSTest(data=None, cache="unused")], bag_of_words)
    files = InventedFiles(data=None, cache="")
    expected = expected_test_metrics({task: files.test(task) for task in TASKS})
    classic = {path: value for path, value in result.metrics.items() if not path.startswith("sts/test_clean/")}
    assert classic == pytest.approx(expected, abs=1e-9)
    # "all" differs from both means: the aggregations are not mixed up.
    assert abs(result.metrics["sts/test/sts13"] - result.metrics["sts/test_mean/sts13"]) > 0.1
    assert abs(result.metrics["sts/test_mean/sts13"] - result.metrics["sts/test_wmean/sts13"]) > 0.1


def test_leak_free_score_leaves_out_the_leaked_pairs(invented_files: None) -> None:
    result = run_tasks([STSTest(data=None, cache="unused")], bag_of_words)
    cosines, gold, clean = (result.arrays[f"pairs/sts/test/sts12/{part}"] for part in ("cosine", "gold", "clean"))
    assert clean.tolist() == [0, 0] + [1] * 16
    assert result.metrics["sts/test_clean/sts12"] == pytest.approx(correlation(cosines[2:], gold[2:]), abs=1e-9)
    assert result.metrics["sts/test_clean/sts12"] != result.metrics["sts/test/sts12"]
    assert result.metrics["sts/test_clean/sickr"] == result.metrics["sts/test/sickr"]
    average = sum(result.metrics[f"sts/test_clean/{task}"] for task in TASKS) / 7
    assert result.metrics["sts/test_clean/avg"] == pytest.approx(average, abs=1e-9)
    assert "leak-free" in result.labels["sts/test_clean"]
    assert "classic" in result.labels["sts/test"]


def test_geometry_equals_its_pure_functions(invented_files: None) -> None:
    result = run_tasks([STSGeometry(data=None, cache="unused", min_gold_exclusive=2.5)], bag_of_words)
    dev = InventedFiles(data=None, cache="").benchmark("dev")
    left, right = bag_of_words(dev.left), bag_of_words(dev.right)
    positive = dev.gold > 2.5
    assert 3 < positive.sum() < len(dev.gold)
    align = alignment(left[positive], right[positive])
    rows = np.vstack([left, right])
    assert result.metrics == pytest.approx(
        {
            "geometry/alignment": align,
            "geometry/uniformity": uniformity(rows),
            "geometry/dispersion": dispersion(rows),
            "geometry/align_uniform_ratio": align / -uniformity(rows),
            "geometry/align_dispersion_ratio": align / dispersion(rows),
            "geometry/mean_cosine": 1 - dispersion(rows) / 2,
            "geometry/effective_rank": result.metrics["geometry/effective_rank"],
            "geometry/largest_variance_share": result.metrics["geometry/largest_variance_share"],
            "geometry/num_positives": positive.sum(),
            "geometry/num_sentences": 64,
        },
        abs=1e-12,
    )
    assert result.arrays.keys() == {"geometry/singular_values", "geometry/dimension_variance"}
    assert result.arrays["geometry/dimension_variance"].shape == (rows.shape[1],)
    assert "gold > 2.5" in result.labels["geometry"]
    assert "ratio metrics (cse_bench definition)" in result.labels["geometry"]


def test_positives_are_strictly_above_the_threshold(invented_files: None) -> None:
    dev = InventedFiles(data=None, cache="").benchmark("dev")
    threshold = float(np.sort(dev.gold)[-3])
    result = run_tasks([STSGeometry(data=None, cache="unused", min_gold_exclusive=threshold)], bag_of_words)
    assert result.metrics["geometry/num_positives"] == 2


def test_collapsed_encoder_gets_nan_with_a_reason_everywhere(invented_files: None) -> None:
    tasks = [factory(data=None, cache="unused") for factory in (STSTest, STSBenchmarkDev, STSGeometry)]
    result = run_tasks(tasks, collapsed)
    defined = {path for path, value in result.metrics.items() if not math.isnan(value)}
    assert defined == {
        f"geometry/{name}"
        for name in ("alignment", "uniformity", "dispersion", "mean_cosine", "num_positives", "num_sentences")
    }
    assert set(result.notes) == set(result.metrics) - defined
    assert result.notes["geometry/align_uniform_ratio"] == "collapsed"
    assert "collapsed" in result.notes["sts/dev/stsb"]
    assert result.notes["sts/test/avg"] == "no value for sts12, sts13, sts14, sts15, sts16, stsb, sickr"


def test_no_positives_is_a_reason_too(invented_files: None) -> None:
    result = run_tasks([STSGeometry(data=None, cache="unused", min_gold_exclusive=5.0)], bag_of_words)
    assert result.notes["geometry/alignment"] == "no_positives"
    assert result.metrics["geometry/uniformity"] < -1


def test_splits_of_geometry_never_share_a_path(invented_files: None) -> None:
    tasks = [STSGeometry(data=None, cache="unused", split=split) for split in ("dev", "test", "all")]
    result = run_tasks(tasks, bag_of_words)
    assert result.metrics["geometry/num_sentences"] == 64
    assert result.metrics["geometry_test/num_sentences"] == 64
    assert result.metrics["geometry_all/num_sentences"] == 192
    assert result.labels["geometry_all"].startswith("positives: STS-B all pairs with gold > 4;")
    with pytest.raises(ValueError, match="split is 'train'; expected dev, test or all"):
        STSGeometry(data=None, cache="unused", split="train")


# --- the real files ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Evaluation:
    data = str(shared_data)
    tasks = [factory(data=data, cache="unused") for factory in (STSTest, STSBenchmarkDev, STSGeometry)]
    return run_tasks(tasks, bag_of_words)


def test_real_run_is_complete(real: Evaluation) -> None:
    assert len(real.metrics) == 7 + 1 + 2 * 5 + 7 + 1 + 1 + 10
    assert all(math.isfinite(value) for value in real.metrics.values())
    assert real.notes == {}
    assert {task: len(real.arrays[f"pairs/sts/test/{task}/cosine"]) for task in TASKS} == TEST_PAIRS
    for task in TASKS:
        kept = sts_overlap.OVERLAP[task][Copy.KEPT]
        assert real.arrays[f"pairs/sts/test/{task}/clean"].sum() == kept
    assert len(real.arrays["pairs/sts/dev/stsb/gold"]) == 1500
    assert len(real.sources) == 2 * 24 + 3  # inputs and grades of 24 sub-sets, two splits of STS-B, SICK test
    assert real.task_versions == {"sts": 1, "sts_dev": 1, "geometry": 1}


def test_real_scores_are_plausible_and_follow_from_the_pairs(real: Evaluation) -> None:
    # Sums of random word vectors count shared words: far above chance, far below a sentence encoder (GloVe: 61).
    assert 35 < real.metrics["sts/test/avg"] < 55
    assert 35 < real.metrics["sts/dev/stsb"] < 65
    for task in TASKS:
        cosines, gold = real.arrays[f"pairs/sts/test/{task}/cosine"], real.arrays[f"pairs/sts/test/{task}/gold"]
        assert real.metrics[f"sts/test/{task}"] == pytest.approx(correlation(cosines, gold), abs=1e-9)
    assert real.metrics["geometry/num_positives"] == 208
    assert real.metrics["geometry/num_sentences"] == 3000
    assert real.metrics["geometry/align_dispersion_ratio"] < 0.5


def test_development_tasks_need_and_read_the_dev_split_only(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sts" / "STSBenchmark"
    folder.mkdir(parents=True)
    shutil.copy(shared_data / "sts" / "STSBenchmark" / "sts-dev.csv", folder)
    tasks = [factory(data=str(tmp_path), cache="unused") for factory in (STSBenchmarkDev, STSGeometry)]
    result = run_tasks(tasks, bag_of_words)
    assert result.num_sentences == 2909
    assert list(result.sources) == ["STSBenchmark/sts-dev.csv"]
