"""Published numbers: the table is what it says, and a verdict is given where one can be given and nowhere else."""

import csv
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from cse_bench.config.location import conf_directory
from cse_bench.errors import ConfigError
from cse_bench.results.collect import Block, Group, Run
from cse_bench.results.published import Expectation, _differences, expectations, prediction_interval
from cse_bench.results.published_table import TABLE, Published, published
from tests.conftest import REPOSITORY
from tests.tiny import composed

STS = [f"sts/test/{task}" for task in ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")]
TRANSFER = [f"transfer/test/{task}" for task in ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")]


def entry_of(method: str, backbone: str, *, source: str) -> Published:
    (found,) = [e for e in published() if (e.method, e.backbone) == (method, backbone) and source in e.source]
    return found


def results_like(entry: Published) -> dict[str, Any]:
    """What a run under an entry's conditions writes, as far as it is asked for."""
    content: dict[str, Any] = {
        "method": {"name": entry.method, "status": "paper"},
        "backbone": entry.backbone,
        "steps": 1,
        "config": {},
    }
    for path, expected in (entry.conditions | entry.details | entry.when).items():
        *folders, last = path.split(".")
        place = content
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = expected["any"][0] if isinstance(expected, Mapping) else expected
    return content


def block_of(
    entry: Published,
    scores: Mapping[int, float],
    *,
    metric: str = "sts/test/avg",
    change: Mapping[str, Any] | None = None,
) -> Block:
    """One group of runs under an entry's conditions, but for `change` (key path -> value)."""
    runs = []
    for seed, score in scores.items():
        content = results_like(entry)
        for path, value in (change or {}).items():
            *folders, last = path.split(".")
            place = content
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = value
        runs.append(Run(Path(f"run-{seed}"), content | {"seed": seed, "metrics": {metric: score}}))
    return Block({"backbone": entry.backbone}, [Group("key", runs, entry.method)])


def verdict_of(entry: Published, block: Block) -> Expectation:
    (found,) = [row for row in expectations(block) if row.source == entry.source]
    return found


# -- the table -------------------------------------------------------------------------------------------


def test_every_entry_is_about_something_that_can_be_run_and_says_where_it_is_from() -> None:
    conf = conf_directory()
    methods = {path.stem for path in (conf / "method").glob("*.yaml")}
    backbones = {path.stem for path in (conf / "backbone").glob("*.yaml")}
    for entry in published():
        assert entry.method in methods, entry
        assert entry.backbone in backbones, entry
        assert entry.source.strip(), entry
        assert entry.kind != "paper" or "arXiv" in entry.source, entry
        assert entry.certain or entry.note, entry
    names = Counter((e.method, e.backbone, e.variant, e.source) for e in published())
    assert max(names.values()) == 1


@pytest.mark.parametrize(("tasks", "average"), [(STS, "sts/test/avg"), (TRANSFER, "transfer/test/avg")])
def test_averages_are_the_means_of_their_tasks(tasks: list[str], average: str) -> None:
    checked = 0
    for entry in published():
        if set(tasks) & entry.metrics.keys():
            mean = sum(entry.metrics[task] for task in tasks) / len(tasks)
            assert entry.metrics[average] == pytest.approx(mean, abs=0.02), entry.source
            checked += 1
    assert checked > 2


def test_our_own_entries_are_the_committed_studies() -> None:
    def read(study: str) -> list[dict[str, str]]:
        with (REPOSITORY / "experiments" / study / "results.csv").open() as file:
            return list(csv.DictReader(file))

    checked = 0
    for study in ("bert_tiny_methods", "bert_tiny_simcse"):
        for entry in published():
            if study not in entry.source:
                continue
            pooling = (entry.conditions | entry.when).get("pooling", "cls")
            rows = [row for row in read(study) if (row["method"], row.get("pooling", "cls")) == (entry.method, pooling)]
            if entry.seed_list:
                assert sorted(int(row["seed"]) for row in rows) == sorted(entry.seed_list)
            for metric, number in entry.metrics.items():
                if metric in rows[0]:
                    values = [float(row[metric]) for row in rows]
                    assert number == pytest.approx(np.mean(values), abs=0.006), (entry.source, metric)
                    if metric in entry.sd:
                        assert entry.sd[metric] == pytest.approx(np.std(values, ddof=1), abs=0.0006), metric
                    checked += 1
    assert checked > 80


@pytest.mark.slow
def test_our_recipes_meet_the_published_conditions() -> None:
    """What `method=X backbone=Y` trains is what the pair's entry describes, so that a verdict can be had at all."""
    from_command = ("precision.", "config.trainer.max_steps", "data.corpus", "steps", "pooling")
    pairs = {(e.method, e.backbone) for e in published() if not e.differs and e.backbone != "smollm2_135m"}
    assert len(pairs) > 12
    for method, backbone in sorted(pairs):
        config = composed(f"method={method}", f"backbone={backbone}", "data=wikipedia_sample", "evaluation=sts")
        content = {"config": config.model_dump(mode="json", by_alias=True)}
        group = Group("key", [Run(Path(), content)], method)
        for entry in published():
            about_it = (entry.method, entry.backbone) == (method, backbone) and not entry.differs
            if about_it and "quickstart" not in entry.source:  # a preset of its own
                conditions = {k: v for k, v in entry.conditions.items() if not k.startswith(from_command)}
                assert _differences(conditions, group) == [], (entry.source, method, backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sd": {"sts/test/avg": 0.5}, "seeds": 1}, "needs seeds of 2 or more"),
        ({"sd": {"sts/dev/stsb": 0.5}, "seeds": 3}, "for metrics of the entry"),
        ({"seed_list": [1, 2], "seeds": 3}, "as many seeds"),
        ({"certain": False}, "says why in its note"),
        ({"source": ""}, "source"),
        ({"sede": 3}, "sede"),
        ({"settings": ["wiki2m"]}, "wiki2m"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    entry = {
        "method": "simcse",
        "backbone": "bert_base",
        "kind": "paper",
        "source": "somewhere",
        "metrics": {"sts/test/avg": 76.0},
        "seeds": 1,
        "certain": True,
    }
    OmegaConf.save({"settings": {}, "entries": [entry | change]}, tmp_path / "table.yaml")
    with pytest.raises(ConfigError, match=message):
        published(tmp_path / "table.yaml")


def test_the_table_is_part_of_the_package() -> None:
    import cse_bench

    assert TABLE.is_relative_to(Path(cse_bench.__file__).parent)


# -- the interval ----------------------------------------------------------------------------------------


def test_prediction_interval_by_hand() -> None:
    low, high = prediction_interval(mean=10.0, sd=2.0, n=5, m=5)  # t(0.975, 4) = 2.7764451, sqrt(2/5) = 0.6324555
    assert (low, high) == pytest.approx((10 - 3.5119570, 10 + 3.5119570), abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 1), (5, 3), (50, 5)])
def test_the_interval_covers_the_mean_of_further_runs_in_95_of_100_cases(n: int, m: int) -> None:
    draw = np.random.default_rng(n)
    times = 3000
    inside = 0
    for _ in range(times):
        seen = draw.normal(75.0, 0.8, size=n)
        low, high = prediction_interval(mean=float(seen.mean()), sd=float(seen.std(ddof=1)), n=n, m=m)
        inside += low <= draw.normal(75.0, 0.8, size=m).mean() <= high
    assert inside / times == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / times))


