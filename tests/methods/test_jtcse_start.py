"""Where twin towers and their poolers start, what is refused, and whole runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.loading import open_encoder
from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.tokenization import byte_tokenizer
from cse_bench.encoders.weights import pretrained_pooler
from cse_bench.errors import ConfigError, EncoderError
from cse_bench.methods.jtcse import JTCSE
from cse_bench.methods.preparation import Preparation
from cse_bench.plan import plan
from cse_bench.run import run
from tests.tiny import composed, config_in, largest_difference, tiny_method, token_rows

ONE_RUN = ("method=jtcse", "method.towers=null")
SAME_AS_FIRST = ("method.towers.second.seed_offset=0", "method.towers.second.optimizer.lr=1.5e-5")


def test_prerequisites_are_the_runs_of_the_towers() -> None:
    overrides = ("method=jtcse", "backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none", "seed=5")
    config = composed(*overrides, "method.towers.second.global_batch_size=32", "method.towers.second.optimizer.lr=7e-5")
    runs = JTCSE.prerequisites(config)
    assert list(runs) == ["first", "second"]
    assert [one.method.target.split(".")[-2] for one in runs.values()] == ["simcse", "esimcse"]
    assert [one.seed for one in runs.values()] == [5, 1005]
    assert [one.optimizer.lr for one in runs.values()] == [1.5e-5, 7e-5]
    assert [one.data.global_batch_size for one in runs.values()] == [config.data.global_batch_size, 32]
    assert runs["first"].optimizer.schedule == "linear"
    assert config.optimizer.schedule == "constant"
    assert config.trainer.arguments()["gradient_clip_val"] is None
    assert [one.trainer.arguments()["gradient_clip_val"] for one in runs.values()] == [1.0, 1.0]
    changed = {"method", "optimizer", "seed", "data", "trainer", "backbone"}
    for one in runs.values():
        assert one.model_dump(exclude=changed) == config.model_dump(exclude=changed)
    assert JTCSE.prerequisites(composed(*overrides, "method.towers=null")) == {}


def test_towers_keep_their_own_dropout() -> None:
    """TNCSE's joint training has next to none, with which the runs of the towers would have identical views."""
    overrides = ("method=jtcse", "backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none")
    runs = JTCSE.prerequisites(composed(*overrides, "backbone.dropout=0.00025", "method.towers.second.dropout=0.2"))
    assert [one.backbone.dropout for one in runs.values()] == [None, 0.2]


def test_another_method_for_a_tower_by_one_choice() -> None:
    config = composed("method=jtcse", "method@method.towers.second.method=simcse", "backbone=tiny_bert", "dry_run=true")
    second = config.method.arguments()["towers"]["second"]
    assert second["method"]["_target_"].endswith("simcse.SimCSE")
    assert second["seed_offset"] == 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.cross_every=3"], r"method\.cross_every: the last of 2 layers .* give one of 1, 2, got 3"),
        (["backbone=tiny_llama", "backbone.dropout=0.1"], r"method\.cross_mode: towers of 'llama' cannot exchange"),
        (["backbone.pooling=first_last_mean"], r"backbone\.pooling: with crossed towers one of cls, mean, last_token"),
        (
            ["method.pooler=pretrained"],
            r"method\.pooler: backbone=tiny_bert has no pretrained pooler; set method.pooler",
        ),
        (["backbone.dropout=0"], r"backbone\.dropout: the two views of a sentence would be identical"),
        (
            ["backbone.adapter={type:lora,r:4,alpha:8,dropout:0.1,target_modules:all-linear}"],
            r"backbone\.adapter: two whole towers are trained here",
        ),
        (["method.towers.first=/nowhere"], r"method\.towers\.first: there is no folder '/nowhere'"),
        (["seed=4294967000"], r"method\.towers\.second\.seed_offset: seed \+ seed_offset must be less than 2\*\*32"),
        (["method.towers.second.optimizer.lr=-1"], r"method\.towers\.second\.optimizer\.lr: must be greater than 0"),
        (
            ["method.towers.second.method.temperature=0"],
            r"method\.towers\.second\.method\.temperature: must be greater",
        ),
        (
            ["+method.towers.first.method.tempo=1"],
            r"method\.towers\.first\.method\.tempo: unknown key; known keys: head",
        ),
        (
            ["method@method.towers.second.method=untrained"],
            r"method\.towers\.second\.method: trains nothing; .* method\.towers=null",
        ),
        (["~method.towers.first.optimizer"], r"method\.towers\.first: give a method and its optimizer, or the path"),
        (
            ["method@method.towers.second.method=simcse", *SAME_AS_FIRST],
            r"method\.towers: both towers are the same run, and would be equal; give another seed_offset",
        ),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed("method=jtcse", "backbone=tiny_bert", "evaluation=none", "dry_run=true", *overrides)


