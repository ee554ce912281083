"""A new method is one Python file and one YAML: it then runs through everything without a line elsewhere."""

import json
from pathlib import Path

import pytest

from cse_bench.encoders.loading import open_encoder
from cse_bench.results.metrics_log import read_metrics
from tests.cli.command import run_command
from tests.tiny import overrides_in, task_overrides

EIGHTH = ("--config-dir", str(Path(__file__).parent / "eighth"), "method=swapped_words")


def test_a_new_method_trains_in_a_sweep_and_stands_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = overrides_in(tmp_path, *task_overrides(), "trainer.max_steps=3", "seed=0,1")
    done = run_command(monkeypatch, "-m", *EIGHTH, *arguments)
    assert done.code == 0, done.err
    assert "swapped_words (own reading)" in done.out
    assert "n=2" in done.out
    runs = [path.parent for path in (tmp_path / "outputs").glob("swapped_words-*/results.json")]
    assert len(runs) == 2
    results = json.loads((runs[0] / "results.json").read_text())
    assert results["method"] == {
        "name": "swapped_words",
        "status": "own reading",
        "citation": "nobody, never",
        "version": 1,
        "is_backbone": False,
        "notes": {},
    }
    assert {"train/loss", "train/cosine_same"} <= {name for _, name, _ in read_metrics(runs[0] / "metrics.csv")}
    assert open_encoder(str(runs[0])).encode(["Tea."]).shape == (1, 32)


def test_a_new_method_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_command(monkeypatch, *EIGHTH, *overrides_in(tmp_path, "dry_run=true"))
    assert done.code == 0, done.err
    assert "SwappedWords (own reading)" in done.out


def test_its_arguments_are_checked_by_its_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run_command(monkeypatch, *EIGHTH, *overrides_in(tmp_path, "method.temperature=0"))
    assert refused.code != 0
    assert "method.temperature: must be greater than 0.0" in refused.err
