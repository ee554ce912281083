from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cse_bench.data.sampler import GlobalBatchSampler

sizes = st.tuples(st.integers(4, 90), st.integers(4, 40)).filter(lambda size: size[0] >= size[1])


def batches(num_sentences=50, global_batch_size=8, *, seed=0, **options):
    """The batches of one pass, as lists."""
    sampler = GlobalBatchSampler(num_sentences, global_batch_size=global_batch_size, seed=seed, **options)
    found = [batch.tolist() for _, batch in sampler]
    if "position" not in options:
        assert len(found) == len(sampler)
    return found


def at(step):
    return lambda: step


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**32 - 1), world_size=st.integers(1, 4), drop_last=st.booleans())
def test_the_batches_are_the_same_for_any_number_of_ranks(size, seed, world_size, drop_last):
    alone = batches(*size, seed=seed, drop_last=drop_last)
    ranks = [
        batches(*size, seed=seed, drop_last=drop_last, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    joined = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert joined == alone[: len(joined)]
    assert all(len(part) >= 1 for rank in ranks for part in rank)
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in zip(*ranks, strict=True))
    # All of them, but for a last batch that has too few sentences to go round.
    if len(joined) < len(alone):
        assert len(joined) == len(alone) - 1
        assert len(alone[-1]) < world_size


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 3))
def test_every_sentence_comes_once_an_epoch(size, seed, epoch):
    per_epoch = -(-size[0] // size[1])
    found = batches(*size, seed=seed, position=at(epoch * per_epoch))
    assert [len(batch) for batch in found[:-1]] == [size[1]] * (per_epoch - 1)
    assert sorted(chain(*found)) == list(range(size[0]))


@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**32 - 1), step=st.integers(0, 30), drop_last=st.booleans())
def test_a_pass_goes_on_at_any_step(size, seed, step, drop_last):
    """The reference never stops: pass after pass, each begun at the step where the last one ended."""
    straight = []
    while len(straight) <= step:
        straight += batches(*size, seed=seed, drop_last=drop_last, position=at(len(straight)))
    resumed = batches(*size, seed=seed, drop_last=drop_last, position=at(step))
    assert resumed == straight[step:]


def test_the_position_is_asked_at_every_pass():
    step = 0
    sampler = GlobalBatchSampler(20, global_batch_size=8, seed=0, position=lambda: step)
    first = [batch.tolist() for _, batch in sampler]
    assert [batch.tolist() for _, batch in sampler] == first
    step = 3
    assert [batch.tolist() for _, batch in sampler] != first


def test_epochs_differ_and_so_do_seeds():
    passes = [batches(200, seed=seed, position=at(epoch * 25)) for seed in range(4) for epoch in range(4)]
    orders = {tuple(chain(*found)) for found in passes}
    assert len(orders) == 16


def test_the_order_is_shuffled_and_repeatable():
    order = list(chain(*batches(1000)))
    assert order == list(chain(*batches(1000)))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("num_sentences", "drop_last", "world_size", "expected"),
    [
        (24, False, 1, [8, 8, 8]),
        (24, True, 1, [8, 8, 8]),
        (26, False, 1, [8, 8, 8, 2]),
        (26, True, 1, [8, 8, 8]),
        (26, False, 2, [8, 8, 8, 2]),
        (26, False, 3, [8, 8, 8]),  # two sentences for three ranks
        (27, False, 3, [8, 8, 8, 3]),
    ],
)
def test_the_last_batch(num_sentences, drop_last, world_size, expected):
    options = {"drop_last": drop_last, "world_size": world_size}
    ranks = [batches(num_sentences, rank=rank, **options) for rank in range(world_size)]
    assert [sum(map(len, parts)) for parts in zip(*ranks, strict=True)] == expected
