"""What the page says and holds, without a browser."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cse_bench.errors import ConfigError
from cse_bench.results.collect import Collection, collect
from cse_bench.results.report.content import block_view
from cse_bench.results.report.drawing import BASELINE, COLOURS, INK, figure_labels, looks
from cse_bench.results.report.embedding_plots import density_drawing
from cse_bench.results.report.findings import findings
from cse_bench.results.report.plots import cost_drawing, curve_drawing
from cse_bench.results.report.scores import published_table
from cse_bench.results.report.series import series
from cse_bench.results.report.terminal import print_report
from cse_bench.results.report.vocabulary import metric
from cse_bench.results.report.write import write_report
from cse_bench.results.statistics.analyse import analyse
from cse_bench.results.statistics.analysis import Analysis, Comparison, Interval
from tests.results.report.conftest import Written
from tests.results.report.study import NASTY, write_run


class Elements(HTMLParser):
    """Collects start tags, ids and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def sentences(analyses: list[Analysis]) -> str:
    return "\n".join(
        "".join(part if isinstance(part, str) else f"[{part.label}]" for part in line) for line in findings(analyses)
    )


def test_every_mean_is_on_the_page(written: Written) -> None:
    text = Elements(written.html).text
    for analyses in written.analyses:
        for score in analyses[0].scores:
            assert metric(analyses[0].metric).shown(score.mean) in text
            assert score.group.label in text


def test_the_page_loads_nothing(written: Written) -> None:
    elements = Elements(written.html)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:|//)", value), (tag, value)
            if tag in ("script", "img", "link", "iframe", "use", "image"):
                assert value == "" or value.startswith(("data:", "#"))
    assert "http" not in re.sub(r"http-equiv", "", written.html)
    assert "@import" not in written.html
    assert "url(http" not in written.html


