"""Summed encoders: the sum, and the same after saving and opening again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cse_bench.encoders.artifact import load_encoder, save_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.summed import SummedEncoders

SENTENCES = ["Tea.", "The cat sat on the mat.", "", "Ça va très bien, merci."]


@pytest.fixture
def towers(tiny) -> list[Encoder]:
    return [tiny("tiny_bert", seed=seed, pooling="mean") for seed in (1, 2)]


@pytest.fixture
def saved(towers, tiny_entry, tmp_path) -> Path:
    directory = tmp_path / "run" / "model"
    save_encoder(
        SummedEncoders(towers),
        directory,
        backbone=tiny_entry("tiny_bert", pooling="mean"),
        training={"step": 7},
        training_only={"pooler": torch.arange(3.0)},
    )
    return directory


def test_vectors_are_added_as_they_are(towers) -> None:
    summed = SummedEncoders(towers)
    first, second = (tower.encode(SENTENCES) for tower in towers)
    assert np.array_equal(summed.encode(SENTENCES), first + second)
    assert not np.allclose(np.linalg.norm(first, axis=1), 1.0)  # nothing was normalised
    assert summed.width == 32
    assert summed.pooling == "sum of 2 x mean"


def test_a_common_scale_changes_no_cosine(towers) -> None:
    def cosines(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit @ unit.T

    vectors = SummedEncoders(towers).encode(SENTENCES)
    assert np.allclose(cosines(vectors), cosines(vectors / 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("folder", ["run/model", "run"], ids=["saved encoder", "run"])
def test_opened_again_gives_the_same_vectors(towers, saved, tmp_path, folder: str) -> None:
    expected = SummedEncoders(towers).encode(SENTENCES)
    opened = open_encoder(str(tmp_path / folder))
    assert isinstance(opened, SummedEncoders)
    assert not any(module.training for module in opened.modules())
    assert np.array_equal(opened.encode(SENTENCES), expected)
    assert opened.pooling == "sum of 2 x mean"
    assert np.array_equal(load_encoder(saved).encode(SENTENCES), expected)


def test_every_tower_is_a_saved_encoder_by_itself(towers, saved) -> None:
    for number, tower in enumerate(towers, start=1):
        alone = load_encoder(saved / f"tower_{number}")
        assert isinstance(alone, Encoder)
        assert np.array_equal(alone.encode(SENTENCES), tower.encode(SENTENCES))
    assert not (saved / "model.safetensors").exists()
    description = json.loads((saved / "sentence_encoder.json").read_text())
    assert description["sum_of"] == ["tower_1", "tower_2"]
    assert description["training_only"] == ["pooler"]


def test_a_sum_replaces_a_single_encoder_whole(towers, saved, tiny_entry) -> None:
    """And the other way round: nothing of the former is left in the directory."""
    entry = tiny_entry("tiny_bert", pooling="mean")
    save_encoder(towers[0], saved, backbone=entry, training={}, training_only={})
    assert not (saved / "tower_1").exists()
    assert isinstance(load_encoder(saved), Encoder)


def test_one_table_of_parameters_per_tower(towers) -> None:
    alone = sum(parameter.numel() for parameter in towers[0].parameters())
    assert sum(parameter.numel() for parameter in SummedEncoders(towers).parameters()) == 2 * alone
