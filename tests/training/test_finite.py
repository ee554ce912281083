"""Numbers that are none stop a run, named by step, sentences and tensor, before they are everywhere."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cse_bench.data.rows import rows_of
from cse_bench.errors import TrainingError
from cse_bench.training.finite import (
    check_gradients,
    check_loss,
    check_parameters,
    is_looked_at,
)
from tests.tiny import tiny_method


def test_the_message_names_sentences_by_number_and_first_words() -> None:
    method = tiny_method("backbone=tiny_llama", "method=cse_sfp")
    tokenizer = method.encoder.tokenizer
    texts = ["The old river sings.", "A bird.", "Stones never walk, " * 5, "Who?", "New."]
    batch = replace(rows_of(tokenizer(texts, max_length=None)), sentence=torch.tensor([70, 3, 12, 5, 9]))
    rows = torch.zeros(2, 5, 3)
    rows[1, 0, 2] = math.nan
    rows[0, 2, 1] = math.inf
    found = {"z": rows, "sentence": torch.zeros(2, 5, dtype=torch.long)}
    with pytest.raises(TrainingError) as raised:
        check_loss(
            {"loss": torch.tensor(math.nan), "part": torch.tensor(1.0)}, found, batch=batch, tokenizer=tokenizer, step=7
        )
    message = str(raised.value)
    assert message.startswith(
        "step 7: loss is nan; 'z' is not finite in 2 of 10 rows (sentence 70: 'The old river sing"
    )
    assert "sentence 12: 'Stones never walk" in message
    assert "sentence 3:" not in message
    assert "optimizer.lr" in message
    rows.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"10 of 10 rows \(sentence 70: .* and 2 more\)"):
        check_loss({"loss": torch.tensor(math.nan)}, found, batch=batch, tokenizer=tokenizer, step=7)
    check_loss({"loss": torch.tensor(1.0)}, found, batch=batch, tokenizer=tokenizer, step=7)  # the loss decides


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_is_named_by_its_parameter(bad: float) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    module(torch.ones(2, 3)).sum().backward()
    check_gradients(module, sentences=[1], step=3)
    assert module[1].weight.grad is not None
    module[1].weight.grad[0, 2] = bad
    with pytest.raises(
        TrainingError, match=r"^step 3: the gradient of '1\.weight' is not finite .* sentences 1, 2, 3 and 2 more"
    ):
        check_gradients(module, sentences=[1, 2, 3, 4, 5], step=3)


def test_gradients_whose_norm_overflows_would_be_scaled_to_nothing() -> None:
    module = nn.Linear(3, 1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)
    with pytest.raises(TrainingError, match="the norm of all gradients is inf"):
        check_gradients(module, sentences=[1], step=3)


def test_parameters_are_looked_at_before_the_state_is_written() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    check_parameters(module, step=3)
    with torch.no_grad():
        module[0].bias[1] = 1e30  # large, and its square is not finite
        check_parameters(module, step=3)
        module[0].bias[1] = math.nan
    with pytest.raises(
        TrainingError, match=r"step 3: the parameter '0\.bias' is not finite, .* the checkpoint before stays"
    ):
        check_parameters(module, step=3)
    module[0].bias.requires_grad_(requires_grad=False)  # what is not trained is not written either
    check_parameters(module, step=3)


@pytest.mark.parametrize("scaler", [None, object()])
def test_a_gradient_that_overflows_under_a_scaler_is_the_scalers_business(scaler: object) -> None:
    """In 16-mixed on a GPU: it leaves the step out and scales less."""
    method = tiny_method()
    for parameter in method.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), global_step=0)
    method._trainer = trainer  # type: ignore[assignment]
    method._sentences = [4, 5]
    if scaler is None:
        with pytest.raises(TrainingError, match=r"step 1: the gradient of .* is not finite .* sentences 4, 5"):
            method.on_before_optimizer_step(None)  # type: ignore[arg-type]
    else:
        method.on_before_optimizer_step(None)  # type: ignore[arg-type]


def test_away_from_the_cpu_only_steps_whose_loss_is_read_are_looked_at() -> None:
    def looked_at(device: str) -> list[int]:
        trainer = SimpleNamespace(log_every_n_steps=4, estimated_stepping_batches=10)
        steps = []
        for done in range(10):
            trainer.global_step = done
            if is_looked_at(trainer, device=torch.device(device)):  # type: ignore[arg-type]
                steps.append(done + 1)
        return steps

    assert looked_at("cpu") == list(range(1, 11))
    assert looked_at("cuda") == [1, 4, 8, 10]
