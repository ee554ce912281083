"""`python -m cse_bench.report` inside the test process: what it prints and writes, and what it says to wrong input."""

import csv
from pathlib import Path

import pytest

from cse_bench.report import main
from cse_bench.results.collect import collect
from tests.cli.command import Answer, run_command
from tests.results.report.study import write_run


def report(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, "resamples=100", *arguments, command=main)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_run(folder, "esimcse", seed, quality=0.8)
        write_run(folder, "simcse", seed, quality=0.3)
    write_run(folder, "untrained", 0, status="baseline", quality=0.2)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "results.json").write_text('{"status": "interrupted"}')
    return folder


def test_tables_sentences_and_files(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = report(monkeypatch, f"runs={runs}", f"output={tmp_path}/page", "title=Mine")
    assert done.code == 0, done.err
    for words in (
        "esimcse (official code)",
        "untrained (baseline)",
        "is better than untrained (baseline) by",
        "P(best)",
    ):
        assert words in done.out
    assert "left out: unfinished: unfinished (interrupted): the same command goes on with it" in done.out
    assert done.out.rstrip().endswith("page/report.html")
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h1>Mine</h1>" in page
    assert (tmp_path / "page" / "tables" / "scores.csv").is_file()
    with (tmp_path / "page" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("untrained", ""),
        *((method, str(seed)) for method in ("esimcse", "simcse") for seed in range(3)),
    ]
    assert {row["commit"] for row in rows} == {"0123456789"}
    assert {row["training_text"] for row in rows[1:]} == {"wiki (ab, 5 sentences)"}
    assert rows[1]["directory"] == "run-000"
    (score,) = collect([f"{runs}/run-000"]).blocks[0].groups[0].values("sts/test/avg").values()
    assert float(rows[1]["sts/test/avg"]) == score
    assert list((tmp_path / "page" / "figures").glob("*.png"))


def test_reference_headline_and_list_of_folders(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = report(
        monkeypatch,
        f"runs=[{runs}/run-00*,{runs}/unfinished]",
        "against=simcse",
        "metric=sts/test/stsb",
        f"output={tmp_path}/page",
    )
    assert done.code == 0, done.err
    assert "esimcse (official code) is better than simcse (official code)" in done.out
    assert "STS-B" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["runs={runs}", "against=simcs"],
            "against: no group 'simcs'; did you mean 'simcse'? (there are: esimcse, simcse",
        ),
        (["runs={runs}", "metric=sts/test/avgg"], "metric: no run has 'sts/test/avgg'; did you mean 'sts/test/avg'?"),
        (["runs={runs}/nothing"], "no run at"),
        (["runs={runs}/unfinished"], "none of the 1 runs found is finished"),
        (["runs={runs}", "resamples=3"], "resamples"),
        (["runs={runs}", "output={runs}/run-000/results.json"], "output: cannot write"),
        (["runs={runs}", "outputt=x"], "did you mean 'output'"),
        ([], "runs: this key is required"),
    ],
)
def test_what_is_wrong_is_one_message(
    arguments: list[str], message: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = report(monkeypatch, *(argument.format(runs=runs) for argument in arguments))
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "report").exists()


def test_into_wandb_offline(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = report(monkeypatch, f"runs={runs}", f"output={tmp_path}/page", "wandb.project=mine", "wandb.offline=true")
    assert done.code == 0, done.err
    assert f"wandb: {tmp_path}/page/wandb/offline-run-" in done.out
    assert list((tmp_path / "page" / "wandb").glob("offline-run-*/*.wandb"))
