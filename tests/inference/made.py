"""A saved tiny encoder and files of sentences for the tests of encoding and searching."""

from pathlib import Path

import torch

from cse_bench.encoders.artifact import save_encoder
from cse_bench.encoders.encoder import Encoder, build_encoder
from tests.tiny import composed, made_up_sentences


def saved_model(directory: Path, *overrides: str, seed: int = 0) -> Path:
    """The random backbone as a saved encoder, with weights that make sentences differ."""
    backbone = composed(
        "backbone=tiny_bert",
        "data=wikipedia_sample",
        "evaluation=none",
        "+backbone.architecture.initializer_range=0.3",
        *overrides,
    ).backbone
    torch.manual_seed(seed)
    encoder: Encoder = build_encoder(backbone)
    save_encoder(encoder, directory, backbone=backbone, training={}, training_only={})
    return directory


def lines_in(folder: Path, count: int = 100, *, seed: int = 0) -> Path:
    """A text file; the third line is empty, the fifth is far longer than the backbone's 512 positions."""
    lines = [
        f"{sentence} {number}" for number, sentence in enumerate(made_up_sentences(100, seed=seed) * (count // 100))
    ]
    lines[2], lines[4] = "", "never " * 200
    path = folder / "lines.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
