"""Bodies run over real tokens only: the vectors, gradients and dropout of Transformers' own forward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertModel

from cse_bench.data.rows import TokenRows
from cse_bench.encoders import packed
from cse_bench.encoders.dropout import dropout
from cse_bench.encoders.encoder import Encoder, build_encoder
from cse_bench.encoders.packed import PACKABLE, Packing, packed_states
from cse_bench.errors import EncoderError
from tests.tiny import tiny_method, token_rows

KINDS = sorted(PACKABLE)
LENGTHS = {"padded": [9, 4, 12, 2, 12], "full": [7, 7, 7], "many tokens": [60] * 8 + [31, 45]}
SIZES = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64},
}


@pytest.fixture
def encoder(tiny: Callable[..., Encoder]) -> Callable[..., Encoder]:
    """`encoder(kind, ...)`: one of a packable type, three layers, float64, eval, every bias and scale drawn too."""

    def build(kind: str, **changes: Any) -> Encoder:
        sizes = SIZES.get(kind, SIZES["bert"]) | {"vocab_size": 320, "max_position_embeddings": 66, "pad_token_id": 0}
        made = tiny("tiny_bert", architecture={"model_type": kind, **sizes}, **changes).double()
        draws = torch.Generator().manual_seed(3)
        for name, parameter in made.named_parameters():
            if name.endswith("bias") or "norm" in name.lower() or "lora_B" in name:
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
        return made

    return build


def both(encoder: Encoder, rows: TokenRows) -> tuple[Tensor, Tensor]:
    """Vectors of the packed forward and of Transformers'."""
    found = []
    for is_packed in (True, False):
        encoder.packed = is_packed
        assert encoder.packs(rows) == is_packed
        found.append(encoder(rows))
    return found[0], found[1]


