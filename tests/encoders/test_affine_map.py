"""A map behind an encoder: its arithmetic, its precision, and that saving keeps it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cse_bench.encoders.affine_map import AffineMap, MappedEncoder
from cse_bench.encoders.artifact import load_encoder, read_description, save_encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.transfer import take_weights
from cse_bench.errors import EncoderError

SENTENCES = ["Tea.", "The cat sat on the mat.", "", "Ça va très bien, merci."]
MEAN = torch.linspace(-1, 1, 32, dtype=torch.float64)
MATRIX = torch.randn(32, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MAPS = {
    "both": {"mean": MEAN, "matrix": MATRIX},
    "mean": {"mean": MEAN},
    "matrix": {"matrix": MATRIX},
    "none": {},
}


def affine(kept, dimensions=5):
    return AffineMap(name=f"{kept} 5", width=32, dimensions=dimensions, **MAPS[kept])


def save(encoder, directory, backbone):
    save_encoder(encoder, directory, backbone=backbone, training={}, training_only={})


@pytest.mark.parametrize("kept", MAPS)
def test_takes_off_the_mean_and_multiplies(tiny, kept):
    encoder = tiny("tiny_bert", pooling="mean").eval()
    mapped = MappedEncoder(encoder, affine(kept))
    plain = encoder.encode(SENTENCES).astype(np.float64)
    mean = MEAN.numpy() if "mean" in MAPS[kept] else 0
    matrix = MATRIX.numpy() if "matrix" in MAPS[kept] else np.eye(32, 5)
    found = mapped.encode(SENTENCES)
    np.testing.assert_allclose(found, (plain - mean) @ matrix, atol=1e-6)
    assert found.dtype == np.float32
    assert mapped.width == found.shape[1] == 5
    assert mapped.pooling == f"mean + {kept} 5"


def test_without_tensors_the_first_numbers_are_untouched(tiny):
    encoder = tiny("tiny_bert").eval()
    found = MappedEncoder(encoder, affine("none")).encode(SENTENCES)
    np.testing.assert_array_equal(found, encoder.encode(SENTENCES)[:, :5])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_is_exact_under_autocast(dtype):
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = (vectors.double() - MEAN) @ MATRIX
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = affine("both")(vectors)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_counts_as_parameters_and_is_not_trained(tiny):
    encoder = tiny("tiny_bert")
    before = sum(p.numel() for p in encoder.parameters())
    mapped = MappedEncoder(encoder, affine("both"))
    assert sum(p.numel() for p in mapped.parameters()) == before + 32 + 32 * 5
    assert not any(p.requires_grad for p in mapped.affine_map.parameters())


@pytest.mark.parametrize("kept", MAPS)
def test_round_trip(tiny, tiny_entry, tmp_path, kept):
    mapped = MappedEncoder(tiny("tiny_bert", pooling="mean"), affine(kept))
    expected = mapped.encode(SENTENCES)
    save(mapped, tmp_path / "model", tiny_entry("tiny_bert", pooling="mean"))
    for loaded in (load_encoder(tmp_path / "model"), open_encoder(str(tmp_path / "model"))):
        assert isinstance(loaded, MappedEncoder)
        np.testing.assert_array_equal(loaded.encode(SENTENCES), expected)
        assert loaded.pooling == mapped.pooling
        assert not any(part.training for part in loaded.modules())
    assert (tmp_path / "model" / "affine_map.safetensors").exists() == (kept != "none")
    if kept == "both":
        stored = load_file(tmp_path / "model" / "affine_map.safetensors")
        assert torch.equal(stored["mean"], MEAN)
        assert torch.equal(stored["matrix"], MATRIX)


def test_a_sum_can_be_mapped_too(tiny, tiny_entry, tmp_path):
    mapped = MappedEncoder(SummedEncoders([tiny("tiny_bert"), tiny("tiny_bert", seed=1)]), affine("both"))
    expected = mapped.encode(SENTENCES)
    save(mapped, tmp_path / "model", tiny_entry("tiny_bert"))
    loaded = load_encoder(tmp_path / "model")
    np.testing.assert_array_equal(loaded.encode(SENTENCES), expected)
    assert loaded.pooling == "sum of 2 x cls + both 5"


def test_another_dtype_is_that_of_the_body(tiny, tiny_entry, tmp_path):
    save(MappedEncoder(tiny("tiny_bert"), affine("both")), tmp_path / "model", tiny_entry("tiny_bert"))
    loaded = load_encoder(tmp_path / "model", dtype="bfloat16")
    assert loaded.encoder.dtype == torch.bfloat16
    assert loaded.affine_map.matrix.dtype == torch.float64
    assert loaded.encode(SENTENCES).dtype == np.float32


@pytest.mark.parametrize("damage", ["missing", "cut", "description", "tensor"])
def test_damage_is_told(tiny, tiny_entry, tmp_path, damage):
    directory = tmp_path / "model"
    save(MappedEncoder(tiny("tiny_bert"), affine("both")), directory, tiny_entry("tiny_bert"))
    file = directory / "affine_map.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        description = read_description(directory)
        description["affine_map"] |= {"description": {"tensors": None}, "tensor": {"dimensions": 4}}[damage]
        (directory / "sentence_encoder.json").write_text(json.dumps(description))
    with pytest.raises(EncoderError, match="affine_map.safetensors|needs a tensor of shape"):
        load_encoder(directory)


def test_sizes_that_do_not_fit(tiny):
    with pytest.raises(EncoderError, match="33 dimensions cannot be kept of vectors of 32"):
        AffineMap(name="m", width=32, dimensions=33)
    with pytest.raises(EncoderError, match=r"needs a tensor of shape \(32, 4\), got \(32, 5\)"):
        AffineMap(name="m", width=32, dimensions=4, matrix=MATRIX)
    with pytest.raises(EncoderError, match="a map of 31 numbers cannot take vectors of 32"):
        MappedEncoder(tiny("tiny_bert"), AffineMap(name="m", width=31, dimensions=3))


def test_its_weights_are_not_those_of_an_encoder(tiny):
    with pytest.raises(EncoderError, match=r"other vectors \(cls \+ both 5\)"):
        take_weights(tiny("tiny_bert"), MappedEncoder(tiny("tiny_bert"), affine("both")), origin="it")
