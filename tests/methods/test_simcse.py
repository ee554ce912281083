"""SimCSE on a real two-layer BERT: the loss by hand, the head, the views, and what it refuses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, TrainingError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.head import TrainingHead
from tests.tiny import composed, gradients, largest_difference, tiny_method, token_rows
from tests.training.trained import train_in

# Short and long sentences, so that the length split has something to gain (one more piece costs 1,024 tokens).
MIXED = [5] * 40 + [9, 12, 15] * 4 + [120] * 12


@contextmanager
def forwards(module: nn.Module) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the token blocks that go through an encoder."""
    seen: list[tuple[int, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].ids.shape)))
    try:
        yield seen
    finally:
        handle.remove()


def info_nce_by_hand(z1: Tensor, z2: Tensor, temperature: float) -> float:
    losses = []
    for i in range(len(z1)):
        scores = [float(z1[i] @ z / (z1[i].norm() * z.norm())) / temperature for z in z2]
        losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[i])
    return sum(losses) / len(losses)


def plain_vectors(method: ContrastiveMethod, batch: TokenRows) -> Tensor:
    """The training vectors of one view: each sentence alone through the Transformers model, unpadded."""
    linear = method.head[0]
    rows = []
    for ids, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
        last = method.encoder.body(
            input_ids=ids[None, :length], attention_mask=torch.ones(1, length, dtype=torch.long)
        ).last_hidden_state
        rows.append(torch.tanh(linear.weight @ last[0, 0] + linear.bias))
    return torch.stack(rows)


@pytest.mark.parametrize("split", [False, True])
def test_loss_equals_the_one_by_hand_from_two_plain_forwards(split: bool) -> None:
    method = tiny_method("+backbone.architecture.initializer_range=0.3", split=split).eval()  # dropout off
    batch = token_rows(MIXED)
    with torch.no_grad():
        expected = info_nce_by_hand(plain_vectors(method, batch), plain_vectors(method, batch), 0.05)
        assert float(method.loss_of(batch)["loss"]) == pytest.approx(expected, abs=1e-9)
    assert expected < 0.5 * math.log(len(MIXED))  # the random encoder tells sentences apart


def test_anchors_are_the_first_views() -> None:
    """Swapped or symmetrised, the loss would be another one; views differ by dropout here."""
    method = tiny_method()
    z = torch.randn(2, 5, 32, dtype=torch.float64)
    assert float(method.objective({"z": z})["loss"]) == pytest.approx(info_nce_by_hand(z[0], z[1], 0.05), abs=1e-9)
    assert abs(info_nce_by_hand(z[1], z[0], 0.05) - info_nce_by_hand(z[0], z[1], 0.05)) > 1e-3


