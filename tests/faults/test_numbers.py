"""A loss or a gradient that is no number ends the run; what was good stays, and the same command goes on from there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cse_bench.encoders.artifact import load_encoder
from cse_bench.errors import TrainingError
from cse_bench.results.metrics_log import read_metrics
from cse_bench.results.run_directory import RunDirectory
from cse_bench.run import run
from cse_bench.training.checkpoint_file import step_of
from tests.faults.trouble import Troubled, nothing_happens, troubled
from tests.tiny import composed, metric_rows
from tests.training.trained import train_in

BAD = (
    "method._target_=tests.faults.trouble.Troubled",
    "~method.temperature",
    "~method.head",
    "~method.views",
    "+method.bad_step=11",
)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "vectors",
            r"^step 11: loss is nan; 'z' is not finite in 2 of 32 rows \(sentence \d+: '.+'\)\. Lower optimizer",
        ),
        ("gradient", r"^step 11: the gradient of '.+' and \d+ more is not finite .* sentences \d+, .* and 13 more\."),
    ],
)
def test_a_number_that_is_none_stops_the_run_and_keeps_what_was_good(
    tmp_path: Path, what: str, message: str, ends_the_same: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*troubled(tmp_path, *BAD, f"+method.bad_what={what}"))
    for _ in range(2):  # again: from the last checkpoint to the same step
        nothing_happens()
        with pytest.raises(TrainingError, match=message):
            run(config)
        (path,) = (tmp_path / "outputs").iterdir()
        directory = RunDirectory(path)
        assert directory.results()["status"] == "failed"
        assert directory.results()["error"].startswith("step 11: ")
        assert step_of(directory.checkpoint) == 8
        assert load_encoder(directory.model).encode(["The best so far."]).shape == (1, 32)
        assert [step for step, _ in metric_rows(read_metrics(directory.metrics), "train/loss")] == list(range(1, 11))
    monkeypatch.setattr(Troubled, "mended", True)
    ends_the_same(tmp_path, *BAD, f"+method.bad_what={what}")


def test_a_broken_state_is_never_written_whoever_asks_for_it(tmp_path: Path) -> None:
    """On a GPU most steps are not looked at: a checkpoint that comes first must not replace the good one."""
    from lightning.pytorch.loggers.logger import Logger

    from tests.training.trained import At

    seen: list[torch.nn.Parameter] = []
    step = torch.optim.AdamW.step

    class Breaking(torch.optim.AdamW):
        pass

    def broken(self: torch.optim.AdamW, closure: object = None) -> object:
        answer = step(self, closure)  # type: ignore[arg-type]
        seen.append(self.param_groups[0]["params"][0])
        return answer

    def break_one() -> None:
        with torch.no_grad():
            seen[-1][0] = torch.nan

    logger: Logger = At(4, break_one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", broken)
        with pytest.raises(
            TrainingError, match=r"^step 4: the parameter '.*' is not finite, and the state is not written"
        ):
            train_in(tmp_path, "trainer.max_steps=6", "checkpoint_every_steps=2", loggers=(logger,))
    assert step_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == 2
