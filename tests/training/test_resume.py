"""A run that was stopped and goes on ends bit for bit where it would have ended without the stop."""

import os
import pickle
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cse_bench.errors import TrainingError
from cse_bench.results.metrics_log import read_metrics
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.checkpoint_file import newest_whole, previous, step_of
from cse_bench.training.resume import Interrupted, random_state, set_random_state
from cse_bench.training.train import TrainingSummary
from tests.tiny import metric_rows, task_overrides
from tests.training.trained import At, fail_at, kept_weights, signal_at, train_in

# 100 sentences in batches of 16: 7 steps an epoch, the last with 4 sentences. Dropout is on.
BY_STEPS = ("trainer.max_steps=17",)
BY_EPOCHS = ("trainer.max_epochs=2",)
TASKS = (*task_overrides(), "evaluation.eval_every_steps=3")

Outcome = tuple[TrainingSummary, dict[str, torch.Tensor], list[tuple[int, str, float]]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference, once per config."""

    @cache
    def outcome(*overrides: str) -> Outcome:
        summary, directory = train_in(tmp_path_factory.mktemp("uninterrupted"), *overrides)
        return summary, kept_weights(directory), read_metrics(directory.metrics)

    return outcome


def assert_same_outcome(expected: Outcome, summary: TrainingSummary, directory: RunDirectory) -> None:
    reference, weights, rows = expected
    found = kept_weights(directory)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert read_metrics(directory.metrics) == rows  # complete, in order, nothing twice, the same to the last digit
    costs = {name: value for name, value in summary.metrics.items() if "tokens" in name or name.endswith("sentences")}
    assert costs == {name: reference.metrics[name] for name in costs}
    assert replace(summary, metrics={}) == replace(reference, metrics={})


@pytest.mark.parametrize(
    ("config", "stop"),
    [
        (BY_STEPS, 5),  # in the first epoch
        (BY_STEPS, 7),  # at its end
        (BY_STEPS, 10),  # in the second one
        (BY_STEPS, 17),  # after the last step
        (BY_EPOCHS, 5),
        (BY_EPOCHS, 7),
        (BY_EPOCHS, 13),
        (BY_EPOCHS, 14),
        ((*BY_STEPS, *TASKS), 9),  # at a step that is evaluated
        ((*BY_STEPS, *TASKS), 10),
        ((*BY_STEPS, "precision=bf16-mixed", "data.drop_last=true"), 7),
        ((*BY_STEPS, "precision=64-true", "optimizer.warmup_steps=8"), 7),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, uninterrupted: Any, config: tuple[str, ...], stop: int
) -> None:
    expected = uninterrupted(*config)
    losses = dict(metric_rows(expected[2], "train/loss"))
    assert sorted(losses) == list(range(1, expected[0].steps + 1))
    with pytest.raises(Interrupted, match=f"stopped at step {stop} by SIGINT"):
        train_in(tmp_path, *config, loggers=(signal_at(stop, signal.SIGINT),))
    summary, directory = train_in(tmp_path, *config)
    assert_same_outcome(expected, summary, directory)


def test_stopped_twice_in_one_run(tmp_path: Path, uninterrupted: Any) -> None:
    config = (*BY_STEPS, *TASKS)
    for stop, number in ((4, signal.SIGTERM), (11, signal.SIGINT)):
        with pytest.raises(Interrupted, match=signal.Signals(number).name):
            train_in(tmp_path, *config, loggers=(signal_at(stop, number),))
    assert_same_outcome(uninterrupted(*config), *train_in(tmp_path, *config))


class AtTheEnd(At):
    """Does something after the last step, while the loggers are closed."""

    def finalize(self, status: str) -> None:
        if status == "success":
            self.action()


def test_stopped_after_the_last_step(tmp_path: Path, uninterrupted: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loggers = (AtTheEnd(0, lambda number=number: os.kill(os.getpid(), number)),)  # type: ignore[misc]
        with pytest.raises(Interrupted, match=f"stopped by {number.name} outside of the steps"):
            train_in(tmp_path, *BY_STEPS, loggers=loggers)
    assert_same_outcome(uninterrupted(*BY_STEPS), *train_in(tmp_path, *BY_STEPS))
    summary, _ = train_in(tmp_path / "unsaved", *BY_STEPS, "checkpoint_every_steps=0", loggers=loggers)
    assert summary.steps == 17  # nothing is written then: to stop would lose it all


@pytest.mark.parametrize("unsaved", [(), ("checkpoint_every_steps=0",)])
def test_ranks_agree_once_more_after_the_last_step(
    tmp_path: Path, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch, unsaved: tuple[str, ...]
) -> None:
    """They look at steps 10 and 20, and the signal comes between them."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped at step 17 by SIGTERM"):
        patch.setattr("cse_bench.training.resume.world_size", lambda: 2)
        train_in(tmp_path, *BY_STEPS, *unsaved, loggers=(signal_at(12, signal.SIGTERM),))
    assert step_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == 17
    again = train_in(tmp_path, *BY_STEPS, *unsaved, loggers=(fail_at(17),))  # no step is taken
    assert_same_outcome(uninterrupted(*BY_STEPS), *again)


