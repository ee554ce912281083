"""The masked loss against numbers worked out by hand, a slow loop, and the plain loss it contains."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cse_bench.losses.info_nce import info_nce
from cse_bench.losses.masked_info_nce import masked_info_nce

ANCHORS = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
POSITIVES = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
NEGATIVES = torch.tensor([[[0.6, 0.8]], [[0.6, 0.8]]], dtype=torch.float64)
NONE = torch.zeros(2, 2, dtype=torch.bool)


def left_out(positives: Tensor, negatives: Tensor) -> Callable[[slice], Tensor]:
    """From who sees which positive, (b, b), and which hard negative of whom, (b, b, q)."""
    return lambda rows: torch.cat([positives, negatives.flatten(1)], dim=1)[rows]


def loss(**arguments) -> float:
    return float(masked_info_nce(ANCHORS, POSITIVES, NEGATIVES, **arguments))


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.16170480), (0.5, 0.97959638), (0.05, 0.03613813)])
def test_equals_the_hand_computed_mean(temperature: float, expected: float) -> None:
    assert loss(temperature=temperature) == pytest.approx(expected, abs=1e-8)


def test_equals_the_hand_computed_loss_of_every_anchor() -> None:
    # An anchor's own loss, from the mean with the other anchor's candidates all left out but its own positive.
    for row, expected in ((0, 1.12713187), (1, 1.19627774)):
        hide = torch.zeros(2, 2, dtype=torch.bool)
        hide[1 - row] = True
        both = loss(temperature=1.0, left_out=left_out(hide, hide.unsqueeze(2)))
        assert 2 * both == pytest.approx(expected, abs=1e-8)  # the other anchor has nothing to lose: 0


def test_left_out_logits_equal_the_hand_computed_mean() -> None:
    positives, negatives = NONE.clone(), NONE.clone().unsqueeze(2)
    negatives[0, 1, 0] = True
    positives[1, 0] = True
    masked = loss(temperature=1.0, left_out=left_out(positives, negatives))
    assert masked == pytest.approx(0.89437081, abs=1e-8)
    assert masked == pytest.approx((0.81892472 + 0.96981690) / 2, abs=1e-8)
    # The other way round (candidate does not see anchor) is another number.
    turned = loss(temperature=1.0, left_out=left_out(positives.T, negatives.transpose(0, 1)))
    assert abs(turned - masked) > 1e-3


def test_an_anchor_never_loses_its_own_positive() -> None:
    everything = torch.ones(2, 2, dtype=torch.bool)
    hidden = loss(temperature=0.05, left_out=left_out(everything, everything.unsqueeze(2)))
    assert hidden == 0.0  # nothing but the positive is left


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_without_negatives_and_masks_it_is_the_plain_loss_to_the_last_bit(temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    anchors, positives = torch.randn(2, 6, 5, generator=draw)
    none = torch.zeros(6, 0, 5)
    plain = info_nce(anchors, positives, temperature=temperature)
    assert torch.equal(masked_info_nce(anchors, positives, none, temperature=temperature), plain)
    hidden = torch.zeros(6, 6, dtype=torch.bool)
    masked = masked_info_nce(
        anchors,
        positives,
        none,
        temperature=temperature,
        left_out=left_out(hidden, torch.zeros(6, 6, 0, dtype=torch.bool)),
    )
    assert torch.equal(masked, plain)


def test_hard_negatives_are_negatives_of_all_anchors() -> None:
    draw = torch.Generator().manual_seed(1)
    anchors, positives, first, second = torch.randn(4, 5, 3, generator=draw, dtype=torch.float64)
    negatives = torch.stack([first, second], dim=1)
    expected = info_nce(anchors, torch.cat([positives, first, second]), temperature=0.1)
    assert float(masked_info_nce(anchors, positives, negatives, temperature=0.1)) == pytest.approx(float(expected))


def slow(anchors, positives, negatives, temperature, hide_positive, hide_negative, weight) -> float:
    def cosine(x, y) -> float:
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    losses = []
    for i, anchor in enumerate(anchors):
        total = 0.0
        for j, positive in enumerate(positives):
            if i == j or not hide_positive[i, j]:
                total += math.exp(cosine(anchor, positive) / temperature)
        for j in range(len(negatives)):
            for q, negative in enumerate(negatives[j]):
                if not hide_negative[i, j, q]:
                    total += math.exp(cosine(anchor, negative) / temperature + weight * (i == j))
        losses.append(math.log(total) - cosine(anchor, positives[i]) / temperature)
    return sum(losses) / len(losses)


def random_case(size: int, count: int, seed: int) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(2 + count, size, 4))
    return (
        vectors[0],
        vectors[1],
        vectors[2:].transpose(1, 0, 2).copy(),
        draw.random((size, size)) < 0.3,
        draw.random((size, size, count)) < 0.3,
    )


@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**31 - 1), st.sampled_from([1.0, 0.1]), st.floats(-2, 2))
def test_equals_the_slow_loop_on_random_batches(size, count, seed, temperature, weight) -> None:
    case = random_case(size, count, seed)
    tensors = [torch.from_numpy(part) for part in case]
    found = masked_info_nce(
        *tensors[:3],
        temperature=temperature,
        left_out=left_out(tensors[3], tensors[4]),
        own_negative_log_weight=weight,
    )
    assert float(found) == pytest.approx(slow(*case[:3], temperature, *case[3:], weight), rel=1e-9, abs=1e-9)


def test_own_negative_log_weight_counts_a_negative_as_often() -> None:
    draw = torch.Generator().manual_seed(2)
    anchors, positives, negatives = torch.randn(3, 1, 5, generator=draw, dtype=torch.float64)
    once = masked_info_nce(
        anchors, positives, negatives.unsqueeze(1), temperature=0.5, own_negative_log_weight=math.log(3)
    )
    thrice = masked_info_nce(anchors, positives, negatives.expand(1, 3, 5), temperature=0.5)
    assert float(once) == pytest.approx(float(thrice), abs=1e-12)


def test_gradcheck_and_no_gradient_from_what_is_left_out() -> None:
    case = random_case(4, 2, 0)
    inputs = [torch.from_numpy(part).requires_grad_() for part in case[:3]]
    masks = [torch.from_numpy(part) for part in case[3:]]
    masks[0][:, 2] = True  # positive 2 is seen by its own anchor only
    masks[1][:, 1, 0] = True  # this negative by none

    def value(*vectors: Tensor) -> Tensor:
        return masked_info_nce(
            *vectors,
            temperature=0.3,
            left_out=left_out(masks[0], masks[1]),
            own_negative_log_weight=0.5,
        )

    assert torch.autograd.gradcheck(value, inputs)
    value(*inputs).backward()
    assert float(inputs[2].grad[1, 0].abs().max()) == 0.0
    assert float(inputs[2].grad[1, 1].abs().max()) > 0
    assert all(bool(tensor.grad.isfinite().all()) for tensor in inputs)