# -- verdicts --------------------------------------------------------------------------------------------

FIFTY = ("simcse", "bert_base", "simple-simcse")  # 75.11 ± 0.84 over 50 seeds
PAPER = ("esimcse", "bert_base", "arXiv 2109.04380")  # 78.27, one seed
STUDY = ("simcse", "bert_tiny", "625 steps")  # ours, seeds 0 to 4


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, "inside"), (-3.0, "below"), (3.0, "above")])
def test_a_published_spread_gives_an_interval_for_our_mean(shift: float, outcome: str) -> None:
    entry = entry_of(*FIFTY[:2], source=FIFTY[2])
    row = verdict_of(entry, block_of(entry, {0: 75.0 + shift, 1: 75.4 + shift}))
    low, high = prediction_interval(mean=75.11, sd=0.84, n=50, m=2)
    assert row.outcome == outcome
    assert row.interval is not None
    assert (row.interval.low, row.interval.high) == (low, high)
    of = "the mean of 2 runs like the 50 of the source"
    assert row.verdict == f"{outcome}: {75.2 + shift:.2f}, where {low:.2f} to {high:.2f} is expected of {of}"
    assert (row.published, row.published_sd, row.published_seeds, row.ours_n) == (75.11, 0.84, 50, 2)
    assert row.ours == pytest.approx(75.2 + shift)


def test_one_run_of_ours_has_a_wider_interval_than_five() -> None:
    entry = entry_of(*FIFTY[:2], source=FIFTY[2])
    one, five = (verdict_of(entry, block_of(entry, dict.fromkeys(range(m), 75.0))) for m in (1, 5))
    assert one.interval is not None
    assert five.interval is not None
    assert one.interval.high - one.interval.low > five.interval.high - five.interval.low
    assert "one run like the 50 of the source" in one.verdict


