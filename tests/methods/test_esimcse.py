"""ESimCSE: the loss with a queue by hand, the momentum encoder, and the order of events within a step."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cse_bench.errors import ConfigError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.esimcse import NegativeQueue, follow
from tests.methods.stepping import step
from tests.tiny import composed, gradients, largest_difference, tiny_method, token_rows
from tests.training.trained import kept_weights, train_in

ESIMCSE = "method=esimcse"
Z1 = torch.tensor([[3, 4], [0, 2], [1, 0]], dtype=torch.float64)
Z2 = torch.tensor([[4, 3], [-3, 4], [5, -12]], dtype=torch.float64)
QUEUE = torch.tensor([[0, -5], [-2, 0]], dtype=torch.float64)


def esimcse(*overrides: str, **options: Any) -> ContrastiveMethod:
    return tiny_method(ESIMCSE, *overrides, **options)


def loss_of(method: ContrastiveMethod, queue: Tensor, temperature: float) -> Tensor:
    method.temperature = temperature
    method.queue.rows = queue
    return method.objective({"z": torch.stack([Z1, Z2])})["loss"]


@pytest.mark.parametrize(
    ("temperature", "with_queue", "without"),
    [(1.0, 1.0170987773, 0.7682404643), (0.05, 2.7753634271, 2.7753633527)],
)
def test_loss_by_hand(temperature: float, with_queue: float, without: float) -> None:
    method = esimcse()
    assert float(loss_of(method, QUEUE, temperature)) == pytest.approx(with_queue, abs=1e-9)
    assert float(loss_of(method, QUEUE[:0], temperature)) == pytest.approx(without, abs=1e-9)


def test_only_the_first_views_query_the_queue() -> None:
    """Per anchor, and not what a symmetric version or a queue that replaces the batch would give."""
    per_anchor = []
    method = esimcse()
    method.temperature, method.queue.rows = 1.0, QUEUE
    for i in range(3):
        logits = [float(torch.cosine_similarity(Z1[i], c, dim=0)) for c in (*Z2, *QUEUE)]
        per_anchor.append(math.log(sum(map(math.exp, logits))) - logits[i])
    assert per_anchor == pytest.approx([0.7510644337, 0.9600682115, 1.3401636867], abs=1e-9)
    swapped = method.objective({"z": torch.stack([Z2, Z1])})["loss"]
    assert abs(float(swapped) - sum(per_anchor) / 3) > 0.01


def test_no_gradient_reaches_the_queue_or_the_momentum_encoder() -> None:
    method = esimcse()
    step(method, token_rows([6, 9, 14]))
    assert len(method.queue.rows) == 3
    assert not method.queue.rows.requires_grad
    method.loss_of(token_rows([6, 9, 14], seed=1))["loss"].backward()
    assert all(parameter.grad is None for parameter in method.momentum_encoder.parameters())
    assert all(parameter.grad is not None for parameter in method.encoder.parameters())
    trained = {id(parameter) for group in method.parameter_groups() for parameter in group["params"]}
    assert not trained & {id(parameter) for parameter in method.momentum_encoder.parameters()}


def test_momentum_by_hand() -> None:
    slow, fast = nn.Linear(1, 2, bias=False).double(), nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        slow.weight[:] = torch.tensor([[1.0], [-2.0]])
        fast.weight[:] = torch.tensor([[0.0], [2.0]])
    for expected in ([0.995, -1.98], [0.990025, -1.9601], [0.985074875, -1.9402995]):
        follow(slow, fast, momentum=0.995)
        assert slow.weight.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_queue_is_first_in_first_out() -> None:
    queue = NegativeQueue(5, width=1).double()
    seen, held = [], []
    for number in range(4):
        seen.append(queue.rows.flatten().tolist())
        queue.push(torch.tensor([[2.0 * number], [2.0 * number + 1]], dtype=torch.float64))
        held.append(queue.rows.flatten().tolist())
    assert held == [[0, 1], [0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5, 6, 7]]
    assert seen == [[], *held[:3]]


def test_first_batch_enters_whole() -> None:
    queue = NegativeQueue(2, width=1)
    queue.push(torch.arange(3.0).unsqueeze(1))
    assert queue.rows.flatten().tolist() == [0, 1, 2]
    queue.push(torch.tensor([[3.0]]))
    assert queue.rows.flatten().tolist() == [2, 3]


def test_momentum_encoder_starts_as_the_encoder_after_its_weights_were_loaded() -> None:
    method = esimcse().eval()
    rows = token_rows([6, 9, 14])
    assert torch.equal(method.momentum_encoder(rows), method.encoder(rows))


def test_momentum_encoder_can_start_at_random() -> None:
    method = esimcse("method.momentum_init=random").eval()
    rows = token_rows([6, 9, 14])
    assert not torch.allclose(method.momentum_encoder(rows), method.encoder(rows), atol=0.1)


def test_events_of_a_step_come_in_the_official_order() -> None:
    method = esimcse("method.queue_size=5", "method.momentum=0.5")
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.mul_(1.25)  # as if training had moved it
    half = {
        name: (p + q) / 2
        for (name, p), q in zip(
            method.encoder.named_parameters(), (p.clone() for p in method.momentum_encoder.parameters()), strict=True
        )
    }
    batch = token_rows([6, 9])
    torch.manual_seed(5)
    loss = float(method.loss_of(batch)["loss"].detach())
    torch.manual_seed(5)
    assert float(step(method, batch)["loss"].detach()) == loss  # the current batch was not in the queue
    for name, parameter in method.momentum_encoder.named_parameters():
        assert torch.allclose(parameter, half[name], rtol=0, atol=1e-12)
    method.eval()
    with torch.no_grad():  # of the ORIGINAL sentences, by the momentum encoder as moved, without dropout, with the head
        expected = method.head(method.momentum_encoder(batch))
    assert torch.allclose(method.queue.rows, expected, rtol=0, atol=1e-12)


def test_momentum_encoder_never_drops_out() -> None:
    method = esimcse().train()
    assert method.encoder.training
    assert not any(module.training for module in method.momentum_encoder.modules())
    batch = token_rows([9, 9, 9])
    assert torch.equal(method.momentum_encoder(batch), method.momentum_encoder(batch))


def test_without_momentum_the_queue_comes_from_the_online_encoder() -> None:
    method = esimcse("method.momentum=0")
    with torch.no_grad():
        method.encoder.body.embeddings.word_embeddings.weight.mul_(2.0)
    batch = token_rows([6, 9])
    step(method, batch)
    method.eval()
    with torch.no_grad():
        assert torch.allclose(method.queue.rows, method.head(method.encoder(batch)), rtol=0, atol=1e-12)


def test_views_are_the_sentence_and_the_sentence_with_repetitions() -> None:
    method = esimcse()
    batch = token_rows([20] * 30)
    rows = method.views(batch)
    assert rows.num_views == 2
    assert torch.equal(rows.ids[:30, :20], batch.ids)
    assert rows.lengths[:30].tolist() == [20] * 30
    assert int(rows.lengths[30:].max()) > 20
    assert rows.lengths[30:].tolist() == method.views(batch).lengths[30:].tolist()


def test_repetitions_are_drawn_anew_in_every_epoch_when_asked() -> None:
    from dataclasses import replace

    batch = token_rows([20] * 30)
    for redraw, differ in (("run", False), ("epoch", True)):
        method = esimcse(f"method.repetition_redraw={redraw}")
        first, second = (method.views(replace(batch, epoch=epoch)).lengths.tolist() for epoch in (0, 1))
        assert (first != second) == differ


def test_without_repetition_and_queue_it_is_simcse() -> None:
    batch = token_rows([6, 9, 14, 7, 30])
    found = []
    for overrides in (["method=simcse"], [ESIMCSE, "method.repetition_rate=0", "method.queue_size=0"]):
        method = tiny_method(*overrides)
        torch.manual_seed(3)  # the same dropout masks
        loss = method.loss_of(batch)["loss"]
        loss.backward()
        found.append((loss.detach(), gradients(method)))
    assert torch.equal(found[0][0], found[1][0])
    assert largest_difference(found[0][1], found[1][1]) == 0
    assert method.momentum_encoder is None


def test_state_is_in_the_checkpoint_and_not_in_the_kept_encoder(tmp_path: Path) -> None:
    overrides = (ESIMCSE, "method.queue_size=40", "checkpoint_every_steps=2")
    _, whole = train_in(tmp_path / "whole", *overrides, "trainer.max_steps=6")
    state = torch.load(whole.checkpoint, weights_only=True)["state_dict"]
    assert state["queue.rows"].shape == (40, 32)
    assert any(name.startswith("momentum_encoder.") for name in state)
    kept = kept_weights(whole)
    assert not any("momentum" in name or "queue" in name for name in kept)
    assert {"0.weight", "0.bias"} <= {
        name.removeprefix("head.") for name in load_file(whole.model / "training_only.safetensors")
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.repetition_rate=0", "backbone.dropout=0"], "identical"),
        (["backbone.prompt='Say: {sentence}'"], "repeat words of the prompt"),
        (["data.max_length=512"], "a row has up to 521, and tiny_bert takes 512; set at most 503"),
        (
            [
                "backbone=tiny_llama",
                "method.momentum_init=random",
                "backbone.adapter={type:lora,r:4,alpha:8,dropout:0.1,target_modules:[q_proj]}",
            ],
            "method.momentum_init: random weights beneath an adapter",
        ),
        (["method.repetition_rule=word"], "method.repetition_rule"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(ESIMCSE, "backbone=tiny_bert", "evaluation=none", "data=wikipedia_sample", "dry_run=true", *overrides)


def test_repetition_needs_no_dropout() -> None:
    composed(ESIMCSE, "backbone=tiny_bert", "backbone.dropout=0", "evaluation=none", "data=wikipedia_sample")


def test_objective_equals_a_slow_one_on_random_vectors() -> None:
    draw = np.random.default_rng(0)
    z1, z2 = draw.normal(size=(2, 6, 5))
    queue = draw.normal(size=(9, 5))

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    logits = unit(z1) @ np.concatenate([unit(z2), unit(queue)]).T / 0.05
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])
    method = esimcse()
    method.queue.rows = torch.from_numpy(queue)
    z = torch.from_numpy(np.stack([z1, z2]))
    assert float(method.objective({"z": z})["loss"]) == pytest.approx(float(expected), abs=1e-10)
    assert torch.autograd.gradcheck(lambda rows: method.objective({"z": rows})["loss"], z.requires_grad_())
