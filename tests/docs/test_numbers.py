"""Published numbers on the pages are those of the table that the report compares with."""

import re

import pytest

from cse_bench.results.published_table import published
from tests.docs.pages import DOCS

METRIC = "sts/test/avg"


def test_the_averages_of_reproducing_are_those_of_published_yaml() -> None:
    text = (DOCS / "reproducing.md").read_text()
    sections = {section.split("\n", 1)[0]: section for section in text.split("\n## ")}
    known = {
        (entry.method, entry.backbone, round(entry.metrics[METRIC], 2))
        for entry in published()
        if METRIC in entry.metrics
    }
    found = 0
    for title, section in sections.items():
        for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE):
            cells = [cell.strip() for cell in row.split(" | ")]
            method = {"SimCSE": "simcse", "ESimCSE": "esimcse", "WhitenedCSE": "whitenedcse"}.get(title)
            if method is None and len(cells) > 2:
                method, cells = cells[0].split(" ")[0], cells[1:]
            if len(cells) > 1 and re.fullmatch(r"\d\d\.\d\d", cells[1]):
                assert (method, cells[0], float(cells[1])) in known, f"{title}: {row}"
                found += 1
    assert found == 17


@pytest.mark.parametrize("number", ["75.11 ± 0.84", "74.95 ± 1.74", "74.60 ± 0.21", "76.71 ± 0.50"])
def test_spreads_are_those_of_published_yaml(number: str) -> None:
    mean, deviation = map(float, number.split(" ± "))
    assert number in (DOCS / "reproducing.md").read_text()
    assert any(entry.metrics.get(METRIC) == mean and (entry.sd or {}).get(METRIC) == deviation for entry in published())
