"""Draws without replacement follow their law, and depend on (seed, epoch, sentence) alone."""

import numpy as np
import pytest

from cse_bench.mining.keyed import keyed_gumbel
from cse_bench.mining.sampling import top_by_gumbel

WEIGHTS = np.array([0, 5, 2, 1, 1.25])
INCLUSION = [0, 0.8396347, 0.53058005, 0.28200894, 0.34777632]
DRAWS = 40_000


def drawn(count: int) -> np.ndarray:
    with np.errstate(divide="ignore"):
        log_weights = np.broadcast_to(np.log(WEIGHTS), (DRAWS, len(WEIGHTS)))
    noise = keyed_gumbel(0, np.arange(DRAWS)[:, None], np.arange(len(WEIGHTS)))
    return top_by_gumbel(log_weights, noise, count)


def test_two_without_replacement_have_the_hand_computed_inclusion_probabilities() -> None:
    found = drawn(2)
    assert (found[:, 0] != found[:, 1]).all()
    shares = np.bincount(found.ravel(), minlength=5) / DRAWS
    # Four standard errors of a share; drawing twice with replacement, or by the largest weights, is far off.
    error = 4 * np.sqrt(0.25 / DRAWS)
    assert shares.tolist() == pytest.approx(INCLUSION, abs=error)
    p = WEIGHTS / WEIGHTS.sum()
    assert np.abs(1 - (1 - p) ** 2 - np.array(INCLUSION)).max() > 5 * error


def test_one_is_drawn_in_proportion_to_its_weight() -> None:
    shares = np.bincount(drawn(1).ravel(), minlength=5) / DRAWS
    assert shares.tolist() == pytest.approx((WEIGHTS / WEIGHTS.sum()).tolist(), abs=0.01)


def test_what_cannot_be_drawn_is_minus_one() -> None:
    log_weights = np.array([[-np.inf, 0.0, -np.inf], [-np.inf] * 3])
    noise = np.zeros((2, 3))
    assert top_by_gumbel(log_weights, noise, 2).tolist() == [[1, -1], [-1, -1]]
    assert top_by_gumbel(log_weights, noise, 5).tolist() == [[1, -1, -1, -1, -1], [-1] * 5]
    assert top_by_gumbel(log_weights, noise, 0).shape == (2, 0)
