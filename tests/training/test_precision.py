"""What `auto` means, and what an autocast context of ours does."""

import pytest
import torch

from cse_bench.training import precision
from cse_bench.training.precision import autocast, device_type, has_bfloat16, resolve_precision


@pytest.mark.parametrize("given", ["64-true", "32-true", "bf16-mixed", "16-mixed"])
def test_a_stated_precision_is_taken(given: str) -> None:
    assert resolve_precision(given, accelerator="cpu") == given


@pytest.mark.parametrize(("real", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bfloat16_where_the_hardware_has_it(
    real: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: asked.append(device) or real)
    assert resolve_precision("auto", accelerator="cpu") == expected
    assert resolve_precision("auto", accelerator="gpu") == expected
    assert asked == ["cpu", "cuda"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"amx_bf16": False}, False)],
)
def test_emulated_bfloat16_does_not_count(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16("cpu") is expected


def test_device_type_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_type("auto") == expected
    assert (device_type("cpu"), device_type("gpu")) == ("cpu", "cuda")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16), ("32-true", torch.float32)],
)
def test_autocast_computes_in_the_precision(given: str, expected: torch.dtype) -> None:
    ones = torch.ones(2, 2)
    # Inside a context of another precision, as an evaluation inside training is.
    with torch.autocast("cpu", dtype=torch.bfloat16), autocast(given, "cpu"):
        assert (ones @ ones).dtype == expected