def test_tncse_needs_no_crossable_backbone() -> None:
    overrides = ("backbone=tiny_llama", "backbone.dropout=0.1", "method.cross_mode=off", "evaluation=none")
    overrides += ("method.towers.first.dropout=0.1", "method.towers.second.dropout=0.1")
    config = composed("method=jtcse", "dry_run=true", *overrides)
    assert config.backbone.pooling == "last_token"


def test_plan() -> None:
    """Of two towers, their poolers and their streams, without weights."""
    overrides = ("backbone=tiny_bert", "backbone.architecture.num_hidden_layers=6", "data=wikipedia_sample")
    overrides += ("evaluation=none", "dry_run=true", "precision=32-true", "backbone.packed=false")
    found, single = plan(composed("method=jtcse", *overrides)), plan(composed("method=simcse", *overrides))
    assert found.parameters["inference"] == 2 * single.parameters["inference"]
    assert found.parameters["total"] == 2 * single.parameters["total"]  # a head each
    ratio = found.memory.activations / single.memory.activations
    assert ratio == pytest.approx(2 * (1 + 5 / 6), rel=0.05)  # layers 2 to 6 are run a second time


def preparation_of(overrides: tuple[str, ...], **prerequisites: Path) -> Any:
    config = composed("backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none", *overrides)
    return Preparation(
        config=config,
        corpus=SimpleNamespace(),  # type: ignore[arg-type]
        store=SimpleNamespace(),  # type: ignore[arg-type]
        prerequisites=prerequisites,
        cache=Path(),
    )


@pytest.fixture
def bert_with_pooler(tmp_path: Path) -> Path:
    """A pretrained BERT in miniature, pooler included, as the Hub has them."""
    torch.manual_seed(3)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=64)).save_pretrained(tmp_path / "bert")
    byte_tokenizer(vocab_size=320, decoder=False).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_pretrained_poolers_are_those_of_the_checkpoint(bert_with_pooler: Path) -> None:
    overrides = (*ONE_RUN, "method.pooler=pretrained", "backbone=local", f"backbone.path={bert_with_pooler}")
    method = tiny_method(*overrides, dtype=torch.float32)
    method.prepare(preparation_of(overrides))
    whole = BertModel.from_pretrained(bert_with_pooler).eval()
    batch = token_rows([6, 9])
    method.eval()
    with torch.no_grad():
        found = method.represent(batch)
        expected = whole(input_ids=batch.ids, attention_mask=batch.mask()).pooler_output
    assert torch.allclose(found["p1"], expected, rtol=0, atol=1e-6)
    assert torch.allclose(found["p2"], expected, rtol=0, atol=1e-6)
    assert method.notes["pooler"] == "pretrained"


def test_a_checkpoint_without_pooler_says_so(bert_with_pooler: Path) -> None:
    BertModel.from_pretrained(bert_with_pooler, add_pooling_layer=False).save_pretrained(bert_with_pooler)
    overrides = (*ONE_RUN, "method.pooler=pretrained", "backbone=local", f"backbone.path={bert_with_pooler}")
    method = tiny_method(*overrides)
    with pytest.raises(EncoderError, match=r"the checkpoint of backbone=local has no pooler; set method\.pooler=fresh"):
        method.prepare(preparation_of(overrides))
    assert pretrained_pooler(composed("backbone=tiny_bert", "evaluation=none").backbone) is None


