import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from cse_bench.encoders import artifact
from cse_bench.encoders.artifact import (
    DESCRIPTION,
    is_saved_encoder,
    load_encoder,
    read_description,
    save_encoder,
)
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import EncoderError

SENTENCES = ["Tea.", "The cat sat on the mat.", "", "Ça va très bien, merci."]
FACTS = {"method": "simcse", "step": 125}


def save(encoder, directory, backbone, **parts):
    save_encoder(encoder, directory, backbone=backbone, training=FACTS, training_only=parts)


@pytest.fixture
def saved(tiny, tiny_entry, tmp_path):
    """A saved encoder: directory, encoder."""
    encoder = tiny("tiny_bert", pooling="mean")
    save(encoder, tmp_path / "model", tiny_entry("tiny_bert", pooling="mean"), head=torch.arange(3.0))
    return tmp_path / "model", encoder


def files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("adapter", [False, True], ids=["all weights", "adapter"])
@pytest.mark.parametrize("prompt", [None, 'This sentence : "{sentence}" means'])
@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("tiny_bert", "cls"),
        ("tiny_bert", "mean"),
        ("tiny_bert", "first_last_mean"),
        ("tiny_roberta", "last_token"),
        ("tiny_llama", "last_token"),
        ("tiny_gpt2", "mean"),
    ],
)
def test_round_trip(tiny, tiny_entry, lora, tmp_path, name, pooling, prompt, adapter):
    settings = {"pooling": pooling, "prompt": prompt, "adapter": lora if adapter else None}
    encoder = tiny(name, **settings)
    if adapter:
        with torch.no_grad():  # at zero, as they start, they would not be missed
            for parameter_name, parameter in encoder.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(std=0.2)
    expected = encoder.train().encode(SENTENCES)
    save(encoder, tmp_path / "model", tiny_entry(name, **settings))
    torch.manual_seed(12345)  # loading draws no weights
    loaded = load_encoder(tmp_path / "model")
    np.testing.assert_allclose(loaded.encode(SENTENCES), expected, atol=1e-6)
    assert not any(part.training for part in loaded.modules())
    assert (loaded.pooling, loaded.tokenizer.prompt) == (pooling, prompt)
    assert (loaded.padding_side, loaded.family) == (encoder.padding_side, encoder.family)
    assert loaded.tokenizer.fingerprint() == encoder.tokenizer.fingerprint()
    assert encoder.body.training  # saving changes nothing


def test_an_adapter_on_named_weights_is_saved_without_them(tiny_entry, entry, lora, tiny, tmp_path):
    plain = tiny("tiny_bert")
    plain.body.save_pretrained(tmp_path / "base")
    plain.tokenizer.tokenizer.save_pretrained(tmp_path / "base")
    backbone = entry("local", path=str(tmp_path / "base"), adapter=lora)
    encoder = with_acting_adapter(backbone)
    save(encoder, tmp_path / "model", backbone)
    names = {name for path in (tmp_path / "model").rglob("*.safetensors") for name in load_file(path)}
    assert names
    assert all("lora_" in name for name in names)
    np.testing.assert_allclose(load_encoder(tmp_path / "model").encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-6)


def with_acting_adapter(backbone):
    """An encoder whose adapter does something."""
    torch.manual_seed(0)
    encoder = build_encoder(backbone).eval()
    before = encoder.encode(SENTENCES)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    assert np.abs(encoder.encode(SENTENCES) - before).max() > 0.01
    return encoder


def test_weights_are_safetensors_and_nothing_is_a_pickle(tiny, tiny_entry, lora, tmp_path):
    for name, changes in (("plain", {}), ("adapted", {"adapter": lora})):
        save(tiny("tiny_llama", **changes), tmp_path / name, tiny_entry("tiny_llama", **changes), head=torch.ones(2))
        found = files(tmp_path / name)
        assert {Path(name).suffix for name in found} <= {".json", ".safetensors", ".md"}
        assert not [name for name, content in found.items() if content[:2] in (b"\x80\x02", b"PK")]


