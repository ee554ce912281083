r"""SentEval's three ways to score frozen features with a logistic regression that is trained to convergence.

SentEval (Conneau and Kiela 2018, arXiv 1803.05449) trains one linear layer W, b for k classes with Adam and weight
decay lambda: the L2 term of its gradient is that of

    mean_i CE(W x_i + b, y_i) + lambda / 2 (||W||^2 + ||b||^2),        CE: cross-entropy of the softmax.

(Its code asks for the sum of a batch's losses through an attribute that PyTorch has ignored since 0.4.1, so the mean is
what runs.) scikit-learn minimises, for n examples,

    C sum_i CE(W x_i + b, y_i) + 1 / 2 ||W||^2                         k > 2, softmax,
    C sum_i log(1 + exp(-s_i (w . x_i + b))) + 1 / 2 ||w||^2           k = 2, s_i = 1 or -1.

Multiplying the first by n C shows the same minimiser for

    C = 1 / (n lambda)                                                 k > 2.

With two classes the softmax depends on w = w_1 - w_0 alone, and for a given w the smallest ||w_1||^2 + ||w_0||^2 is
||w||^2 / 2, at w_1 = -w_0 = w / 2. The penalty on w is therefore lambda / 4 ||w||^2, half of the usual one:

    C = 2 / (n lambda)                                                 k = 2.

Two differences remain. SentEval decays the bias too, and stops early: when the accuracy on the held-out fold (at the
refit: on a random 5 % of the training examples) has not risen for some epochs. Here the minimum is reached, so a number
depends on no learning rate, batch order or stopping rule, and is close to SentEval's, not identical with it.

Shapes: `n` examples, `d` features, `m` test examples, `k` classes.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2)
FOLD_SEED = 1111

# The default, 1e-4, is loose for weak regularisation: warm-started from the next stronger one, its gradient is already
# below that, and the weights do not move at all.
TOLERANCE = 1e-6
# Newton's method needs 2-5 steps of cost n d^2 where L-BFGS needs 50-800 of cost n d: 3-6 times faster at 128 features,
# slower on some data from about 768 on.
MAX_NEWTON_FEATURES = 512
MAX_ITERATIONS = {"newton-cholesky": 100, "lbfgs": 10_000}

Features = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Result of one task.

    Attributes:
        accuracy: Percent; over folds, the mean of the folds' accuracies.
        selection_accuracy: Percent on the examples that chose the L2 strength; over outer folds, their mean.
        predicted: `(m,)` classes, `(n,)` for nested cross-validation, where each example is tested once.
        weight: As `predicted`, mean 1: `accuracy` is 100 times the mean of weight over examples, those classified
            wrongly counted as 0. Not all 1 where folds differ in size, as each of them counts alike.
        l2: Chosen strengths, one per outer fold, otherwise one.
        fits: Classifiers trained.
        unconverged: Those of them that were not at the minimum when the iterations ended.
    """

    accuracy: float
    selection_accuracy: float
    predicted: Labels
    weight: Weights
    l2: list[float]
    fits: int
    unconverged: int


@dataclass
class Fits:
    """Trains classifiers, and counts them and those that did not converge."""

    total: int = 0
    unconverged: int = 0

    def predict(self, features: Features, labels: Labels, test: Features, *, l2: Sequence[float]) -> list[Labels]:
        """Classes predicted for `test`, for each L2 strength.

        The strengths are fitted from the strongest on, each started at the weights of the one before (of the same
        training examples, so nothing of a held-out fold gets in).

        Args:
            features: `(n, d)`.
            labels: `(n,)`, at least two different ones.
            test: `(m, d)`.
            l2: SentEval's weight decay lambda, any order.

        Returns:
            `(m,)` classes per strength, in the order of `l2`.
        """
        from sklearn.linear_model import LogisticRegression

        num_classes = len(np.unique(labels))
        is_small = num_classes == 2 and features.shape[1] <= MAX_NEWTON_FEATURES
        solvers = ("newton-cholesky", "lbfgs") if is_small else ("lbfgs",)
        # A shift is taken up by the bias, which is not penalised, so the minimum stays; without it L-BFGS takes up to
        # five times as many steps along the mean, the longest direction of most encoders. float64, as the weakest
        # penalty is of the size of float32's rounding.
        mean = features.mean(axis=0, dtype=np.float64)
        centred, centred_test = features - mean, test - mean
        classifier = LogisticRegression(tol=TOLERANCE, warm_start=True)
        predicted: dict[float, Labels] = {}
        for strength in sorted(set(l2), reverse=True):
            classifier.set_params(C=inverse_strength(strength, num_examples=len(labels), num_classes=num_classes))
            for solver in solvers:
                classifier.set_params(solver=solver, max_iter=MAX_ITERATIONS[solver])
                if _converges(classifier, centred, labels):
                    break
            else:
                self.unconverged += 1
            self.total += 1
            predicted[strength] = classifier.predict(centred_test)
        return [predicted[strength] for strength in l2]


def inverse_strength(l2: float, *, num_examples: int, num_classes: int) -> float:
    """scikit-learn's C for SentEval's weight decay: 1 / (n lambda), twice that for two classes (see the module)."""
    return (2.0 if num_classes == 2 else 1.0) / (num_examples * l2)


