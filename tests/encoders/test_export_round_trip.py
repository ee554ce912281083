"""What leaves as stock modules gives the same vectors, for everything an encoder can be made of."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from cse_bench.encoders.affine_map import AffineMap, MappedEncoder
from cse_bench.encoders.artifact import load_encoder, save_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.pooling import POOLING
from cse_bench.encoders.readout import Readout
from cse_bench.encoders.rounding_noise import rounding_noise
from cse_bench.encoders.stock_directory import _tolerance, write_stock_directory
from cse_bench.encoders.stock_encoder import StockEncoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.text_cnn import TextCNN
from cse_bench.encoders.whitening import moments, whitening_map
from cse_bench.errors import EncoderError
from cse_bench.results import model_card
from tests.tiny import made_up_sentences

SENTENCES = [
    "Tea",
    " ",
    "A man is playing a guitar.",
    'why? he said “no” and "yes" ?',
    "naïve café",
    "one with many more words than the others have, so that there is padding",
]
EOL = 'This sentence : "{sentence}" means in one word, it can be summarized as'


def exported(encoder, directory, *, backbone, adapter="merge"):
    """The model that was written, opened by sentence-transformers, and the record of it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    written = write_stock_directory(encoder, directory, backbone=backbone, adapter=adapter)
    return SentenceTransformer(str(directory), device="cpu"), written


def assert_same(model, vectors, sentences=SENTENCES, tolerance=1e-5):
    for batch in (1, len(sentences)):  # without padding, and with
        found = model.encode(sentences, batch_size=batch, show_progress_bar=False)
        assert found.shape == vectors.shape
        scale = max(1.0, float(np.abs(vectors).max()))
        np.testing.assert_allclose(found, vectors, atol=tolerance * scale, rtol=0)


