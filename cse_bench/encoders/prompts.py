"""Prompts with more than one place to read: how many tokens lie between them."""

from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import EncoderError

# Ends that tokenizers may join with what follows: none, a full stop, a digit, a question mark.
_PROBES = ("A man is playing a guitar.", "Tea", "It was built in 1920", "Why?")


def tokens_after(tokenizer: SentenceTokenizer, second_stage: str) -> int:
    """How many tokens of every row come from the end of the prompt, D.

    Found without knowing the tokenizer: the rows of the prompt without its end must be the beginnings of the rows of
    the whole prompt, and be shorter by the same number.

    Args:
        tokenizer: with the whole prompt.
        second_stage: its end.

    Raises:
        EncoderError: the end is joined with the text before it, or the tokenizer ends every row with a token of its
            own: the place before the end is then no place in the row.
    """
    assert tokenizer.prompt is not None, "asked of methods that need a prompt"
    first_stage = SentenceTokenizer(
        tokenizer.tokenizer,
        prompt=tokenizer.prompt.removesuffix(second_stage),
        max_positions=tokenizer.max_positions,
        clean_text=tokenizer.clean_text,
    )
    beginnings = first_stage(_PROBES, max_length=None)
    rows = tokenizer(_PROBES, max_length=None)
    distances = set()
    for beginning, row in zip(beginnings, rows, strict=True):
        if row[: len(beginning)] != beginning:
            raise EncoderError(
                f"the tokenizer of '{tokenizer.tokenizer.name_or_path}' does not keep the two stages of the prompt "
                f"apart: the tokens of '{first_stage.prompt}' are not the first ones of the whole prompt (a token ends "
                "every row, or lies across the boundary); change the wording, or the backbone"
            )
        distances.add(len(row) - len(beginning))
    if len(distances) > 1:
        raise EncoderError(
            f"the end of the prompt has {' or '.join(map(str, sorted(distances)))} tokens, depending on the sentence; "
            "change the wording"
        )
    return distances.pop()
