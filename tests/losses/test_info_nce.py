"""InfoNCE against numbers worked out by hand, an independent slow loop, and what the formula promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.losses.info_nce import cosine_matrix, info_nce

# Deliberately not normalised. Cosines: [[24/25, 7/25, -33/65], [3/5, 4/5, -12/13], [4/5, -3/5, 5/13]].
Z1 = [[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]
Z2 = [[4.0, 3.0], [-3.0, 4.0], [5.0, -12.0]]
PER_ANCHOR = {
    1.0: [0.5522019087, 0.6917696197, 1.0607498645],
    0.1: [0.0011135775, 0.1269280400, 4.1694288427],
    0.05: [0.0000012405, 0.0181499279, 8.3079388898],
}
MEAN = {1.0: 0.7682404643, 0.1: 1.4324901534, 0.05: 2.7753633527}
SWAPPED = {1.0: 0.6884267253, 0.1: 0.0706725366, 0.05: 0.0135669570}
SYMMETRISED = {1.0: 0.7283335948, 0.1: 0.7515813450, 0.05: 1.3944651549}
NT_XENT = {1.0: 1.1626732282, 0.05: 1.5182872986}
DOT_PRODUCT = {1.0: 0.1468116509}
GRADIENT_Z1 = [[-0.0151729703, 0.0113797277], [0.1103179214, 0.0], [0.0, 0.3405534004]]


def rows(values: list[list[float]], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def cross_entropy(anchor: list[float], candidates: list[list[float]], positive: int, temperature: float) -> float:
    """One anchor: the log of the sum over candidates, less the positive, of dot products over the temperature."""
    scores = [sum(x * y for x, y in zip(anchor, c, strict=True)) / temperature for c in candidates]
    largest = max(scores)
    return largest + math.log(sum(math.exp(score - largest) for score in scores)) - scores[positive]


def slow_info_nce(anchors: list[list[float]], candidates: list[list[float]], temperature: float) -> list[float]:
    """Per anchor, straight from equation 4 of Gao et al. 2021."""
    others = [unit(c) for c in candidates]
    return [cross_entropy(unit(a), others, i, temperature) for i, a in enumerate(anchors)]


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_equals_the_hand_computed_mean(temperature: float) -> None:
    loss = info_nce(rows(Z1), rows(Z2), temperature=temperature)
    assert float(loss) == pytest.approx(MEAN[temperature], abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_float32_is_within_1e5(temperature: float) -> None:
    loss = info_nce(rows(Z1, torch.float32), rows(Z2, torch.float32), temperature=temperature)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(MEAN[temperature], abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_equals_the_hand_computed_loss_of_every_anchor(temperature: float) -> None:
    for anchor, expected in enumerate(PER_ANCHOR[temperature]):
        # The anchor alone, its positive moved to the front: candidates behind it are negatives in any order.
        others = [row for index, row in enumerate(Z2) if index != anchor]
        loss = info_nce(rows([Z1[anchor]]), rows([Z2[anchor], *others]), temperature=temperature)
        assert float(loss) == pytest.approx(expected, abs=1e-9)


def test_the_slow_loop_agrees_with_the_hand_computed_numbers() -> None:
    """The oracle of the random tests below is itself checked."""
    for temperature, expected in PER_ANCHOR.items():
        assert slow_info_nce(Z1, Z2, temperature) == pytest.approx(expected, abs=1e-9)


def nt_xent(temperature: float) -> float:
    """SimCLR's loss: every view is an anchor, all other views of the batch are candidates."""
    views = [unit(row) for row in (*Z1, *Z2)]
    size = len(Z1)
    losses = []
    for anchor in range(2 * size):
        candidates = [view for index, view in enumerate(views) if index != anchor]
        partner = (anchor + size) % (2 * size)
        losses.append(cross_entropy(views[anchor], candidates, partner - (partner > anchor), temperature))
    return sum(losses) / len(losses)


def swapped(temperature: float) -> float:
    return sum(slow_info_nce(Z2, Z1, temperature)) / 3


def symmetrised(temperature: float) -> float:
    return (sum(slow_info_nce(Z1, Z2, temperature)) / 3 + swapped(temperature)) / 2


def dot_product(temperature: float) -> float:
    return sum(cross_entropy(a, Z2, i, temperature) for i, a in enumerate(Z1)) / 3


@pytest.mark.parametrize(
    ("variant", "expected"),
    [(swapped, SWAPPED), (symmetrised, SYMMETRISED), (nt_xent, NT_XENT), (dot_product, DOT_PRODUCT)],
)
def test_is_none_of_the_losses_it_is_confused_with(variant, expected: dict[float, float]) -> None:
    for temperature, value in expected.items():
        assert variant(temperature) == pytest.approx(value, abs=1e-9)  # the variant is what it is called
        assert abs(float(info_nce(rows(Z1), rows(Z2), temperature=temperature)) - value) > 0.03


