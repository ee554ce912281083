"""One report of a small study, written once for all tests of this folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from cse_bench.results.collect import Collection, collect
from cse_bench.results.published import Expectation, expectations
from cse_bench.results.report.write import write_report
from cse_bench.results.statistics.analyse import analyse
from cse_bench.results.statistics.analysis import Analysis
from tests.results.report.study import write_study

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@dataclass(frozen=True)
class Written:
    """A report and what it was made of."""

    page: Path
    collection: Collection
    analyses: list[list[Analysis]]
    expectations: list[list[Expectation]]

    @cached_property
    def html(self) -> str:
        return self.page.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    write_study(folder / "runs")
    collection = collect([str(folder / "runs")])
    analyses = []
    for block in collection.blocks:
        known = {path for group in block.groups for run in group.runs for path in run.metrics}
        paths = ["sts/test/avg", "sts/test_clean/avg", "wiki_sections/test/accuracy", "lee/spearman", "sts/test/stsb"]
        chosen = [path for path in paths if path in known]
        analyses.append([analyse(block, metric=path, resamples=200, permutations=99) for path in chosen])
    numbers = [expectations(block) for block in collection.blocks]
    page, *_ = write_report(collection, analyses, numbers, output=folder / "out", title="A & B <study>")
    return Written(page, collection, analyses, numbers)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with a profile of its own."""
    missing = [str(path) for path in (CHROMIUM, DRIVER) if not path.is_file()]
    if missing:
        pytest.skip(f"no headless browser: {' and '.join(missing)} not found (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER), log_output=os.devnull))
    try:
        yield driver
    finally:
        driver.quit()