@pytest.mark.parametrize("pooling", ["cls", "mean", "first_last_mean", "last_token"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_transformers(encoder, kind: str, lengths: list[int], pooling: str) -> None:
    model = encoder(kind, pooling=pooling)
    with torch.no_grad():
        ours, theirs = both(model, token_rows(lengths))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert theirs.std(dim=0).min() > 1e-3  # the sentences differ


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_token_states_are_those_of_transformers(encoder, kind: str, side: str) -> None:
    model, rows = encoder(kind, padding_side=side), token_rows(LENGTHS["padded"])
    with torch.no_grad():
        last, first, mask = model.states(rows, with_first=True)
        output = model.body(input_ids=rows.ids, attention_mask=rows.mask(), output_hidden_states=True)
    assert torch.equal(mask, rows.mask())
    for ours, theirs in ((last, output.last_hidden_state), (first, output.hidden_states[1])):
        assert torch.allclose(ours[mask.bool()], theirs[mask.bool()], rtol=0, atol=1e-12)
        assert (ours[~mask.bool()] == 0).all()


@pytest.mark.parametrize("pooling", ["cls", "first_last_mean"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_transformers(encoder, kind: str, lengths: list[int], pooling: str) -> None:
    model = encoder(kind, pooling=pooling, dropout=0.0).train()
    found: list[dict[str, Tensor]] = []
    for vectors in both(model, token_rows(lengths)):
        model.zero_grad()
        (vectors.square() * torch.arange(1, vectors.numel() + 1).view(vectors.shape)).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=0, atol=1e-12 * largest), name


@pytest.mark.parametrize(("lengths", "many", "empty"), [([3, 5, 2], 512, 0), ([4, 4], 8, 0), ([3, 5, 2], 8, 54)])
def test_packing_has_gradients_of_its_own(monkeypatch, lengths: list[int], many: int, empty: int) -> None:
    monkeypatch.setattr(packed, "_MANY_TOKENS", many)
    packing = Packing.of(token_rows(lengths))
    assert packing.empty == empty
    tokens = torch.randn(sum(lengths) + empty, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(len(lengths), max(lengths), 2, dtype=torch.float64, requires_grad=True)
    for function, given in ((packing.unpack, tokens), (packing.pack, rows)):
        assert torch.autograd.gradcheck(function, (given,))
        assert torch.autograd.gradgradcheck(function, (given,))
    there_and_back = packing.pack(packing.unpack(tokens))
    assert torch.equal(there_and_back[: sum(lengths)], tokens[: sum(lengths)])
    assert (there_and_back[sum(lengths) :] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_updates_act(encoder, kind: str, lora) -> None:
    model = encoder(kind, adapter=lora)
    rows = token_rows(LENGTHS["padded"])
    with torch.no_grad():
        ours, theirs = both(model, rows)
        with model.body.disable_adapter():
            without, _ = both(model, rows)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert not torch.allclose(ours, without, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_as_close_as_rounding_allows(encoder, kind: str) -> None:
    model, rows = encoder(kind), token_rows(LENGTHS["padded"])
    with torch.no_grad():
        exact = model(rows)
        with torch.autocast("cpu", torch.bfloat16):
            ours, theirs = both(model.float(), rows)
    assert 0 < (theirs - exact).abs().max() < 0.1
    assert (ours - exact).abs().max() < 2 * (theirs - exact).abs().max()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_dropout_of_the_body_acts(encoder, monkeypatch, kind: str, pooling: str) -> None:
    model = encoder(kind, pooling=pooling, dropout=0.1).train()
    drawn: list[nn.Module] = []
    monkeypatch.setattr(packed, "dropout", lambda states, module: drawn.append(module) or dropout(states, module))
    model(token_rows(LENGTHS["padded"]))
    assert {id(module) for module in drawn} == {id(m) for m in model.body.modules() if isinstance(m, nn.Dropout)}
    assert len(drawn) == len({id(module) for module in drawn})
    drawn.clear()
    model.eval()
    assert torch.equal(*(model(token_rows(LENGTHS["padded"])) for _ in range(2)))


@pytest.mark.parametrize("which", ["hidden", "attention"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_dropout_scatters_vectors_as_that_of_transformers(encoder, kind: str, which: str) -> None:
    """Mean and spread of a vector over many masks; a mask at another place would spread it otherwise."""
    model = encoder(kind, dropout=0.0).train()
    for name, module in model.body.named_modules():
        if isinstance(module, nn.Dropout) and ("attention" in name and "output" not in name) == (which == "attention"):
            module.p = 0.2
    draws = 1500
    rows = token_rows([6, 9]).repeat(draws)
    with torch.no_grad():
        samples = [vectors.view(draws, 2, -1) for vectors in both(model, rows)]
    ours, theirs = [(sample.mean(dim=0), sample.std(dim=0)) for sample in samples]
    deviation = theirs[1].mean()
    assert deviation > 0.01
    assert (ours[0] - theirs[0]).abs().max() < 6 * theirs[1].max() * (2 / draws) ** 0.5
    assert torch.allclose(ours[1], theirs[1], rtol=0.2, atol=0)
    assert float(ours[1].mean()) == pytest.approx(float(deviation), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9999])
def test_dropout_keeps_the_expectation(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    dropped = dropout(states, nn.Dropout(probability))
    count = states.numel()
    share = float((dropped == 0).double().mean())
    assert abs(share - probability) < 1e-5 + 5 * (probability * (1 - probability) / count) ** 0.5
    kept = dropped.detach()[dropped.detach() != 0].double()
    assert (kept == kept[0]).all()
    stated = round(probability * 2**16) / 2**16
    assert float(kept[0]) == pytest.approx(1 / (1 - stated), rel=torch.finfo(dtype).eps)
    (gradient,) = torch.autograd.grad(dropped.sum(), states)
    assert torch.equal(gradient, dropped.detach())


def test_dropout_masks_are_independent_and_follow_the_seed() -> None:
    module, states = nn.Dropout(0.3), torch.ones(400, 512)
    torch.manual_seed(1)
    first, second = (dropout(states, module) == 0 for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(dropout(states, module) == 0, first)
    for one, other in ((first, second), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1]), (first, first.roll(4))):
        assert float((one & other).double().mean()) == pytest.approx(0.09, abs=0.004)
    assert torch.equal(dropout(states, nn.Dropout(0.0)), states)
    assert torch.equal(dropout(states, module.eval()), states)
    odd = dropout(torch.ones(3, 5, 7), nn.Dropout(0.5))  # 105 numbers: the last draws are not all used
    assert odd.shape == (3, 5, 7)


def test_computed_again_in_the_backward_with_the_same_masks(encoder) -> None:
    model = encoder("bert", dropout=0.3).train()
    rows = token_rows(LENGTHS["padded"])
    gradients = []
    for again in (False, True):
        torch.manual_seed(2)
        model.zero_grad()
        vectors = torch.utils.checkpoint.checkpoint(model, rows, use_reentrant=False) if again else model(rows)
        vectors.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_last_layer_computes_what_is_read(encoder) -> None:
    """Keys and values of all 32 tokens; the four other linear layers see a token of each sentence."""
    model, rows = encoder("bert"), token_rows([8, 8, 8, 8])
    linears = [module for module in model.body.encoder.layer[2].modules() if isinstance(module, nn.Linear)]
    seen: list[int] = []
    for linear in linears:
        linear.register_forward_hook(lambda _, given, __: seen.append(given[0].numel() // given[0].shape[-1]))
    with torch.no_grad():
        packed_states(model.body, rows, first_token_only=True, with_first_layer=False)
    assert sorted(seen) == [4, 4, 4, 4, 32, 32]


def test_a_model_with_code_of_its_own_is_run_by_it(tiny) -> None:
    """It may call itself a BERT."""

    class Own(BertModel):
        pass

    encoder = tiny("tiny_bert")
    encoder.body.__class__ = Own
    assert not encoder.packs(token_rows([3, 2]))
    encoder.packed = True
    assert not encoder.packs(token_rows([3, 2]))


def test_one_long_row_among_short_ones_is_split_off() -> None:
    """The attention of packed rows is as wide as the longest of a piece."""
    method = tiny_method("data.max_length=128", "backbone.architecture.max_position_embeddings=600", split=True)
    for lengths, pieces in (([20] * 63 + [512], 2), ([20] * 40 + [32] * 24, 1)):
        seen: list[int] = []
        method.in_pieces(token_rows(lengths), lambda rows, s=seen: s.append(len(rows)) or method.represent(rows))
        assert len(seen) == pieces


def test_what_is_not_packed(tiny, tiny_entry) -> None:
    rows = token_rows([3, 2])
    assert tiny("tiny_bert").packs(rows)
    for name, changes in (
        ("tiny_llama", {}),
        ("tiny_modernbert", {}),
        ("tiny_bert", {"attention": "eager"}),
        ("tiny_bert", {"gradient_checkpointing": True}),
        ("tiny_bert", {"packed": False}),
    ):
        assert not tiny(name, **changes).packs(rows)
    with pytest.raises(EncoderError, match="backbone.packed=true: 'llama' is not run so, only encoders of bert, camem"):
        build_encoder(tiny_entry("tiny_llama", packed=True))
    with pytest.raises(EncoderError, match="backbone.packed=true: .* not backbone.attention=eager; set"):
        build_encoder(tiny_entry("tiny_bert", packed=True, attention="eager"))
