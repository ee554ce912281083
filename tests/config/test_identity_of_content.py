"""What a config names by a path decides by its content; versions of definitions decide as well."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cse_bench.config.bind import build
from cse_bench.config.identity import (
    _code_from_elsewhere,
    _loaded_code,
    content_of_encoder,
    group_identity,
    identity,
)
from cse_bench.config.schema import Component, RunConfig
from cse_bench.data.checksums import remembered_sha256
from cse_bench.data.packages import file_sha256
from cse_bench.errors import DataError
from cse_bench.methods.simcse import SimCSE
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.train import _check_unchanged
from tests.tiny import PairScore, config_in, task_overrides


def id_of(config: RunConfig) -> str:
    return identity(config, corpus_fingerprint="c")


def encoder(folder: Path, weights: bytes = b"weights", *, of_a_run: bool = False) -> Path:
    """The files of an encoder; what is in them does not matter here."""
    model = folder / "model" if of_a_run else folder
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "model.safetensors").write_bytes(weights)
    if of_a_run:
        (folder / "results.json").write_text("{}")
    return folder


def with_path(tmp_path: Path, how: str, path: Path) -> RunConfig:
    overrides = {
        "debcse": ["method=debcse", f"method.teacher={path}"],
        "jtcse_distil": ["method=jtcse_distil", f"method.teacher={path}"],
        "jtcse": ["method=jtcse", f"method.towers.first={path}"],
        "jtcse as teacher": ["method=jtcse_distil", f"method.teacher.towers.second={path}"],
        "backbone": ["backbone=local", f"backbone.path={path}", "backbone.name=mine"],
    }[how]
    return config_in(tmp_path / "run", *overrides)


@pytest.mark.parametrize("how", ["debcse", "jtcse_distil", "jtcse", "jtcse as teacher", "backbone"])
def test_a_changed_encoder_is_another_run(tmp_path: Path, how: str) -> None:
    path = encoder(tmp_path / "encoder")
    config = with_path(tmp_path, how, path)
    before = id_of(config), group_identity(config, corpus_fingerprint="c")
    (path / "README.md").write_text("decides nothing")
    assert id_of(config) == before[0]
    (path / "model.safetensors").write_bytes(b"weight5")  # of the same length
    assert id_of(config) != before[0]
    assert group_identity(config, corpus_fingerprint="c") != before[1]


def test_weights_in_the_older_format_decide_where_they_are_read(tmp_path: Path) -> None:
    path = encoder(tmp_path / "encoder")
    both = content_of_encoder(str(path))
    (path / "pytorch_model.bin").write_bytes(b"weights")
    assert content_of_encoder(str(path)) == both  # a copy that nobody reads
    (path / "model.safetensors").unlink()
    config = with_path(tmp_path, "backbone", path)
    before = id_of(config)
    (path / "pytorch_model.bin").write_bytes(b"weight5")
    assert id_of(config) != before


def test_a_change_after_the_start_names_all_that_it_may_have_been(tmp_path: Path) -> None:
    path = encoder(tmp_path / "encoder")
    config = with_path(tmp_path, "backbone", path)
    directory, corpus = RunDirectory(tmp_path / "directory"), build(config.data.corpus)
    directory.write({"identity": identity(config, corpus_fingerprint=corpus.fingerprint())})
    _check_unchanged(config, directory, corpus)
    (path / "model.safetensors").write_bytes(b"weight5")
    either = rf"^the corpus '\w+' or the encoder {path} \(backbone.path\) was changed after"
    with pytest.raises(DataError, match=either):
        _check_unchanged(config, directory, corpus)


@pytest.mark.parametrize("how", ["debcse", "jtcse_distil", "jtcse", "backbone"])
def test_a_moved_encoder_is_the_same_run(tmp_path: Path, how: str) -> None:
    first, second = encoder(tmp_path / "a"), encoder(tmp_path / "b")
    assert id_of(with_path(tmp_path, how, first)) == id_of(with_path(tmp_path, how, second))


def test_of_a_run_its_encoder_counts_alone(tmp_path: Path) -> None:
    run, plain = encoder(tmp_path / "run", of_a_run=True), encoder(tmp_path / "plain")
    assert content_of_encoder(str(run)) == content_of_encoder(str(plain))
    (run / "results.json").write_text('{"status": "complete"}')
    (run / "metrics.csv").write_text("more")
    assert content_of_encoder(str(run)) == content_of_encoder(str(plain))


def test_a_hub_id_stays_as_it_is() -> None:
    assert content_of_encoder("organisation/name") == "organisation/name"


def test_versions_of_method_and_tasks_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_in(tmp_path, *task_overrides())
    found = {id_of(config)}
    with monkeypatch.context() as patch:
        patch.setattr(SimCSE, "version", 2)
        found.add(id_of(config))
        patch.setattr(SimCSE, "version", 3)
        found.add(id_of(config))
        students = config_in(tmp_path, "method=debcse")  # whose teacher is a SimCSE
        found.add(id_of(students))
    found.add(id_of(students))
    monkeypatch.setattr(PairScore, "version", 2)
    found.add(id_of(config))
    assert len(found) == 6


def test_checksums_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("one")
    first = remembered_sha256(file)
    assert first == remembered_sha256(file) == file_sha256(file)
    file.write_text("two")
    assert remembered_sha256(file) == file_sha256(file) != first
    shutil.copy(file, tmp_path / "other")
    assert remembered_sha256(tmp_path / "other") == remembered_sha256(file)


@pytest.mark.parametrize("edited", ["method", "task"])
def test_edited_code_of_ones_own_is_another_run(edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer's loop: the method is changed, and the same command given again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    method, task = (tmp_path / f"own_{part}_{edited}.py" for part in ("method", "task"))
    method.write_text("from cse_bench.methods.simcse import SimCSE\n\nclass Mine(SimCSE): ...\n")
    task.write_text("from tests.tiny import PairScore\n\nclass Mine(PairScore): ...\n")
    config = config_in(
        tmp_path / "run",
        f"method._target_={method.stem}.Mine",
        *(text.replace(f"{PairScore.__module__}.PairScore", f"{task.stem}.Mine") for text in task_overrides()),
    )
    before = id_of(config), group_identity(config, corpus_fingerprint="c")
    assert before == (id_of(config), group_identity(config, corpus_fingerprint="c"))
    with (method if edited == "method" else task).open("a") as file:
        file.write("# another one\n")
    assert before[0] == id_of(config), "what this process has loaded is what it was"
    _loaded_code.cache_clear()  # as in another process
    after = id_of(config), group_identity(config, corpus_fingerprint="c")
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_code_of_this_package_is_no_content() -> None:
    assert _code_from_elsewhere(Component.model_validate({"_target_": "cse_bench.methods.simcse.SimCSE"})) is None
    assert _code_from_elsewhere(Component.model_validate({"_target_": "builtins.dict"})) is None


def test_code_that_was_typed_in_has_no_file() -> None:
    typed_in: dict[str, Any] = {"__name__": "typed_in"}
    exec("class Mine: ...", typed_in)
    assert _loaded_code(typed_in["Mine"]) is None
