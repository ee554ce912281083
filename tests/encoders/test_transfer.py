"""Weights from one encoder into another, and what keeps two encoders from being of one kind."""

import pytest
import torch

from cse_bench.encoders.summed import SummedEncoders
from cse_bench.encoders.transfer import take_weights
from cse_bench.errors import EncoderError

SENTENCES = ["Tea.", "The cat sat on the mat."]


def test_the_target_computes_what_the_source_does(tiny) -> None:
    source, target = tiny("tiny_bert", seed=1), tiny("tiny_bert", seed=2, dropout=0.3)
    source.provenance = {"source": "elsewhere"}
    body = target.body
    take_weights(target, source, origin="the test")
    assert (target.encode(SENTENCES) == source.encode(SENTENCES)).all()
    assert target.body is body  # in place: an optimiser may know it
    assert target.config.hidden_dropout_prob == 0.3  # how it trains is its own business
    assert target.provenance == {"source": "elsewhere"}
    with torch.no_grad():
        next(target.body.parameters()).add_(1)
    assert not (target.encode(SENTENCES) == source.encode(SENTENCES)).all()  # nothing is shared


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"pooling": "mean"}, "pooling"),
        ({"prompt": 'This sentence : "{sentence}" means'}, "prompt"),
        ({"architecture": {"num_attention_heads": 4}}, "number of attention heads"),
        ({"architecture": {"intermediate_size": 32}}, "weights"),
        ({"architecture": {"vocab_size": 400}}, "weights"),
    ],
)
def test_encoders_of_two_kinds(tiny, tiny_entry, changes, difference: str) -> None:
    settings = dict(changes)
    if "architecture" in settings:
        settings["architecture"] = tiny_entry("tiny_bert").architecture | settings["architecture"]
    with pytest.raises(
        EncoderError, match=f"the weights of the test do not fit this run's encoder: other {difference}"
    ):
        take_weights(tiny("tiny_bert"), tiny("tiny_bert", **settings), origin="the test")


def test_a_sum_is_no_single_encoder(tiny) -> None:
    both = SummedEncoders([tiny("tiny_bert", seed=1), tiny("tiny_bert", seed=2)])
    with pytest.raises(EncoderError, match=r"other number of towers \(sum of 2 x cls\)"):
        take_weights(tiny("tiny_bert"), both, origin="the test")
