"""One student of a sum: the loss by hand, a teacher that stays as it is, where the student starts, and runs."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.errors import ConfigError, EncoderError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.plan import plan
from cse_bench.run import run
from tests.losses.test_info_nce import slow_info_nce
from tests.losses.test_twin_tower import H1, rows
from tests.tiny import composed, config_in, gradients, largest_difference, tiny_method, token_rows

SHAKEN = "+backbone.architecture.initializer_range=0.3"  # else every layer is close to the identity
LENGTHS = [5] * 6 + [9, 12, 15, 32]
UNTRAINED = ("method=jtcse_distil", "method@method.teacher=untrained")


def built(*overrides: str, **options: Any) -> ContrastiveMethod:
    """A student of two towers, all three different."""
    method = tiny_method("method=jtcse_distil", SHAKEN, *overrides, **options)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return method


def test_loss_by_hand() -> None:
    method = built()
    student, teacher = rows([[1, 0], [0, 1]]), H1[::2] + rows([[4, 3], [0, 5]])
    assert teacher.tolist() == [[7, 7], [-3, 9]]
    loss = method.objective({"student": student[None], "teacher": teacher[None]})["loss"]
    assert float(loss) == pytest.approx(0.0039713415, abs=1e-10)
    cosines = [[0.7071067812, -0.3162277660], [0.7071067812, 0.9486832981]]
    by_hand = [math.log(sum(math.exp(c / 0.05) for c in row)) - row[i] / 0.05 for i, row in enumerate(cosines)]
    assert sum(by_hand) / 2 == pytest.approx(0.0039713415, abs=1e-8)


def test_is_none_of_what_it_is_confused_with() -> None:
    """Anchors and candidates exchanged; towers normalised before they are added."""
    student, h1, h2 = rows([[1, 0], [0, 1]]), H1[::2], rows([[4, 3], [0, 5]])

    def loss(anchors: Any, candidates: Any) -> float:
        return float(np.mean(slow_info_nce(anchors.tolist(), candidates.tolist(), 0.05)))

    assert loss(student, h1 + h2) == pytest.approx(0.0039713415, abs=1e-10)
    assert abs(loss(h1 + h2, student) - 0.0039713415) > 0.1
    far = 10 * h2  # the longer tower dominates
    normalised = h1 / h1.norm(dim=1, keepdim=True) + far / far.norm(dim=1, keepdim=True)
    assert abs(loss(student, h1 + far) - loss(student, normalised)) > 1e-6


@pytest.mark.parametrize("split", [False, True])
def test_loss_equals_the_one_from_plain_forwards(split: bool) -> None:
    method = built(split=split).eval()
    batch = token_rows(LENGTHS)
    found: list[list[list[float]]] = []
    with torch.no_grad():
        for encoder in (method.encoder, *method.teacher.towers):
            found.append([])
            for ids, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
                mask = torch.ones(1, length, dtype=torch.long)
                states = encoder.body(input_ids=ids[None, :length], attention_mask=mask).last_hidden_state
                found[-1].append(states[0, 0].tolist())
        taught = (np.array(found[1]) + np.array(found[2])).tolist()
        expected = np.mean(slow_info_nce(found[0], taught, 0.05))
        assert float(method.loss_of(batch)["loss"]) == pytest.approx(expected, abs=1e-9)


def test_pieces_and_gradient_caching_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cse_bench.methods.base._PIECE_OVERHEAD_TOKENS", 16)
    losses, found = [], []
    for options in ({}, {"split": True}, {"cache_rows": 3}, {"split": True, "cache_rows": 3}):
        method = built(**options).eval()
        loss = method.loss_of(token_rows(LENGTHS))["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        found.append(gradients(method))
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-10)
    assert max(largest_difference(found[0], other) for other in found[1:]) < 1e-10


def test_gradient_equals_finite_differences() -> None:
    method = built().eval()
    batch = token_rows([4, 7, 9])
    method.loss_of(batch)["loss"].backward()
    weight = method.encoder.body.encoder.layer[0].attention.self.query.weight
    for index in ((0, 0), (3, 5)):
        with torch.no_grad():
            start, losses = weight[index].item(), []
            for shift in (1e-6, -1e-6):
                weight[index] = start + shift
                losses.append(float(method.loss_of(batch)["loss"]))
            weight[index] = start
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(float(weight.grad[index]), rel=1e-4, abs=1e-7)


def test_a_student_of_itself_is_simcse_without_head_and_dropout() -> None:
    student, simcse = tiny_method(*UNTRAINED), tiny_method("method=simcse", "method.head=none")
    batch = token_rows(LENGTHS)
    with torch.no_grad():
        losses = [float(method.eval().loss_of(batch)["loss"]) for method in (student, simcse)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_the_teacher_stays_as_it_is() -> None:
    method = built().train()
    assert method.encoder.training
    assert not any(module.training for module in method.teacher.modules())
    batch = token_rows(LENGTHS)
    with torch.no_grad():
        first, again = (method.represent(batch) for _ in range(2))
    assert torch.equal(first["teacher"], again["teacher"])
    assert not torch.equal(first["student"], again["student"])
    assert not method.represent(batch)["teacher"].requires_grad
    method.loss_of(batch)["loss"].backward()
    assert {name.split(".")[0] for name in gradients(method)} == {"encoder"}
    (group,) = method.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in method.encoder.parameters()}
    assert method.training_only_state() == {}
    method.eval().train()
    assert not any(module.training for module in method.teacher.modules())


def test_the_student_alone_embeds() -> None:
    method = built().eval()
    batch = token_rows(LENGTHS)
    with torch.no_grad():
        assert torch.equal(method.embed(batch), method.encoder(batch))
    assert method.views(batch) is batch


def test_plan_counts_the_teacher() -> None:
    overrides = ("backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none", "dry_run=true")
    found = plan(composed("method=jtcse_distil", *overrides))
    assert found.parameters == {"total": 3 * 43840, "trainable": 43840, "inference": 43840}
    assert (found.views, found.negatives) == (1, 63)


def test_the_teachers_run_and_those_that_it_needs() -> None:
    from cse_bench.methods.jtcse import JTCSE
    from cse_bench.methods.jtcse_distil import JTCSEDistil

    overrides = ("backbone=bert_base", "data=wikipedia_sample", "evaluation=none", "dry_run=true")
    config = composed("method=jtcse_distil", *overrides)
    (teacher,) = JTCSEDistil.prerequisites(config).values()
    alone = composed("method=jtcse", *overrides)
    assert teacher.optimizer.lr == alone.optimizer.lr == 1.3e-6
    assert teacher == alone  # the recipes say the same of the teacher
    assert JTCSE.prerequisites(teacher) == JTCSE.prerequisites(alone)
    assert JTCSEDistil.prerequisites(composed(*UNTRAINED, "backbone=tiny_bert", "evaluation=none")) == {}


@pytest.mark.parametrize("backbone", ["roberta_base", "bert_tiny", "tiny_bert"])
def test_recipes_of_teacher_and_student_agree(backbone: str) -> None:
    from cse_bench.methods.jtcse_distil import JTCSEDistil

    overrides = (f"backbone={backbone}", "data=wikipedia_sample", "evaluation=none", "dry_run=true")
    (teacher,) = JTCSEDistil.prerequisites(composed("method=jtcse_distil", *overrides)).values()
    assert teacher == composed("method=jtcse", *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.teacher=/nowhere"], r"method\.teacher: there is no folder '/nowhere'"),
        (["method.teacher.cross_every=3"], r"method\.teacher\.cross_every: the last of 2 layers"),
        (["method.teacher.temperature=0"], r"method\.teacher\.temperature: must be greater than 0"),
        (["method.teacher.towers.first=/nowhere"], r"method\.teacher\.towers\.first: there is no folder '/nowhere'"),
        (
            ["method.teacher.towers.second.method.momentum=1"],
            r"method\.teacher\.towers\.second\.method\.momentum: must",
        ),
        (["method.teacher_optimizer.lr=0"], r"method\.teacher_optimizer\.lr: must be greater than 0"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed("method=jtcse_distil", "backbone=tiny_bert", "evaluation=none", "dry_run=true", *overrides)


def test_a_run_trains_towers_teacher_and_student(tmp_path: Path) -> None:
    results = run(config_in(tmp_path, "method=jtcse_distil", "trainer.max_steps=4"))
    assert results["status"] == "complete"
    assert results["method"]["status"] == "own reading"
    found = sorted(folder.name.split("-")[0] for folder in (tmp_path / "outputs").iterdir() if folder.is_dir())
    assert found == ["esimcse", "jtcse", "jtcse_distil", "simcse"]
    teacher = load_encoder(tmp_path / "outputs" / results["prerequisites"]["teacher"] / "model")
    assert isinstance(teacher, SummedEncoders)
    student = load_encoder(Path(results["directory"]) / "model")
    assert isinstance(student, Encoder)
    assert results["pooling"] == "cls"
    assert not (Path(results["directory"]) / "model" / "training_only.safetensors").exists()
    first = teacher.towers[0]
    assert 1e-4 < largest_difference(first.body.state_dict(), student.body.state_dict()) < 0.01  # four steps of 1e-3

    # Not a weight moves: the student is where it starts, from the teacher's path or its run.
    path = str(tmp_path / "outputs" / results["prerequisites"]["teacher"])
    still = ("method=jtcse_distil", "trainer.max_steps=1", "optimizer.lr=1e-30", f"method.teacher={path}")
    kept = {
        start: load_encoder(Path(run(config_in(tmp_path, *still, f"method.student={start}"))["directory"]) / "model")
        for start in ("tower_1", "backbone")
    }
    sentences = ["Tea.", "The old river sings near the stone."]
    assert np.array_equal(kept["tower_1"].encode(sentences), first.encode(sentences))
    assert not np.allclose(kept["backbone"].encode(sentences), first.encode(sentences), atol=1e-3)


def test_any_method_can_teach(tmp_path: Path) -> None:
    """A single encoder is its own first tower."""
    results = run(config_in(tmp_path, "method=jtcse_distil", "method@method.teacher=simcse", "trainer.max_steps=2"))
    assert results["prerequisites"]["teacher"].startswith("simcse-")
    assert results["status"] == "complete"


def test_a_teacher_that_reads_other_tokens_is_refused(tmp_path: Path) -> None:
    prompted = "backbone.prompt='it says {sentence} here'"
    other = run(config_in(tmp_path, "method=simcse", prompted, "trainer.max_steps=1"))
    with pytest.raises(EncoderError, match="has another tokenizer or prompt than the student's backbone"):
        run(config_in(tmp_path, "method=jtcse_distil", f"method.teacher={other['directory']}", "trainer.max_steps=1"))
