"""`python -m cse_bench.mine` inside the test process: what it prints, and that the run finds what it mined."""

from pathlib import Path

import pytest

from cse_bench.mine import main
from cse_bench.run import run
from tests.cli.command import Answer, run_command
from tests.cli.test_help import answer
from tests.mining.corpus import corpus_in
from tests.tiny import config_in, overrides_in


def mine(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, *arguments, command=main)


def test_it_mines_what_the_run_then_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [
        "method=debcse",
        f"data.path={corpus_in(tmp_path).path}",
        "trainer.max_steps=2",
        "+backbone.architecture.initializer_range=0.3",
        "method.negative_threshold=-0.9",
    ]
    done = mine(monkeypatch, *overrides_in(tmp_path, *overrides))
    assert done.code == 0, done.err
    for words in ("random pairs", "nearest neighbours", "0.999", "positives_not_self", "without_negatives"):
        assert words in done.out
    assert "note: negative_threshold=-0.9 is not above the 99.9 % quantile" in done.out
    (pairs,) = (tmp_path / "cache" / "pairs").glob("*/manifest.json")
    assert str(pairs.parent.name) in done.out
    written = pairs.stat().st_mtime_ns
    results = run(config_in(tmp_path, *overrides))
    assert results["method"]["notes"]["mining"]["directory"] == pairs.parent.name
    assert pairs.stat().st_mtime_ns == written
    assert len(list((tmp_path / "cache" / "pairs").glob("*/manifest.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=simcse"], "SimCSE mines no pairs"),
        (["method=debcs"], "no option 'debcs'; did you mean 'debcse'"),
        (["method=debcse", "method.mining.semantik=3"], "did you mean 'method.mining.semantic'"),
        (
            ["method=debcse", "method.positives=self", "method.hard_negatives=0", "method.mask_false_negatives=false"],
            "there is nothing to mine",
        ),
    ],
)
def test_what_cannot_be_mined_is_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mine(monkeypatch, *overrides_in(tmp_path, *arguments))
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_help_is_its_own_and_needs_no_torch() -> None:
    out = answer("mine", "--help")
    assert "python -m cse_bench.mine" in out
    assert "WITHOUT TORCH" in out
