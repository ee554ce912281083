"""DebCSE on a real two-layer BERT and really mined pairs: views, masks, loss, the limit that is SimCSE, a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cse_bench.config.bind import build
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import TokenRows
from cse_bench.data.token_store import token_store
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, TrainingError
from cse_bench.methods.debcse import DebCSE
from cse_bench.methods.preparation import Preparation
from cse_bench.mining.sampling import draw_negatives, draw_positives
from cse_bench.plan import plan
from cse_bench.run import run
from tests.mining.corpus import SENTENCES, corpus_in
from tests.tiny import composed, config_in, gradients, largest_difference, tiny_method, token_rows

COUNT = len(SENTENCES)
# Random weights that tell sentences apart; thresholds between which something is left on both sides.
SPREAD = ["+backbone.architecture.initializer_range=0.3"]
SMALL = ["method.mining.semantic=6", "method.mining.lexical=4", "method.mining.uniform=3"]
THRESHOLDS = ["method.positive_threshold=0.985", "method.negative_threshold=0.965", "method.relevance_temperature=0.5"]
UNTRAINED = "method@method.teacher=untrained"


def config_for(folder: Path, *overrides: str) -> RunConfig:
    path = corpus_in(folder).path
    common = [f"data.path={path}", UNTRAINED, *SPREAD, *SMALL, *THRESHOLDS]
    return config_in(folder, "method=debcse", *common, *overrides)


def prepared(folder: Path, *overrides: str, split: bool = False, cache_rows: int | None = None) -> DebCSE:
    """A method in float64 with its pairs mined."""
    config = config_for(folder, *overrides)
    torch.manual_seed(0)
    encoder = build_encoder(config.backbone)
    corpus = build(config.data.corpus)
    cache = Path(config.paths.cache)
    store = token_store(corpus, encoder.tokenizer, max_length=32, cache=cache)
    method: DebCSE = build(
        config.method,
        encoder=encoder,
        optimizer=config.optimizer,
        seed=0,
        split_rows_by_length=split,
        gradient_cache_rows=cache_rows,
    )
    method.prepare(Preparation(config=config, corpus=corpus, store=store, prerequisites={}, cache=cache))
    return method.double().train()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs are mined once for all tests of a setting."""
    return tmp_path_factory.mktemp("debcse")


def batch_of(method: DebCSE, index: list[int], *, epoch: int = 0) -> TokenRows:
    return replace(method.store.rows(np.array(index)), epoch=epoch)


BATCH = [2, 3, 0, 11, 30, 45, 20, 57]  # 0 is too short for anything but itself


def test_views_are_the_sentence_its_positive_and_its_hard_negatives(place: Path) -> None:
    method = prepared(place, "method.hard_negatives=2")
    index = np.array(BATCH)
    found_other = False
    for epoch in range(6):
        rows = method.views(batch_of(method, BATCH, epoch=epoch))
        assert rows.num_views == 4
        sentence = rows.sentence.view(4, -1).numpy()
        assert np.array_equal(sentence[0], index)
        arguments = {"seed": 0, "epoch": epoch}
        assert np.array_equal(sentence[1], draw_positives(method.pairs, index, method.propensity, **arguments))
        negatives = draw_negatives(method.pairs, index, method.propensity, count=2, **arguments)
        assert np.array_equal(sentence[2:].T, negatives)
        for row in range(len(rows)):  # the tokens are those of the sentence that is named
            number = int(rows.sentence[row])
            own = method.store.rows(np.array([max(number, 0)]))
            length = int(own.lengths[0])
            assert int(rows.lengths[row]) == length
            assert torch.equal(rows.ids[row, :length], own.ids[0])
        lengths = rows.lengths.view(4, -1)
        found_other |= bool((lengths[0] != lengths[1]).any())
        assert rows.epoch == epoch
    assert found_other  # positives are other strings, of other lengths


def test_every_epoch_draws_anew_and_the_order_of_a_batch_does_not_matter(place: Path) -> None:
    method = prepared(place)
    seen = {method.views(batch_of(method, BATCH, epoch=epoch)).sentence.numpy().tobytes() for epoch in range(5)}
    assert len(seen) == 5
    first = method.views(batch_of(method, BATCH)).sentence.view(3, -1)
    turned = method.views(batch_of(method, BATCH[::-1])).sentence.view(3, -1)
    assert torch.equal(first, turned.flip(1))
    assert first.numpy().tobytes() in seen