@pytest.mark.parametrize("step", [3, None])
def test_an_interrupt_goes_to_another_process(step: int | None) -> None:
    stop = Interrupted(signal.SIGTERM, step)
    back = pickle.loads(pickle.dumps(stop))
    assert (str(back), back.signal_number, back.step) == (str(stop), signal.SIGTERM, step)


@pytest.mark.parametrize("config", [BY_STEPS, BY_EPOCHS, (*BY_STEPS, *TASKS)])
def test_finished_training_is_not_repeated(tmp_path: Path, uninterrupted: Any, config: tuple[str, ...]) -> None:
    """What follows it, the final evaluation, may fail or be interrupted."""
    first, _ = train_in(tmp_path, *config)
    again, directory = train_in(tmp_path, *config, loggers=(fail_at(17), fail_at(1)))  # no step is taken
    assert_same_outcome(uninterrupted(*config), again, directory)
    assert again.metrics["cost/train_time_s"] == pytest.approx(first.metrics["cost/train_time_s"], abs=0.1)


@pytest.mark.parametrize("crash", [8, 10])
def test_after_a_crash_the_run_goes_on_from_the_last_checkpoint(tmp_path: Path, uninterrupted: Any, crash: int) -> None:
    config = (*BY_STEPS, *TASKS, "checkpoint_every_steps=4")
    with pytest.raises(RuntimeError, match="power"):
        train_in(tmp_path, *config, loggers=(fail_at(crash),))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert step_of(checkpoint) == (crash - 1) // 4 * 4
    with (tmp_path / "run" / "metrics.csv").open("a") as log:
        log.write("11,train/loss,0.")  # and the power went while this was written
    assert_same_outcome(uninterrupted(*BY_STEPS, *TASKS), *train_in(tmp_path, *config))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 7, 10])
def test_resume_with_a_reading_process(tmp_path: Path, uninterrupted: Any, stop: int) -> None:
    with pytest.raises(Interrupted):
        train_in(tmp_path, *BY_STEPS, "data.num_workers=1", loggers=(signal_at(stop, signal.SIGINT),))
    assert_same_outcome(uninterrupted(*BY_STEPS), *train_in(tmp_path, *BY_STEPS, "data.num_workers=1"))


def test_dropout_is_on_and_the_masks_are_part_of_the_result(tmp_path: Path, uninterrupted: Any) -> None:
    """Canary for all of the above: a resume that did not restore the generators would be noticed."""
    with pytest.raises(Interrupted):
        train_in(tmp_path, *BY_STEPS, loggers=(signal_at(5, signal.SIGINT),))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["random_states"][0]["torch"] = torch.Generator().manual_seed(7).get_state()
    torch.save(content, path)
    _, directory = train_in(tmp_path, *BY_STEPS)
    losses = dict(metric_rows(read_metrics(directory.metrics), "train/loss"))
    expected = dict(metric_rows(uninterrupted(*BY_STEPS)[2], "train/loss"))
    assert [losses[step] == expected[step] for step in (1, 5, 6)] == [True, True, False]


