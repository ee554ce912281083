"""The optimiser of the SimCSE trainer: AdamW, linear decay from the first step on, gradients clipped by their norm."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch

from cse_bench.results.run_directory import RunDirectory
from cse_bench.training import train as training
from tests.tiny import config_in, tiny_method


def configured(steps: int, *overrides: str) -> tuple[torch.optim.Optimizer, Any]:
    method = tiny_method(*overrides)
    method._trainer = SimpleNamespace(precision="32-true", estimated_stepping_batches=steps)
    made = method.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def rates(steps: int, *overrides: str) -> list[float]:
    """The learning rate that each of `steps` steps uses."""
    optimizer, schedule = configured(steps, *overrides)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_linear_decay_of_the_papers_run() -> None:
    """10^6 sentences in batches of 64: lr0 * (1 - k / T), k from 0."""
    found = rates(15625, "optimizer.lr=3e-5")
    assert found[0] == pytest.approx(3.0e-5, rel=1e-12)
    assert found[7812] == pytest.approx(1.500096e-5, rel=1e-9)
    assert found[15624] == pytest.approx(1.92e-9, rel=1e-9)
    assert found == pytest.approx([3e-5 * (1 - k / 15625) for k in range(15625)], rel=1e-9)


def test_warm_up_and_constant_schedules() -> None:
    assert rates(4, "optimizer.lr=0.5", "optimizer.warmup_steps=2") == pytest.approx([0, 0.25, 0.5, 0.25])
    assert rates(3, "optimizer.lr=0.5", "optimizer.schedule=constant") == [0.5] * 3
    assert rates(2, "optimizer.lr=0.5", "optimizer.schedule=cosine") == pytest.approx([0.5, 0.25])


def test_adamw_has_the_trainers_settings() -> None:
    optimizer, _ = configured(10)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-5, (0.9, 0.999), 1e-8, 0.0)
    method = tiny_method()
    assert len(group["params"]) == len(list(method.parameters()))


def test_frozen_parameters_are_not_optimised() -> None:
    method = tiny_method()
    for parameter in method.encoder.parameters():
        parameter.requires_grad_(False)
    method._trainer = SimpleNamespace(precision="32-true", estimated_stepping_batches=4)
    (group,) = method.configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == 2  # the head's


class Norms(lightning.Callback):
    """The norm of the gradient that each optimiser step uses."""

    found: list[float]

    def __init__(self) -> None:
        self.found = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.found.append(float(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()])))


def gradient_norms(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[float]:
    """Of a real short training; Lightning clips right after the hook, so the optimiser itself is asked."""
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def measured() -> Any:
            loss = closure()
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))
            return loss

        return step(self, measured)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    config = config_in(folder, "trainer.max_steps=3", *overrides)
    directory = RunDirectory(folder / "run")
    directory.path.mkdir()
    training.train(config, directory, loggers=[])
    return norms


def test_gradients_are_clipped_to_the_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = gradient_norms(tmp_path / "free", monkeypatch, "trainer.gradient_clip_val=1e9")
    assert min(free) > 0.1
    clipped = gradient_norms(tmp_path / "clipped", monkeypatch, "trainer.gradient_clip_val=0.05")
    assert clipped == pytest.approx([0.05] * 3, rel=1e-4)


def test_gradients_are_clipped_by_value_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny_method()
    for parameter in method.parameters():
        parameter.grad = torch.full_like(parameter, -3.0)
    method.configure_gradient_clipping(None, 0.5, "value")
    assert all(bool((parameter.grad == -0.5).all()) for parameter in method.parameters())
