"""The artefact: what is in it, that it is found again, goes on after an interruption, and is made once."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cse_bench.errors import DataError, EncoderError
from cse_bench.mining import pairs as pairs_module
from cse_bench.mining.pairs import Pairs, mine_pairs
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.teacher import Teacher, unit_rows
from tests.mining.corpus import SENTENCES, corpus_in, settings, teacher

COUNT = len(SENTENCES)


def mined(folder: Path, *, who: Teacher | None = None, cache: str = "cache", **changes) -> Pairs:
    return mine_pairs(corpus_in(folder), who or teacher(), settings(**changes), sentences=COUNT, cache=folder / cache)


def content(pairs: Pairs) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(pairs, name)) for name in ("vectors", "candidates", "similarity", "surface")}


def same(first: Pairs, second: Pairs) -> bool:
    return all(np.array_equal(value, content(second)[name]) for name, value in content(first).items())


def test_it_holds_vectors_candidates_and_how_it_was_made(tmp_path: Path) -> None:
    pairs = mined(tmp_path)
    expected = unit_rows(teacher().encoder.encode(SENTENCES, max_length=32))
    assert np.abs(pairs.vectors - expected).max() < 1e-3
    assert pairs.vectors.dtype == np.float16
    assert isinstance(pairs.vectors, np.memmap)
    assert pairs.candidates.shape == pairs.similarity.shape == pairs.surface.shape == (COUNT, 13)
    manifest = json.loads((pairs.directory / "manifest.json").read_text())
    assert manifest["key"]["corpus"] == corpus_in(tmp_path).fingerprint()
    assert manifest["key"]["teacher"] == teacher().describe()
    assert manifest["key"]["settings"]["search"] == "exact"
    assert manifest["sentences"] == COUNT
    assert manifest["recall"] is None
    assert manifest["time_s"] > 0
    assert {"numpy", "rapidfuzz", "torch"} <= manifest["versions"].keys()
    assert {path.name for path in pairs.directory.iterdir()} == {
        "manifest.json",
        *(f"{name}.npy" for name in ("vectors", "candidates", "similarity", "surface")),
    }
    assert not list(pairs.directory.parent.glob(".*.new"))


def test_calibration_is_of_the_teachers_cosines(tmp_path: Path) -> None:
    pairs = mined(tmp_path)
    found = pairs.manifest["calibration"]
    rows = unit_rows(pairs.vectors)
    cosines = (rows @ rows.T)[~np.eye(COUNT, dtype=bool)]
    assert found["random pairs"]["0.5"] == pytest.approx(float(np.median(cosines)), abs=0.02)
    nearest = pairs.similarity[:, 0][pairs.candidates[:, 0] >= 0].astype(np.float64)
    assert found["nearest neighbours"]["0.5"] == pytest.approx(float(np.median(nearest)), abs=1e-6)
    assert 0.3 < found["a sentence with itself, dropout on"]["0.5"] < 0.9  # random weights and 10 % dropout


def test_cosines_under_dropout_disturb_nothing() -> None:
    who = teacher()
    state = torch.get_rng_state()
    first, again = (who.dropout_cosines(SENTENCES, seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not who.encoder.training
    for part in who.encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    assert np.allclose(who.dropout_cosines(SENTENCES, seed=3), 1, atol=1e-5)
    assert first.max() < 0.999


def test_it_is_found_again_and_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mined(tmp_path)
    monkeypatch.setattr(Teacher, "vectors", None)  # would fail
    assert same(first, mined(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"semantic": 5}, {"surface": "jaccard"}, {"seed": 1}, {"min_words": 4}, {"postings": 3}, {"search": "ivf"}],
)
def test_other_settings_are_another_artefact(changes, tmp_path: Path) -> None:
    first, other = mined(tmp_path), mined(tmp_path, **changes)
    assert first.directory != other.directory


def test_another_teacher_or_corpus_is_another_artefact(tmp_path: Path) -> None:
    found = {mined(tmp_path).directory, mined(tmp_path, who=teacher(seed=1)).directory}
    lines = [*SENTENCES[:-1], "another last sentence"]
    other = mine_pairs(corpus_in(tmp_path, lines), teacher(), settings(), sentences=COUNT, cache=tmp_path / "cache")
    assert len(found | {other.directory}) == 3


def test_what_the_search_does_not_use_changes_nothing(tmp_path: Path) -> None:
    first = mined(tmp_path)
    assert mined(tmp_path, ivf_lists=7, exact_up_to=1000).directory == first.directory
    assert mined(tmp_path, search="exact").directory == first.directory
    assert mined(tmp_path, exact_up_to=1).directory != first.directory  # auto is ivf now


def test_approximate_search_records_its_recall(tmp_path: Path) -> None:
    exact = mined(tmp_path)
    whole = mined(tmp_path, search="ivf", ivf_lists=4, ivf_probes=4)
    assert whole.manifest["recall"] == 1.0
    assert np.array_equal(whole.candidates, exact.candidates)
    few = mined(tmp_path, search="ivf", ivf_lists=20, ivf_probes=1)
    assert 0 < few.manifest["recall"] < 1


def test_a_changed_manifest_makes_it_anew(tmp_path: Path) -> None:
    first = mined(tmp_path)
    expected = content(first)
    path = first.directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["key"]["settings"]["semantic"] = 99
    path.write_text(json.dumps(manifest))
    again = mined(tmp_path)
    assert all(np.array_equal(value, content(again)[name]) for name, value in expected.items())
    assert json.loads(path.read_text())["key"]["settings"]["semantic"] == 6


@pytest.mark.parametrize("stage", ["vectors", "candidates"])
def test_an_interrupted_mining_goes_on_where_it_stopped(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs_module, "_SHARD", 20)
    expected = mined(tmp_path, cache="undisturbed")
    encoded: list[int] = []
    true_vectors, true_call = Teacher.vectors, pairs_module.CandidateFinder.__call__

    def vectors(self, sentences, **arguments):
        if stage == "vectors" and len(encoded) == 2:
            encoded.append(-1)
            raise KeyboardInterrupt
        encoded.append(len(sentences))
        return true_vectors(self, sentences, **arguments)

    def find(self, anchors):
        if stage == "candidates" and anchors[0] == 40 and -1 not in encoded:
            encoded.append(-1)
            raise KeyboardInterrupt
        return true_call(self, anchors)

    monkeypatch.setattr(Teacher, "vectors", vectors)
    monkeypatch.setattr(pairs_module.CandidateFinder, "__call__", find)
    with pytest.raises(KeyboardInterrupt):
        mined(tmp_path)
    (state,) = (tmp_path / "cache" / "pairs").glob(".*.new/state.json")
    assert json.loads(state.read_text())["vectors" if stage == "vectors" else "tables"] == 2
    assert same(mined(tmp_path), expected)
    assert encoded == ([20, 20, -1, 19] if stage == "vectors" else [20, 20, 19, -1])


def test_what_another_mining_left_is_not_continued(tmp_path: Path) -> None:
    first = mined(tmp_path)
    expected = content(first)
    work = first.directory.with_name(f".{first.directory.name}.new")
    first.directory.rename(work)
    (work / "state.json").write_text(json.dumps({"key": {"format": 0}, "vectors": 1, "tables": 1, "time_s": 5.0}))
    np.save(work / "vectors.npy", np.zeros((COUNT, 32), np.float16))
    again = content(mined(tmp_path))
    assert all(np.array_equal(value, again[name]) for name, value in expected.items())


def test_two_at_once_mine_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    true = Teacher.vectors
    monkeypatch.setattr(Teacher, "vectors", lambda self, *a, **k: calls.append(1) or true(self, *a, **k))
    corpus_in(tmp_path)
    teachers, chosen, found = [teacher(), teacher()], settings(), []

    def work(who: Teacher, chosen: MiningSettings) -> None:
        from cse_bench.data.corpora import TextFile

        corpus = TextFile(path=str(tmp_path / "mined.txt"))
        found.append(mine_pairs(corpus, who, chosen, sentences=COUNT, cache=tmp_path / "cache"))

    threads = [threading.Thread(target=work, args=(who, chosen)) for who in teachers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert same(*found)


def test_a_damaged_artefact_says_so(tmp_path: Path) -> None:
    pairs = mined(tmp_path)
    np.save(pairs.directory / "surface.npy", np.zeros((3, 13), np.float16))
    with pytest.raises(DataError, match="damaged; delete the folder and run again"):
        mined(tmp_path)


def test_a_corpus_that_ends_early_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"ends after {COUNT} sentences, {COUNT + 1} were expected"):
        mine_pairs(corpus_in(tmp_path), teacher(), settings(), sentences=COUNT + 1, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written.*paths\.cache"):
        mined(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_an_interrupted_mining_whose_arrays_are_damaged_begins_anew(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    expected = mined(tmp_path / "whole")
    monkeypatch.setattr("cse_bench.mining.pairs.CandidateFinder", None)  # breaks after the vectors were written
    with pytest.raises(TypeError):
        mined(tmp_path / "cut")
    monkeypatch.undo()
    (vectors,) = (tmp_path / "cut" / "cache" / "pairs").glob(".*.new/vectors.npy")
    if damage == "missing":
        vectors.unlink()
    else:
        vectors.write_bytes(vectors.read_bytes()[: 200 if damage == "short" else 0])
    assert same(expected, mined(tmp_path / "cut"))


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    who = teacher()
    with torch.no_grad():
        who.encoder.body.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(EncoderError, match="the teacher's vector of .* is not finite"):
        who.vectors(SENTENCES)