def test_plain_transformers_reads_the_body(saved):
    directory, encoder = saved
    body = AutoModel.from_pretrained(directory, add_pooling_layer=False)
    inputs = AutoTokenizer.from_pretrained(directory)(SENTENCES[:2], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = body.eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    means = (states * mask).sum(dim=1) / mask.sum(dim=1)
    np.testing.assert_allclose(means.numpy(), encoder.encode(SENTENCES[:2]), atol=1e-5)


def test_the_description_says_what_was_done(saved):
    description = read_description(saved[0])
    assert description["pooling"] == "mean"
    assert description["training"] == FACTS
    assert description["training_only"] == ["head"]
    assert description["provenance"] == {"source": "random"}
    assert description["backbone"]["architecture"]["hidden_size"] == 32
    assert load_encoder(saved[0]).provenance == {"source": "random", "saved_encoder": str(saved[0])}


def test_what_only_training_used_is_kept_apart_and_never_needed(saved):
    directory, encoder = saved
    assert load_file(directory / "training_only.safetensors")["head"].tolist() == [0, 1, 2]
    assert "head" not in load_file(directory / "model.safetensors")
    (directory / "training_only.safetensors").unlink()
    np.testing.assert_array_equal(load_encoder(directory).encode(SENTENCES), encoder.encode(SENTENCES))


def test_tensors_that_share_memory_can_be_kept(tiny, tiny_entry, tmp_path):
    whole = torch.arange(6.0)
    save(tiny("tiny_bert"), tmp_path / "model", tiny_entry("tiny_bert"), a=whole, b=whole[:3], c=whole.view(2, 3).T)
    kept = load_file(tmp_path / "model" / "training_only.safetensors")
    assert kept["b"].tolist() == [0, 1, 2]
    assert kept["c"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_saving_again_replaces(saved, tiny, tiny_entry):
    directory, _ = saved
    (directory / "left over").write_text("")
    other = tiny("tiny_bert", seed=1)
    save(other, directory, tiny_entry("tiny_bert"))
    np.testing.assert_array_equal(load_encoder(directory).encode(SENTENCES), other.encode(SENTENCES))
    assert not {"left over", "training_only.safetensors"} & set(files(directory))
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("moment", ["weights", "training only", "description", "replace"])
def test_an_error_while_saving_leaves_the_old_one_whole(saved, tiny, tiny_entry, monkeypatch, moment):
    directory, _ = saved
    before = files(directory)

    def fail(*args, **options):
        raise OSError("no space left on device")

    if moment == "weights":
        monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", fail)
    elif moment == "training only":
        monkeypatch.setattr(artifact, "save_file", fail)
    elif moment == "description":
        monkeypatch.setattr(artifact.json, "dumps", fail)
    else:
        rename = os.rename
        monkeypatch.setattr(artifact.os, "rename", lambda a, b: fail() if str(a).endswith(".new") else rename(a, b))
    with pytest.raises(EncoderError, match=r"cannot be written to .*no space left.*free some space"):
        save(tiny("tiny_bert", seed=1), directory, tiny_entry("tiny_bert"), head=torch.ones(1))
    monkeypatch.undo()
    assert files(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
    assert is_saved_encoder(directory)


def test_what_a_killed_process_left_is_no_obstacle(tiny, tiny_entry, tmp_path):
    (tmp_path / ".model.new" / "model.safetensors").mkdir(parents=True)
    save(tiny("tiny_bert"), tmp_path / "model", tiny_entry("tiny_bert"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "null", '{"pooling": "cls"}', '{"format": "new"}', '{"format": 1}']
)
def test_a_missing_or_damaged_description_is_an_error(saved, content):
    path = saved[0] / DESCRIPTION
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder(saved[0])


def test_a_description_with_a_wrong_backbone_is_an_error(saved):
    path = saved[0] / DESCRIPTION
    content = json.loads(path.read_text())
    content["backbone"]["pooling"] = "maximum"
    path.write_text(json.dumps(content))
    with pytest.raises(EncoderError, match="damaged"):
        load_encoder(saved[0])


def test_a_later_format_is_an_error(saved):
    path = saved[0] / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(EncoderError, match=r"has format 2, this version reads up to 1; install a newer cse_bench"):
        load_encoder(saved[0])


def test_damaged_weights_are_an_error(saved):
    path = saved[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(saved[0])


def test_dtype_and_kernel_can_be_chosen_anew(saved):
    assert load_encoder(saved[0]).dtype == torch.float32
    encoder = load_encoder(saved[0], dtype="bfloat16", attention="eager")
    assert encoder.dtype == torch.bfloat16
    assert encoder.config._attn_implementation == "eager"


@pytest.mark.parametrize("damage", ["half", "cut", "gone"])
def test_an_adapter_that_is_not_all_there_is_refused(tmp_path, tiny, tiny_entry, lora, damage):
    entry = tiny_entry("tiny_llama", adapter=lora)
    save(tiny("tiny_llama", adapter=lora), tmp_path / "model", entry)
    file = tmp_path / "model" / "adapter" / "adapter_model.safetensors"
    if damage == "half":
        tensors = load_file(file)
        save_file(dict(list(tensors.items())[::2]), file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    with pytest.raises(EncoderError, match="lacks .* tensors" if damage == "half" else "missing or damaged"):
        load_encoder(tmp_path / "model")