def test_split_by_length_changes_neither_loss_nor_any_gradient() -> None:
    batch = token_rows(MIXED)
    losses, found, blocks = [], [], []
    for split in (False, True):
        method = tiny_method("backbone.packed=false", split=split).eval()
        with forwards(method.encoder) as seen:
            loss = method.loss_of(batch)["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        found.append(gradients(method))
        blocks.append(seen)
    assert len(blocks[0]) == 1
    assert len(blocks[1]) > 1
    whole, pieces = (sum(rows * columns for rows, columns in shapes) for shapes in blocks)
    assert pieces < 0.5 * whole  # it saved what it is for
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    assert largest_difference(*found) < 1e-10
    assert max(float(gradient.abs().max()) for gradient in found[0].values()) > 1e-4
    names = {name for name, parameter in method.named_parameters()}
    assert found[0].keys() == names  # every parameter takes part


def test_split_rows_come_back_in_their_order() -> None:
    method = tiny_method("backbone.packed=false", split=True).eval()
    batch = token_rows(MIXED[::-1])
    with torch.no_grad():
        together = method.represent_all(batch)["z"]
        assert torch.allclose(together, plain_vectors(method, batch), rtol=0, atol=1e-10)


def test_dropout_makes_the_views_differ_in_training_only() -> None:
    method = tiny_method()
    rows = method.views(token_rows([6, 9, 14]))
    assert rows.num_views == 2
    assert torch.equal(rows.ids[:3], rows.ids[3:])
    with torch.no_grad():
        z = method.represent_all(rows)["z"]
        assert all(not torch.allclose(z[i], z[i + 3], rtol=0, atol=1e-3) for i in range(3))
        method.eval()
        z = method.represent_all(rows)["z"]
        assert torch.allclose(z[:3], z[3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("split", [False, True])
def test_views_without_any_dropout_stop_the_training(split: bool) -> None:
    # The config check would refuse this at once, were the architecture known; here the first step finds out.
    method = tiny_method("method.views=identical", "backbone.dropout=0", split=split, dtype=torch.float32)
    method.view_source = "dropout"
    with pytest.raises(TrainingError, match=r"identical.*backbone\.dropout"):
        method.loss_of(token_rows(MIXED))


def test_little_dropout_passes_as_dropout() -> None:
    method = tiny_method("backbone.dropout=0.01", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.loss_of(token_rows([6, 9, 14]))


def test_the_first_step_draws_no_other_masks_than_any_step() -> None:
    """A resumed run looks at its views again: that must not shift the masks of the step."""
    method = tiny_method()
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(float(method.loss_of(token_rows([6, 9, 14]))["loss"].detach()))
    assert losses[0] == losses[1]
    assert method._views_checked


def test_identical_views_as_an_ablation_need_no_dropout() -> None:
    method = tiny_method("method.views=identical", "backbone.dropout=0")
    batch = token_rows([6, 9, 14])
    with forwards(method.encoder) as seen:
        loss = float(method.loss_of(batch)["loss"].detach())
    assert seen == [(3, 14)]  # one forward, used twice
    with torch.no_grad():
        z = plain_vectors(method, batch)
        assert loss == pytest.approx(info_nce_by_hand(z, z, 0.05), abs=1e-9)


def test_head_by_hand() -> None:
    head = TrainingHead(build_encoder(composed("backbone=tiny_bert", "evaluation=none").backbone))
    linear = head[0]
    linear.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64))
    linear.bias = nn.Parameter(torch.tensor([0.5, 0.0], dtype=torch.float64))
    z = head(torch.tensor([[0.2, -0.3]], dtype=torch.float64))
    assert z[0].tolist() == pytest.approx([0.6043677771, 0.2913126125], abs=1e-9)


def test_embedding_is_the_pooled_vector_without_the_head() -> None:
    method = tiny_method().eval()
    rows = token_rows([4, 8])
    with torch.no_grad():
        before = method.embed(rows)
        assert torch.equal(before, method.encoder(rows))
        assert not torch.allclose(before, method.represent(rows)["z"], atol=0.1)
        nn.init.normal_(method.head[0].weight)
        assert torch.equal(method.embed(rows), before)


def test_head_is_drawn_as_bert_layers_are_and_copied_from_nothing() -> None:
    method = tiny_method("backbone.architecture.hidden_size=256", dtype=torch.float32)
    weight = method.head[0].weight
    assert weight.shape == (256, 256)
    # 65,536 draws: the standard error of their deviation is 0.02 / sqrt(2 * 65536) = 0.00006.
    assert float(weight.detach().std()) == pytest.approx(0.02, abs=0.0003)
    assert float(weight.detach().mean()) == pytest.approx(0.0, abs=0.0005)
    assert float(method.head[0].bias.detach().abs().max()) == 0.0
    assert not any(
        parameter.shape == weight.shape and torch.equal(parameter, weight) for parameter in method.encoder.parameters()
    )


def test_without_a_head_the_pooled_vector_is_trained() -> None:
    method = tiny_method("method.head=none").eval()
    rows = token_rows([4, 8])
    assert torch.equal(method.represent(rows)["z"], method.encoder(rows))


def test_bfloat16_stops_before_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny_method(dtype=torch.float32)
    method.loss_of(token_rows([6, 9, 14]))  # the look at the views, which is the first step's alone
    dtypes = []
    method.head.register_forward_hook(lambda module, arguments, output: dtypes.append(output.dtype))
    objective = method.objective

    def spy(representations: dict[str, Tensor]) -> dict[str, Tensor]:
        dtypes.append(representations["z"].dtype)
        parts = objective(representations)
        dtypes.append(parts["loss"].dtype)
        # Were autocast still on, this product would come out in bfloat16.
        dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return parts

    monkeypatch.setattr(method, "objective", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.loss_of(token_rows([6, 9, 14]))["loss"].backward()
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    assert all(parameter.grad.dtype == torch.float32 for parameter in method.parameters())


@pytest.mark.parametrize("backbone", ["tiny_llama", "modernbert_base", "qwen3_0_6b"])
def test_a_backbone_without_dropout_is_refused_before_it_is_loaded(backbone: str) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.dropout: the two views of a sentence would be identical"):
        composed(f"backbone={backbone}", "backbone.dropout=null", "evaluation=none", "dry_run=true")


def test_dropout_of_an_adapter_is_dropout() -> None:
    adapter = "{type:lora,r:4,alpha:8,dropout:%s,target_modules:[q_proj]}"
    overrides = ["backbone=tiny_llama", "backbone.dropout=0", "evaluation=none", "dry_run=true"]
    composed(*overrides, f"backbone.adapter={adapter % 0.1}")
    with pytest.raises(ConfigError, match="identical"):
        composed(*overrides, f"backbone.adapter={adapter % 0}")


def test_views_that_differ_by_the_dropout_of_an_adapter_train(tmp_path: Path) -> None:
    """Low-rank updates start at zero: the views of the first step are equal, those of all later ones are not."""
    lora = "backbone.adapter={type:lora,r:4,alpha:8,dropout:%s,target_modules:all-linear}"
    common = ("backbone=tiny_llama", "backbone.dropout=0", "trainer.max_steps=3", "trainer.enable_progress_bar=false")
    summary, _ = train_in(tmp_path, *common, lora % 0.1)
    assert summary.steps == 3
    method = tiny_method("backbone=tiny_llama", "backbone.dropout=0", lora % 0.1)
    assert method.encoder.adapter_dropout == 0.1
    assert tiny_method().encoder.adapter_dropout == 0
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        z = method.represent_all(method.views(token_rows([6, 9, 14])))["z"]
    assert not torch.allclose(z[:3], z[3:], atol=1e-3)


def test_identical_views_are_not_asked_for_dropout() -> None:
    composed("backbone=tiny_llama", "backbone.dropout=0", "method.views=identical", "evaluation=none")


@pytest.mark.parametrize(("packed", "computed"), [("false", 60), ("true", 40)])
def test_token_counts_tell_padding_from_text(packed: str, computed: int) -> None:
    method = tiny_method("method.views=dropout", f"backbone.packed={packed}")
    method.loss_of(token_rows([4, 10, 6]))
    assert (method.tokens.sentences, method.tokens.real, method.tokens.padded) == (3, 40, computed)


@pytest.mark.parametrize("culprit", ["z", "nothing"])
def test_loss_that_is_not_finite_names_step_and_tensor(culprit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny_method()
    monkeypatch.setattr(type(method), "trainer", type("Trainer", (), {"global_step": 6}))
    if culprit == "z":
        with torch.no_grad():
            method.encoder.body.embeddings.word_embeddings.weight[200] = torch.nan
        batch = token_rows([6, 9, 14])
        batch.ids[1, 3] = 200  # one sentence of three
        with pytest.raises(TrainingError, match=r"step 7: loss is nan; 'z' is not finite in 2 of 6 rows"):
            method.training_step(batch, 0)
    else:
        method.temperature = 0.0
        with pytest.raises(TrainingError, match=r"step 7: loss is nan; every row that went into it is finite"):
            method.training_step(token_rows([6, 9, 14]), 0)