@pytest.fixture
def handlers() -> Iterator[dict[int, Any]]:
    """What answers the signals outside of a training."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("ending", ["done", "interrupted", "failed", "second Ctrl-C"])
def test_signals_are_given_back_however_the_training_ends(
    tmp_path: Path, handlers: dict[int, Any], ending: str
) -> None:
    loggers: dict[str, tuple[Any, ...]] = {
        "done": (),
        "interrupted": (signal_at(2, signal.SIGTERM),),
        "failed": (fail_at(2),),
        "second Ctrl-C": (signal_at(2, signal.SIGINT, signal.SIGINT),),
    }
    try:
        train_in(tmp_path, "trainer.max_steps=3", loggers=loggers[ending])
        how = "done"
    except Interrupted:
        how = "interrupted"
    except KeyboardInterrupt:
        how = "second Ctrl-C"
    except RuntimeError:
        how = "failed"
    assert how == ending
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_checkpoint_holds_plain_tensors_only(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_in(tmp_path, *BY_STEPS, *TASKS, loggers=(signal_at(4, signal.SIGINT),))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 4
    assert step_of(path) == 4
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]  # no half-written one beside it


def test_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be read .*starts over"):
        train_in(tmp_path, *BY_STEPS)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut_off, emptied, one_bit_flipped, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, uninterrupted: Any, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = (*BY_STEPS, *TASKS, "checkpoint_every_steps=3")
    with pytest.raises(RuntimeError, match="power"):
        train_in(tmp_path, *config, loggers=(fail_at(8),))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert (step_of(last), step_of(previous(last))) == (6, 3)
    damage(last)
    assert newest_whole(last) == previous(last)
    assert ("is damaged; going on from the one before, step 3" in caplog.text) == last.exists()
    assert_same_outcome(uninterrupted(*BY_STEPS, *TASKS), *train_in(tmp_path, *config))


def test_a_damaged_checkpoint_is_not_kept_in_the_place_of_the_whole_one_before(tmp_path: Path) -> None:
    """Else the run would hang on one file while the next checkpoint is put in its place."""
    config = (*BY_STEPS, "checkpoint_every_steps=3")
    for crash in (8, 7):
        with pytest.raises(RuntimeError, match="power"):
            train_in(tmp_path, *config, loggers=(fail_at(crash),))
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        assert (step_of(last), step_of(previous(last))) == (6, 3)
        cut_off(last)


def test_two_damaged_checkpoints_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power"):
        train_in(tmp_path, *BY_STEPS, "checkpoint_every_steps=3", loggers=(fail_at(8),))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    one_bit_flipped(last)
    emptied(previous(last))
    with pytest.raises(TrainingError, match=r"last\.ckpt and .*previous\.ckpt cannot be read .*starts over"):
        train_in(tmp_path, *BY_STEPS)


def test_no_flipped_bit_gives_another_state(tmp_path: Path) -> None:
    """Wherever it is: it is noticed, or it was in a part that nothing is read from."""
    path = tmp_path / "last.ckpt"
    state = {"global_step": 7, "weights": torch.arange(40.0), "name": "adamw", "nested": [torch.ones(3), (1, 2.5)]}
    torch.save(state, path)
    content, noticed = path.read_bytes(), 0
    draw = random.Random(0)
    for bit in draw.sample(range(8 * len(content)), 400):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            newest_whole(path)
        except TrainingError:
            noticed += 1
            continue
        found = torch.load(path, weights_only=True)
        assert found["global_step"] == 7
        assert found["name"] == "adamw"
        assert torch.equal(found["weights"], state["weights"])
        assert torch.equal(found["nested"][0], state["nested"][0])
        assert found["nested"][1] == (1, 2.5)
    assert noticed > 100


def test_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = os.replace, []

    def replace_once(source: Path, target: Path) -> None:
        if target.name == "last.ckpt":
            done.append(target)
            if len(done) > 1:
                raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(TrainingError, match=r"cannot write .*last\.ckpt .*No space left"):
        train_in(tmp_path, *BY_STEPS, "checkpoint_every_steps=3")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    kept = newest_whole(path)
    assert kept is not None
    assert step_of(kept) == 3
    assert [file.name for file in path.parent.iterdir()] == [kept.name]


def test_random_state_round_trip(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(())), random.gauss(0, 1)]

    random.gauss(0, 1)  # leaves a second number in Python's generator, which belongs to its state
    np.random.normal()
    torch.save(random_state(), tmp_path / "state.pt")
    first = draw()
    assert draw() != first
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first
