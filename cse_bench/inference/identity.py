"""Whether two encoders are the same: they are if they embed the same, whatever files they came from.

A run, the model directory in it and an export of it are one model; the same weights read with another pooling or
prompt are another one.
"""

from typing import Any

import numpy as np
import torch

from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.encoders.rounding_noise import rounding_noise

_PROBES = ("A man is playing a guitar.", "Tea", "It was built in 1920, near the old river, and nobody knows by whom.")
_COORDINATES = 16
# The most that an encoder's own rounding may excuse; two seeds of a training of few steps are ten times that apart.
_MOST_NOISE = 1e-3


def model_identity(encoder: SentenceEncoder) -> dict[str, Any]:
    """What an encoder makes of three fixed sentences, each by itself: the first coordinates. For JSON."""
    vectors = encoder.encode(_PROBES, batch_tokens=1)
    probe = [[float(f"{number:.7g}") for number in row] for row in vectors[:, :_COORDINATES].tolist()]
    return {"width": int(vectors.shape[1]), "probe": probe}


def identity_distance(first: dict[str, Any], second: dict[str, Any]) -> float:
    """How far apart two identities are, relative to the length of what is compared; infinite for another width.

    The same model gives less than 1e-5 on one machine, unless it multiplies its own rounding
    (`cse_bench.encoders.rounding_noise`); about 1e-2 where one of two kernels rounds to bfloat16.
    """
    if first["width"] != second["width"]:
        return float("inf")
    one, other = np.array(first["probe"]), np.array(second["probe"])
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), np.finfo(np.float32).tiny))


def is_same_model(
    made: dict[str, Any], encoder: SentenceEncoder, identity: dict[str, Any], *, tolerance: float
) -> bool:
    """Whether an encoder is the one that made something.

    Args:
        made: the identity that was noted then.
        encoder: now; it is asked for its own rounding where the tolerance alone does not settle the question.
        identity: of the encoder.
        tolerance: distance up to which they are the same.
    """
    distance = identity_distance(made, identity)
    # A distance that nothing excuses costs no forwards.
    return distance <= tolerance or (distance <= _MOST_NOISE and distance <= 2 * rounding_noise(encoder))


def is_in_half_precision(encoder: SentenceEncoder) -> bool:
    """Whether any weight has fewer bits than float32."""
    return any(one.dtype not in (torch.float32, torch.float64) for one in encoder.parameters())
