"""Collecting runs: what belongs together is grouped, what does not is kept apart, and nothing is lost silently."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cse_bench.errors import ConfigError
from cse_bench.results.collect import Block, collect


def results(method: str = "simcse", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What a finished run writes, as far as it is read."""
    content: dict[str, Any] = {
        "status": "complete",
        "identity": f"{method}-{seed}",
        "group": method,
        "method": {"name": method, "status": "official code"},
        "backbone": "bert_tiny",
        "pooling": "cls",
        "seed": seed,
        "steps": 0 if method == "untrained" else 10,
        "config": {},
        "finished": "2026-11-21T12:00:00+00:00",
        "precision": {"training": "bf16-mixed", "evaluation": "32-true"},
        "data": {"corpus": {"name": "wiki", "sha256": "ab", "sentences": 5}, "evaluation": {"sts12": "cd"}},
        "evaluation": {"task_versions": {"sts": 1}},
        "metrics": {"sts/test/avg": 60.0 + seed, "cost/train_time_s": 1.0},
    }
    if method == "untrained":
        content["data"]["corpus"] = None
        content["precision"]["training"] = None
    return content | changes


def write(folder: Path, *runs: dict[str, Any]) -> None:
    for number, content in enumerate(runs):
        directory = folder / f"run-{number}"
        directory.mkdir(parents=True)
        (directory / "results.json").write_text(json.dumps(content))


def shape(blocks: list[Block]) -> list[list[tuple[str, list[int | None]]]]:
    return [[(group.method, [run.seed for run in group.runs]) for group in block.groups] for block in blocks]


def test_seeds_are_grouped_and_the_untrained_backbone_stands_beside(tmp_path: Path) -> None:
    write(tmp_path, results(seed=3), results("esimcse"), results(seed=1), results("untrained"))
    found = collect([str(tmp_path)])
    assert shape(found.blocks) == [[("untrained", [None]), ("esimcse", [0]), ("simcse", [1, 3])]]
    assert found.blocks[0].groups[2].values("sts/test/avg") == {1: 61.0, 3: 63.0}
    assert found.left_out == []


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"backbone": "bert_base"}, "backbone"),
        ({"precision": {"training": "32-true", "evaluation": "32-true"}}, "training precision"),
        ({"precision": {"training": "bf16-mixed", "evaluation": "bf16-mixed"}}, "evaluation precision"),
        ({"evaluation": {"task_versions": {"sts": 2}}}, "task versions"),
        (
            {"data": {"corpus": {"name": "wiki", "sha256": "ab", "sentences": 5}, "evaluation": {"sts12": "ee"}}},
            "evaluation data",
        ),
        (
            {"data": {"corpus": {"name": "wiki", "sha256": "ee", "sentences": 5}, "evaluation": {"sts12": "cd"}}},
            "training text",
        ),
    ],
)
def test_what_cannot_be_compared_is_kept_apart(tmp_path: Path, change: dict[str, Any], fact: str) -> None:
    write(tmp_path, results(), results("esimcse", **change))
    first, second = collect([str(tmp_path)]).blocks
    assert {name for name in first.facts if first.facts[name] != second.facts[name]} == {fact}


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"task_versions": {"sts": 2}}},
        {"data": {"corpus": {"name": "wiki", "sha256": "ab", "sentences": 5}, "evaluation": {"sts12": "ee"}}},
    ],
)
def test_seeds_that_were_evaluated_otherwise_are_not_averaged(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, results(), results(seed=1), results(seed=2, **change))
    assert shape(collect([str(tmp_path)]).blocks) == [[("simcse", [0, 1])], [("simcse", [2])]]


def test_random_weights_have_a_seed_without_training(tmp_path: Path) -> None:
    random = {"config": {"backbone": {"source": "random"}}}
    write(tmp_path, results(), *(results("untrained", seed=seed, identity=f"u{seed}", **random) for seed in (4, 2)))
    (block,) = collect([str(tmp_path)]).blocks
    assert shape([block]) == [[("untrained", [2, 4]), ("simcse", [0])]]
    assert block.groups[0].values("sts/test/avg") == {2: 62.0, 4: 64.0}


def test_what_was_fitted_to_a_text_stands_beside_what_was_trained_on_it(tmp_path: Path) -> None:
    fitted = {"steps": 0, "precision": {"training": None, "evaluation": "32-true"}}
    other = results("whitened", identity="other", group="other", **fitted)
    other["data"]["corpus"]["sha256"] = "ee"
    write(tmp_path, results(), results("whitened", **fitted), other, results("untrained"))
    assert shape(collect([str(tmp_path)]).blocks) == [
        [("untrained", [None]), ("whitened", [None]), ("simcse", [0])],
        [("untrained", [None]), ("whitened", [None])],
    ]


