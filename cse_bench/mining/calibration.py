"""Are the thresholds right for this teacher? Cosines differ widely between encoders, so every corpus is measured."""

from typing import Any

import numpy as np

from cse_bench.mining.keyed import CALIBRATION, keyed_integers
from cse_bench.mining.pairs import Pairs
from cse_bench.mining.propensity import Propensity, probabilities
from cse_bench.mining.sampling import negative_log_weights, positive_log_weights

_ANCHORS = 100_000  # more are sampled
_BLOCK = 8192


def diagnose(pairs: Pairs, propensity: Propensity) -> dict[str, float]:
    """What sampling by these weights gives in expectation, over the sentences (at most 100,000 of them).

    Returns:
        * `positives_not_self`: share of anchors whose positive is another sentence
        * `positive_surface`: mean surface similarity of these positives
        * `negative_surface`: mean surface similarity of a hard negative
        * `effective_positives`, `effective_negatives`: mean of 1 / sum of p^2, how many candidates really take part
        * `without_negatives`: share of anchors that have no hard negative
        * `neighbours_above`, `neighbours_between`: share of nearest neighbours that may be positives, and that are
          neither
    """
    anchors = np.arange(len(pairs))
    if len(pairs) > _ANCHORS:
        anchors = np.unique(keyed_integers(len(pairs), pairs.settings.seed, CALIBRATION, 1, np.arange(_ANCHORS)))
    blocks = [_diagnosed(pairs, propensity, anchors[i : i + _BLOCK]) for i in range(0, len(anchors), _BLOCK)]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    others, has_negatives = columns["others"], columns["negatives"] > 0
    nearest = columns["nearest"][columns["has_neighbour"]]
    is_above = nearest >= propensity.positive_threshold
    is_below = nearest <= propensity.negative_threshold
    return {
        "positives_not_self": float(others.mean()),
        "positive_surface": _mean(columns["positive_surface"].sum(), others.sum()),
        "negative_surface": _mean(columns["negative_surface"].sum(), has_negatives.sum()),
        "effective_positives": float(columns["positives"].mean()),
        "effective_negatives": _mean(columns["negatives"].sum(), has_negatives.sum()),
        "without_negatives": float(1 - has_negatives.mean()),
        "neighbours_above": _mean(is_above.sum(), len(nearest)),
        "neighbours_between": _mean((~is_above & ~is_below).sum(), len(nearest)),
    }


def _mean(total: float, count: float) -> float:
    return float(total / count) if count else 0.0


def _diagnosed(pairs: Pairs, propensity: Propensity, anchors: np.ndarray) -> dict[str, np.ndarray]:
    surface = pairs.surface[anchors].astype(np.float64)
    p = probabilities(positive_log_weights(pairs, anchors, propensity)[1])
    n = probabilities(negative_log_weights(pairs, anchors, propensity)[1])
    squares = (n**2).sum(axis=1)
    return {
        "others": 1 - p[:, 0],
        "positive_surface": (p[:, 1:] * surface[:, : pairs.settings.semantic]).sum(axis=1),
        "positives": 1 / (p**2).sum(axis=1),
        "negative_surface": (n * surface).sum(axis=1),
        "negatives": np.divide(1, squares, out=np.zeros_like(squares), where=squares > 0),
        "nearest": pairs.similarity[anchors, 0].astype(np.float64),
        "has_neighbour": pairs.candidates[anchors, 0] >= 0,
    }


def advice(found: dict[str, float], calibration: dict[str, dict[str, float]], propensity: Propensity) -> list[str]:
    """What these numbers say against the settings, a sentence each; none: nothing.

    Args:
        found: of `diagnose`.
        calibration: quantiles of the teacher's cosines, of the manifest.
        propensity: the settings.
    """
    if not propensity.semantic_filter:
        return []
    remarks = []
    random_pairs, neighbours = calibration["random pairs"], calibration["nearest neighbours"]
    share = found["neighbours_above"]
    if not 0.05 <= share <= 0.40:
        remarks.append(
            f"positive_threshold={propensity.positive_threshold:g} keeps {share:.1%} of the nearest neighbours; 5 to "
            f"40 % is sound, which is {neighbours['0.95']:.3f} to {neighbours['0.6']:.3f} with this teacher"
        )
    if propensity.negative_threshold <= random_pairs["0.999"]:
        remarks.append(
            f"negative_threshold={propensity.negative_threshold:g} is not above the 99.9 % quantile of random pairs "
            f"({random_pairs['0.999']:.3f}): ordinary negatives are taken for false ones"
        )
    if found["positives_not_self"] < 0.05:
        remarks.append(
            f"only {found['positives_not_self']:.1%} of the positives are other sentences: this is training on dropout "
            "views with hard negatives; lower positive_threshold or raise relevance_temperature"
        )
    if found["without_negatives"] > 0.05:
        remarks.append(
            f"{found['without_negatives']:.1%} of the sentences have no hard negative left; raise negative_threshold"
        )
    return remarks


def summary(pairs: Pairs, propensity: Propensity) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics of a run and the facts about its pairs, remarks included."""
    found = diagnose(pairs, propensity)
    calibration = pairs.manifest["calibration"]
    metrics = {f"mining/{name}": value for name, value in found.items()}
    if pairs.manifest["recall"] is not None:
        metrics["mining/neighbour_recall"] = pairs.manifest["recall"]
    facts = {
        "directory": pairs.directory.name,
        "teacher": pairs.manifest["key"]["teacher"],
        "search": pairs.manifest["key"]["settings"]["search"],
        "recall": pairs.manifest["recall"],
        "calibration": calibration,
        "remarks": advice(found, calibration, propensity),
    }
    return metrics, facts
