"""Post-processing as a run: what is fitted, kept, found again and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from cse_bench.config.identity import identity
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_evaluate
from cse_bench.data.corpora import TextFile
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.whitening import WHITENINGS
from cse_bench.errors import ConfigError, DataError
from cse_bench.evaluate import evaluate
from cse_bench.methods.postprocessed import evenly_spaced
from cse_bench.plan import plan
from cse_bench.results.collect import collect
from cse_bench.run import run
from tests.tiny import config_in, made_up_sentences, task_overrides

BASE = ("method=postprocessed", "method.sentences=null", *task_overrides())
FIRST_LAST = "backbone.pooling=first_last_mean"
# Without LayerNorm, and so without the linear equation that its output obeys.
FULL_RANK = ("backbone=tiny_llama", "backbone.pooling=mean", "method.eps=0")
UNSEEN = made_up_sentences(40, seed=3)


def configured(folder: Path, *overrides: str) -> RunConfig:
    return config_in(folder, *BASE, *overrides)


def done(folder: Path, *overrides: str) -> dict[str, Any]:
    return run(configured(folder, *overrides))


def model(results: dict[str, Any]) -> Path:
    return Path(results["directory"]) / "model"


def backbone_vectors(config: RunConfig, sentences: list[str]) -> np.ndarray:
    """Of the random backbone that the run with this seed has."""
    torch.manual_seed(config.seed)
    return build_encoder(config.backbone).eval().encode(sentences).astype(np.float64)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postprocessed")


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, Any]:
    """A run with most things in it."""
    return done(place, "method.kind=pca", "method.dimensions=8", "evaluation.baseline=true", FIRST_LAST)


def test_results_say_what_was_done(results: dict[str, Any]) -> None:
    assert (results["status"], results["steps"], results["selection"]) == ("complete", 0, None)
    assert results["method"]["name"] == "postprocessed"
    assert results["method"]["status"] == "baseline"
    assert "2103.15316" in results["method"]["citation"]
    fit = results["method"]["notes"]["fit"]
    assert fit.pop("condition_number") > 1
    assert fit == {"corpus": "sentences", "sentences": 100, "dimensions": 8, "width": 32, "rank": 31}  # LayerNorm
    corpus = results["data"]["corpus"]
    assert (corpus["source"], corpus["sentences"], len(corpus["sha256"])) == ("text file", 100, 64)
    assert results["pooling"] == "first_last_mean + pca 8"
    assert results["precision"]["training"] is None
    assert results["metrics"]["cost/preparation_time_s"] > 0
    plain = json.loads((Path(results["baseline_directory"]) / "results.json").read_text())
    added = 32 + 32 * 8
    for count in ("total", "inference"):
        assert results["encoder"]["parameters"][count] == plain["encoder"]["parameters"][count] + added
    assert results["metrics"]["cost/inference_flops"] == plain["metrics"]["cost/inference_flops"] + 2 * 32 * 8
    assert plain["method"]["name"] == "untrained"
    assert results["baseline"] == plain["metrics"]
    assert results["metrics"]["pairs/test/score"] != plain["metrics"]["pairs/test/score"]


def test_the_same_again_is_found(place: Path, results: dict[str, Any]) -> None:
    overrides = ("method.kind=pca", "method.dimensions=8", "evaluation.baseline=true", FIRST_LAST)
    # How others are trained is nothing to it.
    for other in ("trainer.max_steps=3", "data.max_length=16", "optimizer.lr=1", "trainer=ddp_cpu_2"):
        again = done(place, *overrides, other)
        assert again["reused"]
        assert again["directory"] == results["directory"]
    repeated = done(place, *overrides, "overwrite=true")
    assert not repeated["reused"]
    assert repeated["metrics"]["pairs/test/score"] == results["metrics"]["pairs/test/score"]


def test_saved_encoder_gives_the_recorded_scores(place: Path, results: dict[str, Any]) -> None:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        overrides = [f"model={results['directory']}", "evaluation=none", "accelerator=cpu"]
        settings = validate_evaluate(compose("evaluate", overrides=overrides))
    again = evaluate(settings.model_copy(update={"evaluation": configured(place).evaluation}))
    assert again["pooling"] == "first_last_mean + pca 8"
    for metric in ("pairs/dev/score", "pairs/test/score"):
        assert again["metrics"][metric] == results["metrics"][metric]


@pytest.mark.parametrize("kind", [*WHITENINGS, "center"])
def test_the_fitted_sentences_are_whitened(place: Path, kind: str) -> None:
    config = configured(place, f"method.kind={kind}", *FULL_RANK)
    sentences = made_up_sentences()
    encoder = load_encoder(model(run(config)))
    found = encoder.encode(sentences).astype(np.float64)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    if kind == "center":
        plain = backbone_vectors(config, sentences)
        np.testing.assert_allclose(found, plain - plain.mean(axis=0), atol=1e-6)
    else:
        np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(32), atol=1e-3)


def test_truncation_alone_takes_the_first_numbers_and_reads_no_corpus(tmp_path: Path) -> None:
    config = configured(tmp_path, "method.kind=none", "method.dimensions=5", "method.sentences=10000")
    (tmp_path / "sentences.txt").unlink()
    results = run(config)
    np.testing.assert_array_equal(
        load_encoder(model(results)).encode(UNSEEN), backbone_vectors(config, UNSEEN)[:, :5].astype(np.float32)
    )
    assert results["data"]["corpus"] is None
    assert results["pooling"] == "cls + first 5"
    assert results["method"]["notes"] == {}


def test_a_direction_that_never_varies_is_not_blown_up(place: Path) -> None:
    """The output of a LayerNorm sums to a constant: with a ridge that direction stays close to zero."""
    vectors = load_encoder(model(done(place, "method.kind=pca", "backbone.pooling=mean"))).encode(UNSEEN)
    assert (vectors.std(axis=0)[:31] > 0.1).all()
    assert np.abs(vectors[:, 31]).max() < 0.01


def test_identity(tmp_path: Path) -> None:
    base = configured(tmp_path, "backbone=bert_tiny")

    def of(config: RunConfig = base, *, corpus: str = "c", **method: Any) -> str:
        changed = config.model_copy(update={"method": config.method.model_copy(update=method)})
        return identity(changed, corpus_fingerprint=corpus)

    def bert(**changes: Any) -> RunConfig:
        return base.model_copy(update={"backbone": base.backbone.model_copy(update=changes)})

    different = [of(), of(corpus="d"), of(bert(pooling="mean")), of(kind="zca"), of(dimensions=64), of(eps=0.0)]
    assert len({*different, of(sentences=5000)}) == len(different) + 1
    trained_otherwise = {
        "seed": 7,
        "precision": "bf16-mixed",
        "optimizer": base.optimizer.model_copy(update={"lr": 1.0}),
        "data": base.data.model_copy(update={"max_length": 16}),
        "trainer": base.trainer.model_copy(update={"max_steps": 3}),
    }
    assert of(base.model_copy(update=trained_otherwise)) == of(bert(dropout=0.3)) == of()
    assert of(kind="none", dimensions=64) == of(kind="none", dimensions=64, corpus="d")


def test_a_changed_corpus_is_another_run(tmp_path: Path) -> None:
    first = done(tmp_path)
    (tmp_path / "sentences.txt").write_text("\n".join(made_up_sentences(90, seed=9)) + "\n")
    second = done(tmp_path)
    assert not second["reused"]
    assert second["directory"] != first["directory"]


def test_rows_stand_beside_the_untrained_one(place: Path, results: dict[str, Any]) -> None:
    done(place, "method.kind=zca", "method.dimensions=8", FIRST_LAST)
    run(config_in(place, *task_overrides(), "trainer.max_steps=1"))
    (block,) = (found for found in collect([str(place / "outputs")]).blocks if found.facts["backbone"] == "tiny_bert")
    assert {"untrained", "postprocessed", "simcse"} == {group.method for group in block.groups}
    made = [group for group in block.groups if group.method == "postprocessed"]
    assert len({group.label for group in made}) == len(made) > 1
    assert all(len(group.runs) == 1 and not group.is_trained for group in made)
    assert all(group.status == "baseline" for group in made)


def test_on_top_of_a_trained_run(tmp_path: Path) -> None:
    trained = run(config_in(tmp_path, "trainer.max_steps=3"))
    over = (f"backbone.path={model(trained)}", "method.dimensions=8")
    mapped = done(tmp_path, "backbone=local", *over, "backbone.pooling=mean")
    again = load_encoder(model(mapped))
    assert again.pooling == "mean + pca 8"
    source = load_encoder(model(trained))
    source.pooling = "mean"
    vectors = source.encode(UNSEEN).astype(np.float64)
    state = {name: tensor.numpy() for name, tensor in again.affine_map.state_dict().items()}
    np.testing.assert_allclose(again.encode(UNSEEN), (vectors - state["mean"]) @ state["matrix"], rtol=1e-3, atol=1e-4)


def test_can_teach(tmp_path: Path) -> None:
    student = ("method=jtcse_distil", "method@method.teacher=postprocessed", "method.teacher.sentences=null")
    results = run(config_in(tmp_path, *student, "method.student=backbone", "trainer.max_steps=1"))
    assert results["prerequisites"]["teacher"].startswith("postprocessed-")


def test_plan_counts_the_map(place: Path) -> None:
    config = configured(place, "dry_run=true", "method.dimensions=8")
    made = plan(config)
    plain = plan(config_in(place, "method=untrained", "dry_run=true", *task_overrides()))
    assert made.parameters["inference"] == plain.parameters["inference"] + 32 + 32 * 8
    assert made.parameters["trainable"] == 0
    assert made.schedule is None
    assert made.pooling == "cls + pca 8"


def test_evenly_spaced(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{i}\n" for i in range(10)))
    corpus = TextFile(path=str(file))
    assert evenly_spaced(corpus, 3) == ["0", "3", "6"]
    assert evenly_spaced(corpus, 10) == evenly_spaced(corpus, None) == [str(i) for i in range(10)]


REFUSED = {
    "more dimensions than there are": ("method.dimensions=33", "method.dimensions: at most the 32 .*, got 33"),
    "no dimension": ("method.dimensions=0", "method.dimensions: must be at least 1"),
    "unknown kind": ("method.kind=svd", "method.kind: must be 'pca', 'zca'.*'svd'"),
    "nothing to do": ("method.kind=none", "method.kind: none, with all dimensions"),
    "too few sentences": ("method.sentences=32", "method.sentences: 32 are fewer than the 33"),
    "negative ridge": ("method.eps=-1", "method.eps: must be at least 0"),
    "ridge that does nothing": ("method.eps=1e-12", "method.eps: 0 or at least 1e-09"),
    "pooling of a decoder": (["backbone=tiny_llama", "backbone.pooling=cls"], "backbone.pooling: cls reads the first"),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_at_once(tmp_path: Path, override: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, *([override] if isinstance(override, str) else override))


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (lambda lines: lines, "method.sentences=10000", "has 100 sentences, fewer than method.sentences=10000"),
        (lambda lines: lines[:20], "method.kind=zca", "20 different sentences are fewer than the 33"),
        (lambda lines: lines[:9] * 10, "method.dimensions=9", "9 different sentences are fewer than the 10"),
        (lambda lines: lines, "method.eps=0", "vary in 31 directions of 32, .*in 32 of them; set method.eps"),
    ],
)
def test_what_the_corpus_does_not_give(
    tmp_path: Path, text: Callable[[list[str]], list[str]], override: str, message: str
) -> None:
    config = configured(tmp_path, override)
    (tmp_path / "sentences.txt").write_text("\n".join(text(made_up_sentences())) + "\n")
    with pytest.raises(DataError, match=message):
        run(config)
