"""A prompt carried inside the tokenizer, for libraries that know texts and tokens only.

sentence-transformers can put a text before a sentence, nothing behind it. A fast tokenizer can do all of it: its
normaliser cleans the sentence and writes the prompt around it, before anything is cut into tokens, so that tokens which
lie across the boundary come out the same. The end of the prompt is added as token ids where that gives the same row:
these are not truncated, so that a sentence too long for the model loses its own end, never the token that is read.
"""

import copy
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cse_bench.encoders.tokenization import SentenceTokenizer, closed_sentence
from cse_bench.errors import EncoderError

# Beginnings and ends that tokenizers may join with what stands beside them.
_PROBES = ("A man is playing a guitar.", "Tea", "It was built in 1920", "why?", "(so they say)", "naïve café", "x's")
_TAIL = "<prompt end>"


@dataclass(frozen=True)
class CarriedPrompt:
    """What stands for a `SentenceTokenizer` elsewhere.

    Attributes:
        tokenizer: truncates at what the model takes, has a padding token, pads on the right.
        prefix: the text that sentence-transformers has to put before every sentence; None: nothing.
        is_inside: whether the tokenizer itself changes the text.
        limits: what it does otherwise than the original, in sentences.
    """

    tokenizer: PreTrainedTokenizerBase
    prefix: str | None
    is_inside: bool
    limits: tuple[str, ...]


def carry_prompt(original: SentenceTokenizer) -> CarriedPrompt:
    """The tokenizer of an encoder as other libraries call it, prompt and cleaning included.

    Raises:
        EncoderError: the tokenizer is not a fast one, and prompt or cleaning have to be inside.
    """
    prompt, limits = original.prompt, []
    before, _, after = (prompt or "{sentence}").partition("{sentence}")
    cleans = original.clean_text != "none"
    tokenizer: PreTrainedTokenizerBase
    if is_inside := bool(after) or cleans:
        tokenizer, tail = _with_prompt(original, before, after, cleans=cleans)
        limits.append("The prompt is written by the tokenizer: do not add it, nor any other, to the text.")
        if prompt is not None and tail != after:
            limits.append(
                f"Of a text longer than {original.max_positions} tokens the end is cut off, and with it "
                f"`{after.removesuffix(tail)}` of the prompt."
            )
    else:
        tokenizer = copy.deepcopy(original.tokenizer)
    tokenizer.model_max_length = original.max_positions
    tokenizer.chat_template = None  # or sentence-transformers would write every text as a turn of a chat
    # Right: the positions of BERT and GPT-2 count from the left edge. No embedding depends on the side.
    tokenizer.padding_side, tokenizer.truncation_side = "right", "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(original.pad_token_id)
    if tokenizer("")["input_ids"] != original([""], max_length=None)[0]:
        limits.append("Give a single space instead of an empty text.")
    return CarriedPrompt(tokenizer, before if before and not is_inside else None, is_inside, tuple(limits))


def _with_prompt(
    original: SentenceTokenizer, before: str, after: str, *, cleans: bool
) -> tuple[PreTrainedTokenizerFast, str]:
    """A tokenizer that writes the prompt itself, and the end of it that is added as token ids."""
    tokenizer = original.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EncoderError(
            f"the prompt cannot be carried by a {type(tokenizer).__name__}, only by a fast tokenizer; convert it, or "
            "train with a prompt that ends with {sentence} and without clean_text"
        )
    tail, tail_ids = _stable_end(original, before, after, cleans=cleans)
    own = Tokenizer.from_str(backend.to_str())
    own.no_truncation()
    own.no_padding()
    steps = _closing() if cleans else []
    if before:
        steps.append(normalizers.Prepend(before))
    if written := after.removesuffix(tail):
        steps.append(normalizers.Replace(Regex(r"\z"), written))
    own.normalizer = normalizers.Sequence([*steps, *([own.normalizer] if own.normalizer else [])])
    if tail_ids:
        own.post_processor = _template(tokenizer, tail_ids)
    names = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(tokenizer_object=own, **names), tail


def _closing() -> list[normalizers.Normalizer]:
    r"""What `closed_sentence` does. `\A` and `\z` are the ends of the text, `$` would be that of a line."""
    replacements = [
        (r"\A\s+(?=\S)", ""),
        (r"(?<=\S)\s+\z", ""),
        (r"\A\s+\z", " "),
        (r"(?<=[^.?\"'\s])\z", "."),
        ('"', "'"),
        (r"\?\z", "."),
    ]
    return [normalizers.Replace(Regex(pattern), content) for pattern, content in replacements]


def _stable_end(original: SentenceTokenizer, before: str, after: str, *, cleans: bool) -> tuple[str, list[int]]:
    """The longest end of the prompt, from its beginning or a space on, that gives the same tokens after any sentence.

    Empty where there is none.
    """

    def ids(text: str) -> list[int]:
        return list(original.tokenizer(text, add_special_tokens=False)["input_ids"])

    sentences = [closed_sentence(text) if cleans else text for text in _PROBES]
    for start in [0, *(index for index, letter in enumerate(after) if letter == " " and index)] if after else []:
        tail = after[start:]
        beginnings = [ids(f"{before}{text}{after[:start]}") for text in sentences]
        rows = [ids(f"{before}{text}{after}") for text in sentences]
        ends = [row[len(beginning) :] for row, beginning in zip(rows, beginnings, strict=True)]
        is_apart = all(row[: len(own)] == own for row, own in zip(rows, beginnings, strict=True))
        if is_apart and all(end == ends[0] for end in ends):
            return tail, ends[0]
    return "", []


def _template(tokenizer: PreTrainedTokenizerBase, tail: list[int]) -> processors.PostProcessor:
    """The tokenizer's own special tokens around a row, and the end of the prompt between."""
    content = tokenizer("Tea", add_special_tokens=False)["input_ids"]
    row = tokenizer("Tea")["input_ids"]
    start = next(index for index in range(len(row)) if row[index : index + len(content)] == content)
    tokens = {}
    for token_id in (*row[:start], *row[start + len(content) :]):
        tokens[tokenizer.convert_ids_to_tokens(token_id)] = token_id
    special = [{"id": token, "ids": [token_id], "tokens": [token]} for token, token_id in tokens.items()]
    special.append({"id": _TAIL, "ids": tail, "tokens": tokenizer.convert_ids_to_tokens(tail)})
    pieces = [*tokenizer.convert_ids_to_tokens(row[:start]), "$A", _TAIL]
    pieces += tokenizer.convert_ids_to_tokens(row[start + len(content) :])
    return processors.TemplateProcessing(single=pieces, special_tokens=special)