def slow_loss(method: DebCSE, rows: TokenRows) -> tuple[float, float]:
    """The loss and the share left out, sentence by sentence, from vectors of rows encoded one at a time."""
    views, size = rows.num_views, len(rows) // rows.num_views
    z = [
        method.represent(rows.take(torch.tensor([i]), length=int(rows.lengths[i])))["z"][0].detach().numpy()
        for i in range(len(rows))
    ]
    teacher = np.asarray(method.pairs.vectors, dtype=np.float64)
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    number = rows.sentence.tolist()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    losses, hidden = [], 0
    for i in range(size):
        total = own = 0.0
        for view in range(1, views):
            for j in range(size):
                row = view * size + j
                out = number[row] < 0
                if not out and method.mask_false_negatives:
                    out = number[row] in (number[i], number[size + i])
                    if i != j:
                        cos = float(teacher[number[i]] @ teacher[number[row]])
                        out |= cos > method.propensity.positive_threshold
                if view == 1 and i == j:
                    out, own = False, cosine(z[i], z[row]) / method.temperature
                if out:
                    hidden += 1
                    continue
                weight = method.own_negative_log_weight if view > 1 and i == j else 0.0
                total += np.exp(cosine(z[i], z[row]) / method.temperature + weight)
        losses.append(np.log(total) - own)
    return float(np.mean(losses)), hidden / (size * size * (views - 1) - size)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method.hard_negatives=3", "method.own_negative_log_weight=0.7"],
        ["method.mask_false_negatives=false", "method.hard_negatives=2"],
        ["method.hard_negatives=0"],
        ["method.positives=self"],
        ["method.semantic_filter=false", "method.hard_negatives=4"],
        ["method.negative_threshold=-0.9"],  # nobody has a hard negative
    ],
)
def test_loss_equals_the_slow_one(overrides: list[str], place: Path) -> None:
    method = prepared(place, *overrides).eval()
    # Twice the same sentence, equal texts (2 and 7), neighbours of each other.
    index = [*BATCH, 2, 7, *method.pairs.candidates[11, :3].tolist()]
    for epoch in range(3):
        batch = batch_of(method, index, epoch=epoch)
        parts = method.loss_of(batch)
        loss, hidden = slow_loss(method, method.views(batch))
        assert float(parts["loss"].detach()) == pytest.approx(loss, abs=1e-9)
        assert float(parts["left_out"]) == pytest.approx(hidden, abs=1e-6)
        sentence = method.views(batch).sentence.view(-1, len(index))
        assert float(parts["positives_not_self"]) == pytest.approx(float((sentence[0] != sentence[1]).double().mean()))
    if overrides[:1] == ["method.negative_threshold=-0.9"]:
        assert (sentence[2] == -1).all()
    if "method.mask_false_negatives=false" not in overrides:
        assert hidden > 0.05


def test_left_out_by_hand() -> None:
    method = tiny_method("method=debcse", "method.positive_threshold=0.85", "method.negative_threshold=0.5")
    east, near, north = [1.0, 0.0], [0.9, 0.435889894], [0.0, 1.0]  # cosine of the first two: 0.9
    teacher = torch.tensor([[east, near, north], [east, north, north], [north, near, north]])
    sentence = torch.tensor([[0, 1, 2], [0, 5, 6], [7, 1, -1]])
    expected = [
        # positives 0, 5, 6            negatives 7, 1, -1
        [False, False, False, False, True, True],  # 1 is near the anchor
        [True, False, False, False, True, True],  # 0 is near it; its own negative is itself
        [False, True, False, True, False, True],  # 5 and 7 are where it is
    ]
    assert method._left_out(sentence, teacher, slice(None)).tolist() == expected
    only_missing = method._left_out(sentence, None, slice(None))
    assert only_missing.tolist() == [[False] * 5 + [True]] * 3


def test_what_is_left_out_gets_no_gradient(place: Path) -> None:
    method = prepared(place, "method.negative_threshold=-0.9")
    z = torch.randn(3, 8, 32, dtype=torch.float64, requires_grad=True)
    rows = method.views(batch_of(method, BATCH))
    found = {name: tensor.unflatten(0, (3, -1)) for name, tensor in method.represent(rows).items()}
    method.objective({**found, "z": z})["loss"].backward()
    assert float(z.grad[2].abs().max()) == 0.0
    assert float(z.grad[:2].abs().max()) > 0
    assert bool(z.grad.isfinite().all())


