"""A folder in which the commands of a page are executed, and the commands in miniature."""

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cse_bench.plan import plan
from cse_bench.run import run
from tests.cli.command import Answer, run_command
from tests.docs import kinds, rules
from tests.docs.pages import Block, Command, content
from tests.methods.every import NEEDS
from tests.tiny import config_in, made_up_sentences, task_overrides


def make_tiny_run(folder: Path) -> None:
    """A finished run at outputs/tiny, the sentences it was trained on, and its body as a plain Transformers folder."""
    done = run(config_in(folder, "evaluation=sample", "trainer.max_steps=2", "method=simcse", "seed=3"))
    Path(done["directory"]).rename(folder / "outputs" / "tiny")
    plain = folder / "transformers"
    plain.mkdir()
    for file in (folder / "outputs" / "tiny" / "model").iterdir():
        if file.name in ("config.json", "model.safetensors") or file.name.startswith(("tokenizer", "special_tokens")):
            shutil.copy(file, plain)


class Workspace:
    """A page's folder: its files are written, its commands and its Python executed, in its order.

    Args:
        folder: with what `make_tiny_run` left.
        monkeypatch: for the working directory, the import path and the command line.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        # Of the page's Python, which goes on from block to block; `sentences` are the reader's.
        self.names: dict[str, object] = {"__name__": "__main__", "sentences": made_up_sentences()}
        (folder / "data").mkdir(exist_ok=True)
        if not (folder / "transformers").is_dir():  # of a model that is not loaded, its config is enough
            (folder / "transformers").mkdir()
            (folder / "transformers" / "config.json").write_text('{"model_type": "bert"}')
        sentences = folder / "sentences.txt"
        if not sentences.is_file():
            sentences.write_text("\n".join(made_up_sentences()) + "\n")
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("CSE_BENCH_CACHE", str(folder / "cache"))
        monkeypatch.delenv("CSE_BENCH_DATA", raising=False)

    def write_files(self, page: Path) -> None:
        """The files that a page shows, without executing anything."""
        for part in content(page):
            if isinstance(part, Block) and part.file:
                self._write(part)

    def execute(self, page: Path) -> list[str]:
        """Everything on a page; returns what was done with each part."""
        return [done for part in content(page) if (done := self._execute(part))]

    def _execute(self, part: Command | Block) -> str | None:
        try:
            if isinstance(part, Command):
                return f"{self._command(part)}: {part}"
            if part.file:
                self._write(part)
            elif part.language == "python":
                with contextlib.redirect_stdout(io.StringIO()):
                    code = compile(kinds.filled(part.content), f"{part.page}:{part.line}", "exec")
                    exec(code, self.names)
        except (Exception, SystemExit) as error:
            raise AssertionError(
                f"{part if isinstance(part, Command) else f'{part.page}:{part.line}'}: {error}"
            ) from error
        return None

    def _write(self, block: Block) -> None:
        assert block.file
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kinds.filled(block.content))

    def _command(self, command: Command) -> str:
        kind = kinds.kind(command)
        if kind == rules.RUN:
            return self._run(kinds.arguments(command))
        if kind == rules.TOOL:
            return self._tool(command.words[2].removeprefix("cse_bench."), kinds.arguments(command))
        if kind == rules.SHELL:
            return self._shell(command)
        if kind == rules.PYTEST and all(Path(word).is_file() for word in command.words[3:]):
            self._subprocess([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *command.words[3:]])
            return "executed"
        kinds.check(command)
        return "checked"

    def _shell(self, command: Command) -> str:
        words = command.words
        if words[:1] == ["export"]:
            for name, _, value in (word.partition("=") for word in words[1:]):
                self.monkeypatch.setenv(name, kinds.filled(value))
            return "executed"
        if words[:1] in (["printf"], ["mkdir"]):
            self._subprocess(["bash", "-c", kinds.filled(command.text)])
            return "executed"
        return "checked"

    def _subprocess(self, words: Sequence[str]) -> None:
        environment = os.environ | {"PYTHONPATH": f"{self.folder}{os.pathsep}{kinds.REPOSITORY}"}
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"

    # -- commands of cse_bench --------------------------------------------------------------------

    def _run(self, words: list[str]) -> str:
        if any(word in ("--help", "--cfg", "--info") for word in words):
            _succeeds(run_command(self.monkeypatch, *words))
            return "executed"
        folders = kinds.config_dirs(words)
        if any(reason.word in " ".join(words) for reason in rules.CHECKED):
            kinds.check_run(tuple(words), config_name="config")
            return "checked"
        if any(reason.word in " ".join(words) for reason in rules.PLANNED) or "dry_run=true" in words:
            for job in kinds.jobs(words):
                plan(kinds.checked(job, folders=folders))
            return "planned"
        tiny = [_in_miniature(job) for job in kinds.jobs(words)]
        flags = [flag for folder in folders for flag in ("--config-dir", folder)]
        is_sweep = "-m" in words or "--multirun" in words
        for job in tiny:
            if is_sweep:  # of each group two seeds
                job = ["-m", *(word for word in job if not word.startswith("seed=")), "seed=0,1"]
            _succeeds(run_command(self.monkeypatch, *flags, *job))
        return "executed in miniature"

    def _tool(self, tool: str, words: list[str]) -> str:
        if any(reason.word in " ".join(words) for reason in rules.CHECKED):
            kinds.check_tool(tool, tuple(words))
            return "checked"
        if tool == "mine":
            words = [word for word in _in_miniature(kinds.jobs(words)[0]) if "evaluation" not in word]
            words.append("evaluation=none")
        elif tool == "evaluate":
            if not any(word.startswith("evaluation=my") for word in words):
                words = [word for word in words if not word.startswith("evaluation")] + ["evaluation=sample"]
        elif tool == "report":
            words = [word for word in words if not word.startswith(("metric=sts", "runs="))]
            words += ["runs=outputs", "resamples=100"]
        elif tool == "dashboard":
            words = [word for word in words if not word.startswith("dry_run=")] + ["dry_run=true"]
        elif tool == "export":
            words = [word for word in words if not word.startswith("overwrite=")] + ["overwrite=true"]
        elif tool == "search" and not any(word.startswith("query=") for word in words):
            words.append("query=a bird sings")
        _succeeds(run_command(self.monkeypatch, *words, command=kinds.module(tool).main))
        return "executed in miniature"


def _succeeds(answer: Answer) -> None:
    assert answer.code == 0, f"{answer.err}\n{answer.out}"


def _in_miniature(job: Sequence[str]) -> list[str]:
    """One run's overrides with the substitutions of `rules`."""
    given = {word.lstrip("+~").partition("=")[0]: word for word in job}
    backbone = given.get("backbone", "=bert_base").partition("=")[2]
    method = given.get("method", "=simcse").partition("=")[2]
    own_tasks = given.get("evaluation", "=sts").partition("=")[2].startswith("my_")
    replaced = {word.partition("=")[0] for word in rules.SMALLER} | set(rules.DROPPED)
    replaced |= {"backbone", "experiment", "trainer", "data", "evaluation", "dry_run", "overwrite"}
    kept = [
        word
        for key, word in given.items()
        if key in rules.KEPT
        or (
            key not in replaced
            and not key.startswith(
                ("trainer.", "evaluation.", "data.", "adapter", "optimizer.", "method.towers", "paths.")
            )
        )
    ]
    words = [*kept, *rules.SMALLER]
    if backbone == "local":
        words += ["backbone=local", "backbone.path=transformers"]
    elif (family := kinds.family(backbone)) is None:  # the page's own entry
        words.append(f"backbone={backbone}")
    else:
        words.append(f"backbone={rules.DECODERS if family == 'decoder' else rules.ENCODERS}")
    needs = (*NEEDS.get(method, ()), *rules.NEEDS.get(method, ()))
    words += [need for need in needs if need.partition("=")[0] not in ("backbone", *given)]
    words += [given["evaluation"]] if own_tasks else ["evaluation=none", *task_overrides()]
    if method == "untrained":
        words = [word for word in words if word != "evaluation.selection_metric=pairs/dev/score"]
    return words