def test_ids_are_unique_and_references_lead_somewhere(written: Written) -> None:
    tags = Elements(written.html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        for name in ("popovertarget", "aria-labelledby"):
            for target in (attributes.get(name) or "").split():
                assert target in ids
        href = attributes.get("href") or ""
        if href.startswith("#"):
            assert href[1:] in ids, href
    for target in re.findall(r"url\(#([^)]+)\)", written.html):
        assert target in ids


def test_every_column_and_figure_has_an_explanation(written: Written) -> None:
    html = written.html
    for head in re.findall(r'<th scope="col" data-kind.*?</th>', html, flags=re.DOTALL):
        assert 'class="help"' in head, head
    for heading in re.findall(r"<h[34][^>]*>.*?</h[34]>", html, flags=re.DOTALL):
        assert 'class="help"' in heading, heading


def test_figures_say_what_is_seen(written: Written) -> None:
    plots = re.findall(r'<svg class="plot.*?</svg>', written.html, flags=re.DOTALL)
    assert plots
    for plot in plots:
        assert 'role="img"' in plot
        assert re.search(r"<desc[^>]*>[^<]{30,}</desc>", plot)
        assert INK not in plot
        assert "DejaVu" not in plot


def test_figures_are_files_with_text_as_text(written: Written) -> None:
    folder = written.page.parent / "figures"
    stems = {path.stem for path in folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    kinds = ("scores", "tasks_sts_test", "curves", "plane", "spectrum", "density", "cost", "tasks_sample")
    for kind in kinds:
        assert any(stem.endswith(kind) for stem in stems), kind
    for path in folder.glob("*.svg"):
        assert any(element.tag.endswith("}text") for element in ElementTree.parse(path).iter())


def test_labels_are_escaped(written: Written) -> None:
    assert "<script>alert" not in written.html
    assert NASTY in Elements(written.html).text
    assert "A &amp; B &lt;study&gt;" in written.html


def test_an_own_reading_is_named_as_such_beside_every_score(written: Written) -> None:
    html = written.html
    rows = [row for row in re.findall(r"<tr>.*?</tr>", html, flags=re.DOTALL) if 'scope="row"' in row]
    own = [row for row in rows if ">jtcse<" in row]
    assert len(own) > 5
    assert all("own reading" in row for row in own)
    lines = [line for line in re.findall(r"<li>.*?</li>", html, flags=re.DOTALL) if ">jtcse<" in line]
    assert lines
    for line in lines:
        assert line.count(">jtcse<") <= line.count("own reading")
    files = (written.page.parent / "tables").glob("*.md")
    named = [line for path in files for line in path.read_text().splitlines() if line.startswith("| jtcse")]
    assert len(named) > 5
    assert all("own reading" in line for line in named)
    figures = [path.read_text() for path in (written.page.parent / "figures").glob("*.svg")]
    assert not any("jtcse<" in text for text in figures)
    marked = [text for text in figures if "jtcse \N{DAGGER}" in text]
    assert marked
    assert all("own reading" in text for text in marked)


def test_what_was_left_out_is_named(written: Written) -> None:
    text = Elements(written.html).text
    assert "1 left out" in text
    assert "damaged: its results.json cannot be read" in text


def test_a_mean_that_is_not_a_number_says_why(written: Written) -> None:
    text = Elements(written.html).text
    assert "NaN" in text
    assert "collapsed" in text


def test_a_group_looks_the_same_in_every_block(written: Written) -> None:
    found = looks(written.collection.blocks)
    labels = {group.label for block in written.collection.blocks for group in block.groups}
    assert set(found) == labels
    trained = [look for look in found.values() if look.colour != BASELINE]
    assert len({(look.colour, look.marker) for look in trained}) == len(trained)


@pytest.mark.parametrize("colour", [*COLOURS, BASELINE])
@pytest.mark.parametrize("page", ["#ffffff", "#14171b"])
def test_colours_are_seen_on_light_and_dark(colour: str, page: str) -> None:
    assert contrast(colour, page) >= 3.0


def test_the_same_runs_give_the_same_figures(written: Written, tmp_path: Path) -> None:
    block, analyses = written.collection.blocks[-1], written.analyses[-1]
    page, *_ = write_report(Collection([block]), [analyses], [], output=tmp_path, title="once more")
    again, *_ = write_report(Collection([block]), [analyses], [], output=tmp_path / "again", title="once more")
    figures = sorted((page.parent / "figures").iterdir())
    assert figures
    for path in figures:
        assert path.read_bytes() == (again.parent / "figures" / path.name).read_bytes()


def test_published_numbers_stand_beside_ours(written: Written) -> None:
    rows = [one for block in written.expectations for one in block]
    assert {one.outcome for one in rows} >= {"below", "not the published setting"}
    text = " ".join(Elements(written.html).text.split())
    assert "Published numbers" in text
    for one in rows:
        assert one.verdict in text
        assert one.source in text
    assert "this repository" in text
    (path,) = (written.page.parent / "tables").glob("*_published.csv")
    table = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert {row["outcome"] for row in table} <= {one.outcome for one in rows}
    assert all(row["by"] in ("authors", "reproduction", "this repository") for row in table)


def test_what_the_source_itself_ran_stands_last(written: Written) -> None:
    one = next(one for block in written.expectations for one in block)
    found = [replace(one, outcome="no statement"), replace(one, outcome="above", interval=interval())]
    table = published_table(found, "t", title="t")
    names = [name for column in table.columns for name in column.names]
    rows = [dict(zip(names, [n for cell in row for n in cell.numbers], strict=True)) for row in table.rows]
    assert [row["outcome"] for row in rows] == ["above", "no statement"]
    assert (rows[0]["interval_low"], rows[0]["interval_high"]) == (1.0, 2.0)


def interval() -> Interval:
    return Interval(low=1.0, high=2.0, level=0.95, of="a run")


def test_what_the_runs_say_of_their_metrics_is_printed(written: Written) -> None:
    text = Elements(written.html).text
    for words in ("sts/test: what these scores are.", "lee: what Lee is.", "geometry: which positives."):
        assert words in text


def test_a_block_that_only_fits_is_not_called_trained(written: Written) -> None:
    view = lambda block: block_view(block, [], [], looks([block]), key="b", prefix="").title  # noqa: E731
    (block, *_) = (one for one in written.collection.blocks if "training text" in one.facts)
    assert "trained on wiki" in view(block)
    assert "fitted to wiki" in view(replace(block, groups=[one for one in block.groups if not one.is_trained]))


def test_damaged_and_missing_logs_are_named_and_the_others_drawn(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / "runs", "simcse", seed, log=seed != 1)
        write_run(tmp_path / "runs", "jtcse", seed)
    cut, broken = sorted((tmp_path / "runs").glob("*/metrics.csv"))[-2:]
    broken.write_text("step,metric,value\n10,sts/dev/stsb,sixty\n")
    scores = cut.with_name("pair_scores.npz")
    scores.write_bytes(scores.read_bytes()[:1000])
    (block,) = collect([str(tmp_path / "runs")]).blocks
    curves = curve_drawing(block, block.groups, looks([block]), "curves")
    assert curves is not None
    assert list(curves.notes) == [
        f"without {broken.parent.name}: its metrics.csv cannot be read",
        "jtcse (official code): 2 of 3 runs have a log of it",
        "simcse (official code): 2 of 3 runs have a log of it",
    ]
    by_label = {group.label: group for group in block.groups}
    assert [len(series(by_label[name], "sts/dev/stsb").values) for name in ("jtcse", "simcse")] == [2, 2]  # type: ignore[union-attr]
    density = density_drawing(block.groups, looks([block]), "density")
    assert density is not None
    assert list(density.notes) == [f"without {cut.parent.name}: its pair_scores.npz cannot be read"]
    page, *_ = write_report(Collection([block]), [[]], [], output=tmp_path / "out", title="t")
    assert f"without {broken.parent.name}: its metrics.csv cannot be read" in page.read_text()


def test_figures_tell_the_settings_of_one_method_apart() -> None:
    kinds, poolings = ("pca", "pca_cor", "cholesky"), ("cls", "mean", "first_last_mean")
    labels = [f"whitened (kind={kind}, dimensions=64, pooling={pooling})" for kind in kinds for pooling in poolings]
    found = figure_labels([*labels, "simcse", "x" * 100, "x" * 101])
    assert found["simcse"] == "simcse"
    assert found[labels[0]] == "whitened: pca, 64, cls"
    assert len(set(found.values())) == len(found)
    assert max(map(len, found.values())) < 54


def test_cost_of_a_group_that_was_not_measured_is_left_out(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "simcse", seed)
        other = write_run(tmp_path, "jtcse", seed)
        content = json.loads((other / "results.json").read_text())
        content["metrics"].pop("cost/peak_memory_bytes")
        (other / "results.json").write_text(json.dumps(content))
    write_run(tmp_path, "untrained", 0, status="baseline")
    (block,) = collect([str(tmp_path)]).blocks
    analysis = analyse(block, metric="sts/test/avg", resamples=100, permutations=99)
    drawing = cost_drawing(analysis, looks([block]), "cost")
    assert drawing is not None
    (note,) = drawing.notes
    assert note.startswith("not in the panel of peak memory (MiB): jtcse (official code)")


def test_findings_claim_only_what_a_verdict_carries(written: Written) -> None:
    analyses = next(one for one in written.analyses if len(one[0].scores) == 5)
    text = sentences(analyses)
    for one in analyses[0].comparisons:
        claim = f"[{one.first.label}] is better than [{one.second.label}]"
        assert (claim in text) == (one.verdict == "better")
    tied = [with_verdict(one, "not told apart") for one in analyses[0].comparisons]
    nothing = replace(
        analyses[0], comparisons=tied, all_pairs=[with_verdict(p, "not told apart") for p in analyses[0].all_pairs]
    )
    text = sentences([nothing])
    assert "better than" not in text
    assert "not told apart from" in text
    assert "interval" not in text


def test_another_verdict_of_another_metric_is_told(written: Written) -> None:
    analyses = next(one for one in written.analyses if len(one[0].scores) == 5)
    changed = [with_verdict(one, "too few seeds") for one in analyses[1].comparisons]
    text = sentences([analyses[0], replace(analyses[1], comparisons=changed)])
    assert "By leak-free average, [" in text
    assert "every verdict" not in text


def with_verdict(one: Comparison, verdict: str) -> Comparison:
    return replace(one, verdict=verdict)  # type: ignore[arg-type]


def test_blocks_and_analyses_must_fit(written: Written, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 blocks, but analyses for 1"):
        write_report(written.collection, written.analyses[:1], [], output=tmp_path, title="t")


def test_a_folder_that_cannot_be_written_is_an_error(written: Written, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    block, analyses = written.collection.blocks[-1], written.analyses[-1]
    with pytest.raises(ConfigError, match="output: cannot write"):
        write_report(Collection([block]), [analyses], [], output=tmp_path / "file", title="t")


def test_a_block_without_an_analysis_still_has_its_runs(written: Written, tmp_path: Path) -> None:
    page, *_ = write_report(Collection([written.collection.blocks[-1]]), [[]], [], output=tmp_path, title="t")
    assert "What each group was trained with" in page.read_text()


def test_the_size_is_sensible(written: Written) -> None:
    assert written.page.stat().st_size < 1_500_000


def test_the_terminal_shows_some_interval_of_every_group(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    for analyses in written.analyses:
        print_report(Collection([analyses[0].block]), [analyses], written.page)
        out = capsys.readouterr().out
        lacking = [one for one in analyses[0].scores if not (one.over_both or one.over_seeds)]
        assert ("over pairs" in " ".join(out.split())) == any(one.over_pairs for one in lacking)


def test_of_many_groups_the_matrix_holds_the_best_and_the_table_all(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cse_bench.results.report.content._SIDE_BY_SIDE", 2)
    page, *_ = write_report(
        written.collection, written.analyses, written.expectations, output=tmp_path / "out", title="two of many"
    )
    elements = Elements(page.read_text(encoding="utf-8"))
    compared = [analyses[0] for analyses in written.analyses if analyses and analyses[0].all_pairs]
    assert max(len(analysis.scores) for analysis in compared) > 2
    assert elements.text.count("The 2 highest of") == sum(len(analysis.scores) > 2 for analysis in compared)
    targets = {attributes["popovertarget"] for _, attributes in elements.tags if "popovertarget" in attributes}
    popovers = {attributes["id"] for _, attributes in elements.tags if "popover" in attributes}
    assert {name for name in popovers if name and "matrix" in name} == {
        name for name in targets if name and "matrix" in name
    }
    assert sum("matrix" in str(name) for name in popovers) == len(compared)  # one comparison of two groups each
