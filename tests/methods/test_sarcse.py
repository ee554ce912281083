"""SARCSE on a real two-layer BERT: the loss by a slow oracle, its limits, what stays at inference, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from cse_bench.data.corpora import TextFile
from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.data.token_store import token_store
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.text_cnn import TextCNNDecoder
from cse_bench.errors import ConfigError, EncoderError
from cse_bench.losses.info_nce import info_nce
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.preparation import Preparation
from cse_bench.methods.sarcse import _check_special_tokens
from cse_bench.run import run
from tests.tiny import composed, config_in, gradients, largest_difference, made_up_sentences, tiny_method, token_rows

MIXED = [2] + [5] * 12 + [9, 12, 15] * 4 + [60] * 6  # an empty sentence among them
SPREAD = "+backbone.architecture.initializer_range=0.3"


def small(*overrides: str, **options) -> ContrastiveMethod:
    return tiny_method("method=sarcse", "method.channels=6", "data.max_length=64", SPREAD, *overrides, **options)


def with_random_omega(method: ContrastiveMethod) -> ContrastiveMethod:
    draw = torch.Generator().manual_seed(3)
    method.omega.copy_(torch.rand(len(method.omega), generator=draw, dtype=torch.float64))
    return method


def plain_content(method: ContrastiveMethod, ids: Tensor) -> Tensor:
    """The states of the content tokens of one sentence, alone and unpadded."""
    last = method.encoder.body(input_ids=ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    return last.last_hidden_state[0, 1:-1]


def slow_latent(method: ContrastiveMethod, content: Tensor) -> Tensor:
    """Window by window."""
    cnn = method.text_cnn
    columns = []
    for scale, size in zip(cnn.scales, cnn.kernel_sizes, strict=True):
        padded = torch.cat([content, torch.zeros(size, content.shape[1], dtype=content.dtype)])
        outputs = [
            (scale.weight * padded[start : start + size].T).sum(dim=(1, 2)) + scale.bias
            for start in range(len(content))
        ]
        columns.append(torch.stack(outputs).relu().max(dim=0).values if outputs else torch.zeros_like(scale.bias))
    stacked = torch.stack(columns, dim=1)
    return (cnn.aggregate.weight * stacked).sum(dim=(1, 2)) + cnn.aggregate.bias


def transposed(layer: torch.nn.ConvTranspose1d, rows: Tensor) -> Tensor:
    """A transposed convolution, position by position: (in, l) -> (out, l + k - 1)."""
    size = layer.kernel_size[0]
    out = layer.bias[:, None].repeat(1, rows.shape[1] + size - 1)
    for position in range(rows.shape[1]):
        for offset in range(size):
            out[:, position + offset] += layer.weight[:, :, offset].T @ rows[:, position]
    return out


def slow_reconstruction(decoder: TextCNNDecoder, latent: Tensor) -> Tensor:
    scales = transposed(decoder.split, latent[:, None])
    written = [
        transposed(write, transposed(spread, scales[:, number : number + 1]).relu())
        for number, (spread, write) in enumerate(zip(decoder.spread, decoder.write, strict=True))
    ]
    return (sum(written) / len(written)).T


def slow_loss(method: ContrastiveMethod, batch: TokenRows) -> dict[str, float]:
    """Both views are the same without dropout."""
    latents, errors, weights = [], 0.0, 0.0
    for ids, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
        content = plain_content(method, ids[:length])
        latents.append(slow_latent(method, content))
        written = slow_reconstruction(method.decoder, latents[-1])
        for position, state in enumerate(content):
            omega = float(method.omega[ids[position + 1]])
            target = (state - state.mean()) / torch.sqrt(state.var(correction=0) + 1e-5)
            errors += omega * float((written[position] - target).square().mean())
            weights += omega
    h = torch.stack(latents)
    contrastive = float(info_nce(h, h, temperature=method.temperature))
    return {
        "loss": contrastive + method.reconstruction_weight * errors / weights,
        "contrastive": contrastive,
        "reconstruction": errors / weights,
    }


@pytest.mark.parametrize("sizes", ["[3,4,5]", "[2]", "[5,3]"])
def test_loss_equals_the_slow_one(sizes: str) -> None:
    method = with_random_omega(small(f"method.kernel_sizes={sizes}")).eval()
    batch = token_rows([2, 3, 5, 9, 14, 7])
    with torch.no_grad():
        parts = method.loss_of(batch)
        expected = slow_loss(method, batch)
    for name, value in expected.items():
        assert float(parts[name]) == pytest.approx(value, abs=1e-9), name


def test_total_by_hand() -> None:
    method = small()
    z = torch.tensor([[[1.0, 0], [0, 1]], [[1.0, 0], [0, 1]]], dtype=torch.float64)
    sums = {
        "error_sum": torch.tensor([[0.1, 0.1], [0.6, 0.2]], dtype=torch.float64),
        "weight_sum": torch.tensor([[0.5, 0.5], [1.5, 0.5]], dtype=torch.float64),
        "square_sum": torch.ones(2, 2, dtype=torch.float64),
        "target_sum": torch.zeros(2, 2, 2, dtype=torch.float64),
    }
    parts = method.objective({"z": z, **sums})
    assert float(parts["reconstruction"]) == pytest.approx((0.2 + 0.4) / 2)
    assert float(parts["loss"] - parts["contrastive"]) == pytest.approx(0.1 * 0.3)
    assert 0.5 + 0.1 * float(parts["reconstruction"]) == pytest.approx(0.53)
    assert float(parts["variance_explained"]) == pytest.approx(1 - 1.0 / 4.0)


@pytest.mark.parametrize(("width", "expected"), [(768, 8_260_864), (1024, 9_244_672)])
def test_number_of_decoder_parameters(width: int, expected: int) -> None:
    with torch.device("meta"):
        decoder = TextCNNDecoder(width=width, channels=256, kernel_sizes=[3, 4, 5], length=30)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected
    assert [layer.kernel_size for layer in decoder.spread] == [(28,), (27,), (26,)]


def test_transposed_convolutions_by_hand() -> None:
    column = functional.conv_transpose1d(torch.tensor([[[2.0]]]), torch.tensor([[[1.0, 0, -1]]]))
    assert column[0, 0].tolist() == [2, 0, -2]
    row = functional.conv_transpose1d(torch.tensor([[[1.0, 2]]]), torch.tensor([[[1.0, 10, 100]]]))
    assert row[0, 0].tolist() == [1, 12, 120, 200]
    decoder = TextCNNDecoder(width=2, channels=1, kernel_sizes=[3, 4, 5], length=30)
    with torch.no_grad():
        decoder.split.weight[:] = torch.tensor([[[1.0, 0, -1]], [[2.0, 1, 0]]])
        assert decoder.split(torch.tensor([[[20.0], [1.5]]]))[0, 0].tolist() == [23.0, 1.5, -20.0]
        assert decoder(torch.zeros(4, 2)).shape == (4, 30, 2)


def test_the_decoder_starts_small() -> None:
    torch.manual_seed(0)
    decoder = TextCNNDecoder(width=128, channels=64, kernel_sizes=[3, 4, 5], length=30)
    assert float(decoder(torch.randn(50, 128)).detach().std()) < 1.0  # the targets' own deviation is 1


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_first_token_without_reconstruction_is_simcse_without_head(mode: str) -> None:
    batch = token_rows(MIXED)
    found = []
    for overrides in (
        ("method=simcse", "method.head=none"),
        ("method=sarcse", "method.embedding_source=cls", "method.reconstruction_weight=0"),
    ):
        method = getattr(tiny_method(SPREAD, *overrides), mode)()
        torch.manual_seed(7)
        loss = method.loss_of(batch)["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert largest_difference(found[0][1], found[1][1]) < 1e-12


def test_no_reconstruction_leaves_contrast_and_draws_no_decoder() -> None:
    batch = token_rows(MIXED)
    method = small("method.reconstruction_weight=0").eval()
    assert method.decoder is None
    parts = method.loss_of(batch)
    assert set(parts) == {"loss"}
    with torch.no_grad():
        h = method.embed(batch)
    assert float(parts["loss"].detach()) == pytest.approx(float(info_nce(h, h, temperature=0.05)), abs=1e-10)
    parts["loss"].backward()
    assert gradients(method).keys() == {name for name, _ in method.named_parameters()}
    assert all(name.startswith("encoder.") for name in gradients(method))
    with_decoder = small().eval()
    full = with_decoder.loss_of(batch)
    assert float(full["contrastive"].detach()) == pytest.approx(
        float(parts["loss"].detach()), abs=1e-12
    )  # same weights


@pytest.mark.parametrize("options", [{"split": True}, {"cache_rows": 3}, {"split": True, "cache_rows": 16}])
def test_pieces_change_neither_loss_nor_any_gradient(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from cse_bench.methods import base

    monkeypatch.setattr(base, "_PIECE_OVERHEAD_TOKENS", 16)
    batch = token_rows(MIXED)
    found = []
    for given in ({}, options):
        method = with_random_omega(small("method.detach_target=false", **given)).eval()
        parts = method.loss_of(batch)
        parts["loss"].backward()
        found.append((float(parts["loss"].detach()), float(parts["variance_explained"]), gradients(method)))
    assert found[0][:2] == pytest.approx(found[1][:2], abs=1e-9)
    assert largest_difference(found[0][2], found[1][2]) < 1e-9
    assert found[0][2].keys() == {name for name, _ in method.named_parameters()}
    assert max(float(gradient.abs().max()) for gradient in found[0][2].values()) > 1e-4


@pytest.mark.parametrize("source", ["latent", "cls", "latent+cls"])
def test_padding_side_decides_nothing(source: str) -> None:
    batch = token_rows(MIXED)
    found = []
    for side in ("right", "left"):
        overrides = (f"backbone.padding_side={side}", f"method.embedding_source={source}")
        method = with_random_omega(small(*overrides)).eval()
        loss = method.loss_of(batch)["loss"]
        loss.backward()
        found.append((float(loss.detach()), gradients(method)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-10)
    assert largest_difference(found[0][1], found[1][1]) < 1e-9


@pytest.mark.parametrize("detach", ["true", "false"])
def test_gradient_against_finite_differences(detach: str) -> None:
    """With the target held constant the gradient is not that of the loss; otherwise it is."""
    method = with_random_omega(small(f"method.detach_target={detach}", "method.reconstruction_weight=1")).eval()
    batch = token_rows([2, 5, 9, 7])
    weight = method.encoder.body.encoder.layer[1].output.dense.weight
    parts = method.loss_of(batch)
    parts["loss"].backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = []
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * 1e-6 * direction
            losses.append(float(method.loss_of(batch)["loss"]))
            weight -= sign * 1e-6 * direction
    slope, found = (losses[0] - losses[1]) / 2e-6, float((weight.grad * direction).sum())
    if detach == "false":
        assert found == pytest.approx(slope, rel=1e-5)
    else:
        assert abs(found / slope - 1) > 1e-2


def test_reconstruction_reaches_the_body_through_the_vector_alone() -> None:
    method = small("method.embedding_source=cls").eval()
    rows = token_rows([5, 9, 7])
    found = method.represent(rows)
    body = next(method.encoder.body.parameters())
    (through,) = torch.autograd.grad(found["error_sum"].sum(), body, retain_graph=True)
    assert float(through.abs().max()) > 1e-6
    assert not found["target_sum"].requires_grad
    with torch.no_grad():
        method.text_cnn.aggregate.weight.zero_()  # the vector no longer depends on the body
    (through,) = torch.autograd.grad(method.represent(rows)["error_sum"].sum(), body)
    assert float(through.abs().max()) == 0.0


def test_special_tokens_and_padding_are_never_reconstructed() -> None:
    method = small().eval()
    with torch.no_grad():
        found = method.represent(token_rows([2, 3, 9]))
        assert found["weight_sum"].tolist() == [0.0, 1.0, 7.0]
        assert float(found["error_sum"][0]) == 0.0
        method.omega[[0, 1, 2]] = 1e9
        assert torch.equal(method.represent(token_rows([2, 3, 9]))["error_sum"], found["error_sum"])


def test_an_empty_sentence_neither_breaks_nor_rules_a_step() -> None:
    """Its vector is the bias, zero at first; through a cosine its gradient would be some 10^10."""
    method = small().eval()
    with torch.no_grad():
        assert float(method.embed(token_rows([2, 5, 9]))[0].abs().max()) == 0.0
    largest = []
    for lengths in ([5, 9, 7], [2, 5, 9, 7]):
        method.zero_grad()
        method.loss_of(token_rows(lengths))["loss"].backward()
        largest.append(max(float(gradient.abs().max()) for gradient in gradients(method).values()))
    assert largest[1] < 10 * largest[0]
    parts = method.loss_of(rows_of([[1, 2]] * 3))
    assert float(parts["reconstruction"].detach()) == 0.0
    parts["loss"].backward()
    assert all(gradient.isfinite().all() for gradient in gradients(method).values())


def test_the_order_of_the_sentences_orders_the_vectors() -> None:
    method = small().eval()
    rows = token_rows([2, 5, 9, 14])
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        shuffled = method.embed(rows.take(order, length=14))
        assert torch.allclose(shuffled, method.embed(rows)[order], rtol=0, atol=1e-12)


def test_fresh_layers_have_a_learning_rate_of_their_own() -> None:
    method = small("optimizer.lr=1e-5")
    body, fresh = method.parameter_groups()
    assert fresh["lr"] == pytest.approx(1e-4)
    assert "lr" not in body
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in body["params"]} == {"encoder"}
    assert {".".join(names[id(p)].split(".")[:2]) for p in fresh["params"]} == {
        "encoder.readout",
        "decoder.split",
        "decoder.spread",
        "decoder.write",
    }
    assert len(body["params"]) + len(fresh["params"]) == len(names)


def test_weights_come_from_the_training_corpus(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("aaab\nac\n\n")
    method = small(f"data.max_length={64}", "method.sif_a=0.25")
    corpus = TextFile(path=str(path), empty_lines="keep")
    store = token_store(corpus, method.encoder.tokenizer, max_length=64, cache=tmp_path / "cache")
    config = composed("backbone=tiny_bert", "evaluation=none")
    preparation = Preparation(config=config, corpus=corpus, store=store, prerequisites={}, cache=tmp_path)
    assert float(method.omega.min()) == 1.0
    method.prepare(preparation)
    letters = [method.encoder.tokenizer([letter], max_length=None)[0][1] for letter in ("a", "b", "c", " ")]
    counts = np.array([4, 1, 1, 1])
    assert method.omega[letters].tolist() == pytest.approx((0.25 / (0.25 + counts / 7)).tolist(), abs=1e-6)
    others = [token for token in range(320) if token not in letters]
    assert float(method.omega[others].min()) == 1.0  # the special tokens among them
    assert method.notes["token_weights"]["tokens"] == 7
    assert method.notes["token_weights"]["distinct"] == 4
    assert "omega" not in method.state_dict()


@pytest.mark.parametrize("source", ["latent", "cls", "latent+cls"])
def test_a_run_trains_saves_and_embeds_as_saved(tmp_path: Path, source: str) -> None:
    config = config_in(
        tmp_path,
        "method=sarcse",
        "method.channels=6",
        "trainer.max_steps=4",
        f"method.embedding_source={source}",
    )
    result = run(config)
    assert result["pooling"] == {"latent": "text_cnn", "cls": "cls", "latent+cls": "text_cnn+cls"}[source]
    assert result["method"]["notes"]["token_weights"]["tokens"] > 100
    assert 0 < result["method"]["notes"]["token_weights"]["mean_over_tokens"] < 1
    directory = Path(result["directory"]) / "model"
    encoder = load_encoder(directory)
    assert isinstance(encoder, Encoder)
    only_training = load_file(directory / "training_only.safetensors")
    parts = {name.split(".")[0] for name in only_training}
    assert parts == ({"decoder", "training_text_cnn"} if source == "cls" else {"decoder"})
    kept = {name for name, _ in encoder.named_parameters()}
    assert not any("decoder" in name for name in kept)
    assert any(name.startswith("readout.") for name in kept) == (source != "cls")
    # Longer than anything the decoder writes, and the same alone as in company.
    sentences = [*made_up_sentences(5), "over and over " * 30, ""]
    together = encoder.encode(sentences)
    assert np.isfinite(together).all()
    alone = np.concatenate([encoder.encode([sentence]) for sentence in sentences])
    assert np.allclose(together, alone, rtol=0, atol=1e-5)
    if source == "latent":
        written = (Path(result["directory"]) / "metrics.csv").read_text()
        for part in ("contrastive", "reconstruction", "variance_explained"):
            assert f"train/{part}," in written


@pytest.mark.parametrize("source", ["latent", "latent+cls"])
def test_a_saved_encoder_gives_the_vectors_of_the_method(tmp_path: Path, source: str) -> None:
    from cse_bench.encoders.artifact import save_encoder

    overrides = ("method=sarcse", "method.channels=6", f"method.embedding_source={source}")
    method = tiny_method(*overrides, dtype=torch.float32).eval()
    backbone = composed("backbone=tiny_bert", "evaluation=none").backbone
    save_encoder(
        method.sentence_encoder,
        tmp_path / "model",
        backbone=backbone,
        training={},
        training_only=method.training_only_state(),
    )
    rows = token_rows([2, 5, 9, 60])
    with torch.no_grad():
        expected = method.represent(token_rows([2, 5, 9, 20]))["z"]
        assert torch.equal(method.embed(token_rows([2, 5, 9, 20])), expected)
        assert torch.equal(load_encoder(tmp_path / "model")(rows), method.embed(rows))


def test_an_adapter_trains_beside_the_fresh_layers() -> None:
    adapter = "backbone.adapter={type:lora,r:4,alpha:8,dropout:0.1,target_modules:[query,value]}"
    method = small(adapter)
    method.loss_of(token_rows([5, 9, 7]))["loss"].backward()
    names = set(gradients(method))
    assert all("lora" in name or name.startswith(("decoder.", "encoder.readout.")) for name in names)
    assert any("lora" in name for name in names)


def check(*overrides: str) -> None:
    composed("method=sarcse", "evaluation=none", "dry_run=true", *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=tiny_llama"], "tiny_llama is causal"),
        (["backbone=bert_base", "backbone.prompt='{sentence} .'"], "backbone.prompt: the tokens of a prompt"),
        (["backbone=bert_base", "backbone.dropout=0"], "two views of a sentence would be identical"),
        (["backbone=bert_base", "data.max_length=6"], r"data.max_length: 6 tokens .* raise it to 7"),
        (["backbone=bert_base", "method.max_length=40"], "method.max_length: 40 differs from data.max_length=32"),
        (
            ["backbone=bert_base", "backbone.pooling=mean", "method.embedding_source=cls"],
            "backbone.pooling: mean, but method.embedding_source=cls",
        ),
        (["backbone=bert_base", "method.kernel_sizes=[]"], "method.kernel_sizes"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(*overrides)


def test_what_can_work_is_not_refused() -> None:
    check("backbone=bert_base", "data.max_length=7")
    check("backbone=bert_base", "backbone.dropout=0", "method.views=identical")
    check("backbone=bert_base", "backbone.pooling=mean")


def test_a_tokenizer_without_two_special_tokens_is_refused() -> None:
    causal = tiny_method("method=simcse", "backbone=tiny_llama").encoder
    with pytest.raises(EncoderError, match="the tokenizer puts 1 special tokens around a sentence"):
        _check_special_tokens(causal)


def test_identical_views_are_one_forward() -> None:
    method = small("method.views=identical").eval()
    both = small().eval()
    batch = token_rows([2, 5, 9])
    with torch.no_grad():
        one, two = method.loss_of(batch), both.loss_of(batch)
    assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=1e-12)
    assert method.tokens.real * 2 == both.tokens.real
