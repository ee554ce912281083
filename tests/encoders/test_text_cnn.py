"""TextCNN by hand, its independence of padding, and saving and loading with an encoder."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cse_bench.encoders.artifact import load_encoder, read_description, save_encoder
from cse_bench.encoders.encoder import Encoder
from cse_bench.encoders.text_cnn import TextCNN, content_mask

CONTENT = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]
KERNEL = [[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [1.0, 1.0], [0.0, 1.0]]  # rows are positions; the first 3, 4, 5 of them


def by_hand(kernel_sizes=(3, 4, 5)) -> TextCNN:
    cnn = TextCNN(width=2, channels=1, kernel_sizes=kernel_sizes).double()
    with torch.no_grad():
        for scale, size in zip(cnn.scales, kernel_sizes, strict=True):
            scale.weight[0] = torch.tensor(KERNEL[:size], dtype=torch.float64).T
            scale.bias.fill_(-0.5)
        cnn.aggregate.weight[:] = torch.tensor([[[1.0, 2, 3]], [[-1.0, 0, 1]]], dtype=torch.float64)
        cnn.aggregate.bias[:] = torch.tensor([0.0, 0.5], dtype=torch.float64)
    return cnn


def row(content: list[list[float]], *, right: int = 0, left: int = 0) -> tuple[Tensor, Tensor]:
    """One row: content between two special tokens of huge states, padding of as huge ones."""
    special = [[99.0, -99.0]]
    states = [*special * left, *special, *content, *special, *special * right]
    mask = [0] * left + [1] * (len(content) + 2) + [0] * right
    return torch.tensor([states], dtype=torch.float64), torch.tensor([mask])


@pytest.mark.parametrize("padding", [{}, {"right": 5}, {"left": 3}, {"left": 2, "right": 1}])
def test_by_hand(padding: dict[str, int]) -> None:
    cnn = by_hand()
    states, mask = row(CONTENT, **padding)
    assert cnn.features(states, mask)[0, 0].tolist() == pytest.approx([2.5, 3.5, 3.5], abs=1e-12)
    assert cnn(states, mask)[0].tolist() == pytest.approx([20.0, 1.5], abs=1e-12)
    states, mask = row(CONTENT[:3], **padding)
    assert cnn.features(states, mask)[0, 0].tolist() == pytest.approx([1.5, 1.5, 1.5], abs=1e-12)


def test_every_content_token_starts_a_window() -> None:
    """A valid convolution of the content alone misses the last tokens, unless other rows of the batch are longer."""
    content = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]]
    cnn, (states, mask) = by_hand(), row(content)
    valid = functional.relu(cnn.scales[0](states[:, 1:-1].mT)).amax(dim=2)
    assert valid.tolist() == [[0.0]]
    assert cnn.features(states, mask)[0, 0].tolist() == pytest.approx([8.5, 17.5, 17.5], abs=1e-12)


def test_content_is_what_lies_between_the_special_tokens() -> None:
    attention = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    found = content_mask(attention).long()
    assert found[:, 1:5].tolist() == expected
    assert found[:, [0, 5]].sum() == 0
    assert content_mask(attention.flip(1)).flip(1).long().tolist() == found.tolist()  # padded on the left


@pytest.mark.parametrize(("width", "expected"), [(768, 2_950_656), (1024, 3_933_952)])
def test_number_of_parameters(width: int, expected: int) -> None:
    with torch.device("meta"):
        cnn = TextCNN(width=width, channels=256, kernel_sizes=[3, 4, 5])
    assert sum(parameter.numel() for parameter in cnn.parameters()) == expected


@pytest.mark.parametrize("length", [1, 2])
def test_a_row_without_content_gives_the_bias(length: int) -> None:
    cnn = TextCNN(width=4, channels=3, kernel_sizes=[3, 4, 5]).double()
    torch.nn.init.normal_(cnn.aggregate.bias)
    states = torch.full((2, 6, 4), torch.nan, dtype=torch.float64)  # what a kernel may leave in padding
    states[0, :length], states[1] = 1.0, torch.randn(6, 4, dtype=torch.float64)
    states.requires_grad_()
    mask = torch.tensor([[1] * length + [0] * (6 - length), [1] * 6])
    vectors = cnn(states, mask)
    assert torch.equal(vectors[0], cnn.aggregate.bias)
    assert torch.equal(cnn(states[:1, :length], mask[:1, :length])[0], cnn.aggregate.bias)
    vectors.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in cnn.parameters())
    assert states.grad.isfinite().all()
    assert float(states.grad[0].abs().max()) == 0.0


def test_neither_company_nor_padding_nor_order_matters() -> None:
    draw = torch.Generator().manual_seed(0)
    cnn = TextCNN(width=8, channels=5, kernel_sizes=[2, 3, 6]).double()
    states = torch.randn(5, 40, 8, generator=draw, dtype=torch.float64)
    lengths = torch.tensor([2, 3, 5, 17, 40])
    mask = (torch.arange(40) < lengths[:, None]).long()
    together = cnn(states, mask)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(cnn(states[order], mask[order]), together[order], rtol=0, atol=1e-12)
    for index, length in enumerate(lengths.tolist()):
        alone = cnn(states[index : index + 1, :length], mask[index : index + 1, :length])
        assert torch.allclose(alone[0], together[index], rtol=0, atol=1e-12)


def test_gradcheck() -> None:
    draw = torch.Generator().manual_seed(0)
    cnn = TextCNN(width=3, channels=2, kernel_sizes=[2, 3]).double()
    states = torch.randn(2, 6, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    assert torch.autograd.gradcheck(lambda x: cnn(x, mask), (states,))


def test_weights_are_drawn_as_he_et_al_do() -> None:
    torch.manual_seed(0)
    cnn = TextCNN(width=64, channels=128, kernel_sizes=[3, 4, 5])
    for scale, size in zip(cnn.scales, [3, 4, 5], strict=True):
        assert float(scale.weight.detach().std()) == pytest.approx((2 / (64 * size)) ** 0.5, rel=0.03)
        assert float(scale.bias.detach().abs().max()) == 0.0


def test_states_in_half_precision_are_widened() -> None:
    cnn = TextCNN(width=4, channels=3, kernel_sizes=[3])
    states, mask = torch.randn(2, 6, 4).bfloat16(), torch.ones(2, 6, dtype=torch.long)
    assert cnn(states, mask).dtype == torch.float32


SENTENCES = ["Tea.", "", "The cat sat on the mat.", "Ça va très bien, merci. " * 15]


@pytest.mark.parametrize("add_first", [False, True])
@pytest.mark.parametrize("setting", ["all weights", "adapter", "bfloat16", "float64", "left"])
def test_round_trip(tiny, tiny_entry, lora, tmp_path, setting: str, add_first: bool) -> None:
    options = {"adapter": {"adapter": lora}, "left": {"padding_side": "left"}}.get(setting, {})
    if setting in ("bfloat16", "float64"):
        options = {"dtype": setting}
    encoder: Encoder = tiny("tiny_bert", **options)
    cnn = TextCNN(width=encoder.width, channels=6, kernel_sizes=[3, 5], add_first=add_first)
    encoder.readout = cnn.double() if setting == "float64" else cnn
    encoder.pooling = "text_cnn"
    expected = encoder.encode(SENTENCES)
    folder = tmp_path / "model"
    save_encoder(encoder, folder, backbone=tiny_entry("tiny_bert", **options), training={}, training_only={})
    assert read_description(folder)["readout"] == {"name": "text_cnn", "arguments": cnn.arguments()}
    loaded = load_encoder(folder)
    assert isinstance(loaded, Encoder)
    assert loaded.pooling == "text_cnn"
    assert next(loaded.readout.parameters()).dtype == (torch.float64 if setting == "float64" else torch.float32)
    assert np.array_equal(loaded.encode(SENTENCES), expected)
    alone = np.concatenate([loaded.encode([sentence]) for sentence in SENTENCES])
    assert np.allclose(alone, expected, rtol=0, atol=2e-2 if setting == "bfloat16" else 1e-5)


def test_loaded_in_more_precision_it_follows_the_body(tiny, tiny_entry, tmp_path) -> None:
    encoder: Encoder = tiny("tiny_bert")
    encoder.readout = TextCNN(width=encoder.width, channels=6, kernel_sizes=[3])
    save_encoder(encoder, tmp_path / "model", backbone=tiny_entry("tiny_bert"), training={}, training_only={})
    loaded = load_encoder(tmp_path / "model", dtype="float64")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float64}
    assert np.allclose(loaded.encode(SENTENCES), encoder.encode(SENTENCES), rtol=0, atol=1e-4)