def test_gradient_equals_the_hand_computed_one() -> None:
    anchors = rows(Z1).requires_grad_()
    info_nce(anchors, rows(Z2), temperature=1.0).backward()
    assert torch.allclose(anchors.grad, rows(GRADIENT_Z1), rtol=0, atol=1e-9)
    # A cosine does not change along its own vector.
    assert float((anchors.grad * anchors.detach()).sum(dim=1).abs().max()) < 1e-12


def test_gradcheck_of_anchors_and_candidates() -> None:
    draw = torch.Generator().manual_seed(0)
    anchors = torch.randn(4, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(7, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, c: info_nce(a, c, temperature=0.3), (anchors, candidates))


@pytest.mark.parametrize(("temperature", "expected"), [(0.05, 4.1223e-9), (1.0, 0.5514447139)])
def test_perfectly_separated_pairs(temperature: float, expected: float) -> None:
    identity = torch.eye(3, dtype=torch.float64)
    assert float(info_nce(identity, identity, temperature=temperature)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 4, 64, 512])
def test_collapse_costs_the_log_of_the_batch(size: int) -> None:
    same = torch.ones(size, 3, dtype=torch.float64)
    assert float(info_nce(same, same, temperature=0.05)) == pytest.approx(math.log(size), abs=1e-9)
    expected = {4: 1.3862943611, 64: 4.1588830834, 512: 6.2383246250}
    assert math.log(size) == pytest.approx(expected.get(size, math.log(size)), abs=1e-9)


def test_one_sentence_has_no_negatives_and_no_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    anchor, positive = torch.randn(2, 1, 6, generator=draw, dtype=torch.float64)
    assert float(info_nce(anchor, positive, temperature=0.05)) == 0.0


def test_candidates_beyond_the_positives_are_negatives_only() -> None:
    plain = float(info_nce(rows(Z1), rows(Z2), temperature=0.1))
    far = [[-3.0, -4.0]]
    more = float(info_nce(rows(Z1), rows(Z2 + far), temperature=0.1))
    assert more > plain
    assert more == pytest.approx(sum(slow_info_nce(Z1, Z2 + far, 0.1)) / 3, abs=1e-12)


batches = st.tuples(st.integers(1, 7), st.integers(0, 4), st.integers(1, 6), st.integers(0, 2**31 - 1))
temperatures = st.sampled_from([1.0, 0.1, 0.05])


def random_batch(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    size, extra, width, seed = shape
    draw = np.random.default_rng(seed)
    return draw.normal(size=(size, width)), draw.normal(size=(size + extra, width))


@given(batches, temperatures)
def test_equals_the_slow_loop_on_random_batches(shape, temperature: float) -> None:
    anchors, candidates = random_batch(shape)
    expected = np.mean(slow_info_nce(anchors.tolist(), candidates.tolist(), temperature))
    loss = info_nce(torch.from_numpy(anchors), torch.from_numpy(candidates), temperature=temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(batches, temperatures, st.floats(0.01, 100), st.floats(0.01, 100))
def test_no_row_is_scored_by_its_length(shape, temperature: float, first: float, second: float) -> None:
    anchors, candidates = (torch.from_numpy(rows) for rows in random_batch(shape))
    plain = info_nce(anchors, candidates, temperature=temperature)
    scales = torch.linspace(first, second, len(candidates), dtype=torch.float64).unsqueeze(1)
    scaled = info_nce(anchors * scales[: len(anchors)], candidates * scales, temperature=temperature)
    assert float(scaled) == pytest.approx(float(plain), rel=1e-9, abs=1e-9)


@given(batches, temperatures, st.randoms(use_true_random=False))
def test_the_order_of_the_sentences_does_not_matter(shape, temperature: float, draw) -> None:
    anchors, candidates = (torch.from_numpy(rows) for rows in random_batch(shape))
    size = len(anchors)
    order = draw.sample(range(size), size)
    negatives = draw.sample(range(size, len(candidates)), len(candidates) - size)
    plain = info_nce(anchors, candidates, temperature=temperature)
    shuffled = info_nce(anchors[order], candidates[order + negatives], temperature=temperature)
    assert float(shuffled) == pytest.approx(float(plain), rel=1e-9, abs=1e-9)


def test_cosine_matrix_is_the_hand_computed_one() -> None:
    expected = [[24 / 25, 7 / 25, -33 / 65], [3 / 5, 4 / 5, -12 / 13], [4 / 5, -3 / 5, 5 / 13]]
    assert torch.allclose(cosine_matrix(rows(Z1), rows(Z2)), rows(expected), rtol=0, atol=1e-12)