def nested_cross_validation(features: Features, labels: Labels, *, folds: int) -> Outcome:
    """MR, CR, SUBJ, MPQA: outer folds are tested with the L2 strength that inner folds of the rest choose.

    Args:
        features: `(n, d)`.
        labels: `(n,)`.
        folds: Of both loops.
    """
    fits = Fits()
    predicted, weight = np.empty_like(labels), np.empty(len(labels))
    accuracies, selection_accuracies, l2 = [], [], []
    for train, test in _folds(labels, folds):
        chosen, selection_accuracy = _select_by_folds(fits, features[train], labels[train], folds=folds)
        (predicted[test],) = fits.predict(features[train], labels[train], features[test], l2=[chosen])
        weight[test] = len(labels) / (folds * len(test))
        accuracies.append(_accuracy(predicted[test], labels[test]))
        selection_accuracies.append(selection_accuracy)
        l2.append(chosen)
    return Outcome(
        accuracy=float(np.mean(accuracies)),
        selection_accuracy=float(np.mean(selection_accuracies)),
        predicted=predicted,
        weight=weight,
        l2=l2,
        fits=fits.total,
        unconverged=fits.unconverged,
    )


def cross_validation_on_train(
    features: Features, labels: Labels, *, test: Features, test_labels: Labels, folds: int
) -> Outcome:
    """TREC, MRPC: folds of the training examples choose the L2 strength; all of them train the tested classifier.

    Args:
        features: `(n, d)`.
        labels: `(n,)`.
        test: `(m, d)`.
        test_labels: `(m,)`.
        folds: Of the training examples.
    """
    fits = Fits()
    chosen, selection_accuracy = _select_by_folds(fits, features, labels, folds=folds)
    (predicted,) = fits.predict(features, labels, test, l2=[chosen])
    return Outcome(
        accuracy=_accuracy(predicted, test_labels),
        selection_accuracy=selection_accuracy,
        predicted=predicted,
        weight=np.ones(len(predicted)),
        l2=[chosen],
        fits=fits.total,
        unconverged=fits.unconverged,
    )


def selection_on_dev(
    features: Features, labels: Labels, *, dev: Features, dev_labels: Labels, test: Features, test_labels: Labels
) -> Outcome:
    """SST2: the dev split chooses the L2 strength of a classifier that is trained on the train split only.

    Args:
        features: `(n, d)`.
        labels: `(n,)`.
        dev: Features of the dev split.
        dev_labels: Its classes.
        test: `(m, d)`.
        test_labels: `(m,)`.
    """
    fits = Fits()
    # The classifiers of the choice are those that are tested, so both splits are predicted at once; the dev rows alone
    # choose.
    both = fits.predict(features, labels, np.concatenate([dev, test]), l2=L2_GRID)
    index, selection_accuracy = _choose([_accuracy(predicted[: len(dev)], dev_labels) for predicted in both])
    predicted = both[index][len(dev) :]
    return Outcome(
        accuracy=_accuracy(predicted, test_labels),
        selection_accuracy=selection_accuracy,
        predicted=predicted,
        weight=np.ones(len(predicted)),
        l2=[L2_GRID[index]],
        fits=fits.total,
        unconverged=fits.unconverged,
    )


def _folds(labels: Labels, folds: int) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedKFold

    # The features do not matter to the split; any array of the right length does.
    return StratifiedKFold(n_splits=folds, shuffle=True, random_state=FOLD_SEED).split(labels, labels)


def _select_by_folds(fits: Fits, features: Features, labels: Labels, *, folds: int) -> tuple[float, float]:
    """The L2 strength with the best mean accuracy over folds, and that accuracy in percent."""
    scores = []
    for train, held_out in _folds(labels, folds):
        predicted = fits.predict(features[train], labels[train], features[held_out], l2=L2_GRID)
        scores.append([_accuracy(classes, labels[held_out]) for classes in predicted])
    index, accuracy = _choose(np.mean(scores, axis=0).tolist())
    return L2_GRID[index], accuracy


def _choose(accuracies: Sequence[float]) -> tuple[int, float]:
    """Index and value of the best.

    As in SentEval, of equal ones the first, the weakest strength, and equal is what agrees to 2 decimals: the last bits
    of a mean must not choose.
    """
    rounded = [round(accuracy, 2) for accuracy in accuracies]
    index = rounded.index(max(rounded))
    return index, accuracies[index]


def _accuracy(predicted: Labels, labels: Labels) -> float:
    return 100.0 * float(np.mean(predicted == labels))


def _converges(classifier: "LogisticRegression", features: Features, labels: Labels) -> bool:
    """Fits; False when the solver says that it did not reach the minimum. Other warnings are passed on."""
    from scipy.linalg import LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning

    has_converged = True
    with warnings.catch_warnings(record=True) as caught:
        # Newton's method warns of both before it hands over to a few L-BFGS steps of its own.
        for category in (ConvergenceWarning, LinAlgWarning):
            warnings.simplefilter("always", category)
        classifier.fit(features, labels)
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning | LinAlgWarning):
            has_converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return has_converged
