"""What holds for every method, whatever its objective: the properties that the base class gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.methods import base
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.run import run
from tests.methods.every import METHODS, overrides_of, with_towers_apart
from tests.methods.stepping import step
from tests.tiny import config_in, gradients, largest_difference, tiny_method, token_rows
from tests.training.trained import fail_at, kept_weights, train_in

# Short and long sentences, so that the length split has something to gain.
LENGTHS = [5] * 10 + [9, 12, 15] * 4 + [32] * 8
SHAKEN = "+backbone.architecture.initializer_range=0.3"  # else every layer is close to the identity


def built(method: str, **options: Any) -> ContrastiveMethod:
    return with_towers_apart(tiny_method(*overrides_of(method), SHAKEN, **options))


def batch_for(method: ContrastiveMethod) -> TokenRows:
    """Sentences, inside the prompt where the method has one."""
    tokenizer = method.encoder.tokenizer
    if tokenizer.prompt is None:
        return token_rows(LENGTHS)
    from cse_bench.data.rows import rows_of

    return rows_of(tokenizer([f"{i:02d}" * (length // 2) for i, length in enumerate(LENGTHS)], max_length=None))


def two_steps(method: ContrastiveMethod) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Two losses, so that state which the first one leaves counts, and the gradients of both together."""
    batch = batch_for(method)
    losses = []
    for _ in range(2):
        loss = step(method, batch)["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
    return losses, gradients(method)


def padded(method: ContrastiveMethod) -> ContrastiveMethod:
    """Every encoder forwards padded rows, as Transformers does."""
    for part in method.modules():
        if isinstance(part, Encoder):
            part.packed = False
    return method


@pytest.mark.parametrize("method", METHODS)
def test_packing_pieces_and_gradient_caching_change_neither_loss_nor_any_gradient(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_PIECE_OVERHEAD_TOKENS", 16)  # such small batches would be left whole
    expected_losses, expected = two_steps(padded(built(method)).eval())
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-4
    whole, pieces, cached = built(method), padded(built(method, split=True)), built(method, cache_rows=7)
    for tried in (whole, pieces, cached, built(method, split=True, cache_rows=7)):
        forwards: list[int] = []
        monkeypatch.setattr(
            tried, "represent", lambda rows, f=tried.represent, seen=forwards: seen.append(len(rows)) or f(rows)
        )
        losses, found = two_steps(tried.eval())
        assert losses == pytest.approx(expected_losses, abs=1e-9)
        assert largest_difference(expected, found) < 1e-9
        if tried.gradient_cache_rows is not None:
            assert max(forwards) <= 7
        assert len(forwards) == 2 if tried is whole else len(forwards) > 2


@pytest.mark.parametrize("method", METHODS)
def test_gradient_caching_draws_the_same_dropout_masks_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for again in (True, False):
        if not again:  # the same pieces, all of them kept for the backward
            monkeypatch.setattr(base, "checkpoint", lambda function, ids, **_: function(ids))
        tried = built(method, cache_rows=7).train()
        torch.manual_seed(1)
        found.append(two_steps(tried))
    assert found[0][0] == found[1][0]
    assert largest_difference(found[0][1], found[1][1]) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(method: str, tmp_path: Path) -> None:
    overrides = (*overrides_of(method), "trainer.max_steps=5", "trainer.enable_progress_bar=false")
    _, whole = train_in(tmp_path / "whole", *overrides)
    with pytest.raises(RuntimeError, match="the power went"):
        train_in(tmp_path / "cut", *overrides, "checkpoint_every_steps=2", loggers=(fail_at(4),))
    _, cut = train_in(tmp_path / "cut", *overrides, "checkpoint_every_steps=2")
    expected, found = kept_weights(whole), kept_weights(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_recomputation_is_handed_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """From it torch learns which GPU's generator draws the dropout masks again; token rows would tell it nothing."""
    seen: list[tuple[object, ...]] = []

    def noted(function: Callable[..., Any], *arguments: object, **options: Any) -> Any:
        seen.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(base, "checkpoint", noted)
    two_steps(built("simcse", cache_rows=7))
    assert seen
    assert all(isinstance(one, torch.Tensor) for arguments in seen for one in arguments)


def test_what_never_changes_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    lora = ("method=cse_sfp", "backbone=tiny_llama", "adapter=lora", "checkpoint_every_steps=2", "trainer.max_steps=4")
    overrides = (*lora, "trainer.enable_progress_bar=false")
    _, whole = train_in(tmp_path / "whole", *overrides)
    state = torch.load(whole.checkpoint, weights_only=True)["state_dict"]
    assert state
    assert all(".lora_" in name for name in state)
    with pytest.raises(RuntimeError, match="the power went"):
        train_in(tmp_path / "cut", *overrides, loggers=(fail_at(3),))
    _, cut = train_in(tmp_path / "cut", *overrides)
    expected, found = kept_weights(whole), kept_weights(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_frozen_teacher_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    overrides = (*overrides_of("jtcse_distil"), "trainer.max_steps=2", "trainer.enable_progress_bar=false")
    _, directory = train_in(tmp_path, *overrides)
    state = torch.load(directory.checkpoint, weights_only=True)["state_dict"]
    assert any(name.startswith("encoder.") for name in state)
    assert not any(name.startswith("teacher.") for name in state)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_keeps_the_encoder_that_it_evaluates(method: str, tmp_path: Path) -> None:
    arguments = [f"method={method}", "trainer.max_steps=3", "trainer.enable_progress_bar=false"]
    arguments += ["backbone=tiny_llama"] if method == "cse_sfp" else []
    arguments += ["method.num_groups=16"] if method == "whitenedcse" else []
    results = run(config_in(tmp_path, *arguments))
    assert results["status"] == "complete"
    assert results["method"]["status"] in ("official code", "paper", "own reading")
    encoder = load_encoder(Path(results["directory"]) / "model")
    assert results["pooling"] == encoder.pooling
    vectors = encoder.encode(["Tea.", "The old river sings near the stone."])
    assert vectors.shape == (2, 32)
    assert abs(vectors[0] - vectors[1]).max() > 1e-3
