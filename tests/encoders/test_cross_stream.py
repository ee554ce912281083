"""Two towers side by side: the crossed attention by hand, the plain stream as Transformers runs it, gradients."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from cse_bench.encoders import cross_stream
from cse_bench.encoders.cross_stream import CROSSABLE, crossed_layers, twin_states, value_projections
from cse_bench.errors import EncoderError

BOTH = frozenset({0, 1})
LENGTHS = [9, 4, 12, 1]
SIZES = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 66}


def tokens() -> tuple[Tensor, Tensor]:
    """Ids with ones as padding (RoBERTa's) and their mask."""
    ids = torch.randint(4, 300, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    return ids.masked_fill(mask == 0, 1), mask


@pytest.fixture
def towers(tiny, tiny_entry):
    """`towers(model_type, attention)`: two bodies of one architecture with different weights, float64, eval."""

    def build(kind: str = "bert", attention: str = "sdpa", **sizes: int) -> tuple[nn.Module, nn.Module]:
        architecture = {"model_type": kind, **SIZES, **sizes} | ({} if kind == "bert" else {"pad_token_id": 1})
        first, second = (
            tiny("tiny_bert", seed=seed, architecture=architecture, attention=attention).double().body
            for seed in (1, 2)
        )
        return first, second

    return build


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    return x @ module.weight.T + module.bias


def norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (x.var(dim=-1, unbiased=False, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def slow_layer(layer: nn.Module, x: Tensor, values: Tensor, heads: int) -> Tensor:
    """BERT's layer for one unpadded sentence, (l, d), with the values given."""
    own, size = layer.attention.self, x.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = linear(own.query, x)[:, part] @ linear(own.key, x)[:, part].T / math.sqrt(size)
        mixed.append(scores.exp() / scores.exp().sum(dim=1, keepdim=True) @ values[:, part])
    attended = norm(layer.attention.output.LayerNorm, linear(layer.attention.output.dense, torch.cat(mixed, dim=1)) + x)
    inner = linear(layer.intermediate.dense, attended)
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return norm(layer.output.LayerNorm, linear(layer.output.dense, inner) + attended)


def slow_crossed(bodies: tuple[nn.Module, nn.Module], ids: Tensor, crossed: frozenset[int]) -> tuple[Tensor, Tensor]:
    """The crossed stream of one unpadded sentence, from the equations."""
    x, y = (body.embeddings(input_ids=ids[None])[0] for body in bodies)
    for index in range(bodies[0].config.num_hidden_layers):
        first, second = (body.encoder.layer[index] for body in bodies)
        v, w = linear(first.attention.self.value, x), linear(second.attention.self.value, y)
        if index in crossed:
            v, w = w, v
        heads = bodies[0].config.num_attention_heads
        x, y = slow_layer(first, x, v, heads), slow_layer(second, y, w, heads)
    return x, y


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", sorted(CROSSABLE))
def test_plain_stream_is_what_transformers_computes(towers, kind: str, attention: str) -> None:
    bodies, (ids, mask) = towers(kind, attention), tokens()
    with torch.no_grad():
        streams = twin_states(*bodies, ids, mask, crossed=BOTH, inline=False)
        for body, states, other in zip(bodies, streams.plain, streams.crossed, strict=True):
            assert torch.equal(states, body(input_ids=ids, attention_mask=mask).last_hidden_state)
            assert not torch.allclose(states, other, rtol=0, atol=0.1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", sorted(CROSSABLE))
@pytest.mark.parametrize("crossed", [frozenset({1}), frozenset({0}), BOTH, frozenset()])
def test_crossed_stream_is_that_of_the_equations_and_sees_no_padding(towers, kind, attention, crossed) -> None:
    bodies, (ids, mask) = towers(kind, attention), tokens()
    with torch.no_grad():
        streams = twin_states(*bodies, ids, mask, crossed=crossed, inline=False)
        inline = twin_states(*bodies, ids, mask, crossed=crossed, inline=True)
        for row, length in enumerate(LENGTHS):
            expected = slow_crossed(bodies, ids[row, :length], crossed)
            for found in (streams.crossed, inline.plain, inline.crossed):
                for states, slow in zip(found, expected, strict=True):
                    assert torch.allclose(states[row, :length], slow, rtol=0, atol=1e-10)


def test_attention_by_hand() -> None:
    config = BertConfig(hidden_size=2, num_attention_heads=1, attn_implementation="eager")
    queries = [[[1, 0], [0, 1]], [[0, 1], [1, 1]]]
    keys = [[[1, 0], [0, 2]], [[2, 0], [0, 1]]]
    values = [[[1, 2], [3, 4]], [[10, 20], [30, 40]]]
    towers = tuple(BertSelfAttention(config).double().eval() for _ in range(2))
    for tower, *matrices in zip(towers, queries, keys, values, strict=True):
        for projection, matrix in zip((tower.query, tower.key, tower.value), matrices, strict=True):
            projection.weight = nn.Parameter(torch.tensor(matrix, dtype=torch.float64).T)  # the tokens are unit vectors
            nn.init.zeros_(projection.bias)
    x = torch.eye(2, dtype=torch.float64)[None]
    projections = tuple(tower.value for tower in towers)

    def near(states: Tensor, expected: list[list[float]]) -> bool:
        return torch.allclose(states[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)

    with torch.no_grad():
        first, second = cross_stream._exchanged(towers, projections, (x, x), [None, None])
        assert near(first, [[16.6047690135, 26.6047690135], [26.0885936501, 36.0885936501]])
        assert near(second, [[2.3395230987, 3.3395230987], [1.6604769013, 2.6604769013]])
        own, _ = cross_stream._apart(towers, projections, (x, x), [None, None])
        assert near(own, [[1.6604769013, 2.6604769013], [2.608859365, 3.608859365]])
        hidden = torch.tensor([[[[0.0, -torch.inf]]]], dtype=torch.float64)  # the second key is padding
        masked, _ = cross_stream._exchanged(towers, projections, (x, x), [hidden, hidden])
        assert near(masked, [[10, 20], [10, 20]])


def test_identical_towers_cross_nothing(towers) -> None:
    body, _ = towers()
    ids, mask = tokens()
    with torch.no_grad():
        streams = twin_states(body, body, ids, mask, crossed=BOTH, inline=False)
    assert all(torch.equal(plain, other) for plain, other in zip(*streams, strict=True))


def test_swapped_towers_give_swapped_streams(towers) -> None:
    first, second = towers()
    ids, mask = tokens()
    with torch.no_grad():
        streams = twin_states(first, second, ids, mask, crossed=BOTH, inline=False)
        swapped = twin_states(second, first, ids, mask, crossed=BOTH, inline=False)
    for pair, other in zip(streams, swapped, strict=True):
        assert torch.equal(pair[0], other[1])
        assert torch.equal(pair[1], other[0])


def test_same_dropout_masks_until_the_streams_part(towers) -> None:
    """With dropout on, the first layer is drawn once: its output is the same tensor for both streams."""
    bodies, (ids, mask) = towers(), tokens()
    seen: list[Tensor] = []
    for body in bodies:
        body.train()
        body.encoder.layer[1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    twin_states(*bodies, ids, mask, crossed=frozenset({1}), inline=False)
    assert len(seen) == 4
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]


@pytest.mark.parametrize(
    ("count", "layers", "cost"),
    [
        (1, {12}, 1.08),
        (2, {6, 12}, 1.58),
        (3, {4, 8, 12}, 1.75),
        (4, {3, 6, 9, 12}, 1.83),
        (6, {2, 4, 6, 8, 10, 12}, 1.92),
        (12, set(range(1, 13)), 2.00),
    ],
)
def test_crossed_layers_are_equally_spaced_and_cost_what_they_should(towers, count, layers, cost) -> None:
    assert {index + 1 for index in crossed_layers(12, every=12 // count)} == layers
    bodies, (ids, mask) = towers(num_hidden_layers=12), tokens()
    calls = []
    for body in bodies:
        for layer in body.encoder.layer:
            layer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        twin_states(*bodies, ids, mask, crossed=crossed_layers(12, every=12 // count), inline=False)
    assert len(calls) / 24 == pytest.approx(cost, abs=0.005)


def test_layers_that_cannot_be_spaced_equally() -> None:
    with pytest.raises(EncoderError, match="last of 12 layers would not be crossed; give one of 1, 2, 3, 4, 6, 12"):
        crossed_layers(12, every=5)


def test_gradients_of_one_crossed_tower_reach_both(towers) -> None:
    """At the last layer: own query, key and the rest, the other's values, and nothing else of the other's."""
    bodies, (ids, mask) = towers(), tokens()
    streams = twin_states(*bodies, ids, mask, crossed=frozenset({1}), inline=False)
    streams.crossed[0][:, 0].square().sum().backward()
    own, other = (body.encoder.layer[1] for body in bodies)
    reached = [own.attention.self.query, own.attention.self.key, own.attention.output.dense, own.output.dense]
    reached += [other.attention.self.value, bodies[1].encoder.layer[0].attention.self.query]
    silent = [own.attention.self.value, other.attention.self.query, other.attention.self.key, other.output.dense]
    assert all(module.weight.grad is not None and module.weight.grad.abs().max() > 0 for module in reached)
    assert all(module.weight.grad is None or module.weight.grad.abs().max() == 0 for module in silent)


def test_gradient_equals_finite_differences(towers) -> None:
    bodies, (ids, mask) = towers(hidden_size=4, intermediate_size=4), tokens()
    weight = bodies[1].encoder.layer[0].attention.self.value.weight
    start = weight.detach().clone()

    def loss(values: Tensor) -> Tensor:
        with torch.no_grad():
            weight.copy_(values)
        return twin_states(*bodies, ids, mask, crossed=BOTH, inline=False).crossed[0][:, 0, 0].sum()

    (gradient,) = torch.autograd.grad(loss(start), weight)
    with torch.no_grad():
        for i in range(4):
            shift = torch.zeros_like(start)
            shift[i, 1] = 1e-6
            slope = float(loss(start + shift) - loss(start - shift)) / 2e-6
            assert slope == pytest.approx(float(gradient[i, 1]), rel=1e-5, abs=1e-8)


def test_no_hook_is_left_behind(towers) -> None:
    bodies, (ids, mask) = towers(), tokens()
    with torch.no_grad():
        twin_states(*bodies, ids, mask, crossed=BOTH, inline=False)
        assert not any(projection._forward_hooks for body in bodies for projection in value_projections(body))
        with pytest.raises(RuntimeError):
            cross_stream._exchanged(
                (bodies[0].encoder.layer[0], bodies[1].encoder.layer[0]),
                (value_projections(bodies[0])[0], value_projections(bodies[1])[0]),
                (torch.zeros(2, 3, 32, dtype=torch.float64), torch.zeros(2, 5, 32, dtype=torch.float64)),
                [None, None],
            )
    assert not any(projection._forward_hooks for body in bodies for projection in value_projections(body))


@pytest.mark.parametrize("name", ["tiny_modernbert", "tiny_llama"])
def test_other_architectures_are_refused(tiny, name: str) -> None:
    body = tiny(name).body
    ids, mask = tokens()
    with pytest.raises(EncoderError, match="whose value projections are not those of BERT; use one of bert, camembert"):
        twin_states(body, body, ids, mask, crossed=BOTH, inline=False)


def test_a_pooler_does_not_matter() -> None:
    body = BertModel(BertConfig(**SIZES)).double().eval()
    ids, mask = tokens()
    with torch.no_grad():
        streams = twin_states(body, body, ids, mask, crossed=frozenset({1}), inline=False)
        assert torch.equal(streams.plain[0], body(input_ids=ids, attention_mask=mask).last_hidden_state)
