"""`evaluation=mteb`: where it is possible and what it needs."""

import pytest

from cse_bench.__main__ import main as train
from cse_bench.evaluate import _name, main
from tests.cli.command import run_command
from tests.tiny import overrides_in


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluation=mteb"], "tasks: evaluation=mteb needs their names, e.g. tasks=[STS12,STSBenchmark]"),
        (["tasks=[STS12]"], "tasks: names tasks of mteb; add evaluation=mteb"),
        (["evaluation=none"], "evaluation: nothing is measured"),
        (["evaluation=mteb", "tasks=[]"], "tasks"),
    ],
)
def test_tasks_and_evaluation_belong_together(arguments, message, tmp_path, monkeypatch) -> None:
    done = run_command(monkeypatch, f"model={tmp_path}", *arguments, command=main)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_the_name_of_a_model_is_no_path(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert _name("~/mine") == _name(f"{tmp_path}/mine") == _name(f"{tmp_path}/mine/.") == "mine"
    assert _name("org/model") == "org/model"


def test_a_training_run_refuses_it(tmp_path, monkeypatch) -> None:
    done = run_command(monkeypatch, *overrides_in(tmp_path, "evaluation=mteb"), command=train)
    assert done.code == 2
    assert "evaluation=mteb is for finished encoders" in done.err
