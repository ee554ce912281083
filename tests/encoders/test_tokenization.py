from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from cse_bench.encoders.tokenization import SentenceTokenizer, byte_tokenizer, closed_sentence
from cse_bench.encoders.weights import load_body
from cse_bench.errors import EncoderError

# Without "<", as in "<s>": Transformers reads special tokens in a text as what they stand for.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), min_size=1)
PROMPT = 'This: "{sentence}" means'


def tokenizer(prompt: str | None = None, *, decoder: bool = False, max_positions: int = 64) -> SentenceTokenizer:
    return SentenceTokenizer(
        byte_tokenizer(vocab_size=320, decoder=decoder), prompt=prompt, max_positions=max_positions
    )


def text(of: SentenceTokenizer, ids: list[int]) -> str:
    return of.tokenizer.decode(ids, skip_special_tokens=True)


def test_max_length_counts_the_special_tokens():
    of = tokenizer()
    [row] = of(["abcdefgh"], max_length=5)
    assert of.tokenizer.convert_ids_to_tokens(row) == ["<s>", "a", "b", "c", "</s>"]
    [row] = tokenizer(decoder=True)(["abcdefgh"], max_length=5)
    assert of.tokenizer.convert_ids_to_tokens(row) == ["<s>", "a", "b", "c", "d"]


def test_a_row_never_exceeds_the_model():
    of = tokenizer(max_positions=10)
    assert [len(row) for row in of(["x" * 100, "x"], max_length=None)] == [10, 3]
    assert [len(row) for row in of(["x" * 100], max_length=50)] == [10]


@pytest.mark.parametrize("max_length", [None, 3, 7])
@pytest.mark.parametrize("decoder", [False, True])
def test_the_prompt_stays_whole_and_only_the_sentence_is_cut(max_length, decoder):
    of = tokenizer(PROMPT, decoder=decoder)
    for sentence in ("ab", "x" * 200):
        [row] = of([sentence], max_length=max_length)
        before, after = PROMPT.split("{sentence}")
        kept = text(of, row).removeprefix(before).removesuffix(after)
        assert text(of, row) == before + kept + after
        assert sentence.startswith(kept)
        special = 1 if decoder else 2
        assert len(kept) == min(len(sentence), max_length or 200, 64 - special - len(before) - len(after))


def test_a_prompt_changes_no_sentence_that_is_short_enough():
    """Going through ids and back would: WordPiece lower-cases and splits, byte-pair tokenizers may clean up spaces."""
    of = tokenizer(PROMPT)
    sentence = "Don 't , I said ."
    assert of([sentence], max_length=40) == of([sentence], max_length=None)
    [row] = of([sentence], max_length=9)
    assert text(of, row) == PROMPT.replace("{sentence}", sentence[:9])


@settings(max_examples=60, deadline=None)
@given(sentence=any_text, max_length=st.integers(1, 12))
def test_a_cut_never_splits_a_character(sentence, max_length):
    of = tokenizer('"{sentence}"')
    [cut] = of._cut([sentence], max_length=max_length)
    assert sentence.startswith(cut)
    assert len(cut.encode()) <= max_length
    if cut != sentence:  # the next character would not have fitted
        assert len(sentence[: len(cut) + 1].encode()) > max_length


def test_sentences_that_hold_the_placeholder_are_sentences():
    of = tokenizer(PROMPT)
    [row] = of(["a {sentence} b"], max_length=None)
    assert text(of, row) == 'This: "a {sentence} b" means'


@pytest.mark.parametrize("prompt", [None, PROMPT])
def test_an_empty_sentence_is_a_space(prompt):
    of = tokenizer(prompt)
    assert of([""], max_length=32) == of([" "], max_length=32)


def test_a_sentence_without_tokens_is_refused():
    of = tokenizer(decoder=True)
    backend = of.tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    backend.normalizer = normalizers.Strip()
    with pytest.raises(EncoderError, match="no token"):
        of([""], max_length=32)


def test_a_prompt_that_fills_the_model_is_an_error():
    assert tokenizer(PROMPT, max_positions=17)(["abc"], max_length=None)
    with pytest.raises(EncoderError, match=r"prompt leaves no room: the model takes 16 tokens"):
        tokenizer(PROMPT, max_positions=16)(["abc"], max_length=None)


def test_no_sentences():
    assert tokenizer()([], max_length=32) == []
    assert tokenizer(PROMPT)([], max_length=32) == []


@settings(max_examples=100, deadline=None)
@given(sentence=any_text)
def test_bytes_round_trip(sentence):
    of = tokenizer(max_positions=10_000)
    [row] = of([sentence], max_length=None)
    assert len(row) == 2 + len(sentence.encode())
    assert of.tokenizer.decode(row[1:-1]) == sentence


def test_byte_tokenizer_needs_a_vocabulary():
    assert len(byte_tokenizer(vocab_size=260, decoder=False)) == 260
    with pytest.raises(EncoderError, match="vocab_size >= 260; here it is 259"):
        byte_tokenizer(vocab_size=259, decoder=False)