def test_what_was_fitted_stands_beside_the_backbone_where_nothing_was_trained(tmp_path: Path) -> None:
    fitted = {"steps": 0, "precision": {"training": None, "evaluation": "32-true"}}
    write(tmp_path, results("whitened", **fitted), results("untrained"))
    assert shape(collect([str(tmp_path)]).blocks) == [[("untrained", [None]), ("whitened", [None])]]


def test_an_untrained_backbone_stands_beside_every_training_text(tmp_path: Path) -> None:
    other = results("esimcse")
    other["data"]["corpus"]["sha256"] = "ee"
    write(tmp_path, results(), other, results("untrained"))
    assert shape(collect([str(tmp_path)]).blocks) == [
        [("untrained", [None]), ("simcse", [0])],
        [("untrained", [None]), ("esimcse", [0])],
    ]


def test_untrained_backbones_alone_are_a_block(tmp_path: Path) -> None:
    write(tmp_path, results("untrained"), results("untrained", identity="mean", group="mean"))
    assert shape(collect([str(tmp_path)]).blocks) == [[("untrained", [None]), ("untrained", [None])]]


def test_everything_else_is_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        results(),
        results(seed=1, status="failed", error="the power went"),
        results(seed=2, status="interrupted"),
        results(seed=3, status="running"),
        {"status": "complete"},
    )
    (tmp_path / "run-5").mkdir()
    (tmp_path / "run-5" / "results.json").write_text("{")
    found = collect([str(tmp_path)])
    assert shape(found.blocks) == [[("simcse", [0])]]
    reasons = {directory.name: reason for directory, reason in found.left_out}
    assert reasons["run-1"] == "failed: the power went"
    assert reasons["run-2"].startswith("unfinished (interrupted)")
    assert reasons["run-3"].startswith("unfinished (running)")
    assert reasons["run-4"].startswith("damaged: without identity, group")
    assert reasons["run-5"].startswith("damaged: its results.json cannot be read")


@pytest.mark.parametrize(
    ("score", "words"),
    [(60.0, "the same numbers"), (61.0, "OTHER NUMBERS (1 of 2 metrics; sts/test/avg: 61 and 60)")],
)
def test_of_a_run_that_is_there_twice_the_newer_one_counts(tmp_path: Path, score: float, words: str) -> None:
    nan = {"geometry/effective_rank": math.nan}
    newer = results(
        finished="2026-11-22T12:00:00+00:00",
        metrics={"sts/test/avg": score, "cost/train_time_s": 9.0, "only/now": 3.0} | nan,
    )
    older = results()
    older["metrics"] |= nan
    write(tmp_path, newer, older)
    found = collect([str(tmp_path)])
    ((group,),) = [block.groups for block in found.blocks]
    assert group.values("sts/test/avg") == {0: score}
    ((directory, reason),) = found.left_out
    assert directory.name == "run-1"
    assert words in reason


def test_globs_folders_and_runs_lead_to_each_run_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "deep", results(), results(seed=1))
    (tmp_path / "a" / "deep" / "run-0" / "model").mkdir()
    patterns = [str(tmp_path / "*"), str(tmp_path / "a" / "deep" / "run-0"), str(tmp_path / "a" / "deep" / "run-[01]")]
    found = collect(patterns)
    assert shape(found.blocks) == [[("simcse", [0, 1])]]
    assert found.left_out == []


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "there", results(), results(seed=1))
    (tmp_path / "linked").mkdir()
    for number in (0, 1):
        (tmp_path / "linked" / f"run-{number}").symlink_to(tmp_path / "there" / f"run-{number}")
    (tmp_path / "linked" / "up").symlink_to(tmp_path)
    for patterns in ([str(tmp_path / "linked")], [str(tmp_path)], [str(tmp_path / "linked"), str(tmp_path / "there")]):
        found = collect(patterns)
        assert shape(found.blocks) == [[("simcse", [0, 1])]]
        assert found.left_out == []


@pytest.mark.parametrize("key", ["steps", "seed", "backbone", "precision", "finished", "method"])
def test_a_run_without_what_is_read_is_damaged(tmp_path: Path, key: str) -> None:
    damaged = results(seed=1)
    del damaged[key]
    write(tmp_path, results(), damaged, results(seed=2) | {"seed": "two"})
    found = collect([str(tmp_path)])
    assert shape(found.blocks) == [[("simcse", [0])]]
    (_, first), (_, second) = found.left_out
    assert first.startswith(f"damaged: without {key}")
    assert second == "damaged: its seed is 'two'"


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run at .*; give folders or globs"):
        collect([str(tmp_path)])
