"""The losses of twin towers against published-code numbers, a slow oracle in numpy, and what the formulas promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.losses.info_nce import cosine_matrix
from cse_bench.losses.twin_tower import modulus_loss, partner_nce, sentence_by_sentence


def rows(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Rows 0 and 1 are the views of sentence 0, rows 2 and 3 those of sentence 1.
H1 = rows([[3, 4], [4, 3], [-3, 4], [0, 5]])
H2 = rows([[5, 0], [4, 3], [-4, 3], [0, 5]])
P1 = rows([[1, 0], [0.6, 0.8], [0, 2], [1, 1]])
P2 = rows([[0, 1], [2, 0], [2, 0], [0, 4]])
C1 = rows([[1, 0], [4, 3], [0, 1], [-3, 4]])
C2 = rows([[4, 3], [3, 4], [-3, 4], [1, 1]])
PAIRS = {"h1 h1": (H1, H1), "h2 h2": (H2, H2), "h1 h2": (H1, H2), "h2 h1": (H2, H1), "c1 c2": (C1, C2)}
PAIRS["c2 c1"] = (C2, C1)
NCE = {
    1.0: [0.8354749115, 0.6785316280, 0.7593616938, 0.7429834551, 0.8635097558, 0.8615036294],
    0.05: [0.1857486757, 0.1778250791, 0.1878134078, 0.1757539782, 1.2173457522, 2.4205830388],
}
MODULUS = {"1 2": 0.0219971288, "2 1": 0.0705387720}


def modulus(a: Tensor, b: Tensor, u: Tensor, v: Tensor, scale: float = 0.5) -> float:
    """Even rows of the first against odd rows of the second, as in the method."""
    return float(modulus_loss(a[::2], b[1::2], u[::2], v[1::2], scale=scale))


def slow_nce(x: np.ndarray, y: np.ndarray, temperature: float, *, own: bool = False, same: bool = False) -> float:
    """Row by row. `own` keeps the row itself as a candidate; `same` makes it the positive: both wrong."""
    losses = []
    for i, anchor in enumerate(x):
        scores = [float(anchor @ row / np.linalg.norm(anchor) / np.linalg.norm(row)) / temperature for row in y]
        partner = i + 1 if i % 2 == 0 else i - 1
        denominator = sum(math.exp(score) for j, score in enumerate(scores) if own or j != i)
        losses.append(math.log(denominator) - scores[i if same else partner])
    return sum(losses) / len(losses)


def slow_modulus(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, scale: float) -> float:
    terms = []
    for a, b, p, q in zip(x, y, u, v, strict=True):
        cosine = max(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 1e-4)
        terms.append(-math.log(cosine) * scale * np.linalg.norm(p - q) / (np.linalg.norm(p) + np.linalg.norm(q)))
    return float(np.mean(terms))


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_nce_equals_the_numbers_of_the_official_code(temperature: float) -> None:
    for (x, y), expected in zip(PAIRS.values(), NCE[temperature], strict=True):
        assert float(partner_nce(x, y, temperature=temperature)) == pytest.approx(expected, abs=1e-9)


def test_cosines_of_the_worked_example() -> None:
    assert torch.allclose(cosine_matrix(H1, H1)[0], rows([[1, 0.96, 0.28, 0.8]])[0], rtol=0, atol=1e-12)
    across = rows([[0.6, 0.96, 0, 0.8], [0.8, 1, -0.28, 0.6], [-0.6, 0, 0.96, 0.8], [0, 0.6, 0.6, 1]])
    assert torch.allclose(cosine_matrix(H1, H2), across, rtol=0, atol=1e-12)


def test_a_row_is_neither_its_own_candidate_nor_its_own_positive() -> None:
    x, y = H1.numpy(), H2.numpy()
    assert slow_nce(x, y, 1.0) == pytest.approx(NCE[1.0][2], abs=1e-9)
    assert slow_nce(x, y, 1.0, own=True) == pytest.approx(1.1860603586, abs=1e-9)
    assert slow_nce(x, y, 1.0, own=True, same=True) == pytest.approx(1.0860603586, abs=1e-9)
    assert float(partner_nce(H1, H2, temperature=1.0)) < 0.8


def test_modulus_equals_the_numbers_of_the_official_code() -> None:
    assert modulus(H1, H2, P1, P2) == pytest.approx(MODULUS["1 2"], abs=1e-10)
    assert modulus(H2, H1, P2, P1) == pytest.approx(MODULUS["2 1"], abs=1e-10)
    # by hand: two sentences, -ln cos x length part each
    by_hand = (0.0408219945 / 6 + 0.2231435513 / 6) / 2
    assert by_hand == pytest.approx(MODULUS["1 2"], abs=1e-9)
    by_hand = (0.2231435513 * 0.1581138830 + 0.5108256238 * 0.2071067812) / 2
    assert by_hand == pytest.approx(MODULUS["2 1"], abs=1e-9)


def test_modulus_is_none_of_what_it_is_confused_with() -> None:
    assert modulus(H1, H2, P1, P2, scale=1.0) == pytest.approx(0.0439942576, abs=1e-9)  # without the 1/2
    assert modulus(H1, H2, H1, H2) == pytest.approx(0.0190843221, abs=1e-9)  # lengths of the directions' own vectors


def test_a_negative_cosine_counts_as_the_least_one() -> None:
    x, y = rows([[1, 0]]), rows([[-1, 0]])
    p, q = rows([[1, 0]]), rows([[-1, 0]])
    assert float(modulus_loss(x, y, p, q, scale=0.5)) == pytest.approx(4.6051701860, abs=1e-9)
    tiny = rows([[1e-6, 1]])  # a tiny positive one as well
    assert float(modulus_loss(x, tiny, p, q, scale=0.5)) == pytest.approx(4.6051701860, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "cosine", "expected"),
    [
        (1, 1, 0.0),
        (1, 0, 0.7071067812),
        (2, 1, 0.3333333333),
        (2, 0.5, 0.5773502692),
        (3, 0.8, 0.5700877125),
        (1, -1, 1.0),
    ],
)
def test_length_part_by_ratio_and_cosine(ratio: float, cosine: float, expected: float) -> None:
    x, y = rows([[1, 0]]), rows([[1, math.sqrt(math.e**2 - 1)]])  # cosine 1 / e: the direction part is 1
    p, q = rows([[1, 0]]), ratio * rows([[cosine, math.sqrt(1 - cosine**2)]])
    assert float(modulus_loss(x, y, p, q, scale=1.0)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sentences", [2, 3, 32])
def test_collapse(sentences: int) -> None:
    same = torch.ones(2 * sentences, 3, dtype=torch.float64)
    assert float(partner_nce(same, same, temperature=0.05)) == pytest.approx(math.log(2 * sentences - 1), abs=1e-9)
    assert modulus(same, same, same, same) == pytest.approx(0.0, abs=1e-12)


def test_one_sentence_has_nothing_to_be_told_from() -> None:
    assert float(partner_nce(H1[:2], H2[:2], temperature=0.05)) == 0.0


def test_views_come_to_lie_sentence_by_sentence() -> None:
    views = torch.arange(12.0).view(2, 3, 2)
    assert sentence_by_sentence(views)[:, 0].tolist() == [0, 6, 2, 8, 4, 10]


def test_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y, u, v = torch.randn(4, 6, 3, generator=draw, dtype=torch.float64)
    y = x + 0.3 * y  # cosines well above the least one
    for tensor in (x, y, u, v):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: partner_nce(a, b, temperature=0.3), (x, y))
    assert torch.autograd.gradcheck(lambda *given: modulus_loss(*given, scale=0.5), (x, y, u, v))


def test_gradients_stay_finite_at_equal_vectors() -> None:
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    (partner_nce(x, x, temperature=0.05) + modulus_loss(x, x, x, x, scale=0.5)).backward()
    assert torch.isfinite(x.grad).all()


batches = st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(0, 2**31 - 1))


def random_rows(shape: tuple[int, int, int], count: int) -> list[np.ndarray]:
    sentences, width, seed = shape
    draw = np.random.default_rng(seed)
    return list(draw.normal(size=(count, 2 * sentences, width)))


@given(batches, st.sampled_from([1.0, 0.1, 0.05]))
def test_equals_the_slow_loops_on_random_rows(shape: tuple[int, int, int], temperature: float) -> None:
    x, y, u, v = random_rows(shape, 4)
    found = partner_nce(torch.from_numpy(x), torch.from_numpy(y), temperature=temperature)
    assert float(found) == pytest.approx(slow_nce(x, y, temperature), rel=1e-9, abs=1e-9)
    pulled = modulus_loss(*map(torch.from_numpy, (x, y, u, v)), scale=0.5)
    assert float(pulled) == pytest.approx(slow_modulus(x, y, u, v, 0.5), rel=1e-9, abs=1e-9)


@given(batches, st.randoms(use_true_random=False))
def test_neither_the_order_of_sentences_nor_that_of_views_matters(shape: tuple[int, int, int], draw) -> None:
    x, y = map(torch.from_numpy, random_rows(shape, 2))
    sentences = draw.sample(range(shape[0]), shape[0])
    order = torch.tensor([2 * k + view for k in sentences for view in draw.sample((0, 1), 2)])
    plain, shuffled = (partner_nce(a, b, temperature=0.1) for a, b in ((x, y), (x[order], y[order])))
    assert float(plain) == pytest.approx(float(shuffled), rel=1e-9, abs=1e-9)
