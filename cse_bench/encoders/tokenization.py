"""Sentences to token ids: prompt, truncation of the sentence (never of the prompt), the tokenizer's special tokens."""

import hashlib
import json
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from cse_bench.errors import EncoderError


class SentenceTokenizer:
    """A tokenizer together with the prompt that surrounds every sentence.

    Args:
        tokenizer: a Transformers tokenizer.
        prompt: text that holds `{sentence}` once, or None for the sentence alone.
        max_positions: the longest row the model takes; longer sentences are cut there when no other limit is given.
        clean_text: where `closed_sentence` is applied: nowhere (`none`), at inference (`eval`) or also in training
            (`both`).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, prompt: str | None, max_positions: int, clean_text: str = "none"
    ) -> None:
        self.tokenizer = tokenizer
        self.clean_text = clean_text
        self.prompt = prompt
        self.max_positions = max_positions

    @property
    def pad_token_id(self) -> int:
        """The id that fills padding; masked everywhere, so any id serves where the tokenizer has none."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

    def __call__(self, sentences: Sequence[str], *, max_length: int | None, training: bool = False) -> list[list[int]]:
        """Token ids of each sentence, special tokens included.

        Without a prompt, `max_length` counts all tokens of a row. With a prompt it counts those of the sentence, which
        is cut and put into the prompt; the prompt stays whole (a cut prompt would read the vector off a sentence
        token). Either way a sentence is cut where its row would exceed what the model takes.

        Raises:
            EncoderError: a row has no tokens, or the prompt alone does not fit the model.
        """
        # An empty field becomes a single space, as in the official SimCSE loader.
        texts = [sentence or " " for sentence in sentences]
        is_cleaned = self.clean_text == "both" or (self.clean_text == "eval" and not training)
        if is_cleaned:
            texts = [closed_sentence(text) for text in texts]
        if self.prompt is None:
            limit = self.max_positions if max_length is None else min(max_length, self.max_positions)
            rows = self._ids(texts, max_length=limit)
        else:
            room = self._room(self.prompt) - (1 if is_cleaned else 0)
            texts = self._cut(texts, max_length=room if max_length is None else min(max_length, room))
            if is_cleaned:  # what was cut has lost its end
                texts = [closed_sentence(text) for text in texts]
            rows = self._ids([self.prompt.replace("{sentence}", text) for text in texts])
        for sentence, ids in zip(sentences, rows, strict=True):
            if not ids:
                raise EncoderError(f"the tokenizer gives no token for {sentence!r}; remove that sentence")
            if len(ids) > self.max_positions:
                raise EncoderError(
                    f"a sentence with its prompt has {len(ids)} tokens and the model takes {self.max_positions}; "
                    f"set a smaller max_length: '{sentence[:60]}...'"
                )
        return rows

    def _room(self, prompt: str) -> int:
        """How many tokens of a sentence fit into the model beside the prompt."""
        before, after = prompt.split("{sentence}")
        parts = self._ids([before, after], special_tokens=False)
        special = self.tokenizer.num_special_tokens_to_add(pair=False)
        room = self.max_positions - special - sum(len(part) for part in parts)
        if room < 1:
            raise EncoderError(
                f"the prompt leaves no room: the model takes {self.max_positions} tokens; shorten '{prompt}'"
            )
        return room

    def _cut(self, texts: list[str], *, max_length: int) -> list[str]:
        """Texts cut to `max_length` of their own tokens; shorter ones stay as they are, to the letter."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=self.tokenizer.is_fast,
            return_attention_mask=False,
            verbose=False,
        )
        cut = []
        for index, text in enumerate(texts):
            ids = encoded["input_ids"][index]
            if len(ids) <= max_length:
                cut.append(text)
            elif self.tokenizer.is_fast:
                offsets = encoded["offset_mapping"][index]
                # A character can be several tokens; the cut never falls inside one.
                cut.append(text[: min(offsets[max_length - 1][1], offsets[max_length][0])])
            else:
                cut.append(str(self.tokenizer.decode(ids[:max_length], skip_special_tokens=True)))
        return cut

    def _ids(self, texts: list[str], *, max_length: int | None = None, special_tokens: bool = True) -> list[list[int]]:
        if not texts:
            return []
        if _is_its_backend(self.tokenizer):
            truncation = TruncationStrategy.DO_NOT_TRUNCATE if max_length is None else TruncationStrategy.LONGEST_FIRST
            self.tokenizer.set_truncation_and_padding(
                PaddingStrategy.DO_NOT_PAD, truncation, max_length, stride=0, pad_to_multiple_of=None, padding_side=None
            )
            backend = self.tokenizer.backend_tokenizer
            if backend.encode_special_tokens != self.tokenizer.split_special_tokens:  # needs the tokenizer to itself
                backend.encode_special_tokens = self.tokenizer.split_special_tokens
            return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=special_tokens)]
        encoded = self.tokenizer(
            texts,
            add_special_tokens=special_tokens,
            truncation=max_length is not None,
            max_length=max_length,
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
        if self.clean_text != "none":
            content["clean_text"] = self.clean_text
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_its_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a call gives what the Rust tokenizer below gives: a class of its own may do more.

    Asked directly, that one takes two thirds of the time: it keeps no offsets, and no Python runs for each sentence.
    """
    calls = ("__call__", "_encode_plus")
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(type(tokenizer), name) is getattr(PreTrainedTokenizerFast, name) for name in calls
    )


def closed_sentence(text: str) -> str:
    """A sentence as it can stand between double quotes in a prompt.

    As the evaluation of PromptEOL (Jiang et al. 2023, arXiv 2307.16645) and its descendants writes it: a full stop is
    added unless there is one, a question mark or a quote; double quotes become single ones; a final question mark
    becomes a full stop.
    """
    text = text.strip()
    if text and text[-1] not in ".?\"'":
        text += "."
    text = text.replace('"', "'")
    return text[:-1] + "." if text.endswith("?") else text or " "


def byte_tokenizer(*, vocab_size: int, decoder: bool) -> PreTrainedTokenizerFast:
    """A tokenizer without training or download: one token per UTF-8 byte. For backbones with random weights.

    Args:
        vocab_size: of the model; at least 260.
        decoder: True: `<s> bytes`, as LLaMA-like models; False: `<s> bytes </s>`, as BERT-like ones.

    Raises:
        EncoderError: the model's vocabulary is too small.
    """
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    needed = len(names) + len(alphabet)
    if vocab_size < needed:
        raise EncoderError(
            f"random weights use a byte tokenizer, which needs vocab_size >= {needed}; here it is {vocab_size}"
        )
    vocabulary = {token: index for index, token in enumerate([*names.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" if decoder else "<s> $A </s>",
        special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token=names["bos_token"], **names)