@pytest.mark.parametrize(
    ("scores", "outcome", "words"),
    [
        ({0: 78.0, 1: 78.5, 2: 78.2}, "inside", "the published 78.27 is inside"),
        ({0: 75.0, 1: 75.1, 2: 75.2}, "below", "the published 78.27 is above"),
        ({0: 79.9, 1: 80.0, 2: 80.1}, "above", "the published 78.27 is below"),
        ({0: 78.0}, "no statement", "one run against one number"),
        ({0: 78.0, 1: 78.0}, "no statement", "the 2 runs here do not differ"),
        ({0: 78.0, 1: math.nan}, "no statement", "a run has no number here"),
    ],
)
def test_one_published_number_is_held_against_our_spread(scores: dict[int, float], outcome: str, words: str) -> None:
    entry = entry_of(*PAPER[:2], source=PAPER[2])
    row = verdict_of(entry, block_of(entry, scores))
    assert row.outcome == outcome
    assert row.verdict.startswith(f"{outcome}: {words}")
    if row.interval is not None:
        values = list(scores.values())
        low, high = prediction_interval(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)), n=3, m=1)
        assert (row.interval.low, row.interval.high) == (low, high)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("steps", 4, "steps is 4, there 15625 or 15626"),
        ("data.corpus.name", "wiki_sentences", "data.corpus.name is wiki_sentences, there wiki1m_for_simcse"),
        ("precision.training", "bf16-mixed", "precision.training is bf16-mixed, there 16-mixed"),
        ("pooling", "mean", "pooling is mean, there cls"),
        ("config.data.global_batch_size", 128, "data.global_batch_size is 128, there 64"),
        ("config.method.temperature", 0.1, "method.temperature is 0.1, there 0.05"),
        ("config.backbone.adapter", {"type": "lora"}, "backbone.adapter is set, there none"),
        ("config.backbone.source", "random", "backbone.source is random, there hub or local"),
    ],
)
def test_other_conditions_get_no_verdict(path: str, value: Any, words: str) -> None:
    entry = entry_of(*PAPER[:2], source=PAPER[2])
    row = verdict_of(entry, block_of(entry, {0: 20.0, 1: 21.0}, change={path: value}))
    assert row.outcome == "not the published setting"
    assert row.verdict == f"not the published setting: {words}"
    assert row.interval is None


def test_what_differs_without_withholding_a_verdict_is_named() -> None:
    entry = entry_of(*PAPER[:2], source=PAPER[2])
    block = block_of(entry, {0: 78.0, 1: 78.5}, change={"config.method.momentum_init": "copy"})
    row = verdict_of(entry, block)
    assert row.outcome == "inside"
    assert "differs in method.momentum_init is copy, there random" in row.note


def test_what_no_run_here_can_have_is_never_judged() -> None:
    for entry in published():
        if entry.differs:
            block = block_of(entry, {0: 10.0, 1: 11.0})
            row = verdict_of(entry, block)
            assert row.verdict.startswith(f"not the published setting: {entry.differs[0]}")


def test_variants_are_told_apart() -> None:
    tncse = entry_of("jtcse", "bert_base", source="2503.12739")
    (row,) = expectations(block_of(tncse, {0: 79.0}))
    assert (row.variant, row.published) == ("TNCSE", 79.58)


def test_seeds_of_the_study_itself_test_nothing() -> None:
    entry = entry_of(*STUDY[:2], source=STUDY[2])
    (row,) = expectations(block_of(entry, {0: 60.8, 1: 60.4}))  # and our other studies of SimCSE are left out
    assert row.outcome == "no statement"
    assert "seeds 0, 1 are the source's own" in row.verdict
    mixed = verdict_of(entry, block_of(entry, {0: 10.0, 70: 60.4, 80: 60.5}))
    assert (mixed.outcome, mixed.ours_n, mixed.ours) == ("inside", 2, pytest.approx(60.45))
    assert "seeds 0 are the source's own and left out" in mixed.note


@pytest.mark.parametrize(("score", "outcome"), [(57.19, "inside"), (57.25, "above"), (57.10, "below")])
def test_an_untrained_backbone_has_to_repeat_its_number(score: float, outcome: str) -> None:
    entry = entry_of("untrained", "bert_tiny", source="bert_tiny_methods")
    row = verdict_of(entry, block_of(entry, {0: score}))
    assert row.outcome == outcome
    assert "nothing is drawn at random" in row.verdict


def test_metrics_can_be_chosen_and_unknown_pairs_have_none() -> None:
    entry = entry_of(*PAPER[:2], source=PAPER[2])
    block = block_of(entry, {0: 78.0})
    assert expectations(block, metrics=["sts/test/stsb"]) == []
    assert len(expectations(block, metrics=["sts/test/avg"])) == 1
    assert expectations(block_of(entry, {0: 78.0}, change={"backbone": "tiny_bert"})) == []
