"""Sentences to token ids: prompt, truncation of the sentence (never of the prompt), special tokens as the tokenizer adds them."""

import hashlib
import json
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cse_bench.errors import EncoderError

_NO_LIMIT = 10**9


class SentenceTokenizer:
    """A tokenizer together with the prompt that surrounds every sentence.

    Args:
        tokenizer: a Transformers tokenizer.
        prompt: text that holds `{sentence}` once, or None for the sentence alone.
        max_positions: the longest row the model takes; longer sentences are cut there when no other limit is given.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, prompt: str | None, max_positions: int) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.max_positions = max_positions

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding; masked everywhere, so any id serves where the tokenizer has none."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

    def __call__(self, sentences: Sequence[str], *, max_length: int | None) -> list[list[int]]:
        """Token ids of each sentence, special tokens included.

        Without a prompt, `max_length` counts all tokens of a row. With a prompt it counts the sentence's own tokens: the sentence is cut,
        put into the prompt, and the prompt stays whole (a cut prompt would read the vector off a sentence token).

        Raises:
            EncoderError: a row has no tokens, or its prompt does not fit the model.
        """
        # An empty field becomes a single space, as in the official SimCSE loader.
        texts = [sentence if sentence else " " for sentence in sentences]
        if self.prompt is None:
            rows = self._ids(texts, max_length=min(max_length or _NO_LIMIT, self.max_positions), special_tokens=True)
        else:
            if max_length is not None:
                cut = self._ids(texts, max_length=max_length, special_tokens=False)
                texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in cut]
            before, after = self.prompt.split("{sentence}")
            rows = self._ids([f"{before}{text}{after}" for text in texts], max_length=_NO_LIMIT, special_tokens=True)
            for sentence, ids in zip(sentences, rows, strict=True):
                if len(ids) > self.max_positions:
                    raise EncoderError(
                        f"a sentence with its prompt has {len(ids)} tokens and the model takes {self.max_positions}; "
                        f"shorten it or set a max_length: '{sentence[:60]}...'"
                    )
        for sentence, ids in zip(sentences, rows, strict=True):
            if not ids:
                raise EncoderError(f"the tokenizer gives no token for {sentence!r}; remove that sentence")
        return rows

    def _ids(self, texts: list[str], *, max_length: int, special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=special_tokens,
            truncation=max_length < _NO_LIMIT,
            max_length=max_length if max_length < _NO_LIMIT else None,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def fingerprint(self) -> str:
        """SHA-256 (hex) that changes whenever the token ids of some sentence could change."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            content = json.loads(backend.to_str())
            # Truncation and padding are call arguments that a fast tokenizer remembers; they are not part of it.
            content.pop("truncation", None)
            content.pop("padding", None)
        else:
            content = {"class": type(self.tokenizer).__name__, "vocabulary": self.tokenizer.get_vocab()}
        content = {"tokenizer": content, "prompt": self.prompt, "max_positions": self.max_positions}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def byte_tokenizer(*, vocab_size: int, decoder: bool) -> PreTrainedTokenizerFast:
    """A tokenizer without training or download: one token per UTF-8 byte. For backbones with random weights.

    Args:
        vocab_size: of the model; at least 260.
        decoder: True: `<s> bytes`, as LLaMA-like models; False: `<s> bytes </s>`, as BERT-like ones.

    Raises:
        EncoderError: the model's vocabulary is too small.
    """
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(special) + len(alphabet):
        raise EncoderError(f"random weights use a byte tokenizer, which needs vocab_size >= 260; this architecture has {vocab_size}")
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = "<s> $A" if decoder else "<s> $A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", cls_token="<s>"
    )
