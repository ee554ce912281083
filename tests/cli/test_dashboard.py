"""`python -m cse_bench.dashboard` inside the test process."""

import json
import sys
from pathlib import Path

import pytest

from cse_bench.dashboard import main
from tests.cli.command import Answer, run_command
from tests.cli.test_help import answer
from tests.results.offline_wandb import isolate

pytest.importorskip("wandb_workspaces")
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style `@validator`:DeprecationWarning")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def dashboard(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Answer:
    return run_command(monkeypatch, *arguments, command=main)


def test_a_dry_run_prints_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    done = dashboard(monkeypatch, "entity=somebody", "project=cse", "scores=[sample,sts]", "dry_run=true")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert (printed["entity"], printed["project"], printed["displayName"]) == ("somebody", "cse", "cse_bench")
    assert len(printed["spec"]["section"]["panelBankConfig"]["sections"]) == 5


def test_or_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "workspace.json"
    done = dashboard(monkeypatch, "entity=somebody", "dry_run=true", f"output={path}")
    assert done.code == 0, done.err
    assert str(path) in done.out.replace("\n", "")
    assert json.loads(path.read_text())["entity"] == "somebody"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "entity: this key is required"),
        (["entity=me", "scores=[stss]"], "scores.0: must be 'sts', 'transfer' or 'sample', got 'stss'"),
        (["entity=me", "scores=[]"], "scores"),
        (["entity=me", "projekt=x"], "did you mean 'project'"),
        (["entity="], "entity: must be your user or team name in wandb"),
        (["entity=me/cse"], "entity: must be your user or team name in wandb"),
        (["entity=me", "project="], "project: must be a project in wandb"),
        (["entity=me", "name="], "name: must be text"),
        (["entity=me", "study="], "study: must be the name of a study, or null"),
        (["entity=me", "scores=[sts,sts]"], "scores: must be different ones of sts, transfer, sample; got sts, sts"),
        (["entity=me", "url="], "url: must be that of a saved workspace"),
        (["entity=me", "url=abc"], "(https://wandb.ai/me/cse_bench?nw=ID;"),
        (["entity=", "url=abc"], "2 problems in the config"),
        (["entity=me", "output="], "output: must be a file, or null"),
        (["entity=me", "output=/proc/x/y.json"], "output: cannot write /proc/x/y.json"),
        (["entity=me", "output=/tmp"], "output: cannot write /tmp ("),
    ],
)
def test_wrong_invocations_are_one_message(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = dashboard(monkeypatch, *arguments, "dry_run=true")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb_workspaces"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    done = dashboard(monkeypatch, "entity=somebody", "dry_run=true")
    assert done.code == 2
    assert "pip install 'cse_bench[dashboard]'" in done.err


def test_without_an_account_the_message_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    done = dashboard(monkeypatch, "entity=somebody")
    assert done.code == 2
    assert "wandb does not take the workspace" in done.err
    assert "wandb login" in done.err
    assert "Traceback" not in done.err


def test_help_is_its_own_and_needs_no_torch() -> None:
    out = answer("dashboard", "--help")
    assert "python -m cse_bench.dashboard" in out
    assert "WITHOUT TORCH" in out
