"""What gradient caching, gradient checkpointing and four-bit weights save: the plan against a real step."""

import pytest

from cse_bench.plan import plan
from tests.test_plan import BERT_256, LORA, allocated_at_peak, planned, printed, real_method, real_step
from tests.tiny import composed

LLAMA_128_LORA = [
    "backbone=tiny_llama",
    "backbone.architecture.hidden_size=128",
    "backbone.architecture.num_hidden_layers=4",
    "backbone.architecture.num_attention_heads=4",
    "backbone.architecture.intermediate_size=352",
    LORA,
]


@pytest.mark.parametrize(
    "savings",
    [
        ["data.gradient_cache_rows=8"],
        ["backbone.gradient_checkpointing=true"],
        ["data.gradient_cache_rows=8", "backbone.gradient_checkpointing=true"],
    ],
    ids=["gradient_caching", "gradient_checkpointing", "both"],
)
@pytest.mark.parametrize("overrides", [BERT_256, LLAMA_128_LORA], ids=["bert_256x4", "llama_128x4_lora"])
def test_memory_saved_by_computing_again(overrides: list[str], savings: list[str]) -> None:
    config = composed("evaluation=none", "data.global_batch_size=16", "precision=32-true", *overrides, *savings)
    made = plan(config)
    without = planned("data.global_batch_size=16", "precision=32-true", *overrides)
    assert made.memory.activations < without.memory.activations / 4
    assert made.memory.total < without.memory.total
    method = real_method(config)
    step = real_step(method, config)
    # The second step finds the gradients of the first one, as that of the plan does.
    peak = made.memory.gradients + made.memory.activations + made.memory.temporaries
    assert allocated_at_peak(step, times=2) == pytest.approx(peak, rel=0.05)


def test_with_gradient_caching_memory_does_not_follow_the_batch() -> None:
    """Beside the weights: the pieces at work, token ids and vectors of all rows, and their similarities."""
    total = {
        batch: planned(
            *BERT_256, "precision=32-true", f"data.global_batch_size={batch}", "data.gradient_cache_rows=64"
        ).memory.total
        for batch in (256, 4096)
    }
    rows, bytes_each = 2 * (4096 - 256), 4
    vectors = rows * (4 * 256 * bytes_each + 3 * 32 * 8)  # a few copies of each vector; token ids
    similarities = 4 * (4096**2 - 256**2) * bytes_each
    assert total[4096] - total[256] < vectors + similarities
    assert total[4096] < planned(*BERT_256, "precision=32-true", "data.global_batch_size=256").memory.total


def test_four_bits_take_less_than_bfloat16() -> None:
    lora, qlora = (
        planned(
            "method=cse_sfp",
            "backbone=llama2_7b",
            f"adapter={name}",
            "trainer=gpu",
            "data.global_batch_size=2",
            "data.max_length=4",
        )
        for name in ("lora", "qlora")
    )
    assert lora.parameters == qlora.parameters
    linear, adapters = 6607.34e6 - 32000 * 4096 - 65 * 4096, 159.91e6
    rest = 4 * (32000 * 4096 + 65 * 4096 + adapters)  # in float32
    assert lora.memory.parameters == pytest.approx(2 * 6607.34e6 + 4 * adapters, rel=1e-3)
    assert qlora.memory.parameters == pytest.approx(4.127 / 8 * linear + rest, rel=1e-3)
    assert "nf4 with 8-bit scales" in " ".join(printed(qlora).replace("│", " ").split())