def test_padding_id_without_a_padding_token():
    of = tokenizer(decoder=True)
    assert of.pad_token_id == 0
    of.tokenizer.pad_token = None
    assert of.pad_token_id == of.tokenizer.eos_token_id == 2
    of.tokenizer.eos_token = None
    assert of.pad_token_id == 0


def test_fingerprint_follows_what_decides_the_ids():
    same = [tokenizer().fingerprint() for _ in range(2)]
    others = [
        tokenizer(PROMPT).fingerprint(),
        tokenizer(PROMPT + " more").fingerprint(),
        tokenizer(decoder=True).fingerprint(),
        tokenizer(max_positions=63).fingerprint(),
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 5


def test_fingerprint_does_not_follow_calls(tmp_path):
    of = tokenizer(PROMPT)
    before = of.fingerprint()
    of(["one", "two"], max_length=3)
    of.tokenizer(["one", "three"], padding=True, truncation=True, max_length=4)
    assert of.fingerprint() == before
    of.tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert SentenceTokenizer(reloaded, prompt=PROMPT, max_positions=64).fingerprint() == before


@pytest.mark.parametrize("changes", [{}, {"split_special_tokens": True}, {"truncation_side": "left"}], ids=str)
@pytest.mark.parametrize("max_length", [None, 7])
@pytest.mark.parametrize("kind", ["words", "bytes", "bytes of a decoder"])
def test_ids_are_those_of_a_call(entry, kind, max_length, changes):
    """The Rust tokenizer is asked directly: what the call of Transformers sets and reads must be set and read."""
    if kind == "words":
        _, theirs, _ = load_body(entry("bert_tiny"))
    else:
        theirs = byte_tokenizer(vocab_size=320, decoder=kind.endswith("decoder"))
    for name, value in changes.items():
        setattr(theirs, name, value)
    sentences = ["Naïve café <s> [SEP] </s> tail", "日本 one two", "a", " ", "word " * 40]
    theirs(sentences, truncation=True, max_length=3, padding=True)  # a fast tokenizer remembers the last call
    of = SentenceTokenizer(theirs, prompt=None, max_positions=64)
    found = of(sentences, max_length=max_length)
    assert found == theirs(sentences, truncation=True, max_length=max_length or 64)["input_ids"]
    assert of._ids(sentences, special_tokens=False) == theirs(sentences, add_special_tokens=False)["input_ids"]


def test_threads_share_a_tokenizer():
    of = tokenizer()
    sentences = ["word " * 20] * 2000
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: of(sentences, max_length=16), range(12)))
    assert all(rows == found[0] for rows in found)


def test_a_tokenizer_with_a_call_of_its_own_is_called():
    class Doubled(PreTrainedTokenizerFast):
        def __call__(self, text, **options):
            return super().__call__([one * 2 for one in text], **options)

    theirs = Doubled(tokenizer_object=byte_tokenizer(vocab_size=320, decoder=False).backend_tokenizer, eos_token="</s>")
    [row] = SentenceTokenizer(theirs, prompt=None, max_positions=64)(["ab"], max_length=None)
    assert theirs.decode(row, skip_special_tokens=True) == "abab"


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python, as some models still have: no offsets, no serialised form."""

    def __init__(self, **options):
        self._letters = [chr(code) for code in range(32, 127)]
        super().__init__(unk_token=" ", **options)

    @property
    def vocab_size(self):
        return len(self._letters)

    def get_vocab(self):
        return {letter: index for index, letter in enumerate(self._letters)}

    def _tokenize(self, text, **options):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.get_vocab().get(token, 0)

    def _convert_id_to_token(self, index):
        return self._letters[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


def test_a_tokenizer_without_offsets():
    of = SentenceTokenizer(Letters(), prompt="<{sentence}>", max_positions=30)
    assert not of.tokenizer.is_fast
    rows = of(["abcdef", "ab"], max_length=3)
    assert [of.tokenizer.decode(row) for row in rows] == ["<abc>", "<ab>"]
    assert of.fingerprint() != SentenceTokenizer(Letters(), prompt=None, max_positions=30).fingerprint()


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("A man sings", "A man sings."),
        ("A man sings.", "A man sings."),
        ("Who sings?", "Who sings."),
        ('He said "no"', "He said 'no'"),
        ("It's his'", "It's his'"),
        (" Tea \n", "Tea."),
        ("", " "),
        (" ", " "),
        ('"', "'"),
    ],
)
def test_closed_sentence(text, closed):
    assert closed_sentence(text) == closed


def test_sentences_are_closed_where_asked():
    def first(clean_text, **options):
        of = SentenceTokenizer(
            byte_tokenizer(vocab_size=320, decoder=True), prompt=PROMPT, max_positions=64, clean_text=clean_text
        )
        return text(of, of(["Tea"], max_length=20, **options)[0]), of.fingerprint()

    opened, ended = PROMPT.format(sentence="Tea"), PROMPT.format(sentence="Tea.")
    found = {
        mode: [first(mode, training=training)[0] for training in (True, False)] for mode in ("none", "eval", "both")
    }
    assert found == {"none": [opened, opened], "eval": [opened, ended], "both": [ended, ended]}
    assert len({first(mode)[1] for mode in ("none", "eval", "both")}) == 3
