"""One epoch's positives and hard negatives: a function of (seed, epoch, sentence), whatever workers and order.

Cosines are kept in float16: a threshold holds to 0.0003.

Shapes: b anchors, c candidates, q hard negatives.
"""

import numpy as np

from cse_bench.mining.keyed import NEGATIVE, POSITIVE, keyed_gumbel
from cse_bench.mining.pairs import Pairs
from cse_bench.mining.propensity import Propensity


def top_by_gumbel(log_weights: np.ndarray, noise: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` columns per row without replacement, each time in proportion to the weights left: (b, c) -> (b, q).

    The largest of log w + Gumbel noise are such a draw (Kool, van Hoof and Welling 2019, arXiv 1903.06059). -1: no
    column with a weight is left.
    """
    scores = log_weights + noise
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    drawn = np.where(np.isfinite(np.take_along_axis(scores, order, axis=1)), order, -1)
    return np.pad(drawn, ((0, 0), (0, count - drawn.shape[1])), constant_values=-1)


def positive_log_weights(pairs: Pairs, anchors: np.ndarray, propensity: Propensity) -> tuple[np.ndarray, np.ndarray]:
    """The anchor itself and its semantic candidates, (b, 1 + semantic), and their log weights."""
    count = pairs.settings.semantic
    candidates = pairs.candidates[anchors, :count].astype(np.int64)
    log_weights = propensity.log_positive_weights(pairs.similarity[anchors, :count], pairs.surface[anchors, :count])
    # Itself: s = u = 1, weight 1. It is always there, so that a sentence without others is its own positive.
    own = np.zeros((len(anchors), 1))
    return (
        np.concatenate([anchors[:, None], candidates], axis=1),
        np.concatenate([own, np.where(candidates >= 0, log_weights, -np.inf)], axis=1),
    )


def negative_log_weights(pairs: Pairs, anchors: np.ndarray, propensity: Propensity) -> tuple[np.ndarray, np.ndarray]:
    """All candidates, (b, c), and their log weights as hard negatives."""
    candidates = pairs.candidates[anchors].astype(np.int64)
    log_weights = propensity.log_negative_weights(pairs.similarity[anchors], pairs.surface[anchors])
    return candidates, np.where(candidates >= 0, log_weights, -np.inf)


def draw_positives(pairs: Pairs, anchors: np.ndarray, propensity: Propensity, *, seed: int, epoch: int) -> np.ndarray:
    """A positive for every anchor, (b,): the anchor itself or one of its candidates."""
    candidates, log_weights = positive_log_weights(pairs, anchors, propensity)
    noise = keyed_gumbel(seed, POSITIVE, epoch, anchors[:, None], np.arange(candidates.shape[1]))
    return np.take_along_axis(candidates, top_by_gumbel(log_weights, noise, 1), axis=1)[:, 0]


def draw_negatives(
    pairs: Pairs, anchors: np.ndarray, propensity: Propensity, *, count: int, seed: int, epoch: int
) -> np.ndarray:
    """Hard negatives of every anchor, (b, q), all different; -1: there are no more."""
    candidates, log_weights = negative_log_weights(pairs, anchors, propensity)
    noise = keyed_gumbel(seed, NEGATIVE, epoch, anchors[:, None], np.arange(candidates.shape[1]))
    columns = top_by_gumbel(log_weights, noise, count)
    return np.where(columns >= 0, np.take_along_axis(candidates, np.maximum(columns, 0), axis=1), -1)