def test_a_damaged_checkpoint_is_told_by_its_name(bert_with_pooler: Path) -> None:
    backbone = composed("backbone=local", f"backbone.path={bert_with_pooler}", "evaluation=none").backbone
    (bert_with_pooler / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="the pooler of backbone=local cannot be loaded"):
        pretrained_pooler(backbone)


def test_without_towers_it_says_that_they_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    method = tiny_method(*ONE_RUN)
    method.prepare(preparation_of(ONE_RUN))
    assert "warning: method.towers: both towers start from the same weights" in capsys.readouterr().out
    assert method.notes["warning"].startswith("method.towers: both")
    assert method.notes["pooler"] == "fresh"


# Runs.


def test_control_run_is_the_sum_of_the_towers_runs(tmp_path: Path) -> None:
    """With a learning rate that moves no weight: every step is taken, and the sum of the start towers is kept."""
    overrides = ("method=jtcse", "trainer.max_steps=2", "method.towers.second.optimizer.lr=1e-3")
    results = run(config_in(tmp_path, *overrides, "optimizer.lr=1e-30"))
    assert results["status"] == "complete"
    assert results["method"]["status"] == "own reading"
    assert results["steps"] == 2
    assert results["prerequisites"].keys() == {"first", "second"}
    assert results["metrics"]["cost/prerequisites_time_s"] > 0
    sentences = ["Tea.", "The old river sings near the stone.", ""]
    towers = [tmp_path / "outputs" / name / "model" for name in results["prerequisites"].values()]
    vectors = [load_encoder(tower).encode(sentences) for tower in towers]
    assert abs(vectors[0] - vectors[1]).max() > 0.1
    saved = open_encoder(results["directory"])
    assert np.array_equal(saved.encode(sentences), vectors[0] + vectors[1])
    assert saved.provenance["sum_of"][0]["saved_encoder"] != saved.provenance["sum_of"][1]["saved_encoder"]
    assert results["method"]["notes"]["first_tower"]["saved_encoder"] == str(towers[0])
    assert results["metrics"]["cost/inference_parameters"] == 2 * 43840


def test_a_run_trains_both_towers_and_keeps_what_it_embeds(tmp_path: Path) -> None:
    start = build_encoder(composed("backbone=tiny_bert", "evaluation=none").backbone)
    paths = []
    for name in ("a", "b"):
        results = run(config_in(tmp_path, "method=simcse", "trainer.max_steps=2", f"seed={ord(name)}"))
        paths.append(results["directory"])
    # A tower by the path of a run, the other by that of its encoder.
    overrides = (f"method.towers.first={paths[0]}", f"method.towers.second={paths[1]}/model", "trainer.max_steps=4")
    results = run(config_in(tmp_path, "method=jtcse", *overrides))
    assert results["prerequisites"] == {}
    saved = load_encoder(Path(results["directory"]) / "model")
    assert isinstance(saved, SummedEncoders)
    assert results["pooling"] == "sum of 2 x cls"
    sentences = ["Tea.", "The old river sings near the stone."]
    towers = [load_encoder(Path(results["directory"]) / "model" / f"tower_{n}") for n in (1, 2)]
    assert np.array_equal(saved.encode(sentences), sum(tower.encode(sentences) for tower in towers))
    for tower, path in zip(towers, paths, strict=True):
        before = load_encoder(Path(path) / "model")
        moved = largest_difference(before.body.state_dict(), tower.body.state_dict())
        assert 1e-4 < moved < 0.01  # four steps of 1e-3 from where the tower was
        assert largest_difference(start.body.state_dict(), tower.body.state_dict()) > 0.01
    metrics = (Path(results["directory"]) / "metrics.csv").read_text()
    assert all(f"train/{part}" in metrics for part in ("loss", "nce", "icnce", "ictm"))


def test_a_tower_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = run(config_in(tmp_path, "trainer.max_steps=1", "backbone.architecture.num_attention_heads=4"))
    overrides = (f"method.towers.first={other['directory']}", f"method.towers.second={other['directory']}")
    with pytest.raises(EncoderError, match=r"method\.towers\.first .* do not fit .* other number of attention heads"):
        run(config_in(tmp_path, "method=jtcse", "trainer.max_steps=1", *overrides))
