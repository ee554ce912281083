"""Files that change, vanish or break under a run: corpus, token store, model, checkpoints."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cse_bench.errors import DataError, EncoderError, TrainingError
from cse_bench.results.run_directory import RunDirectory, read_results
from cse_bench.run import run
from cse_bench.training.checkpoint_file import previous
from tests.faults.trouble import HAPPENS, troubled
from tests.tiny import composed, made_up_sentences

SLOW = pytest.mark.slow


def change(text: Path) -> None:
    """As long as before, another letter at its end."""
    content = text.read_bytes()
    text.write_bytes(content[:-2] + b"z\n")


def fail() -> None:
    raise RuntimeError("the power went")


def the_only_run(folder: Path) -> RunDirectory:
    (path,) = (folder / "outputs").iterdir()
    return RunDirectory(path)


@pytest.mark.parametrize("reading", [pytest.param(1, marks=SLOW), 2])
def test_a_corpus_that_changes_while_it_is_read_is_noticed(tmp_path: Path, reading: int) -> None:
    text = tmp_path / "sentences.txt"
    text.write_text("\n".join(made_up_sentences(1000)) + "\n")  # more than is read at once
    arguments = troubled(tmp_path)
    before = text.read_bytes()
    HAPPENS["corpus", reading] = lambda: change(text)
    with pytest.raises(DataError, match=r"sentences\.txt: was changed while the run was reading it"):
        run(composed(*arguments))
    assert list((tmp_path / "cache").glob("tokens/*/store.json")) == []  # no store under the name of the old corpus
    text.write_bytes(before)
    assert run(composed(*arguments))["status"] == "complete"


def test_a_corpus_that_changed_before_the_ranks_read_it_is_noticed(tmp_path: Path) -> None:
    from cse_bench.training.train import train

    config = composed(*troubled(tmp_path))
    HAPPENS["dev", 3] = fail
    with pytest.raises(RuntimeError):
        run(config)
    change(tmp_path / "sentences.txt")
    with pytest.raises(DataError, match="^the corpus 'sentences' was changed after this run had started"):
        train(config, the_only_run(tmp_path), loggers=[])  # as a rank does, which reads the config there


@SLOW
def test_a_changed_corpus_is_another_run(tmp_path: Path) -> None:
    HAPPENS["dev", 3] = fail
    with pytest.raises(RuntimeError):
        run(composed(*troubled(tmp_path)))
    change(tmp_path / "sentences.txt")
    results = run(composed(*troubled(tmp_path)))
    assert results["steps"] == 12
    assert len(list((tmp_path / "outputs").iterdir())) == 2


@pytest.mark.parametrize("what", [pytest.param("corpus", marks=SLOW), "token store"])
def test_what_disappears_while_it_is_trained_from_is_not_missed(
    tmp_path: Path, what: str, untroubled: Callable[..., dict[str, Any]], ends_the_same: Callable[..., None]
) -> None:
    expected = untroubled()
    text, store = tmp_path / "sentences.txt", tmp_path / "cache" / "tokens"
    arguments = troubled(tmp_path)
    content = text.read_bytes()
    HAPPENS["dev", 3] = lambda: text.unlink() if what == "corpus" else shutil.rmtree(store)
    HAPPENS["test", 1] = fail  # to go on once more
    with pytest.raises(RuntimeError, match="power"):
        run(composed(*arguments))
    assert expected
    if what == "corpus":
        with pytest.raises(DataError, match=r"sentences\.txt: no such file"):
            run(composed(*arguments))
        text.write_bytes(content)
    ends_the_same(tmp_path)


def remove(model: Path) -> None:
    shutil.rmtree(model)


def cut_off(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage", [pytest.param(remove, marks=SLOW), cut_off, pytest.param(without_weights, marks=SLOW)]
)
def test_a_selected_encoder_that_is_damaged_is_told_before_training_goes_on(
    tmp_path: Path, damage: Callable[[Path], None], ends_the_same: Callable[..., None]
) -> None:
    HAPPENS["dev", 5] = fail  # at step 12; best so far is from step 9 at most, the checkpoint from step 8
    with pytest.raises(RuntimeError):
        run(composed(*troubled(tmp_path)))
    directory = the_only_run(tmp_path)
    damage(directory.model)
    message = r"selected at step \d+ is gone or damaged .* delete the folder .*checkpoints, and the run starts over"
    with pytest.raises(TrainingError, match=message):
        run(composed(*troubled(tmp_path)))
    assert read_results(directory.path)["status"] == "failed"
    shutil.rmtree(directory.checkpoint.parent)
    ends_the_same(tmp_path)


@SLOW
def test_an_encoder_that_is_damaged_before_the_last_evaluation_is_an_error(
    tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    HAPPENS["test", 1] = fail
    with pytest.raises(RuntimeError):
        run(composed(*troubled(tmp_path)))
    directory = the_only_run(tmp_path)
    cut_off(directory.model)
    with pytest.raises((TrainingError, EncoderError), match="damaged"):
        run(composed(*troubled(tmp_path)))
    shutil.rmtree(directory.checkpoint.parent)
    ends_the_same(tmp_path)


def test_an_encoder_newer_than_the_checkpoint_stays_the_selected_one(
    tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    """The steps behind it are taken again; on a GPU they need not give the same score to the last bit."""
    HAPPENS["dev", 4] = fail  # scoring at step 9, with the checkpoint of step 8: put back to that of step 4
    with pytest.raises(RuntimeError):
        run(composed(*troubled(tmp_path)))
    directory = the_only_run(tmp_path)
    previous(directory.checkpoint).replace(directory.checkpoint)
    ends_the_same(tmp_path)


def test_overwriting_a_finished_run_does_not_go_on_from_what_it_left(
    tmp_path: Path, ends_the_same: Callable[..., None]
) -> None:
    config = composed(*troubled(tmp_path))
    first = run(config)
    left = the_only_run(tmp_path).checkpoint  # a kill between the results and the clearing up
    left.parent.mkdir()
    left.write_bytes(b"of the finished run")
    again = run(config.model_copy(update={"overwrite": True}))
    assert not again["reused"]
    assert again["started"] >= first["started"]
    assert not left.exists()
    ends_the_same(tmp_path)