@pytest.mark.parametrize("train", [False, True])
def test_self_positives_without_negatives_and_mask_are_simcse_exactly(train: bool) -> None:
    limit = ["method.positives=self", "method.hard_negatives=0", "method.mask_false_negatives=false"]
    losses, found = [], []
    for overrides in (["method=simcse"], ["method=debcse", *limit]):
        method = tiny_method(*overrides, *SPREAD).train(train)
        torch.manual_seed(3)
        loss = method.loss_of(token_rows([5, 9, 14, 7]))["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        found.append(gradients(method))
    assert losses[0] == losses[1]
    assert largest_difference(*found) == 0.0


def test_that_limit_mines_nothing(tmp_path: Path) -> None:
    limit = ["method.positives=self", "method.hard_negatives=0", "method.mask_false_negatives=false"]
    method = prepared(tmp_path, *limit)
    assert method.pairs is None
    assert DebCSE.prerequisites(composed("method=debcse", *limit, "evaluation=none")) == {}
    assert not (tmp_path / "cache" / "pairs").exists()


@pytest.mark.parametrize("changes", [{"split": True}, {"cache_rows": 3}, {"split": True, "cache_rows": 5}])
def test_split_by_length_and_gradient_caching_change_neither_loss_nor_any_gradient(changes, place: Path) -> None:
    losses, found = [], []
    for settings in ({}, changes):
        method = prepared(place, "method.hard_negatives=2", **settings).eval()
        loss = method.loss_of(batch_of(method, [*range(40), *BATCH]))["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        found.append(gradients(method))
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    assert largest_difference(*found) < 1e-10
    assert max(float(gradient.abs().max()) for gradient in found[0].values()) > 1e-4


def test_gradient_equals_finite_differences(place: Path) -> None:
    method = prepared(place).eval()
    batch = batch_of(method, BATCH)
    method.loss_of(batch)["loss"].backward()
    weight = method.head[0].weight
    for row, column in ((0, 0), (5, 17), (31, 3)):
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                weight[row, column] += step
                values.append(float(method.loss_of(batch)["loss"]))
        with torch.no_grad():
            weight[row, column] += 1e-5
        assert float(weight.grad[row, column]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_it_can_be_planned_and_run_before_anything_is_mined() -> None:
    method = tiny_method("method=debcse", "method.hard_negatives=2").eval()
    rows = method.views(token_rows([6, 9, 14]))
    assert rows.num_views == 4
    assert torch.isfinite(method.loss_of(token_rows([6, 9, 14]))["loss"])
    config = composed("method=debcse", "backbone=tiny_bert", "method.hard_negatives=2", "dry_run=true")
    planned = plan(config)
    assert (planned.views, planned.negatives) == (4, 63 + 128)
    assert planned.parameters["inference"] < planned.parameters["total"]


def test_embedding_is_the_pooled_vector_without_the_head() -> None:
    method = tiny_method("method=debcse").eval()
    rows = token_rows([4, 8])
    with torch.no_grad():
        assert torch.equal(method.embed(rows), method.encoder(rows))
        assert not torch.allclose(method.embed(rows), method.represent(rows)["z"], atol=0.1)


def test_the_teacher_is_a_run_of_its_own_with_all_else_equal() -> None:
    config = composed("method=debcse", "backbone=bert_tiny", "evaluation=none", "optimizer.lr=1e-4", "seed=7")
    (name,) = needed = DebCSE.prerequisites(config)
    teacher = needed[name]
    assert name == "teacher"
    assert teacher.method.target.endswith("SimCSE")
    assert teacher == composed("method=simcse", "backbone=bert_tiny", "evaluation=none", "optimizer.lr=1e-4", "seed=7")
    changed = composed("method=debcse", "method.teacher.temperature=0.1", "evaluation=none")
    assert DebCSE.prerequisites(changed)["teacher"].method.arguments()["temperature"] == 0.1


def test_a_teacher_that_needs_no_training_is_no_run(tmp_path: Path) -> None:
    assert DebCSE.prerequisites(composed("method=debcse", UNTRAINED, "evaluation=none")) == {}
    assert DebCSE.prerequisites(composed("method=debcse", f"method.teacher={tmp_path}", "evaluation=none")) == {}


def test_the_untrained_teacher_is_the_backbone_of_the_run(place: Path) -> None:
    method = prepared(place)
    torch.manual_seed(42)  # the seed of the run
    encoder = build_encoder(config_for(place).backbone).eval()
    vectors = encoder.encode(SENTENCES, max_length=32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(unit - np.asarray(method.pairs.vectors, np.float32)).max() < 1e-3


def test_thresholds_and_propensities_share_the_mined_pairs(place: Path) -> None:
    first = prepared(place)
    other = prepared(place, "method.gamma=0", "method.positive_threshold=0.99", "method.epsilon=0.2")
    assert first.pairs.directory == other.pairs.directory
    assert first.notes["mining"]["directory"] == first.pairs.directory.name
    assert prepared(place, "method.mining.surface=jaccard").pairs.directory != first.pairs.directory


def test_a_teacher_to_whom_all_is_the_same_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"positive_threshold=0\.2 calls most random pairs.*cse_bench\.mine"):
        prepared(tmp_path, "method.positive_threshold=0.2", "method.negative_threshold=0.1")
    prepared(
        tmp_path,
        "method.positive_threshold=0.2",
        "method.negative_threshold=0.1",
        "method.mask_false_negatives=false",
    )


WRONG: dict[str, tuple[list[str], str]] = {
    "thresholds": (["method.negative_threshold=0.85"], r"negative_threshold: must be less than method.positive_thres"),
    "too many negatives": (["method.hard_negatives=101"], r"hard_negatives: at most as many .* = 100\), got 101"),
    "no such folder": (["method.teacher=/nowhere"], r"method\.teacher: there is no folder '/nowhere'; give that of a"),
    "key of the teacher": (["+method.teacher.temprature=1"], r"method\.teacher\.temprature: unknown key"),
    "value of the teacher": (["method.teacher.temperature=0"], r"method\.teacher\.temperature: must be greater than 0"),
    "key of the mining": (["+method.mining.top=1"], r"method\.mining\.top: unknown key"),
    "surface": (["method.mining.surface=chars"], r"method\.mining\.surface: must be 'edit', 'jaccard'"),
    "frequencies": (["method.mining.rare_frequency=[9,3]"], r"rare_frequency is \[fewest, most\]; 9 is more than 3"),
    "epsilon": (["method.epsilon=0"], r"method\.epsilon: must be greater than 0"),
    "no dropout": (["backbone.dropout=0"], r"backbone\.dropout: the two views of a sentence would be identical"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_before_anything_is_loaded(case: str) -> None:
    overrides, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        composed("method=debcse", "backbone=bert_tiny", "evaluation=none", "dry_run=true", *overrides)


def test_equal_thresholds_matter_only_where_they_are_used() -> None:
    composed("method=debcse", "method.negative_threshold=0.9", "method.semantic_filter=false", "evaluation=none")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[..., RunConfig], dict]:
    folder = tmp_path_factory.mktemp("run")
    path = corpus_in(folder).path

    def config(*overrides: str) -> RunConfig:
        common = [f"data.path={path}", "trainer.max_steps=4", *SPREAD]
        return config_in(folder, *common, *overrides)

    return config, run(config("method=debcse", *SMALL))


def test_a_run_trains_its_teacher_mines_trains_and_keeps_the_encoder(finished) -> None:
    config, results = finished
    directory = Path(results["directory"])
    assert results["status"] == "complete"
    assert results["method"]["status"] == "own reading"
    teacher = run(config("method=simcse"))
    assert teacher["reused"]  # it is the plain run of the same settings
    assert results["prerequisites"] == {"teacher": Path(teacher["directory"]).name}
    metrics = results["metrics"]
    assert metrics["cost/preparation_time_s"] > 0
    assert metrics["cost/prerequisites_time_s"] > 0
    assert 0 <= metrics["mining/positives_not_self"] <= 1
    notes = results["method"]["notes"]["mining"]
    assert notes["teacher"]["max_length"] == 32
    encoder = load_encoder(directory / "model")
    rows = token_rows([5, 11])
    again = load_encoder(directory / "model")
    with torch.no_grad():
        assert torch.equal(encoder(rows), again(rows))
    vectors = encoder.encode(SENTENCES[:5])
    before = load_encoder(Path(teacher["directory"]) / "model").encode(SENTENCES[:5])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors - before).max() > 1e-4
    kept = load_file(directory / "model" / "training_only.safetensors")
    assert set(kept) == {"head.0.weight", "head.0.bias"}  # neither teacher nor index


def test_a_second_run_finds_the_pairs_and_counts_their_cost(finished) -> None:
    config, results = finished
    other = run(config("method=debcse", *SMALL, "method.gamma=0"))
    assert other["directory"] != results["directory"]
    assert other["prerequisites"] == results["prerequisites"]
    assert other["metrics"]["cost/preparation_time_s"] == results["metrics"]["cost/preparation_time_s"]


def test_the_same_run_gives_the_same_encoder(finished) -> None:
    config, results = finished
    first = load_file(Path(results["directory"]) / "model" / "model.safetensors")
    again = run(config("method=debcse", *SMALL, "overwrite=true"))
    second = load_file(Path(again["directory"]) / "model" / "model.safetensors")
    assert largest_difference(first, second) == 0.0


def test_a_teacher_may_be_given_by_its_folder(finished) -> None:
    config, results = finished
    teacher = run(config("method=simcse"))["directory"]
    given = run(config("method=debcse", *SMALL, f"method.teacher={teacher}"))
    assert given["prerequisites"] == {}
    assert given["method"]["notes"] == results["method"]["notes"]  # the same pairs
    first, second = (load_file(Path(r["directory"]) / "model" / "model.safetensors") for r in (results, given))
    assert largest_difference(first, second) == 0.0
