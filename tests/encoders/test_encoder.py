import numpy as np
import pytest
import torch

from cse_bench.data.rows import rows_of
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.encoding import encode_sentences
from cse_bench.errors import EncoderError

SENTENCES = [
    "Tea.",
    "The cat sat on the mat.",
    "",
    "Ça va très bien, merci beaucoup à vous.",
    "A much longer sentence than the others, so that most rows of its batch are padding.",
    "The cat sat on the mat.",
    "Rain.",
]
ENCODERS = ["tiny_bert", "tiny_roberta", "tiny_modernbert"]
TINY = [*ENCODERS, "tiny_gpt2", "tiny_opt", "tiny_llama"]
# Float32 sums in another order, after two layers.
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def cut(encoder):
    """The sentences, cut to what the smallest of the tiny models takes."""
    return [sentence[:40] for sentence in SENTENCES]


def distance(a, b):
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", TINY)
def test_order_and_batches_change_no_vector(tiny, name):
    encoder = tiny(name, pooling="mean")
    sentences = cut(encoder)
    alone = np.stack([encoder.encode([sentence])[0] for sentence in sentences])
    assert distance(alone[0], alone[1]) > 0.01
    for batch_tokens in (1, 100, 16384):
        np.testing.assert_allclose(encoder.encode(sentences, batch_tokens=batch_tokens), alone, **CLOSE)
    order = np.random.default_rng(0).permutation(len(sentences))
    shuffled = encoder.encode([sentences[index] for index in order])
    np.testing.assert_allclose(shuffled, alone[order], **CLOSE)


def test_equal_sentences_have_equal_vectors(tiny):
    vectors = tiny("tiny_bert").encode(SENTENCES)
    np.testing.assert_allclose(vectors[1], vectors[5], **CLOSE)
    assert vectors.shape == (7, 32)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "pooling"),
    [(name, pooling) for name in TINY for pooling in ("mean", "first_last_mean", "last_token")]
    + [(name, "cls") for name in ENCODERS],
)
def test_the_padding_side_changes_no_vector(tiny, name, pooling):
    right = tiny(name, pooling=pooling, padding_side="right").encode(SENTENCES, max_length=40)
    left = tiny(name, pooling=pooling, padding_side="left").encode(SENTENCES, max_length=40)
    np.testing.assert_allclose(left, right, **CLOSE)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gpt2"])
