"""The semantic teacher: a frozen encoder that says which sentences mean the same."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cse_bench.data.rows import rows_of
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.encoders.encoding import encode_sentences
from cse_bench.encoders.weights import weights_sha256
from cse_bench.errors import EncoderError

_ROWS_WITH_DROPOUT = 64


class Teacher:
    """An encoder and how it is run: never in autocast, since hard thresholds on its cosines choose the pairs.

    Args:
        encoder: trained without labels, or the comparison would not be fair.
        max_length: truncation, in tokens.
        batch_tokens: padded tokens per forward.
        device: where it runs.
    """

    def __init__(self, encoder: SentenceEncoder, *, max_length: int, batch_tokens: int, device: str) -> None:
        self.encoder = encoder.eval()
        self.max_length, self.batch_tokens, self.device = max_length, batch_tokens, device

    def describe(self) -> dict[str, Any]:
        """What its vectors depend on."""
        return {
            "weights": weights_sha256(self.encoder),
            "tokenizer": self.encoder.tokenizer.fingerprint(),
            "pooling": self.encoder.pooling,
            "max_length": self.max_length,
            "precision": "32-true",
        }

    def vectors(self, sentences: Sequence[str], *, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Unit vectors in float16, (n, d)."""
        encoder = self.encoder.to(self.device)
        vectors = encode_sentences(
            encoder,
            encoder,
            encoder.tokenizer,
            sentences,
            batch_tokens=self.batch_tokens,
            max_length=self.max_length,
            on_progress=on_progress,
        )
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors)).any(axis=1).argmax())
            raise EncoderError(
                f"the teacher's vector of '{sentences[bad][:60]}' is not finite; its weights are broken, or too large "
                "for float32"
            )
        return unit_rows(vectors).astype(np.float16)

    def dropout_cosines(self, sentences: Sequence[str], *, seed: int) -> np.ndarray:
        """The cosine of every sentence with itself under two dropout masks, (n,): what the teacher calls the same."""
        encoder = self.encoder.to(self.device)
        found: list[np.ndarray] = []
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            encoder.train()
            for start in range(0, len(sentences), _ROWS_WITH_DROPOUT):
                tokens = encoder.tokenizer(
                    list(sentences[start : start + _ROWS_WITH_DROPOUT]), max_length=self.max_length
                )
                rows = rows_of(tokens).to(self.device)
                cosines = torch.cosine_similarity(encoder(rows).float(), encoder(rows).float(), dim=1)
                found.append(cosines.cpu().numpy())
            encoder.eval()
        return np.concatenate(found)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float32: (..., d) -> (..., d). What was kept in float16 has lost it by up to 0.001."""
    rows = vectors.astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
