"""Making an encoder without training: the backbone as it is, or with what a method fits to the corpus."""

import lightning
import torch

from cse_bench.config.bind import build
from cse_bench.config.schema import RunConfig
from cse_bench.data.corpora import Corpus
from cse_bench.encoders.artifact import load_encoder, save_encoder
from cse_bench.encoders.encoder import SentenceEncoder, build_encoder
from cse_bench.methods.training_free import TrainingFree
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.precision import device_type
from cse_bench.training.train import TrainingSummary


def fit(config: RunConfig, directory: RunDirectory) -> tuple[TrainingSummary, SentenceEncoder]:
    """Builds the encoder of a method that does not train, in one process whatever the trainer says.

    It is left in `directory.model`, unless it is the backbone.

    Args:
        config: checked config.
        directory: of the run.

    Returns:
        A summary of no steps, and the encoder, as it was saved.
    """
    lightning.seed_everything(config.seed, workers=True, verbose=False)  # random weights are those training starts from
    method: TrainingFree = build(
        config.method, encoder=build_encoder(config.backbone), optimizer=config.optimizer, seed=config.seed
    )
    method.to(torch.device(device_type(config.trainer.arguments().get("accelerator", "auto")))).eval()
    metrics, read = {}, None
    if method.reads_corpus(config):
        corpus: Corpus = build(config.data.corpus)
        metrics = method.fit(config, corpus)
        read = {"name": corpus.name, **corpus.describe(), "sentences": sum(1 for _ in corpus.lines())}
    encoder = method.sentence_encoder
    if not method.is_backbone:
        made = {
            "method": config.method.model_dump(mode="json", by_alias=True),
            "status": method.status,
            "citation": method.citation,
            "notes": method.notes,
        }
        save_encoder(encoder, directory.model, backbone=config.backbone, training=made, training_only={})
        encoder = load_encoder(directory.model)
    size = sum(p.numel() for p in encoder.parameters())
    summary = TrainingSummary(
        steps=0,
        selection=None,
        corpus=read,
        metrics=metrics,
        parameters={"total": size, "trainable": 0, "inference": size},
        notes=method.notes,
    )
    return summary, encoder
