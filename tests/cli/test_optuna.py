"""`hydra/sweeper=tune`: real searches over tiny runs; stopped ones go on, and several processes share a study."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cse_bench.errors import ConfigError
from cse_bench.tuning import distribution
from tests.cli.command import Answer, run_command
from tests.tiny import overrides_in, task_overrides

SPACE = ("method.temperature=tag(log,interval(0.02,0.5))", "optimizer.lr=1e-3,1e-2")


def command(folder: Path, *overrides: str, space: tuple[str, ...] = SPACE, trials: int = 2) -> list[str]:
    tasks = [override for override in task_overrides() if "+evaluation.test" not in override]
    fixed = overrides_in(folder, "trainer.max_steps=1", "evaluation.eval_every_steps=1", *tasks)
    return ["-m", "hydra/sweeper=tune", f"hydra.sweeper.trials={trials}", *fixed, *space, *overrides]


def study(folder: Path) -> optuna.Study:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "outputs" / "tune.journal"))
    )
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def scores(folder: Path) -> dict[tuple[float, float, int], float]:
    """(temperature, lr, seed) -> dev score, from the results of the runs themselves."""
    found = {}
    for path in (folder / "outputs").glob("simcse-*/results.json"):
        results = json.loads(path.read_text())
        config = results["config"]
        key = (config["method"]["temperature"], config["optimizer"]["lr"], results["seed"])
        found[key] = results["metrics"]["pairs/dev/score"]
    return found


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, *arguments)


def test_a_search_and_its_continuation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seeds = "hydra.sweeper.seeds=[3,4]"
    first = run(monkeypatch, *command(tmp_path, seeds, trials=2))
    assert first.code == 0, first.err
    assert "best of 2 trials" in first.out
    trials = study(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    measured = scores(tmp_path)
    assert len(measured) == 4
    for trial in trials:  # the value of a trial is the mean over its seeds
        temperature, lr = trial.params["method.temperature"], float(trial.params["optimizer.lr"])
        own = [measured[temperature, lr, seed] for seed in (3, 4)]
        assert trial.value == pytest.approx(math.fsum(own) / 2)
        assert 0.02 <= temperature <= 0.5
    best = max(trials, key=lambda trial: trial.value or -math.inf)
    assert f"method.temperature={best.params['method.temperature']}" in first.out.partition("best of")[2]

    assert "Launching" not in run(monkeypatch, *command(tmp_path, seeds, trials=2)).out
    assert len(scores(tmp_path)) == 4
    # What was killed in the middle is asked for again, first.
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = study(tmp_path).ask()
    left.suggest_float("method.temperature", 0.02, 0.5, log=True)
    left.suggest_categorical("optimizer.lr", ["0.001", "0.01"])
    left.set_user_attr("process", [trials[0].user_attrs["process"][0], int(killed.stdout)])
    more = run(monkeypatch, *command(tmp_path, seeds, trials=3))
    assert more.code == 0
    trials = study(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2 + [TrialState.FAIL, TrialState.COMPLETE]
    assert trials[3].params == left.params


def test_a_trial_that_fails_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = run(monkeypatch, *command(tmp_path, space=("trainer.max_steps=choice(1,-5)",), trials=1))
    states = [trial.state for trial in study(tmp_path).trials]
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}
    if TrialState.COMPLETE in states:
        assert answer.code == 0
    assert answer.out.count("failed: trainer.max_steps") == states.count(TrialState.FAIL)


def test_when_every_trial_fails_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = run(monkeypatch, *command(tmp_path, space=("optimizer.lr=interval(-2.0,-1.0)",), trials=1))
    assert answer.code == 2
    assert "gave a score; the last failure: optimizer.lr: must be greater than 0" in answer.err


def test_a_search_with_fewer_trials_than_asked_for_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = ("optimizer.lr=interval(1e-3,2e-3)",)
    assert run(monkeypatch, *command(tmp_path, "hydra.sweeper.study=mine", space=space, trials=1)).code == 0
    monkeypatch.setattr("cse_bench.run.train", lambda *_, **__: 1 / 0)
    answer = run(monkeypatch, *command(tmp_path, "hydra.sweeper.study=mine", space=space, trials=2))
    assert answer.code == 2
    assert "best of 1 trials of mine" in answer.out
    assert "mine was given up after 2 failed trials: 1 of 2 have finished. The last failure: " in answer.err
    assert "division by zero" in answer.err


@pytest.mark.parametrize(
    "overrides, options, words",
    [
        ([], {"space": ()}, "nothing to search"),
        (["seed=0,1"], {}, "seed: the luckiest seed is no finding"),
        (["evaluation.selection_metric=null"], {}, "evaluation.selection_metric is null"),
        (["dry_run=true"], {}, "dry_run=true: there is no score to search by"),
        ([], {"trials": 0}, "hydra.sweeper.trials: must be at least 1, got 0"),
        ([], {"space": ("optimizer.lr=interval(2,1)",)}, "optimizer.lr"),
    ],
)
def test_what_cannot_be_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: list[str], options: dict[str, Any], words: str
) -> None:
    answer = run(monkeypatch, *command(tmp_path, *overrides, **options))
    assert answer.code == 2
    assert words in answer.err


def test_another_search_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, *command(tmp_path, "hydra.sweeper.study=mine", trials=1)).code == 0
    answer = run(monkeypatch, *command(tmp_path, "hydra.sweeper.study=mine", "data.max_length=9", trials=1))
    assert answer.code == 2
    assert "mine was begun with another space, other seeds or other fixed settings" in answer.err
    # Without a name it is a study of its own.
    assert run(monkeypatch, *command(tmp_path, "data.max_length=9", trials=1)).code == 0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x=interval(0.5,2)", FloatDistribution(0.5, 2.0)),
        ("x=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("x=int(interval(2,8))", IntDistribution(2, 8)),
        ("x=tag(log,int(interval(2,64)))", IntDistribution(2, 64, log=True)),
        ("x=range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("x=range(0,1,0.5)", CategoricalDistribution(["0.0", "0.5"])),
        ("x=1,null,'a b'", CategoricalDistribution(["1", "null", "'a b'"])),
        ("x=choice(a,[1,2])", CategoricalDistribution(["a", "[1,2]"])),
    ],
)
def test_spaces(text: str, expected: BaseDistribution) -> None:
    assert distribution(OverridesParser.create().parse_override(text)) == expected


@pytest.mark.parametrize("text", ["x=interval(2,1)", "x=tag(log,interval(0.0,1.0))", "x=range(3,3)"])
def test_empty_spaces(text: str) -> None:
    with pytest.raises(ConfigError, match="x: .* is no space to search"):
        distribution(OverridesParser.create().parse_override(text))


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    arguments = command(tmp_path, trials=4)
    processes = [
        subprocess.Popen([sys.executable, "-m", "cse_bench", *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("best of" in text for text in printed)
    complete = [trial for trial in study(tmp_path).trials if trial.state is TrialState.COMPLETE]
    assert 4 <= len(complete) <= 5  # the second process may finish a trial when the first has finished the last
    assert all(trial.value is not None for trial in complete)
