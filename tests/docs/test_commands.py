"""Every command of README and docs/ is one that works: checked here, executed in the slow tests."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.docs import kinds
from tests.docs.pages import Block, Command, commands, content, name_of, pages
from tests.docs.workspace import Workspace, make_tiny_run
from tests.test_library import OWN_TRAINER

PAGES = {name_of(page): page for page in pages()}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Workspace(tmp_path, monkeypatch).write_files(PAGES[page])
    failed = []
    for command in commands(PAGES[page]):
        try:
            kinds.check(command)
        except Exception as error:
            failed.append(f"{command}\n    {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_can_be_read(page: str) -> None:
    for part in content(PAGES[page]):
        if isinstance(part, Block) and part.language == "python":
            compile(part.content, f"{page}:{part.line}", "exec")
        elif isinstance(part, Block) and part.language == "yaml":
            assert yaml.safe_load(part.content), f"{page}:{part.line}"


def test_the_collector_finds_what_is_there() -> None:
    found = [command.text for page in PAGES.values() for command in commands(page)]
    assert "make demo" in found
    assert any(text.startswith("python -m cse_bench method=cse_sfp backbone=llama2_7b") for text in found)
    assert len(found) > 100


@pytest.mark.parametrize(
    "text",
    [
        "python -m cse_bench methd=simcse",
        "python -m cse_bench method=simcsee",
        "python -m cse_bench method=simcse method.temperatur=0.1",
        "python -m cse_bench -m method=simcse,esimsce seed=0,1",
        "python -m cse_bench.evaluate model=x evaluation=stss",
        "python -m cse_bench.nothing here=1",
        "make nothing",
        "pip install 'cse_bench[nothing]'",
        "rm -rf outputs",
    ],
)
def test_a_command_that_cannot_work_is_found(text: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        kinds.check(Command("a page", 1, text))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    make_tiny_run(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Pydantic V1 style `@validator`:DeprecationWarning")  # of wandb-workspaces
@pytest.mark.filterwarnings(*OWN_TRAINER, "ignore:.*tensorboardX")
@pytest.mark.parametrize("page", PAGES)
def test_every_page_can_be_followed(page: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(tiny_run, folder)
    print("\n".join(Workspace(folder, monkeypatch).execute(PAGES[page])))
