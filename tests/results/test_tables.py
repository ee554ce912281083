"""Tables: mean and sample deviation, what is missing or not a number, and the words around the numbers."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from cse_bench.results.tables import group_table, print_lines, print_table, run_table


def cells(table: Table) -> dict[str, list[str]]:
    """First cell of each row -> its other cells."""
    columns = [list(column.cells) for column in table.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*columns, strict=True)}


def headers(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


def result(metrics: Mapping[str, float], **more: Any) -> dict[str, Any]:
    return {
        "method": {"name": "m", "status": "paper"},
        "backbone": "b",
        "pooling": "cls",
        "seed": 4,
        "steps": 9,
        "metrics": dict(metrics),
        **more,
    }


def test_mean_and_sample_standard_deviation() -> None:
    values = [70.0, 72.5, 71.3]
    table = group_table({"m": [{"sts/test/avg": value} for value in values]}, title="t")
    expected = f"{statistics.mean(values):.2f} ± {math.sqrt(sum((v - 71.26667) ** 2 for v in values) / 2):.2f}"
    assert cells(table) == {"average of the seven (Spearman x100)": [expected]}
    assert headers(table) == ["metric", "m\nn=3"]


def test_one_run_has_no_spread() -> None:
    assert cells(group_table({"m": [{"lee/spearman": 50.0}]}, title="t")) == {
        "Lee documents (Spearman x100)": ["50.00"]
    }


def test_missing_and_not_a_number() -> None:
    groups = {
        "all": [{"sts/dev/stsb": 1.0}, {"sts/dev/stsb": 3.0}],
        "some": [{"sts/dev/stsb": 1.0}, {}, {"sts/dev/stsb": 2.0}],
        "none": [{}],
        "nan": [{"sts/dev/stsb": 1.0}, {"sts/dev/stsb": math.nan}],
    }
    assert cells(group_table(groups, title="t")) == {
        "STS-B dev (Spearman x100)": ["2.00 ± 1.41", "1.50 ± 0.71 (n=2)", "-", "NaN ± NaN"]
    }


def test_run_beside_its_baseline() -> None:
    metrics = {
        "sts/test/stsb": 70.0,
        "sts/test/sickr": 60.0,
        "geometry/uniformity": -2.0,
        "lee/spearman": 5.0,
        "cost/peak_memory_bytes": 3 * 2**20,
    }
    before = {"sts/test/stsb": 65.5, "sts/test/sickr": 61.0, "geometry/uniformity": -1.5, "cost/eval_time_s": 1.0}
    table = run_table(result(metrics), before)
    assert headers(table) == ["metric", "untrained", "m", "difference"]
    assert cells(table) == {
        "STS-B": ["65.50", "70.00", "+4.50"],
        "SICK-R": ["61.00", "60.00", "-1.00"],
        "Lee documents (Spearman x100)": ["-", "5.00", "-"],
        "uniformity (lower is better)": ["-1.5000", "-2.0000", "-0.5000"],
        "peak memory (MiB)": ["", "3", ""],
    }
    assert table.title == "m (paper) on b, pooling cls, seed 4"


def test_collapsed_run_shows_nan() -> None:
    table = run_table(result({"sts/test/stsb": math.nan}), {"sts/test/stsb": 65.5})
    assert cells(table) == {"STS-B": ["65.50", "NaN", "NaN"]}


def test_caption_says_what_was_kept_and_why() -> None:
    by_metric = {"metric": "sts/dev/stsb", "value": 80.0, "step": 5, "rule": "strictly best"}
    table = run_table(result({}, selection=by_metric, evaluation={"labels": {"geometry": "over STS-B dev"}}), None)
    assert str(table.caption).splitlines() == ["kept: step 5 of 9 by sts/dev/stsb", "over STS-B dev"]
    last = {"metric": None, "value": None, "step": 9, "rule": "last weights"}
    table = run_table(result({"geometry/align_uniform_ratio": 1.0}, selection=last), None)
    assert str(table.caption).splitlines()[0] == "kept: step 9 of 9 (last weights)"
    assert "never select" in str(table.caption)


def test_model_from_elsewhere_has_no_method() -> None:
    table = run_table({"model": "org/name", "pooling": "mean", "metrics": {"sts/test/stsb": 1.0}}, None)
    assert headers(table) == ["metric", "score"]
    assert table.title == "org/name, pooling mean"


def test_output_into_a_file_is_wide_enough(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {f"a method with a long name {index}": [{"sts/test/stsb": 70.0 + index}] * 2 for index in range(9)}
    print_table(group_table(groups, title="t"))
    printed = capsys.readouterr().out
    for index in range(9):
        assert f"{70 + index}.00 ± 0.00" in printed
        assert f"a method with a long name {index}" in printed


def test_brackets_in_a_name_are_shown() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(group_table({"betas=[beta1]": [{"lee/spearman": 1.0}]}, title="t"))
    assert "betas=[beta1]" in capture.get()


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    line = "results: [red]/a/very/long/path" + "/x" * 200
    print_lines([line])
    assert capsys.readouterr().out == line + "\n"
