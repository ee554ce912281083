"""The three protocols against slow, obvious loops, and scikit-learn's C against minimisers that know nothing of it."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from cse_bench.evaluation import transfer_protocol
from cse_bench.evaluation.transfer_protocol import (
    L2_GRID,
    Fits,
    Labels,
    _choose,
    _converges,
    cross_validation_on_train,
    inverse_strength,
    nested_cross_validation,
    selection_on_dev,
)

CENTRE = 0.25


def examples(n: int, *, d: int = 8, classes: int = 2, noise: float = 1.5, seed: int = 0) -> tuple[np.ndarray, Labels]:
    """Overlapping classes around CENTRE in every dimension, at a scale at which each L2 strength matters."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % classes).astype(np.int64)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    return CENTRE + 0.05 * (centres[labels] + noise * generator.normal(size=(n, d))), labels


def minimiser(features: np.ndarray, labels: Labels, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """W `(k, d)` and b `(k,)` of the least mean cross-entropy + l2 / 2 ||W||^2, one weight vector per class."""
    n, d = features.shape
    k = int(labels.max()) + 1

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[: k * d].reshape(k, d), parameters[k * d :]
        scores = features @ weights.T + bias
        scores -= scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        loss = -np.log(probabilities[np.arange(n), labels]).mean() + l2 / 2 * (weights**2).sum()
        error = (probabilities - np.eye(k)[labels]) / n
        return loss, np.concatenate([(error.T @ features + l2 * weights).ravel(), error.sum(axis=0)])

    found = minimize(
        objective, np.zeros(k * d + k), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 0, "maxiter": 5000}
    )
    return found.x[: k * d].reshape(k, d), found.x[k * d :]


def slow_predictions(features: np.ndarray, labels: Labels, test: np.ndarray, l2: float) -> Labels:
    weights, bias = minimiser(features, labels, l2)
    return (test @ weights.T + bias).argmax(axis=1)


def slow_selection(features: np.ndarray, labels: Labels, folds: int) -> tuple[float, float]:
    scores = []
    for l2 in L2_GRID:
        accuracies = []
        for train, held_out in StratifiedKFold(folds, shuffle=True, random_state=1111).split(features, labels):
            predicted = slow_predictions(features[train], labels[train], features[held_out], l2)
            accuracies.append(100 * np.mean(predicted == labels[held_out]))
        scores.append(round(float(np.mean(accuracies)), 2))
    return L2_GRID[int(np.argmax(scores))], max(scores)


@pytest.mark.parametrize("l2", L2_GRID)
@pytest.mark.parametrize("classes", [2, 3])
def test_c_gives_the_minimum_of_senteval_objective(classes: int, l2: float) -> None:
    features, labels = examples(80, classes=classes)
    features -= CENTRE  # for the minimiser's sake
    c = inverse_strength(l2, num_examples=80, num_classes=classes)
    fitted = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(features, labels)
    weights, bias = minimiser(features, labels, l2)
    if classes == 2:
        weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
    else:
        bias = bias - bias.mean()  # a common shift of all biases changes nothing
    assert fitted.coef_ == pytest.approx(weights, abs=2e-4, rel=1e-4)
    assert fitted.intercept_ - (fitted.intercept_.mean() if classes > 2 else 0) == pytest.approx(bias, abs=2e-4)
    # Not vacuous: half or double the strength would be seen.
    other = LogisticRegression(C=c / 2, tol=1e-10, max_iter=10_000).fit(features, labels)
    assert np.abs(other.coef_ - weights).max() > 2e-4 + 1e-4 * np.abs(weights).max()


