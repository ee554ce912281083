"""Tables as files: unrounded numbers come back, and no label breaks a format."""

import csv
import math
import re
from pathlib import Path

import pytest

from cse_bench.results.report.glossary import TERMS
from cse_bench.results.report.tables import (
    Cell,
    Column,
    Table,
    as_latex,
    as_markdown,
    by_name,
    of_spread,
    shown_p,
    write_table,
)
from cse_bench.results.report.vocabulary import FAMILIES, MINUS, family, metric
from tests.results.report.conftest import Written
from tests.results.report.study import NASTY


def table(*rows: tuple[str, float | None]) -> Table:
    columns = [Column("label", "la_bel", "method", text=True), Column("x", "x %", "score")]
    return Table("t", "T_1 & more", "score", columns, [[Cell(text), Cell(f"{x}", (x,))] for text, x in rows])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_holds_the_numbers_of_the_runs_bit_for_bit(written: Written) -> None:
    number = next(index for index, analyses in enumerate(written.analyses) if len(analyses[0].scores) == 5)
    analysis = written.analyses[number][0]
    rows = rows_of(written.page.parent / "tables" / f"{number + 1}_scores.csv")
    assert len(rows) == len(analysis.scores)
    for row, score in zip(rows, analysis.scores, strict=True):
        assert (row["method"], row["status"]) == (score.group.label, score.group.status)
        assert int(row["n"]) == score.n
        for column, value in (("mean", score.mean), ("sd", score.sd), ("min", score.minimum), ("max", score.maximum)):
            if column in row:
                assert float(row[column]) == value or (math.isnan(value) and row[column] == "nan")
        if score.over_both is not None:
            assert float(row["both_low"]) == score.over_both.low
            assert float(row["both_high"]) == score.over_both.high


def test_every_table_is_there_in_three_formats(written: Written) -> None:
    folder = written.page.parent / "tables"
    names = {path.stem for path in folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("md", "tex", "csv")
    }
    for kind in (
        "scores",
        "comparisons",
        "all_pairs",
        "tasks_sts_test",
        "geometry",
        "cost",
        "overlap",
        "runs",
        "setup",
    ):
        assert any(name.endswith(kind) for name in names), kind


def test_markdown_keeps_its_columns_whatever_a_label_holds() -> None:
    text = as_markdown(table((NASTY, 1.0), ("plain", None)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "<script>" not in text


def test_latex_escapes_what_it_would_read() -> None:
    text = as_latex(table((NASTY, -1.5)))
    row = next(line for line in text.splitlines() if line.startswith(" evil"))
    bare = re.sub(
        r"\\[&%$#_{}]|\\textbackslash\{\}|\\\^\{\}|\\textasciitilde\{\}|\\ensuremath\{[<>]\}",
        "",
        row[: row.rindex("\\\\")],
    )
    assert bare.count("&") == 1  # the one between the two columns
    assert not set("%$#_^~\\") & set(bare)
    assert text.count("%") == text.count("\\%") + 1  # and the comment with the title
    assert "\\toprule" in text


def test_a_minus_sign_is_one_for_readers_and_a_hyphen_for_latex() -> None:
    shown = metric("sts/test/avg").shown(-1.5)
    assert shown == f"{MINUS}1.50"
    one = Table("t", "t", "score", [Column("x", "x", "score")], [[Cell(shown, (-1.5,))]])
    assert MINUS not in as_latex(one)
    assert "-1.50" in as_latex(one)


def test_latex_holds_no_sign_that_pdflatex_does_not_have(written: Written) -> None:
    paths = list((written.page.parent / "tables").glob("*.tex"))
    verdicts = [path for path in paths if path.stem.endswith("comparisons")]
    assert any("better" in path.read_text() for path in verdicts)
    assert any(r"$\pm$" in path.read_text() for path in paths)
    for path in paths:
        assert path.read_text().isascii(), path.name


def test_what_is_too_little_to_be_shown_is_not_zero() -> None:
    shown = metric("cost/preparation_time_s")
    assert of_spread(shown, [0.01, 0.02]).text == "< 1"
    assert of_spread(shown, [0.0, 0.0]).text == "0"
    assert of_spread(shown, [0.01, 0.02]).numbers[0] == pytest.approx(0.015)


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    paths = write_table(table(), tmp_path)
    assert [path.suffix for path in paths] == [".md", ".tex", ".csv"]
    assert rows_of(paths[2]) == []


def test_sorting_puts_numbers_before_what_has_none() -> None:
    assert Cell("1.50", (1.5,)).sort_value == "1.5"
    assert [Cell("", (value,)).sort_value for value in (None, math.nan, math.inf)] == ["", "", ""]
    assert Cell("abc").sort_value == "abc"


def test_two_tables_of_one_name_and_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        by_name([table(), table()])
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table("t", "t", "score", table().columns, [[Cell("x")]])


@pytest.mark.parametrize(
    ("p", "shown"), [(None, ""), (math.nan, ""), (0.0004, "< 0.001"), (0.0314, "0.031"), (1.0, "1.000")]
)
def test_p_values_are_never_zero(p: float | None, shown: str) -> None:
    assert shown_p(p) == shown


def test_every_metric_has_words_and_an_explanation() -> None:
    paths = ["sts/test/avg", "sts/test_clean/sts15", "transfer/test/mr", "lee/spearman", "cost/inference_flops", "a/b"]
    for path in paths:
        assert metric(path).title
        assert metric(path).term in TERMS
    assert family("sts/test/stsb") == "sts/test"
    assert family("sts/dev/stsb") is None
    assert {term for _, term in FAMILIES.values()} <= set(TERMS)


def test_explanations_are_short() -> None:
    for key, term in TERMS.items():
        assert 0 < len(term.text) < 520, key
