"""A corpus with what mining must cope with: equal texts, short ones, shared rare words; and a random teacher."""

from pathlib import Path

import torch

from cse_bench.data.corpora import TextFile
from cse_bench.encoders.encoder import build_encoder
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.teacher import Teacher
from tests.tiny import composed, made_up_sentences

RARE = [f"the heron {word} near the quarry" for word in ("sings", "walks", "stone", "never", "old")]
SENTENCES = [
    "No!",
    "...",
    *RARE,
    "The Heron sings near the quarry!",  # the same words as another
    *made_up_sentences(50),
    "the old quarry",
]


def corpus_in(folder: Path, sentences: list[str] = SENTENCES) -> TextFile:
    path = folder / "mined.txt"
    path.write_text("\n".join(sentences) + "\n")
    return TextFile(path=str(path))


def teacher(*, seed: int = 0) -> Teacher:
    """A random encoder that tells sentences apart."""
    torch.manual_seed(seed)
    config = composed("backbone=tiny_bert", "+backbone.architecture.initializer_range=0.3", "evaluation=none")
    return Teacher(build_encoder(config.backbone), max_length=32, batch_tokens=1024, device="cpu")


def settings(**changes) -> MiningSettings:
    defaults = composed("method=debcse", "evaluation=none").method.arguments()["mining"]
    small = {"semantic": 6, "lexical": 4, "uniform": 3, "rare_frequency": [2, 30], "postings": 10}
    return MiningSettings.model_validate({**defaults, **small, **changes})
