"""How far an encoder's vectors depend on the batch and on how it is run: its own rounding, in lengths of a vector.

In float32 that is below 1e-6 for most encoders. A map behind the vectors that divides by small deviations (whitening
with all dimensions) multiplies it: 1.4e-5 was seen. Who asks whether two encoders are the same has to allow for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from cse_bench.encoders.encoder import Encoder, SentenceEncoder

# Short, long, of other scripts, and with the characters that cleaning looks at.
PROBES = (
    "Tea.",
    "A man is playing a guitar.",
    "Why not?",
    'She said "no" and left',
    "  It was built in 1920 ",
    "naïve café, Ελλάδα, 日本",
    "x",
    "The committee that met in the old town hall on the first Monday of every month, whatever the weather, decided at "
    "last that the bridge should be repaired before winter, and that nobody else needed to be asked about it.",
)


def rounding_noise(encoder: SentenceEncoder, sentences: Sequence[str] = PROBES) -> float:
    """The largest distance between vectors of sentences embedded together, one by one, and with padding.

    Both are the same but for rounding; in lengths of a vector, see `relative_distance`.

    Args:
        encoder: in eval mode or not; it is asked at inference.
        sentences: of different lengths, so that there is padding.
    """
    reference = encoder.encode(sentences)
    with _padded(encoder):
        padded = encoder.encode(sentences)
    return max(relative_distance(other, reference) for other in (encoder.encode(sentences, batch_tokens=1), padded))


@contextmanager
def _padded(encoder: SentenceEncoder) -> Iterator[None]:
    """Its bodies are run as Transformers does."""
    before = {part: part.packed for part in encoder.modules() if isinstance(part, Encoder)}
    for part in before:
        part.packed = False
    try:
        yield
    finally:
        for part, packed in before.items():
            part.packed = packed


def relative_distance(vectors: np.ndarray, reference: np.ndarray) -> float:
    """The largest distance between two vectors of the same sentence, over the length of the reference.

    Args:
        vectors: (n, d).
        reference: (n, d).
    """
    distances = np.linalg.norm(vectors.astype(np.float64) - reference, axis=1)
    return float(np.max(distances / np.linalg.norm(reference, axis=1)))
