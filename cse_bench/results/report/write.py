"""The report as files: the page, its tables, its figures."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cse_bench.errors import ConfigError
from cse_bench.results.collect import Collection
from cse_bench.results.report.content import block_view
from cse_bench.results.report.drawing import looks
from cse_bench.results.report.every_run import write_every_run
from cse_bench.results.report.page import render
from cse_bench.results.report.tables import by_name, write_table
from cse_bench.results.statistics.analysis import Analysis

if TYPE_CHECKING:
    from cse_bench.results.published import Expectation


def write_report(
    collection: Collection,
    analyses: Sequence[Sequence[Analysis]],
    expectations: "Sequence[Sequence[Expectation]]",
    *,
    output: Path,
    title: str,
) -> list[Path]:
    """Writes `report.html`, `results.csv`, `tables/*.{md,tex,csv}` and `figures/*.{svg,png}`.

    Args:
        collection: the runs, and what was left out.
        analyses: for each of its blocks; the first one of a block is of the metric that ranks.
        expectations: for each of its blocks, published numbers beside ours; may be empty.
        output: folder; made if need be, files of the same names are replaced.
        title: of the page.

    Returns:
        All files, the page first.

    Raises:
        ConfigError: the folder cannot be written.
        ValueError: not one sequence of analyses and of expectations per block.
    """
    blocks = collection.blocks
    if len(analyses) != len(blocks) or (expectations and len(expectations) != len(blocks)):
        raise ValueError(
            f"{len(blocks)} blocks, but analyses for {len(analyses)} and published numbers for {len(expectations)}; "
            "give one sequence of each per block (published numbers may be left out for all)"
        )
    known = expectations or [()] * len(blocks)
    own_looks = looks(blocks)
    several = len(blocks) > 1
    views = [
        block_view(
            block,
            analyses[index],
            known[index],
            own_looks,
            key=f"b{index + 1}",
            prefix=f"{index + 1}_" if several else "",
        )
        for index, block in enumerate(blocks)
    ]
    page = render(collection, views, own_looks, title=title)
    files = [output / "report.html", output / "results.csv"]
    figures = output / "figures"
    with writing_to(output):
        files[0].write_text(page, encoding="utf-8")
        write_every_run(collection, files[1])
        for table in by_name([table for view in views for table in view.tables()]).values():
            files += write_table(table, output / "tables")
        figures.mkdir(exist_ok=True)
        for drawing in [drawing for view in views for drawing in view.drawings()]:
            files += [figures / f"{drawing.name}.svg", figures / f"{drawing.name}.png"]
            files[-2].write_text(drawing.svg(), encoding="utf-8")
            files[-1].write_bytes(drawing.png())
    return files


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Makes the folder, tries whether it can be written, and tells of every failure alike.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
        yield
    except OSError as error:
        raise ConfigError(f"output: cannot write {output} ({error}); choose a writable folder with space") from error