def distinct(vectors):
    """Vectors so alike that any mistake would pass prove nothing."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].max() < 0.9999


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        *(("tiny_bert", pooling) for pooling in POOLING),
        *((name, pooling) for name in ("tiny_llama", "tiny_gpt2") for pooling in POOLING if pooling != "cls"),
        ("tiny_roberta", "mean"),
        ("tiny_modernbert", "first_last_mean"),
        ("tiny_opt", "last_token"),
    ],
)
def test_every_pooling(tiny, tiny_entry, tmp_path, name, pooling):
    encoder = tiny(name, pooling=pooling)
    vectors = encoder.encode(SENTENCES)
    assert distinct(vectors)
    model, written = exported(encoder, tmp_path / "out", backbone=tiny_entry(name, pooling=pooling))
    assert_same(model, vectors)
    assert written.difference < 1e-5
    assert not list((tmp_path / "out").rglob("*.py"))
    types = [module["type"] for module in json.loads((tmp_path / "out" / "modules.json").read_text())]
    assert all(kind.startswith("sentence_transformers.") for kind in types)
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_padding_on_the_left_is_not_needed_elsewhere(tiny, tiny_entry, tmp_path):
    encoder = tiny("tiny_gpt2", padding_side="left", pooling="last_token")
    model, _ = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_gpt2", pooling="last_token"))
    assert_same(model, encoder.encode(SENTENCES))
    assert model.tokenizer.padding_side == "right"


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize(
    ("prompt", "clean_text"),
    [(EOL, "both"), (EOL, "none"), ('"{sentence}"', "eval"), ("query: {sentence}", "none"), (None, "eval")],
)
def test_prompts_and_cleaning(tiny, tiny_entry, tmp_path, name, prompt, clean_text):
    settings = {"prompt": prompt, "clean_text": clean_text, "pooling": "last_token"}
    encoder = tiny(name, **settings)
    vectors = encoder.encode(SENTENCES)
    model, written = exported(encoder, tmp_path / "out", backbone=tiny_entry(name, **settings))
    assert_same(model, vectors)
    is_prefix = prompt == "query: {sentence}"
    assert (model.default_prompt_name is not None) == is_prefix
    assert written.prompt_is_inside != is_prefix
    if not is_prefix:  # then plain Transformers has the prompt too
        tokens = AutoTokenizer.from_pretrained(tmp_path / "out")(SENTENCES)["input_ids"]
        assert tokens == encoder.tokenizer(SENTENCES, max_length=None)


def test_the_end_of_a_prompt_is_never_cut_off(tiny, tiny_entry, tmp_path):
    settings = {"prompt": "{sentence} means", "clean_text": "both", "pooling": "last_token"}
    encoder = tiny("tiny_opt", **settings)
    limit = encoder.tokenizer.max_positions
    model, _ = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_opt", **settings))
    long = "word " * limit
    tokens = model.tokenizer([long], truncation=True)["input_ids"][0]
    assert len(tokens) == limit
    assert tokens[-6:] == encoder.tokenizer(["x"], max_length=None)[0][-6:]
    model.encode([long])  # and it runs


@pytest.mark.parametrize("prompt", [None, "query: {sentence}", EOL])
def test_a_decoder_tuned_for_chats_embeds_texts(tiny, tiny_entry, tmp_path, prompt):
    settings = {"prompt": prompt, "pooling": "last_token"}
    encoder = tiny("tiny_llama", **settings)
    template = "{% for message in messages %}user: {{ message['content'] }}{% endfor %}"
    encoder.tokenizer.tokenizer.chat_template = template
    try:
        model, _ = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_llama", **settings))
        assert encoder.tokenizer.tokenizer.chat_template == template, "the encoder's own stays as it is"
    finally:
        encoder.tokenizer.tokenizer.chat_template = None
    assert_same(model, encoder.encode(SENTENCES))


def test_a_text_without_prompt_is_cut_where_it_was(tiny, tiny_entry, tmp_path):
    encoder = tiny("tiny_roberta")
    texts = ["word " * length for length in (10, 12, 13, 40)]
    model, _ = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_roberta"))
    assert model.max_seq_length == encoder.tokenizer.max_positions == 65
    assert_same(model, encoder.encode(texts), texts)


@pytest.mark.parametrize("kernel_sizes", [[3, 4, 5], [2], [1, 4]], ids=str)
@pytest.mark.parametrize("add_first", [False, True])
def test_text_cnn(tiny, tiny_entry, tmp_path, kernel_sizes, add_first):
    encoder = tiny("tiny_bert")
    encoder.readout = TextCNN(width=32, channels=6, kernel_sizes=kernel_sizes, add_first=add_first).eval()
    with torch.no_grad():
        for layer in (*encoder.readout.scales, encoder.readout.aggregate):
            layer.bias.normal_()
    sentences = [*SENTENCES, "x", "ab"]  # shorter than a kernel
    model, written = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert"))
    assert_same(model, encoder.encode(sentences), sentences)
    assert "CNN" in written.modules


class Unheard(Readout):
    name = "unheard"

    def arguments(self):
        return {}

    def forward(self, states, mask):
        return states[:, 0]


def test_a_readout_without_counterpart_is_refused(tiny, tiny_entry, tmp_path):
    encoder = tiny("tiny_bert")
    encoder.readout = Unheard()
    with pytest.raises(EncoderError, match="'unheard' has no counterpart"):
        exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert"))


@pytest.mark.parametrize("pooling", list(POOLING))
def test_two_towers(tiny, tiny_entry, tmp_path, pooling):
    towers = [tiny("tiny_bert", seed=seed, pooling=pooling) for seed in (0, 1)]
    encoder = SummedEncoders(towers)
    first, second = (tower.encode(SENTENCES) for tower in towers)
    out = tmp_path / "out"
    model, written = exported(encoder, out, backbone=tiny_entry("tiny_bert", pooling=pooling))
    assert_same(model, first + second)
    assert written.towers == ["tower_1", "tower_2"]
    for name, vectors in zip(written.towers, (first, second), strict=True):
        assert_same(SentenceTransformer(str(out / name), device="cpu"), vectors)
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("dimensions", "mean", "matrix"), [(32, True, True), (5, True, True), (5, True, False), (5, False, False)]
)
def test_maps_behind_the_vectors(tiny, tiny_entry, tmp_path, dimensions, mean, matrix):
    draw = torch.Generator().manual_seed(0)
    mapping = AffineMap(
        name="whitened",
        width=32,
        dimensions=dimensions,
        mean=torch.randn(32, generator=draw) if mean else None,
        matrix=torch.randn(32, dimensions, generator=draw) if matrix else None,
    )
    encoder = MappedEncoder(tiny("tiny_bert", pooling="first_last_mean"), mapping)
    vectors = encoder.encode(SENTENCES)
    model, written = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert", pooling="first_last_mean"))
    assert_same(model, vectors)
    assert model.get_embedding_dimension() == written.width == dimensions


def test_a_whitening_multiplies_rounding(entry, tmp_path):
    """As `method=postprocessed` fits it on a real encoder, which then differs from itself by more than 1e-5."""
    backbone = entry("bert_tiny")
    body = build_encoder(backbone).eval()
    mean, sigma = moments(body.encode(made_up_sentences(500, seed=0)))
    ridged = sigma + 1e-8 * sigma.diagonal().mean() * torch.eye(128, dtype=sigma.dtype)
    matrix = whitening_map(ridged, kind="zca", dimensions=128)
    encoder = MappedEncoder(body, AffineMap(name="zca", width=128, dimensions=128, mean=mean, matrix=matrix))
    noise = rounding_noise(encoder)
    assert noise > 1e-5
    _, written = exported(encoder, tmp_path / "out", backbone=backbone)
    assert written.difference < 2 * noise


def test_only_the_rounding_of_the_encoder_is_allowed():
    assert _tolerance(torch.float32, 1e-7) == 1e-5
    assert _tolerance(torch.float32, 1.4e-5) == pytest.approx(2.8e-5)
    assert _tolerance(torch.bfloat16, 1.0) == 8 * torch.finfo(torch.bfloat16).eps


def test_a_map_of_a_sum(tiny, tiny_entry, tmp_path):
    towers = [tiny("tiny_bert", seed=seed) for seed in (0, 1)]
    encoder = MappedEncoder(SummedEncoders(towers), AffineMap(name="cut", width=32, dimensions=7))
    vectors = encoder.encode(SENTENCES)
    model, _ = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert"))
    assert_same(model, vectors)


def with_acting_adapter(backbone):
    torch.manual_seed(3)
    encoder = build_encoder(backbone).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return encoder


@pytest.mark.parametrize("adapter", ["merge", "keep"])
def test_adapters(tiny, entry, lora, tmp_path, monkeypatch, adapter):
    body = tiny("tiny_llama")
    body.plain_body.save_pretrained(tmp_path / "body")
    body.tokenizer.tokenizer.save_pretrained(tmp_path / "body")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = {"path": "~/body", "pooling": "last_token", "prompt": EOL, "clean_text": "both"}
    encoder = with_acting_adapter(entry("local", adapter=lora, **settings))
    vectors = encoder.encode(SENTENCES)
    bare = build_encoder(entry("local", adapter=None, **settings)).eval().encode(SENTENCES)
    assert np.abs(vectors - bare).max() > 1e-2  # it acts
    out = tmp_path / "out"
    model, _ = exported(encoder, out, backbone=entry("local", adapter=lora, **settings), adapter=adapter)
    assert_same(model, vectors)
    assert (out / "model.safetensors").exists() == (adapter == "merge")
    assert (out / "adapter_model.safetensors").exists() == (adapter == "keep")
    if adapter == "keep":
        stated = json.loads((out / "adapter_config.json").read_text())
        assert stated["base_model_name_or_path"] == str(tmp_path / "body")


@pytest.mark.parametrize("layers", [False, True], ids=["pooling only", "layers behind"])
def test_half_precision(tiny_entry, tmp_path, layers):
    settings = {"dtype": "bfloat16", "pooling": "first_last_mean" if layers else "mean"}
    encoder = build_encoder(tiny_entry("tiny_bert", **settings)).eval()
    _, written = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert", **settings))
    # Layers of sentence-transformers are in float32, and not all of them can take states in bfloat16.
    assert written.dtype == ("float32" if layers else "bfloat16")
    half = StockEncoder(tmp_path / "out", dtype="bfloat16").encode(SENTENCES)
    np.testing.assert_allclose(half, encoder.encode(SENTENCES), atol=0.05)


def test_plain_transformers_reads_the_body(tiny, tiny_entry, tmp_path):
    encoder = tiny("tiny_bert", pooling="mean")
    exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert", pooling="mean"))
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")(SENTENCES, padding=True, return_tensors="pt")
    body = AutoModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    with torch.no_grad():
        states = body(**tokens).last_hidden_state
    vectors = POOLING["mean"](states, None, tokens["attention_mask"])
    np.testing.assert_allclose(vectors, encoder.encode(SENTENCES), atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
def test_the_card_says_how_plain_transformers_gives_the_vector(tiny, tiny_entry, tmp_path, name):
    encoder = tiny(name, pooling="first_last_mean")
    expected = encoder.encode(["A sentence."])
    _, written = exported(encoder, tmp_path / "out", backbone=tiny_entry(name, pooling="first_last_mean"))
    assert model_card._alone(written) == "With plain Transformers:"
    names = {}
    exec(model_card._plain(written, str(tmp_path / "out")), names)  # what a reader of the card types
    np.testing.assert_allclose(names["vectors"].detach(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["towers", "map", "cnn"])
def test_the_card_says_where_the_body_is_not_the_model(tiny, tiny_entry, tmp_path, kind):
    encoder = tiny("tiny_bert")
    if kind == "towers":
        encoder = SummedEncoders([encoder, tiny("tiny_bert", seed=1)])
    elif kind == "map":
        encoder = MappedEncoder(encoder, AffineMap(name="cut", width=32, dimensions=7))
    else:
        encoder.readout = TextCNN(width=32, channels=6, kernel_sizes=[3], add_first=False).eval()
    _, written = exported(encoder, tmp_path / "out", backbone=tiny_entry("tiny_bert"))
    assert "is not this model" in model_card._alone(written)
    plain = model_card._plain(written, str(tmp_path / "out"))
    assert "of the body alone" in plain
    exec(plain, {})


def test_vectors_that_differ_are_not_exported(tiny, tiny_entry, tmp_path, monkeypatch):
    from cse_bench.encoders import stock_modules

    monkeypatch.setitem(stock_modules.POOLINGS, "cls", "mean")  # a mistake of ours
    with pytest.raises(EncoderError, match="give other vectors than the encoder"):
        exported(tiny("tiny_bert", pooling="cls"), tmp_path / "out", backbone=tiny_entry("tiny_bert"))


def test_a_saved_encoder_goes_the_same_way(tiny, tiny_entry, tmp_path):
    encoder = tiny("tiny_bert")
    backbone = tiny_entry("tiny_bert")
    save_encoder(encoder, tmp_path / "model", backbone=backbone, training={}, training_only={})
    model, _ = exported(load_encoder(tmp_path / "model"), tmp_path / "out", backbone=backbone)
    assert_same(model, encoder.encode(SENTENCES))
