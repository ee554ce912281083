"""Encoding many sentences with any module that holds an encoder: sorted by length, in bounded memory."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.tokenization import SentenceTokenizer

_TOKENISE_AT_ONCE = 4096  # sentences; bounds the memory of the tokenizer's intermediate objects


def encode_sentences(
    module: nn.Module,
    embed: Callable[[TokenRows], Tensor],
    tokenizer: SentenceTokenizer,
    sentences: Sequence[str],
    *,
    batch_tokens: int,
    max_length: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Encodes sentences in eval mode, sorted by length, in forwards of about `batch_tokens` padded tokens.

    Args:
        module: what holds the weights; put into eval mode, and afterwards back as it was.
        embed: from token rows to vectors, (n, d); a method's `embed`, or an encoder itself.
        tokenizer: of the encoder.
        sentences: n sentences. Not truncated unless they exceed the model's own limit (or `max_length`).
        batch_tokens: padded tokens per forward.
        max_length: tokens at which a sentence is cut; None: the model's limit.
        on_progress: called with the number of sentences done after each forward.

    Returns:
        float32 array, (n, d); (0, 0) for no sentences, of which no module tells its width.
    """
    if isinstance(sentences, str):
        raise TypeError("encode takes a list of sentences; a string would be read as a list of letters")
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TypeError(f"encode takes strings; sentence {number} is {sentence!r}")
    tokens: list[list[int]] = []
    for start in range(0, len(sentences), _TOKENISE_AT_ONCE):
        tokens += tokenizer(sentences[start : start + _TOKENISE_AT_ONCE], max_length=max_length)
    # Longest first: the first forward needs the most memory, so a batch that does not fit fails at once.
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]), reverse=True)
    device = next(module.parameters()).device
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    vectors = np.empty((0, 0), dtype=np.float32)
    try:
        with torch.inference_mode():
            start = 0
            while start < len(order):
                chosen = order[start : start + max(1, batch_tokens // len(tokens[order[start]]))]
                batch = embed(rows_of([tokens[index] for index in chosen]).to(device)).float().cpu().numpy()
                if start == 0:
                    vectors = np.empty((len(tokens), batch.shape[1]), dtype=np.float32)
                vectors[chosen] = batch
                start += len(chosen)
                if on_progress is not None:
                    on_progress(start)
    finally:
        for part, training in modes:
            part.training = training
    return vectors
