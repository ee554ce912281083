"""WhitenedCSE on a real two-layer BERT: the loss by a slow oracle, its limits, its layouts, and two real processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cse_bench.encoders.artifact import load_encoder
from cse_bench.errors import ConfigError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.whitenedcse import as_sentence_major_chunks, from_sentence_major_chunks, resolved_groups
from cse_bench.run import run
from tests.losses.test_whitening import slow_whiten
from tests.tiny import composed, config_in, gradients, largest_difference, tiny_method, token_rows

MIXED = [5] * 20 + [9, 12, 15] * 4 + [120] * 8
SPREAD = "+backbone.architecture.initializer_range=0.3"


def whitened_method(*overrides: str, **options) -> ContrastiveMethod:
    """Groups of four of the 32 features."""
    return tiny_method("method=whitenedcse", "method.num_groups=8", *overrides, **options)


def slow_info_nce(anchors: np.ndarray, candidates: np.ndarray, temperature: float) -> float:
    losses = []
    for i, anchor in enumerate(anchors):
        scores = [anchor @ c / (np.linalg.norm(anchor) * np.linalg.norm(c)) / temperature for c in candidates]
        losses.append(np.log(np.sum(np.exp(np.array(scores) - max(scores)))) + max(scores) - scores[i])
    return float(np.mean(losses))


def slow_loss(method: ContrastiveMethod, pooled: Tensor, blocks: list[int]) -> float:
    """The loss of pooled vectors (v, b, d), one block, view and group at a time."""
    views, _, width = pooled.shape
    weight, bias = (p.detach().numpy() for p in (method.head[0].weight, method.head[0].bias))
    start, parts = 0, []
    for number, size in enumerate(blocks):
        block = []
        for view in range(views):
            order = torch.randperm(width, generator=method.generator(0, view, number)).tolist()
            rows = pooled[view, start : start + size].detach().numpy()
            block.append(slow_whiten(rows, order, method.num_groups, method.eps))
        parts.append(np.stack(block))
        start += size
    z = np.tanh(np.concatenate(parts, axis=1) @ weight.T + bias)
    terms = [slow_info_nce(z[0], z[view], method.temperature) for view in range(1, views)]
    return sum(weight * term for weight, term in zip(method.pos_weights, terms, strict=True))


def random_pooled(views: int, sentences: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, sentences, 32, generator=draw, dtype=torch.float64)
    return centre + 0.3 * torch.randn(views, sentences, 32, generator=draw, dtype=torch.float64)


def representations(pooled: Tensor) -> dict[str, Tensor]:
    return {"pooled": pooled, "rank": torch.zeros(pooled.shape[:2], dtype=torch.long)}


@pytest.mark.parametrize("weights", ["[1.0,1.0]", "[1.0,0.8]"])
def test_loss_equals_the_slow_one(weights: str) -> None:
    method = whitened_method(SPREAD, f"method.pos_weights={weights}")
    pooled = random_pooled(3, 12)
    expected = slow_loss(method, pooled, [12])
    assert float(method.objective(representations(pooled))["loss"].detach()) == pytest.approx(expected, abs=1e-8)
    swapped = random_pooled(3, 12).flip(0)
    assert abs(slow_loss(method, swapped, [12]) - expected) > 1e-3  # the anchor is view 0


@pytest.mark.parametrize(
    ("weights", "temperature", "expected"),
    [
        ("[1.0,1.0]", 1.0, 0.95987137),
        ("[1.0,0.8]", 1.0, 0.85630869),
        ("[1.0,1.0]", 0.05, 9.24579551e-3),
        ("[1.0,0.8]", 0.05, 7.43018830e-3),
    ],
)
def test_sum_of_terms_by_hand(weights: str, temperature: float, expected: float) -> None:
    method = tiny_method(
        "method=whitenedcse",
        "method.whiten=false",
        f"method.pos_weights={weights}",
        f"method.temperature={temperature}",
    )
    method.head = nn.Identity()
    z = torch.tensor([[[1, 0], [0, 1]], [[0.8, 0.6], [0, 1]], [[0.6, 0.8], [0, 1]]], dtype=torch.float64)
    parts = method.objective(representations(z))
    assert float(parts["loss"]) == pytest.approx(expected, abs=1e-8)
    if temperature == 1.0:
        assert float(parts["positive_1"]) == pytest.approx(0.44205796, abs=1e-8)
        assert float(parts["positive_2"]) == pytest.approx(0.51781341, abs=1e-8)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_two_views_without_whitening_are_simcse(mode: str) -> None:
    batch = token_rows(MIXED)
    found = []
    for overrides in (
        ("method=simcse",),
        ("method=whitenedcse", "method.whiten=false", "method.num_views=2", "method.pos_weights=[1.0]"),
    ):
        method = getattr(tiny_method(SPREAD, *overrides), mode)()
        torch.manual_seed(7)  # of the dropout masks
        loss = method.loss_of(batch)["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert largest_difference(found[0][1], found[1][1]) < 1e-12


def test_whitening_is_not_nothing() -> None:
    batch = token_rows(MIXED)
    losses = [
        float(whitened_method(SPREAD, f"method.whiten={whiten}").eval().loss_of(batch)["loss"].detach())
        for whiten in ("true", "false")
    ]
    assert abs(losses[0] - losses[1]) > 0.1


@pytest.mark.parametrize("options", [{"split": True}, {"cache_rows": 3}, {"split": True, "cache_rows": 16}])
def test_pieces_change_neither_loss_nor_any_gradient(options: dict) -> None:
    batch = token_rows(MIXED)
    found = []
    for given in ({}, options):
        method = whitened_method(SPREAD, "method.detach_whitening=false", **given).eval()
        loss = method.loss_of(batch)["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-9)
    assert largest_difference(found[0][1], found[1][1]) < 1e-8
    assert found[0][1].keys() == {name for name, _ in method.named_parameters()}
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-4


@pytest.mark.parametrize("detach", ["true", "false"])
def test_gradient_against_finite_differences(detach: str) -> None:
    method = whitened_method(SPREAD, f"method.detach_whitening={detach}", "method.num_groups=16")
    pooled = random_pooled(3, 6).requires_grad_()
    method.objective(representations(pooled))["loss"].backward()
    draw = torch.Generator().manual_seed(1)
    direction = torch.randn(pooled.shape, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        up, down = (
            float(method.objective(representations(pooled + sign * 1e-5 * direction))["loss"]) for sign in (1, -1)
        )
    slope, found = (up - down) / 2e-5, float((pooled.grad * direction).sum())
    if detach == "false":
        assert found == pytest.approx(slope, rel=1e-5)
    else:  # the matrix is held constant: a gradient, but not that of the loss
        assert abs(found / slope - 1) > 0.1


def test_shuffle_decides_which_features_meet() -> None:
    draws: dict[str, list[list[int]]] = {}
    for shuffle in ("per_view", "shared", "off"):
        method = whitened_method(f"method.shuffle={shuffle}")
        draws[shuffle] = [method._order(torch.zeros(4, 32), view, 0).tolist() for view in range(3)]
    first, *others = draws["per_view"]
    assert all(sorted(order) == list(range(32)) for order in draws["per_view"])
    assert all(order != first for order in others)
    assert draws["shared"] == [first] * 3
    assert draws["off"] == [list(range(32))] * 3


def test_the_permutation_is_new_in_every_step_and_the_same_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    method, other = whitened_method(), whitened_method()
    rows = torch.zeros(4, 32)
    torch.rand(17)  # whatever a process has drawn before
    assert torch.equal(method._order(rows, 1, 0), other._order(rows, 1, 0))
    assert not torch.equal(method._order(rows, 1, 0), method._order(rows, 1, 1))
    monkeypatch.setattr(type(other), "global_step", 1)
    later = other._order(rows, 1, 0)
    monkeypatch.undo()
    assert not torch.equal(method._order(rows, 1, 0), later)


def test_per_view_whitening_makes_positives_of_equal_rows() -> None:
    """Without dropout the views of a sentence are equal, and whitening alone tells them apart."""
    batch = token_rows(MIXED)
    per_view, shared, off = (
        whitened_method(SPREAD, option).eval().loss_of(batch)
        for option in ("method.shuffle=per_view", "method.shuffle=shared", "method.shuffle=off")
    )
    assert float(shared["positive_1"].detach()) == pytest.approx(float(shared["positive_2"].detach()), abs=1e-9)
    assert float(off["positive_1"].detach()) == pytest.approx(float(off["positive_2"].detach()), abs=1e-9)
    assert float(per_view["positive_1"].detach()) > float(shared["positive_1"].detach()) + 0.02


def test_official_chunks_by_hand() -> None:
    views = torch.tensor([[[10 * s + v] for s in range(4)] for v in range(3)])  # sentence s, view v: sv
    chunks = as_sentence_major_chunks(views)
    assert chunks[..., 0].tolist() == [[0, 1, 2, 10], [11, 12, 20, 21], [22, 30, 31, 32]]
    assert torch.equal(from_sentence_major_chunks(chunks), views)


def test_official_chunks_share_one_whitening_among_the_views_of_most_sentences() -> None:
    """43, 44 and 43 different sentences in three chunks of 128 rows: only sentences 42 and 85 are cut."""
    chunks = as_sentence_major_chunks(torch.arange(128).expand(3, 128).unsqueeze(2))
    held = [set(chunk.flatten().tolist()) for chunk in chunks]
    assert [len(one) for one in held] == [43, 44, 43]
    assert held[0] & held[1] == {42}
    assert held[1] & held[2] == {85}
    pooled = random_pooled(1, 128).expand(3, -1, -1).contiguous()  # views without any difference
    method = whitened_method(SPREAD, "method.stats_layout=official_chunks")
    white = method._whitened(pooled, 0)
    same = [bool(torch.equal(white[0, s], white[1, s]) and torch.equal(white[0, s], white[2, s])) for s in range(128)]
    assert [s for s in range(128) if not same[s]] == [42, 85]
    assert not torch.allclose(whitened_method(SPREAD)._whitened(pooled, 0), white)


def test_embedding_is_the_pooled_vector_alone_or_in_any_company() -> None:
    method = whitened_method().eval()
    rows = token_rows([6, 9, 14])
    with torch.no_grad():
        together = method.embed(rows)
        assert torch.equal(together, method.encoder(rows))
        alone = torch.cat([method.embed(rows.take(torch.tensor([i]), length=14)) for i in range(3)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


def test_a_last_batch_that_is_too_small_teaches_nothing() -> None:
    method = whitened_method(SPREAD).eval()
    parts = method.loss_of(token_rows([6] * 7))  # groups of 4 need 8
    parts["loss"].backward()
    assert float(parts["loss"].detach()) == 0.0
    assert float(parts["skipped"]) == 1.0
    found = gradients(method)
    assert found.keys() == {name for name, _ in method.named_parameters()}  # every process takes part
    assert all(float(gradient.abs().max()) == 0.0 for gradient in found.values())
    assert float(method.loss_of(token_rows([6] * 8))["skipped"]) == 0.0


@pytest.mark.parametrize(
    ("width", "asked", "expected"), [(768, 128, 128), (1024, 128, 128), (384, 128, 128), (32, 128, 32), (768, 100, 96)]
)
def test_number_of_groups_divides_the_width(width: int, asked: int, expected: int) -> None:
    assert resolved_groups(width, asked) == expected
    assert width % expected == 0


def test_the_group_size_is_noted() -> None:
    assert whitened_method().notes["whitening"] == {"groups": 8, "features_per_group": 4}
    assert "whitening" not in whitened_method("method.whiten=false").notes


def test_negatives_are_counted_per_term() -> None:
    assert whitened_method().negatives_per_anchor(64) == 126


def check(*overrides: str) -> None:
    composed("method=whitenedcse", "evaluation=none", "dry_run=true", *overrides)


def test_too_few_rows_for_a_covariance_are_refused() -> None:
    check("backbone=bert_base", "data.global_batch_size=12")
    with pytest.raises(ConfigError, match=r"method.num_groups: groups of 6 .* 8 sentences, and need 12; set .*=192"):
        check("backbone=bert_base", "data.global_batch_size=8")
    devices = ["trainer=ddp_4gpu", "data.global_batch_size=40"]
    with pytest.raises(ConfigError, match=r"10 sentences on each of 4 devices, and need 12"):
        check("backbone=bert_base", *devices)
    check("backbone=bert_base", *devices, "method.statistics=global")
    check("backbone=bert_base", *devices, "method.whiten=false")
    with pytest.raises(ConfigError, match=r"raise data.global_batch_size"):
        check("backbone=bert_base", "data.global_batch_size=1")


def test_every_positive_has_a_weight() -> None:
    with pytest.raises(ConfigError, match=r"method.pos_weights: has 2 weights, one per positive are 1"):
        check("method.num_views=2")
    check("method.num_views=2", "method.pos_weights=[1.0]")


def test_views_without_dropout_are_refused() -> None:
    with pytest.raises(ConfigError, match="two views of a sentence would be identical"):
        check("backbone=bert_base", "backbone.dropout=0")


def test_a_width_that_was_not_known_is_checked_before_training(tmp_path: Path) -> None:
    config = config_in(tmp_path, "method=whitenedcse", "method.num_groups=8", "data.global_batch_size=16")
    method = whitened_method()
    small = config.model_copy(update={"data": config.data.model_copy(update={"global_batch_size": 6})})

    class Given:
        def __init__(self, config) -> None:
            self.config = config

    method.prepare(Given(config))
    with pytest.raises(ConfigError, match=r"6 sentences, and need 8"):
        method.prepare(Given(small))


@pytest.mark.parametrize(
    "option",
    [
        "method.engine=cholesky",
        "method.engine=newton",
        "method.detach_whitening=false",
        "method.stats_layout=official_chunks",
        "method.statistics=global",
    ],
)
def test_a_run_trains_saves_and_embeds_as_saved(tmp_path: Path, option: str) -> None:
    """100 sentences in batches of 16: the last batch has 4, too few for groups of 4."""
    config = config_in(tmp_path, "method=whitenedcse", "method.num_groups=8", "trainer.max_steps=8", "study=x", option)
    result = run(config)
    assert result["status"] == "complete"
    assert result["method"]["notes"]["whitening"]["groups"] == 8
    directory = Path(result["directory"])
    written = [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()[1:]]
    skipped = {int(step): float(value) for step, name, value in written if name == "train/skipped"}
    assert skipped == {step: float(step == 7) for step in range(1, 9)}
    losses = {int(step): float(value) for step, name, value in written if name == "train/loss"}
    assert losses[7] == 0.0
    assert min(loss for step, loss in losses.items() if step != 7) > 0.1
    encoder = load_encoder(directory / "model")
    assert encoder.readout is None
    assert encoder.encode(["a bird sings"]).shape == (1, 32)
    kept = {path.name for path in (directory / "model").iterdir()}
    assert "training_only.safetensors" in kept  # the head