def test_positions_counted_from_the_edge_are_the_trap_avoided(tiny, name):
    """Without explicit position ids, GPT-2 and BERT number the padding on the left as if it were text."""
    encoder = tiny(name, pooling="last_token", padding_side="left")
    rows = rows_of(encoder.tokenizer(SENTENCES[:2], max_length=None))
    ids, mask = rows.padded(pad_token_id=0, side="left")
    with torch.no_grad():
        told = encoder(rows)
        untold = encoder.body(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    torch.testing.assert_close(told[1], untold[1], atol=2e-5, rtol=2e-5)  # the longest row has no padding
    assert (told[0] - untold[0]).abs().max() > 0.05


@pytest.mark.parametrize("name", TINY)
def test_padding_holds_nothing(tiny, name):
    """Whatever ids fill the padding, the vectors stay: the mask reaches attention and pooling."""
    encoder = tiny(name, pooling="mean")
    rows = rows_of(encoder.tokenizer(["short", "a longer sentence"], max_length=None))
    noisy = rows_of(encoder.tokenizer(["short", "a longer sentence"], max_length=None))
    noisy.ids[0, int(rows.lengths[0]) :] = 99
    with torch.no_grad():
        torch.testing.assert_close(encoder(rows), encoder(noisy))


@pytest.mark.parametrize("name", TINY)
def test_dropout_acts_in_training_and_only_there(tiny, name):
    encoder = tiny(name, pooling="mean", dropout=0.1)
    rows = rows_of(encoder.tokenizer(["a sentence", "another"], max_length=None))
    with torch.no_grad():
        assert (encoder.train()(rows) - encoder(rows)).abs().max() > 1e-3
        assert torch.equal(encoder.eval()(rows), encoder(rows))


def test_encoding_is_in_eval_mode_and_leaves_every_part_as_it_was(tiny):
    encoder = tiny("tiny_bert", dropout=0.5)
    expected = encoder.encode(SENTENCES)
    encoder.train()
    encoder.body.embeddings.eval()  # as a method that freezes a part would
    before = {name: part.training for name, part in encoder.named_modules()}
    np.testing.assert_array_equal(encoder.encode(SENTENCES), expected)
    assert {name: part.training for name, part in encoder.named_modules()} == before
    assert len(set(before.values())) == 2


def test_modes_come_back_after_an_error(tiny):
    encoder = tiny("tiny_bert").train()

    def fail(rows):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_sentences(encoder, fail, encoder.tokenizer, SENTENCES, batch_tokens=100)
    assert all(part.training for part in encoder.modules())


def test_encoding_records_no_gradient_and_training_goes_on(tiny):
    encoder = tiny("tiny_llama").train()
    encoder.encode(SENTENCES)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    encoder(rows_of(encoder.tokenizer(SENTENCES, max_length=None))).sum().backward()
    assert encoder.body.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_forwards_are_no_larger_than_asked_and_report_progress(tiny):
    encoder = tiny("tiny_bert")
    sizes, done = [], []

    def embed(rows):
        sizes.append(rows.ids.numel())
        return encoder(rows)

    encode_sentences(encoder, embed, encoder.tokenizer, SENTENCES, batch_tokens=120, on_progress=done.append)
    assert max(sizes) <= 120
    assert len(sizes) < len(SENTENCES)
    assert done == sorted(set(done))
    assert done[-1] == len(SENTENCES)


def test_truncation_only_where_asked(tiny):
    encoder = tiny("tiny_bert")
    long = ["x" * 100, "x" * 100 + "y"]
    whole = encoder.encode(long)
    assert distance(whole[0], whole[1]) > 1e-3
    parts = encoder.encode(long, max_length=32)
    np.testing.assert_allclose(parts[0], parts[1], **CLOSE)
    np.testing.assert_allclose(parts[0], encoder.encode(["x" * 30])[0], **CLOSE)


def test_sentences_longer_than_the_model_are_cut_there(tiny):
    encoder = tiny("tiny_roberta")
    assert encoder.tokenizer.max_positions == 65  # 66 positions, of which the first is for padding (id 0)
    np.testing.assert_array_equal(encoder.encode(["x" * 500]), encoder.encode(["x" * 63]))


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
def test_the_prompt_is_part_of_every_row(tiny, name):
    plain = tiny(name, pooling="mean")
    prompted = tiny(name, pooling="mean", prompt='This sentence : "{sentence}" means')
    by_hand = plain.encode(['This sentence : "Tea." means'])
    np.testing.assert_allclose(prompted.encode(["Tea."]), by_hand, **CLOSE)
    assert distance(by_hand, plain.encode(["Tea."])) > 0.01


def test_no_sentences(tiny):
    assert len(tiny("tiny_bert").encode([])) == 0


def test_one_string_is_not_a_list_of_letters(tiny):
    with pytest.raises(TypeError, match="list of sentences"):
        tiny("tiny_bert").encode("A sentence.")


def test_bfloat16_gives_float32_vectors_near_the_exact_ones(tiny):
    for pooling in ("mean", "first_last_mean", "last_token"):
        exact = tiny("tiny_llama", pooling=pooling)
        rough = tiny("tiny_llama", pooling=pooling)
        rough.to(torch.bfloat16)
        assert rough.dtype == torch.bfloat16
        a, b = torch.from_numpy(exact.encode(SENTENCES)), torch.from_numpy(rough.encode(SENTENCES))
        assert b.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(a, b).min() > 0.999


def test_an_entry_in_bfloat16(tiny):
    encoder = tiny("tiny_bert", dtype="bfloat16")
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert np.isfinite(encoder.encode(SENTENCES)).all()


def test_cls_of_a_decoder_is_refused(tiny_entry):
    with pytest.raises(EncoderError, match="pooling=cls reads the first token"):
        build_encoder(tiny_entry("tiny_llama", pooling="cls"))


def test_the_first_token_of_a_decoder_has_seen_nothing(tiny):
    """Why it is refused; in a bidirectional model it has seen everything."""
    for name, same in (("tiny_llama", True), ("tiny_bert", False)):
        encoder = tiny(name)
        rows = rows_of(encoder.tokenizer(["xa", "xb"], max_length=None))
        with torch.no_grad():
            first = encoder.states(rows)[0][:, 0]
        assert torch.allclose(first[0], first[1], atol=1e-6) == same


@pytest.mark.parametrize(("name", "wrong"), [("tiny_bert", "decoder"), ("tiny_llama", "encoder")])
def test_an_entry_with_the_wrong_family_is_refused(tiny_entry, name, wrong):
    with pytest.raises(EncoderError, match=f"says family={wrong}"):
        build_encoder(tiny_entry(name, family=wrong, pooling="mean"))


def test_family_is_found_where_none_is_given(tiny_entry):
    assert build_encoder(tiny_entry("tiny_bert", family=None)).family == "encoder"
    assert build_encoder(tiny_entry("tiny_llama", family=None)).family == "decoder"


def test_width_and_config_with_and_without_adapter(tiny, lora):
    for changes in ({}, {"adapter": lora}):
        encoder = tiny("tiny_llama", **changes)
        assert encoder.width == encoder.encode(["x"]).shape[1] == 32
        assert encoder.config.model_type == "llama"


def test_an_adapter_starts_as_the_body_and_trains_alone(tiny, lora):
    plain, adapted = tiny("tiny_llama", dropout=0.0), tiny("tiny_llama", dropout=0.0, adapter=lora)
    body = dict(plain.body.named_parameters())
    carried = {name: p for name, p in adapted.plain_body.named_parameters() if "lora_" not in name}
    for name, parameter in carried.items():
        parameter.data.copy_(body[name.replace(".base_layer", "")])
        assert not parameter.requires_grad
    np.testing.assert_allclose(adapted.encode(SENTENCES), plain.encode(SENTENCES), **CLOSE)
    adapted.train()(rows_of(adapted.tokenizer(SENTENCES, max_length=None))).sum().backward()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    assert distance(adapted.encode(SENTENCES), plain.encode(SENTENCES)) > 0.01
