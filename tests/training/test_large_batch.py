"""A batch far beyond what a laptop holds at once, through the same run as any other."""

import math
from pathlib import Path

import pytest

from cse_bench.run import run
from tests.distributed.command import losses
from tests.tiny import config_in, made_up_sentences


@pytest.mark.slow
def test_a_batch_of_4096_in_pieces_of_64(tmp_path: Path) -> None:
    text = tmp_path / "many.txt"
    text.write_text("\n".join(made_up_sentences(4200)) + "\n")
    large = (f"data.path={text}", "data.global_batch_size=4096", "data.gradient_cache_rows=64", "data.max_length=8")
    results = run(config_in(tmp_path, *large, "trainer.max_steps=1"))
    assert results["metrics"]["cost/train_sentences"] == 4096
    ((_, loss),) = losses(Path(results["directory"]))
    assert loss == pytest.approx(math.log(4096), rel=0.1)  # all 4,095 others are negatives
