"""Weights against numbers worked out by hand, and what the formulas promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cse_bench.mining.propensity import Propensity, probabilities

S = np.array([1.0, 0.92, 0.85, 0.80, 0.70])
U = np.array([1.0, 0.5, 0.25, 0.9, 0.1])


def propensity(**changes) -> Propensity:
    settings = {
        "positive_threshold": 0.75,
        "negative_threshold": 0.7,
        "temperature": 0.05,
        "gamma": 1.0,
        "epsilon": 0.05,
        "semantic_filter": True,
    }
    return Propensity(**{**settings, **changes})


def near(values) -> object:
    return pytest.approx(values, abs=1e-8)


def test_positive_weights_equal_the_hand_computed_ones() -> None:
    log_weights = propensity().log_positive_weights(S, U)
    assert np.exp(log_weights).tolist() == near([1, 0.40379304, 0.19914827, 0.02035071, 0])
    assert np.exp(propensity(gamma=0).log_positive_weights(S, U)).tolist() == near(
        [1, 0.20189652, 0.04978707, 0.01831564, 0]
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.61603211, 0.24874947, 0.12268173, 0.01253669, 0]),
        ({"temperature": 0.1}, [0.3399567, 0.30550478, 0.30341837, 0.05112015, 0]),
        ({"temperature": 0.1, "gamma": 0}, [0.55316025, 0.24855092, 0.12342673, 0.0748621, 0]),
    ],
)
def test_positive_probabilities_equal_the_hand_computed_ones(changes, expected) -> None:
    p = probabilities(propensity(**changes).log_positive_weights(S, U))
    assert p.tolist() == near(expected)
    if changes == {"temperature": 0.1}:
        assert 1 / (p**2).sum() == pytest.approx(3.29402784, abs=1e-7)


def test_the_clip_bounds_what_wording_can_add() -> None:
    log_weights = propensity(temperature=0.1).log_positive_weights(np.array([0.9, 0.9]), np.array([0.0, 1.0]))
    assert np.exp(log_weights).tolist() == near([7.35758882, 0.36787944])
    assert probabilities(log_weights).tolist() == near([0.95238095, 0.04761905])
    assert float(np.exp(log_weights[0] - log_weights[1])) == pytest.approx(20)


@pytest.mark.parametrize(
    ("gamma", "weights", "expected"),
    [
        (1, [0, 5, 2, 1, 1.25], [0, 0.54054054, 0.21621622, 0.10810811, 0.13513514]),
        (2, None, [0, 0.75294118, 0.15058824, 0.03764706, 0.05882353]),
    ],
)
def test_negative_weights_equal_the_hand_computed_ones(gamma, weights, expected) -> None:
    s, u = np.array([0.95, 0.65, 0.40, 0.10, 0.65]), np.array([0.6, 0.8, 0.5, 0, 0.2])
    log_weights = propensity(gamma=gamma).log_negative_weights(s, u)
    if weights:
        assert np.exp(log_weights).tolist() == near(weights)
    assert probabilities(log_weights).tolist() == near(expected)


def test_without_the_semantic_filter_only_the_wording_counts() -> None:
    free = propensity(semantic_filter=False)
    assert np.exp(free.log_positive_weights(S, U)).tolist() == near((1 / np.maximum(U, 0.05)).tolist())
    assert np.exp(free.log_negative_weights(S, U)).tolist() == near((1 / np.maximum(1 - U, 0.05)).tolist())


def test_a_row_without_any_weight_has_no_probabilities() -> None:
    log_weights = np.array([[-np.inf, -np.inf], [-np.inf, 3.0]])
    assert probabilities(log_weights).tolist() == [[0, 0], [0, 1]]


unit = st.floats(0, 1)


@given(st.lists(st.tuples(st.floats(-1, 1), unit), min_size=2, max_size=8), st.floats(0, 3), st.floats(0.01, 1))
def test_promises(candidates, gamma: float, epsilon: float) -> None:
    s, u = np.array(candidates).T
    law = propensity(gamma=gamma, epsilon=epsilon)
    plus, minus = law.log_positive_weights(s, u), law.log_negative_weights(s, u)
    assert np.array_equal(np.isfinite(plus), s >= 0.75)
    assert np.array_equal(np.isfinite(minus), s <= 0.7)
    assert not np.any(np.isfinite(plus) & np.isfinite(minus))
    for log_weights in (plus, minus):
        if np.isfinite(log_weights).any():
            assert probabilities(log_weights).sum() == pytest.approx(1)
    # At equal cosine, two positives differ by the ratio of their propensities exactly.
    a, b = (float(law.log_positive_weights(np.array(0.9), value)) for value in u[:2])
    ratio = max(u[1] ** gamma, epsilon) / max(u[0] ** gamma, epsilon)
    assert np.exp(a - b) == pytest.approx(ratio, rel=1e-9)
