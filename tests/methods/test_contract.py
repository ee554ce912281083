"""A method that breaks what its parts owe each other is told which part, what it gave and what it has to give."""

from typing import Any

import lightning
import pytest
import torch

from cse_bench import build_training, compose_config
from cse_bench.data.rows import rows_of
from cse_bench.errors import ConfigError, TrainingError
from cse_bench.methods.simcse import SimCSE
from tests.tiny import made_up_sentences

SLIPS: dict[str, tuple[dict[str, Any], str]] = {
    "views: ids": ({"views": lambda self, batch: batch.ids}, r"Slip.views gives a tensor \(8, .*has to give TokenRows"),
    "views: too few": (
        {"views": lambda self, batch: batch.repeat(2).take(torch.arange(15), length=4)},
        "Slip.views gives 15 rows of 2 views for 8 sentences; it has to give 2 x 8",
    ),
    "represent: a tensor": (
        {"represent": lambda self, rows: self.encoder(rows)},
        r"Slip.represent gives a tensor \(\d+, 32\); it has to give tensors by name: {'z': z}",
    ),
    "represent: a row less": (
        {"represent": lambda self, rows: {"z": self.encoder(rows)[1:]}},
        r"Slip.represent gives as 'z' a tensor \(\d+, 32\) for \d+ rows; it has to give",
    ),
    "represent: a mean": (
        {"represent": lambda self, rows: {"z": self.encoder(rows).mean()}},
        r"Slip.represent gives as 'z' a tensor \(\) for \d+ rows",
    ),
    "represent: a list": (
        {"represent": lambda self, rows: {"z": self.encoder(rows).tolist()}},
        r"Slip.represent gives as 'z' a list for \d+ rows",
    ),
    "represent: nothing": (
        {"represent": lambda self, rows: {}},
        "Slip.represent gives a dict; it has to give tensors by name",
    ),
    "objective: a tensor": (
        {"objective": lambda self, representations: representations["z"].sum()},
        r"Slip.objective gives a tensor \(\); it has to give {'loss': scalar, ...}",
    ),
    "objective: no loss": (
        {"objective": lambda self, representations: {"nce": representations["z"].sum()}},
        "Slip.objective gives parts without 'loss': nce; it has to give",
    ),
    "objective: several": (
        {"objective": lambda self, representations: {"loss": representations["z"].sum(dim=(0, 2))}},
        r"Slip.objective gives as 'loss' a tensor \(8,\); it has to be one number",
    ),
    "objective: a float": (
        {"objective": lambda self, representations: {"loss": representations["z"].sum().item()}},
        "Slip.objective gives as 'loss' a float; it has to be one number",
    ),
    "objective: detached": (
        {"objective": lambda self, representations: {"loss": representations["z"].detach().sum()}},
        "a loss that no trained parameter has a part in: something between the encoder and the loss is detached",
    ),
    "objective: not a number": (
        {"objective": lambda self, representations: {"loss": (representations["z"].sum() * 0).log().log()}},
        "step 1: loss is nan; every row that went into it is finite, so look at the method's objective first",
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec.*deprecated")
@pytest.mark.parametrize("cached", [False, True], ids=["", "gradient caching"])
@pytest.mark.parametrize("slip", list(SLIPS))
def test_a_slip_is_told(slip: str, cached: bool, tmp_path: Any) -> None:
    parts, message = SLIPS[slip]
    config = compose_config(
        "backbone=tiny_bert",
        "data.global_batch_size=8",
        f"paths.cache={tmp_path}",
        *(["data.gradient_cache_rows=4"] if cached else []),
    )
    module, data = build_training(config, made_up_sentences(20), method=type("Slip", (SimCSE,), parts))
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(TrainingError, match=message):
        trainer.fit(module, data)


def test_what_is_right_passes() -> None:
    config = compose_config("backbone=tiny_bert", "data.global_batch_size=8")
    module, _ = build_training(config, made_up_sentences(20))
    assert module.loss_of(rows_of([[1, 5, 6, 2]] * 3))["loss"].isfinite()


def test_a_status_is_one_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimCSE, "status", "mine")
    with pytest.raises(
        ConfigError, match="SimCSE.status is 'mine'; it has to be one of official code, paper, own read"
    ):
        compose_config("backbone=tiny_bert", "data.global_batch_size=8")
    monkeypatch.delattr(SimCSE, "status")
    with pytest.raises(ConfigError, match="SimCSE.status is None"):
        compose_config("backbone=tiny_bert", "data.global_batch_size=8")
