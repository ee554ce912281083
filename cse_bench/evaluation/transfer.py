"""The transfer tasks of SentEval: a logistic regression on frozen embeddings.

Seven of them, as in the tables of Gao et al. 2021 (SimCSE, arXiv 2104.08821), appendix E: sentiment (MR, CR, SST2),
subjectivity (SUBJ), opinion polarity (MPQA), question type (TREC), paraphrase (MRPC). They say what a linear classifier
can read off an embedding; the authors call STS the main result and these secondary.
"""

import logging
from dataclasses import replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cse_bench.evaluation.task import Encode, Yielded
from cse_bench.evaluation.transfer_files import BINARY, MRPC, SST2, TREC, Examples, TransferFiles
from cse_bench.evaluation.transfer_protocol import (
    FOLD_SEED,
    L2_GRID,
    Outcome,
    cross_validation_on_train,
    nested_cross_validation,
    selection_on_dev,
)

logger = logging.getLogger(__name__)

# In the order of the papers' tables.
TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")


class Transfer:
    """The seven transfer tasks with SentEval's protocol.

    Yields, with `transfer_fast` for `transfer` when `folds` is 5:

    * `transfer/test/<task>`: accuracy in percent; `transfer/test/avg`: unrounded mean of the seven (SimCSE's script
      averages values rounded to 2 decimals, which differs by up to 0.005); `transfer/test/mrpc_f1`: F1 in percent.
    * `transfer/dev/<task>`: accuracy in percent on what chose the L2 strength.
    * `transfer/l2/<task>`: chosen strength; over outer folds the geometric mean, and each as an array.
    * `pairs/transfer/test/<task>/correct`: 1 where a test example, in the order of the files, is classified correctly.
    * `pairs/transfer/test/<task>/weight`: of each example, mean 1, so that 100 * mean(correct * weight) is the accuracy
      (the mean over folds, which differ in size).
    """

    version = 1

    def __init__(self, *, data: str | None, cache: str, folds: Literal[5, 10] = 10) -> None:
        """Remembers where the files are.

        Args:
            data: Folder that holds `transfer/`, or SentEval's `downstream` folder; None takes the files from the Hub.
            cache: Folder for files from the Hub.
            folds: 10, as in the papers' tables ("full"), or 5 ("fast"), whose numbers differ and get other paths.
        """
        if folds not in (5, 10):
            raise ValueError(f"folds is {folds!r}; expected 10 (as in the papers) or 5 (fast)")
        self._files = TransferFiles(data=data, cache=cache)
        self._folds = folds
        self.name = "transfer" if folds == 10 else "transfer_fast"

    def sentences(self) -> list[str]:
        """Every sentence of the seven tasks, train and dev splits too."""
        parts = [*self._content.binary.values(), *self._content.sst2, *self._content.trec, *self._content.mrpc]
        return [sentence for part in parts for column in part.columns for sentence in column]

    def evaluate(self, encode: Encode) -> Yielded:
        """Yields the metrics and arrays listed at the class."""
        accuracies = []
        for task in TASKS:
            outcome, labels = self._outcome(task, encode)
            path = f"{self.name}/test/{task}"
            accuracies.append(outcome.accuracy)
            yield path, outcome.accuracy
            if outcome.unconverged:
                reason = f"{outcome.unconverged} of {outcome.fits} classifiers did not converge; the number is usable"
                logger.warning("%s: %s", path, reason)
                yield path, reason
            if task == "mrpc":
                yield f"{path}_f1", _f1(outcome.predicted, labels)
            yield f"{self.name}/dev/{task}", outcome.selection_accuracy
            yield f"{self.name}/l2/{task}", float(10.0 ** np.mean(np.log10(outcome.l2)))
            yield f"{self.name}/l2/{task}", np.array(outcome.l2)
            yield f"pairs/{path}/correct", (outcome.predicted == labels).astype(np.float64)
            yield f"pairs/{path}/weight", outcome.weight
        yield f"{self.name}/test/avg", float(np.mean(accuracies))

    def sources(self) -> dict[str, str]:
        """sha256 of the 15 files."""
        self.sentences()
        return self._files.sources()

    def labels(self) -> dict[str, str]:
        """What the numbers are, and how the protocol departs from SentEval's code."""
        mode = "SentEval's full protocol" if self._folds == 10 else "SentEval's fast number of folds, NOT the papers'"
        protocol = (
            f"{mode}: frozen embeddings, logistic regression, L2 of {', '.join(f'{l2:.0e}' for l2 in L2_GRID)} chosen "
            f"on mr/cr/subj/mpqa by nested {self._folds}-fold, trec/mrpc by {self._folds}-fold on train, sst2 on dev "
            f"(stratified folds, seed {FOLD_SEED})"
        )
        return {
            f"{self.name}/test": (
                "accuracy in percent (mrpc_f1: F1 in percent; avg: unrounded mean of the seven accuracies); "
                f"{protocol}. Protocol difference: trained to convergence with the bias not decayed, where SentEval "
                "stops Adam early and decays it; close to SentEval's numbers, not identical"
            ),
            f"{self.name}/dev": "accuracy in percent on the folds or the dev split that chose L2; no result",
            f"{self.name}/l2": "chosen L2 strength (weight decay of the mean cross-entropy); geometric mean over folds",
            f"pairs/{self.name}/test": (
                "correct: 1 where the test example is classified correctly, else 0; weight: of the example, so that "
                "100 * mean(correct * weight) is the accuracy; in the order of the files"
            ),
        }

    @cached_property
    def _content(self) -> "_Content":
        files = self._files
        return _Content(
            binary={task: files.binary(task) for task in BINARY},
            sst2=[files.split("sst2", split) for split in SST2],
            trec=[files.split("trec", split) for split in TREC],
            mrpc=[files.split("mrpc", split) for split in MRPC],
        )

    def _outcome(self, task: str, encode: Encode) -> tuple[Outcome, npt.NDArray[np.int64]]:
        """The result of a task and the true classes of its test examples, both in the order of the files."""
        if task in BINARY:
            examples = self._content.binary[task]
            order = senteval_order(examples)
            outcome = nested_cross_validation(
                _features(examples, encode)[order], examples.labels[order], folds=self._folds
            )
            predicted, weight = np.empty_like(outcome.predicted), np.empty_like(outcome.weight)
            predicted[order], weight[order] = outcome.predicted, outcome.weight
            return replace(outcome, predicted=predicted, weight=weight), examples.labels
        if task == "sst2":
            train, dev, test = self._content.sst2
            outcome = selection_on_dev(
                _features(train, encode),
                train.labels,
                dev=_features(dev, encode),
                dev_labels=dev.labels,
                test=_features(test, encode),
                test_labels=test.labels,
            )
            return outcome, test.labels
        train, test = self._content.trec if task == "trec" else self._content.mrpc
        order = senteval_order(train)
        outcome = cross_validation_on_train(
            _features(train, encode)[order],
            train.labels[order],
            test=_features(test, encode),
            test_labels=test.labels,
            folds=self._folds,
        )
        return outcome, test.labels


class _Content(NamedTuple):
    binary: dict[str, Examples]
    sst2: list[Examples]  # train, dev, test
    trec: list[Examples]  # train, test
    mrpc: list[Examples]  # train, test


def senteval_order(examples: Examples) -> list[int]:
    """The order in which SentEval draws its folds: by numbers of words, then class, ties as in the files.

    It sorts to save padding, before it splits; the same seed draws the same folds only from the same order.
    """
    keys = [
        (*(len(sentence.split()) for sentence in sentences), label)
        for *sentences, label in zip(*examples.columns, examples.labels.tolist(), strict=True)
    ]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _features(examples: Examples, encode: Encode) -> np.ndarray:
    """The embedding, `(n, d)`; for pairs u, v the concatenation of |u - v| and u * v, `(n, 2 d)`."""
    vectors = [encode(column).astype(np.float64) for column in examples.columns]
    if len(vectors) == 1:
        return vectors[0]
    left, right = vectors
    return np.concatenate([np.abs(left - right), left * right], axis=1)


def _f1(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """F1 of class 1 in percent; 0 when it is never predicted."""
    from sklearn.metrics import f1_score

    return 100.0 * float(f1_score(labels, predicted, zero_division=0.0))
