"""The models that speed is measured on, as a directory that any library loads; weights do not matter for it."""

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from transformers import DistilBertConfig, DistilBertModel

from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_run
from cse_bench.encoders.encoder import build_encoder


def configured(*overrides: str) -> RunConfig:
    """A run's config, as the command line composes it."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return validate_run(compose("config", overrides=list(overrides)))


def save_model(name: str, directory: Path) -> None:
    """Writes `bert_tiny` (the real one) or `distilbert` (66 M parameters in its shape, drawn) with BERT's tokenizer."""
    encoder: Any = build_encoder(configured("experiment=quickstart").backbone)
    body = encoder.body
    if name == "distilbert":
        torch.manual_seed(0)
        body = DistilBertModel(DistilBertConfig(vocab_size=len(encoder.tokenizer.tokenizer)))
    body.save_pretrained(directory)
    encoder.tokenizer.tokenizer.save_pretrained(directory)
