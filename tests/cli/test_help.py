"""`--help` and `--cfg job` answer at once: they must not import torch."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from cse_bench.{module} import main
try:
    main()
finally:
    print("TORCH" if "torch" in sys.modules else "WITHOUT TORCH")
"""


def answer(module: str, *arguments: str) -> str:
    command = [sys.executable, "-c", SCRIPT.format(module=module), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["__main__", "evaluate", "report"])
@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_without_torch(module: str, flags: list[str]) -> None:
    out = answer(module, *flags)
    assert "WITHOUT TORCH" in out


def test_help_names_groups_and_options() -> None:
    out = answer("__main__", "--help")
    for word in (
        "experiment=quickstart",
        "backbone: bert_base",
        "trainer: cpu, ddp_4gpu",
        "method: cse_sfp, debcse, esimcse",
    ):
        assert word in out


def test_cfg_shows_the_composed_config() -> None:
    out = answer("__main__", "--cfg", "job", "backbone=roberta_base")
    assert "global_batch_size: 512" in out  # from the recipe of that pair
    assert "temperature: 0.05" in out
