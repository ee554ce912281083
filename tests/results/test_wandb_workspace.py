"""The wandb workspace, offline: its specification, and that its panels name what a real run logs."""

from pathlib import Path
from typing import Any

import pytest

from cse_bench.config.schema import DashboardConfig
from cse_bench.results.wandb_workspace import build_workspace, problems, replaced, specification
from cse_bench.run import run
from tests.results.offline_wandb import isolate, recorded
from tests.tiny import config_in

pytest.importorskip("wandb_workspaces")
# wandb-workspaces 0.4 still declares some validators in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style `@validator`:DeprecationWarning")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def config_of(**changes: Any) -> DashboardConfig:
    given: dict[str, Any] = {
        "entity": "somebody",
        "project": "cse_bench",
        "name": "cse_bench",
        "scores": ["sts"],
        "study": None,
        "url": None,
        "dry_run": True,
        "output": None,
    }
    return DashboardConfig(**given | changes)


def section_of(**changes: Any) -> dict[str, Any]:
    """The part of a specification that holds all but the names."""
    section: dict[str, Any] = specification(build_workspace(config_of(**changes)))["spec"]["section"]
    return section


def panels(section: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for one in section["panelBankConfig"]["sections"] for panel in one["panels"]]


def curves(section: dict[str, Any]) -> set[str]:
    """The metrics that are drawn over training."""
    return {m for panel in panels(section) if "Line Plot" in panel["viewType"] for m in panel["config"]["metrics"]}


def finals(section: dict[str, Any]) -> set[str]:
    """The metrics that are read from the summary: bars, the plane, and columns of the run table."""
    found = {m for panel in panels(section) if panel["viewType"] == "Bar Chart" for m in panel["config"]["metrics"]}
    for panel in panels(section):
        if panel["viewType"] == "Scatter Plot":
            found |= {panel["config"]["xAxis"], panel["config"]["yAxis"]}
    found |= {column for column in section["runSets"][0]["runFeed"]["columnOrder"] if column.startswith("summary:")}
    found.add(section["runSets"][0]["sort"]["keys"][0]["key"]["name"])
    return {name.removeprefix("summary:") for name in found}


def test_sections_axis_and_grouping() -> None:
    section = section_of()
    names = [one["name"].split(",")[0].split(" (")[0] for one in section["panelBankConfig"]["sections"]]
    assert names == ["Scores over training", "Alignment and uniformity", "Geometry", "Cost", "Final scores"]
    assert section["settings"]["xAxis"] == "trainer/global_step"
    assert {p["config"]["xAxis"] for p in panels(section) if "Line" in p["viewType"]} == {"trainer/global_step"}
    assert section["settings"]["useRunsTableGroupingInPanels"]
    groups = [(key["section"], key["name"]) for key in section["runSets"][0]["grouping"]]
    assert groups == [("run", "group"), ("run", "jobType"), ("config", "run.value.repetitions")]
    assert "final/sts/test/avg" in finals(section)
    assert "final/sts/test_clean/avg" in finals(section)


def test_a_study_filters_the_runs_and_scores_choose_the_panels() -> None:
    assert section_of()["runSets"][0]["filters"]["filters"] == []
    (only,) = section_of(study="bert_tiny_methods")["runSets"][0]["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == ("group", "=", "bert_tiny_methods")
    both = section_of(scores=["transfer", "sts"])
    assert both["runSets"][0]["sort"]["keys"][0]["key"]["name"] == "final/transfer/test/avg"
    assert {"final/transfer/test/trec", "final/sts/test/stsb"} <= finals(both)
    assert "wiki_sections/dev/accuracy" not in curves(both)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://wandb.ai/somebody/cse_bench?nw=a0b1c2d3", True),
        ("http://localhost:8080/somebody/cse_bench?nw=a0b1c2d3", True),
        ("https://wandb.ai/somebody/cse_bench", False),  # the project, no workspace
        ("https://wandb.ai/somebody/cse_bench?nw=nwusersomebody", False),  # a user's own, which wandb does not give
        ("https://wandb.ai/somebody/cse_bench/workspace?nw=a0b1c2d3", False),  # wandb-workspaces does not read it
        ("https://wandb.ai/somebody/other?nw=a0b1c2d3", False),  # `replaced` would write there
        ("wandb.ai/somebody/cse_bench?nw=a0b1c2d3", False),
        ("https://[", False),
    ],
)
def test_only_a_saved_workspace_of_the_project_can_be_replaced(url: str, allowed: bool) -> None:
    assert [problem.key for problem in problems(config_of(url=url))] == ([] if allowed else ["url"])


@pytest.mark.parametrize("name", ["a study", "Vergleich für 2 Köpfe", "BERT (tiny), 10 seeds", "a + b", "🎉"])
def test_names_are_those_that_the_package_takes(name: str) -> None:
    found = [problem.key for problem in problems(config_of(name=name))]
    try:
        build_workspace(config_of(name=name))
    except ValueError:
        assert found == ["name"]
    else:
        assert found == []


def without_ids(value: Any) -> Any:
    """A specification without what is drawn anew each time."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("__id__", "id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_the_same_config_makes_the_same_workspace() -> None:
    assert without_ids(section_of()) == without_ids(section_of())


def test_a_saved_workspace_keeps_its_place_and_gets_the_new_content() -> None:
    old, new = build_workspace(config_of(scores=["sample"])), build_workspace(config_of(study="a_study"))
    saved = type(old)._from_model(old._to_model())
    saved._internal_name = "nw-abc-v"
    result = specification(replaced(saved, by=new))
    assert result["name"] == "nw-abc-v"
    assert without_ids(result["spec"]) == without_ids(specification(new)["spec"])


def logged(folder: Path, *overrides: str) -> dict[str, Any]:
    """What a tiny real run leaves in wandb. SARCSE: of all the methods one that also logs the cost of preparation."""
    common = ("trainer.max_steps=2", "logger=wandb", "logger.wandb.offline=true", "study=a_study")
    return recorded(run(config_in(folder, "method=sarcse", *common, *overrides))["directory"])


def over_training(found: dict[str, Any]) -> set[str]:
    """The metrics that have an optimiser step."""
    return {name for row in found["history"] if "trainer/global_step" in row for name in row}


def test_costs_loss_and_groups_have_the_names_that_a_run_logs(tmp_path: Path) -> None:
    found = logged(tmp_path)
    assert "train/loss" in curves(section_of()) & over_training(found)
    costs = {name for name in finals(section_of()) if name.startswith("final/cost/")}
    assert len(costs) == 8
    assert costs <= found["summary"].keys()
    assert found["config"]["run"]["repetitions"].startswith("sarcse-tiny_bert-")
    assert (found["run"].run_group, found["run"].job_type) == ("a_study", "sarcse")


@pytest.mark.slow
@pytest.mark.parametrize("scores", ["sts", "sample"])
def test_panels_name_what_a_real_run_logs(scores: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = [f"paths.data={request.getfixturevalue('shared_data')}"] if scores == "sts" else []
    evaluation = (f"evaluation={scores}", "evaluation.eval_every_steps=2", "evaluation.baseline=false")
    found = logged(tmp_path, *evaluation, *data)
    section = section_of(scores=[scores])
    assert curves(section) <= over_training(found)
    assert finals(section) <= found["summary"].keys()


def test_transfer_panels_have_the_names_of_the_task() -> None:
    from cse_bench.evaluation.transfer import TASKS

    bars = {f"final/transfer/test/{task}" for task in (*TASKS, "avg")}
    assert {name for name in finals(section_of(scores=["transfer"])) if "transfer" in name} == bars