@pytest.mark.parametrize("classes", [2, 3])
def test_c_is_the_weight_decay_of_a_gradient_descent(classes: int) -> None:
    """SentEval's own form: one linear layer, one row of weights per class, the decay added to the gradient."""
    features, labels = examples(40, classes=classes)
    features -= CENTRE
    layer = torch.nn.Linear(8, classes, dtype=torch.float64)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    for _ in range(500):
        layer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()
        with torch.no_grad():
            layer.weight -= 4.0 * (layer.weight.grad + 1e-2 * layer.weight)
            layer.bias -= 4.0 * layer.bias.grad
    c = inverse_strength(1e-2, num_examples=40, num_classes=classes)
    fitted = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(features, labels)
    weights = layer.weight.detach().numpy()
    assert fitted.coef_ == pytest.approx(weights[1:] - weights[:1] if classes == 2 else weights, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_fits_reach_the_minimum_along_the_whole_path(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = examples(120, classes=classes)
    test, _ = examples(400, classes=classes, seed=1)
    fits = Fits()
    predicted = fits.predict(features, labels, test, l2=L2_GRID)
    for l2, classes_found in zip(L2_GRID, predicted, strict=True):
        assert np.mean(classes_found == slow_predictions(features - CENTRE, labels, test - CENTRE, l2)) > 0.995
    assert (fits.total, fits.unconverged) == (4, 0)
    # Neither the order of the strengths nor the solver decides anything.
    backwards = Fits().predict(features, labels, test, l2=L2_GRID[::-1])
    assert np.array_equal(np.stack(predicted), np.stack(backwards[::-1]))
    monkeypatch.setattr(transfer_protocol, "MAX_NEWTON_FEATURES", 0)
    assert np.mean(np.stack(Fits().predict(features, labels, test, l2=L2_GRID)) == np.stack(predicted)) > 0.999


def test_nested_cross_validation_equals_slow_loops() -> None:
    features, labels = examples(61)
    outcome = nested_cross_validation(features, labels, folds=3)
    accuracies, selected, chosen, predicted = [], [], [], np.full(61, -1)
    for train, test in StratifiedKFold(3, shuffle=True, random_state=1111).split(features, labels):
        l2, score = slow_selection(features[train] - CENTRE, labels[train], 3)
        predicted[test] = slow_predictions(features[train] - CENTRE, labels[train], features[test] - CENTRE, l2)
        accuracies.append(100 * np.mean(predicted[test] == labels[test]))
        selected.append(score)
        chosen.append(l2)
    assert outcome.l2 == chosen
    assert len(set(chosen)) > 1  # the data leave something to choose
    assert np.array_equal(outcome.predicted, predicted)
    assert outcome.accuracy == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert outcome.selection_accuracy == pytest.approx(np.mean(selected), abs=0.005)
    assert (outcome.fits, outcome.unconverged) == (3 * (4 * 3 + 1), 0)


@pytest.mark.parametrize("classes", [2, 4])
def test_cross_validation_on_train_equals_slow_loops(classes: int) -> None:
    features, labels = examples(70, classes=classes)
    test, test_labels = examples(50, classes=classes, seed=1)
    outcome = cross_validation_on_train(features, labels, test=test, test_labels=test_labels, folds=4)
    l2, score = slow_selection(features - CENTRE, labels, 4)
    predicted = slow_predictions(features - CENTRE, labels, test - CENTRE, l2)
    assert outcome.l2 == [l2]
    assert np.array_equal(outcome.predicted, predicted)
    assert outcome.accuracy == pytest.approx(100 * np.mean(predicted == test_labels), abs=1e-9)
    assert outcome.selection_accuracy == pytest.approx(score, abs=0.005)
    assert outcome.fits == 4 * 4 + 1


def test_selection_on_dev_equals_slow_loops_and_trains_on_train_alone() -> None:
    (features, labels), (dev, dev_labels), (test, test_labels) = (examples(n, seed=n) for n in (60, 40, 50))
    outcome = selection_on_dev(features, labels, dev=dev, dev_labels=dev_labels, test=test, test_labels=test_labels)
    scores = [np.mean(slow_predictions(features - CENTRE, labels, dev - CENTRE, l2) == dev_labels) for l2 in L2_GRID]
    l2 = L2_GRID[int(np.argmax(np.round(scores, 4)))]
    assert outcome.l2 == [l2]
    assert np.array_equal(outcome.predicted, slow_predictions(features - CENTRE, labels, test - CENTRE, l2))
    assert outcome.selection_accuracy == pytest.approx(100 * max(scores))
    assert outcome.accuracy == pytest.approx(100 * np.mean(outcome.predicted == test_labels))


def test_weights_follow_from_the_sizes_of_the_folds() -> None:
    features, labels = examples(33, noise=4.0)
    outcome = nested_cross_validation(features, labels, folds=5)
    expected = np.empty(33)
    for _, test in StratifiedKFold(5, shuffle=True, random_state=1111).split(features, labels):
        expected[test] = 33 / 5 / len(test)
    assert outcome.weight == pytest.approx(expected)
    assert outcome.weight.mean() == pytest.approx(1)
    correct = outcome.predicted == labels
    assert outcome.accuracy == pytest.approx(100 * (correct * outcome.weight).mean(), abs=1e-9)
    assert abs(outcome.accuracy - 100 * correct.mean()) > 0.1


def test_separable_classes_are_separated() -> None:
    features, labels = examples(120, noise=0.01)
    assert nested_cross_validation(features, labels, folds=3).accuracy == 100
    features, labels = examples(120, d=6, classes=6, noise=0.01)
    train = cross_validation_on_train(features, labels, test=features, test_labels=labels, folds=3)
    assert (train.accuracy, train.selection_accuracy) == (100, 100)


def test_labels_without_relation_give_the_share_of_the_larger_class() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.permutation(600) < 420).astype(np.int64)
    outcome = nested_cross_validation(generator.normal(size=(600, 4)), labels, folds=3)
    assert outcome.accuracy == pytest.approx(70, abs=1.5)


def test_collapsed_features_give_the_share_of_the_larger_class() -> None:
    labels = (np.arange(60) < 40).astype(np.int64)
    assert nested_cross_validation(np.ones((60, 3)), labels, folds=3).accuracy == pytest.approx(100 * 2 / 3, abs=0.5)


def test_an_outer_fold_has_no_part_in_its_own_choice() -> None:
    features, labels = examples(61)
    before = nested_cross_validation(features, labels, folds=3)
    splits = list(StratifiedKFold(3, shuffle=True, random_state=1111).split(features, labels))
    for fold, (_, test) in enumerate(splits):
        changed = features.copy()
        changed[test] = np.random.default_rng(fold).normal(size=changed[test].shape, scale=100)
        after = nested_cross_validation(changed, labels, folds=3)
        assert after.l2[fold] == before.l2[fold]
        assert not np.array_equal(after.predicted[test], before.predicted[test])


def test_test_examples_have_no_part_in_the_choice_of_a_split() -> None:
    (features, labels), (dev, dev_labels), (test, test_labels) = (examples(n, seed=n) for n in (60, 40, 50))
    found = []
    for factor in (1.0, -100.0):
        on_dev = selection_on_dev(
            features, labels, dev=dev, dev_labels=dev_labels, test=test * factor, test_labels=test_labels
        )
        on_train = cross_validation_on_train(features, labels, test=test * factor, test_labels=test_labels, folds=3)
        found.append((on_dev.l2, on_dev.selection_accuracy, on_train.l2, on_train.selection_accuracy))
    assert found[0] == found[1]


def test_scale_of_the_features_matters_as_nothing_is_standardised() -> None:
    features, labels = examples(60, d=2)
    test, _ = examples(500, d=2, seed=1)
    skewed = features * [1.0, 1e-3]
    (one,) = Fits().predict(features, labels, test, l2=[1e-2])
    (other,) = Fits().predict(skewed, labels, test * [1.0, 1e-3], l2=[1e-2])
    assert np.mean(one == other) < 0.999


def test_of_equal_accuracies_the_weakest_strength_is_chosen() -> None:
    assert _choose([70.0, 80.001, 80.004, 79.0]) == (1, 80.001)
    assert _choose([80.0, 80.0, 80.0, 80.0]) == (0, 80.0)


def test_what_does_not_converge_is_counted_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = examples(60)
    monkeypatch.setitem(transfer_protocol.MAX_ITERATIONS, "newton-cholesky", 1)
    handed_over = nested_cross_validation(features, labels, folds=3)
    assert handed_over.unconverged == 0  # L-BFGS goes on where Newton's method stopped
    monkeypatch.setitem(transfer_protocol.MAX_ITERATIONS, "lbfgs", 1)
    outcome = nested_cross_validation(features, labels, folds=3)
    assert 0 < outcome.unconverged <= outcome.fits
    assert 50 < outcome.accuracy <= 100


def test_other_warnings_are_passed_on() -> None:
    class Noisy(LogisticRegression):
        def fit(self, *arguments: object, **options: object) -> "Noisy":
            warnings.warn("something else", UserWarning, stacklevel=1)
            super().fit(*arguments, **options)
            return self

    with pytest.warns(UserWarning, match="something else"):
        assert _converges(Noisy(), *examples(20))
