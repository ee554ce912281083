"""Which kind a command is, and whether it can be what it says."""

import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from packaging.requirements import Requirement

from cse_bench.config import validate
from cse_bench.config.location import conf_directory
from cse_bench.config.messages import refuse
from cse_bench.config.overrides import check_overrides
from cse_bench.config.schema import RunConfig
from tests.conftest import REPOSITORY
from tests.docs import rules
from tests.docs.pages import Command

_FLAGS = ("--help", "--cfg", "--info", "--version")


def kind(command: Command) -> str | None:
    """One of the kinds of `rules`; None: it belongs to none."""
    words = command.words
    if not words:
        return rules.SHELL  # variables alone
    if any(tuple(words[: len(first)]) == first for first in rules.FOREIGN):
        return rules.ELSEWHERE
    match words:
        case ["python", "-m", "cse_bench", *_]:
            return rules.RUN
        case ["python" | "torchrun", *_, "cse_bench.worker", _]:
            return rules.WORKER
        case ["python", "-m", module]:
            return rules.BENCHMARK if module.startswith("benchmarks") else rules.REFERENCE
        case ["python", "-m", module, *_] if module.removeprefix("cse_bench.") in rules.TOOLS:
            return rules.TOOL
        case ["python", "-m", "benchmarks" | "pytest" as module, *_]:
            return rules.PYTEST if module == "pytest" else rules.BENCHMARK
        case ["python", "-m", module, *_] if module.startswith("benchmarks."):
            return rules.BENCHMARK
        case ["python", script] if script.startswith("examples/"):
            return rules.EXAMPLE
        case ["make", *_]:
            return rules.MAKE
        case ["pip", "install", *_]:
            return rules.PIP
        case [word, *_] if word in rules.SHELL_WORDS:
            return rules.SHELL
    return None


def arguments(command: Command) -> list[str]:
    """The words behind the module, placeholders filled in; what a page leaves open or names as optional is handled."""
    words = command.words
    found = []
    for word in words[words.index("-m") + 2 :]:
        if word == "...":
            continue
        if re.fullmatch(r"\[[\w.]+=.*\]", word):  # [key=value]: may be given
            word = word[1:-1]
        key, equals, value = word.rpartition("=")
        found.append(f"{key}{equals}{filled(value)}" if not word.startswith("-") else word)
    return found


def filled(text: str) -> str:
    """A text with the names that a page leaves to its reader replaced by those of the test's folder."""
    for placeholder, here in rules.PLACEHOLDERS.items():
        text = re.sub(rf"(?<![\w/-]){re.escape(placeholder)}(?!\w)", here, text)
    return text


def check(command: Command) -> None:
    """Raises where the command cannot be what it says; nothing is loaded or run."""
    match kind(command):
        case None:
            raise AssertionError(f"{command}\nbelongs to no kind of tests/docs/rules.py")
        case rules.RUN:
            check_run(tuple(arguments(command)), config_name="config")
        case rules.TOOL:
            check_tool(command.words[2].removeprefix("cse_bench."), tuple(arguments(command)))
        case rules.BENCHMARK | rules.REFERENCE | rules.WORKER:
            module = next(word for word in command.words if word.startswith(("cse_bench", "benchmarks")))
            assert find_spec(module) is not None, f"{command}: there is no module {module}"
        case rules.PYTEST | rules.EXAMPLE:
            for word in command.words[1:]:
                path = Path(word.split("::")[0])
                shown = path.is_file()  # a file that the page shows, in the folder of the test
                if word.endswith(".py") or "/" in word:
                    assert shown or (REPOSITORY / path).exists(), f"{command}: there is no {word}"
        case rules.MAKE:
            _check_make(tuple(command.words[1:]))
        case rules.PIP:
            for word in command.words[2:]:
                _check_requirement(word)


# -- runs ----------------------------------------------------------------------------------------


def jobs(words: Sequence[str]) -> list[list[str]]:
    """The overrides of every run of a command; of runs that differ by their seed alone, one."""
    overrides = [word for word in _without_flags(words) if not word.startswith(("hydra/", "hydra."))]
    parsed = OverridesParser.create().parse_overrides(overrides)
    plain = [
        OverridesParser.create().parse_override(f"{one.key_or_group}={one.value().start}")
        if one.is_interval_sweep()
        else one
        for one in parsed
    ]
    split = BasicSweeper.split_arguments(plain, None)[0]
    different = {tuple(word for word in job if not word.startswith("seed=")): list(job) for job in split}
    return list(different.values())


def _without_flags(words: Sequence[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word in ("--config-dir", "--cfg", "--info"):
            next(rest)
        elif not word.startswith("-"):
            yield word


def config_dirs(words: Sequence[str]) -> list[str]:
    """The folders of configs that a command names."""
    return [words[number + 1] for number, word in enumerate(words) if word == "--config-dir"]


def composed(config_name: str, overrides: Sequence[str], *, folders: Sequence[str] = ()) -> Any:
    """Hydra's composed config, with further folders of configs in the current one."""
    path = (
        [f"hydra.searchpath=[{','.join(f'file://{Path(folder).resolve()}' for folder in folders)}]"] if folders else []
    )
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return compose(config_name, overrides=[*overrides, *path])


def checked(job: Sequence[str], *, folders: Sequence[str] = ()) -> RunConfig:
    """The checked config of one run, as a plan: nothing is asked of this machine."""
    planned = [word for word in job if not word.startswith(("dry_run=", "+dry_run="))]
    return validate.validate_run(composed("config", [*planned, "dry_run=true"], folders=folders))


@cache
def check_run(words: tuple[str, ...], *, config_name: str) -> None:
    known = [
        problem
        for problem in check_overrides(words, conf=conf_directory(), config_name=config_name)
        if "is not installed" not in problem.message
    ]
    refuse(known)
    if not any(word in _FLAGS for word in words):
        for job in jobs(words):
            checked(job, folders=config_dirs(words))


def check_tool(tool: str, words: tuple[str, ...]) -> None:
    if tool == "mine":
        check_run(words, config_name="config")
        return
    refuse(check_overrides(words, conf=conf_directory(), config_name=tool))
    config = composed(tool, list(_without_flags(words)), folders=config_dirs(words))
    getattr(validate, f"validate_{tool}")(config)


# -- the rest ------------------------------------------------------------------------------------


@cache
def _check_make(words: tuple[str, ...]) -> None:
    assert (REPOSITORY / "Makefile").is_file()
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _check_requirement(word: str) -> None:
    """Ours with its extras, or a package that pyproject.toml knows."""
    if word.startswith("-") or word == ".":
        return
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirement = Requirement(re.sub(r"^\.(?=\[)", "cse_bench", word))
    if requirement.name in ("cse_bench", "cse-bench"):
        assert requirement.extras <= extras.keys(), f"{word}: the extras are {', '.join(extras)}"
        return
    known = {Requirement(one).name for group in (project["dependencies"], *extras.values()) for one in group}
    assert requirement.name in known, f"{word}: no such package in pyproject.toml"


@cache
def family(backbone: str) -> str | None:
    """encoder | decoder; None: not an entry of this repository."""
    path = conf_directory() / "backbone" / f"{backbone}.yaml"
    return yaml.safe_load(path.read_text())["family"] if path.is_file() else None


def module(tool: str) -> Any:
    """The module of a command."""
    return import_module(f"cse_bench.{tool}")
