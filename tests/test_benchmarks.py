"""Benchmarks that are meant for a machine other than this one still run: on a CPU, with a tiny model."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backbone"), [("encoder", "tiny_bert"), ("decoder", "tiny_llama")])
def test_the_shapes_for_a_gpu(kind: str, backbone: str) -> None:
    options = ("device=cpu", f"backbone={backbone}", "batch=8", "steps=2")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_shapes", kind, *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = ("padded pieces (default)", "packed", "torch.compile", "CUDA graphs", "flash attention")
    for name in expected if kind == "encoder" else ("CSE-SFP", "two passes, raw sentence"):
        assert name in done.stdout
