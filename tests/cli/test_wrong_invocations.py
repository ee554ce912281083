"""What a user can get wrong: one message each, before any weights are loaded, that names the key and the fix."""

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests.cli.command import run_command

# Sentences come from a small file, so that every case but those about data gets past the corpus.
BASE = ["backbone=tiny_bert", "data=text_file", "data.path={corpus}", "data.global_batch_size=4", "evaluation=none"]

# name: (arguments, what the message must say)
TYPOS = {
    "method option": (["method=simcs"], ["method: no option 'simcs'", "did you mean 'simcse'", "untrained"]),
    "backbone option": (["backbone=bert_tny"], ["backbone: no option 'bert_tny'", "'bert_tiny'", "llama2_7b"]),
    "data option": (["data=textfile"], ["data: no option 'textfile'", "'text_file'", "wiki1m"]),
    "trainer option": (["trainer=cpuu"], ["trainer: no option 'cpuu'", "'cpu'", "ddp_4gpu"]),
    "evaluation option": (["evaluation=stss"], ["evaluation: no option 'stss'", "'sts'", "sample"]),
    "logger option": (["logger=wandbb"], ["logger: no option 'wandbb'", "'wandb'"]),
    "experiment option": (["experiment=quick"], ["experiment: no option 'quick'", "'quickstart'"]),
    "debug option": (["debug=fst"], ["debug: no option 'fst'", "'fast'", "tiny"]),
    "recipe option": (["recipe/simcse=bert_bas"], ["recipe/simcse: no option 'bert_bas'", "'bert_base'"]),
    "option in a sweep": (["-m", "method=simcse,simcs"], ["method: no option 'simcs'", "'simcse'"]),
    "group": (["methd=simcse"], ["methd: unknown key", "'method'"]),
    "top-level key": (["sed=1"], ["sed: unknown key", "'seed'"]),
    "method key": (["method.temprature=0.1"], ["method.temprature: unknown key", "'method.temperature'"]),
    "backbone key": (["backbone.poolng=cls"], ["backbone.poolng: unknown key", "'backbone.pooling'"]),
    "data key": (["data.globl_batch_size=3"], ["unknown key", "'data.global_batch_size'"]),
    "trainer key": (["trainer.max_step=3"], ["unknown key", "'trainer.max_steps'"]),
    "evaluation key": (["evaluation.eval_every_step=5"], ["unknown key", "'evaluation.eval_every_steps'"]),
    "evaluation task key": (["evaluation=sts", "evaluation.dev.sts_dev.dat=1"], ["'evaluation.dev.sts_dev.data'"]),
    "logger key": (["logger=wandb", "logger.wandb.projct=x"], ["unknown key", "'logger.wandb.project'"]),
    "optimizer key": (["optimizer.lrr=1"], ["optimizer.lrr: unknown key", "'optimizer.lr'"]),
    "paths key": (["paths.dta=x"], ["paths.dta: unknown key", "'paths.data'"]),
    "gradient accumulation": (["trainer.accumulate_grad_batches=2"], ["not here", "data.gradient_cache_rows"]),
    "gradient accumulation, added": (["+trainer.accumulate_grad_batches=2"], ["not here", "data.gradient_cache_rows"]),
    "added key": (["+method.foo=1"], ["method.foo: unknown key", "known keys", "temperature"]),
    "no override": (["foo"], ["foo: not an override", "foo=VALUE"]),
    "unparsable": (["method.temperature=["], ["method.temperature=[", "cannot be parsed", "quote"]),
}
VALUES = {
    "temperature zero": (["method.temperature=0"], ["method.temperature: must be greater than 0", "got 0"]),
    "temperature word": (["method.temperature=abc"], ["method.temperature: must be a number", "'abc'"]),
    "head": (["method.head=mlp"], ["method.head: must be 'train_only' or 'none'", "'mlp'"]),
    "pooling": (["backbone.pooling=clss"], ["backbone.pooling: must be 'cls', 'mean'", "'clss'"]),
    "dropout": (["backbone.dropout=1.5"], ["backbone.dropout: must be less than 1", "1.5"]),
    "source": (["backbone.source=web"], ["backbone.source: must be 'hub', 'local', 'package' or 'random'"]),
    "prompt": (["backbone.prompt=hello"], ["backbone.prompt", "{sentence} exactly once"]),
    "max_length": (["data.max_length=2"], ["data.max_length: must be at least 3", "got 2"]),
    "batch size": (["data.global_batch_size=0"], ["data.global_batch_size: must be at least 1"]),
    "max_steps": (["trainer.max_steps=0"], ["trainer.max_steps", "1 or more", "got 0"]),
    "max_epochs": (["trainer.max_epochs=0"], ["trainer.max_epochs", "1 or more"]),
    "devices": (["trainer.devices=two"], ["trainer.devices", "'two'"]),
    "accelerator": (["trainer.accelerator=tpu"], ["trainer.accelerator: cpu, gpu or auto", "'tpu'"]),
    "lr": (["optimizer.lr=-1"], ["optimizer.lr: must be greater than 0", "got -1"]),
    "betas": (["optimizer.betas=[0.9]"], ["optimizer.betas.1", "required"]),
    "schedule": (["optimizer.schedule=linea"], ["optimizer.schedule: must be 'linear', 'constant' or 'cosine'"]),
    "seed": (["seed=-1"], ["seed: must be at least 0", "got -1"]),
    "precision": (["precision=fp7"], ["precision: must be 'auto', '64-true'", "'fp7'"]),
    "evaluation interval": (["evaluation.eval_every_steps=0"], ["evaluation.eval_every_steps: must be at least 1"]),
    "geometry split": (
        ["evaluation=sts", "evaluation.dev.geometry.split=devv"],
        ["evaluation.dev.geometry.split: must be 'dev', 'test' or 'all'", "'devv'"],
    ),
}
COMBINATIONS = {
    "no dropout": (
        ["backbone=tiny_llama", "backbone.dropout=null"],
        ["backbone.dropout", "would be identical", "set backbone.dropout=0.1"],
    ),
    "cls of a decoder": (["backbone=tiny_llama", "backbone.pooling=cls"], ["backbone.pooling", "use last_token"]),
    "fp16 on the cpu": (["precision=16-mixed"], ["precision: 16-mixed needs a GPU", "bf16-mixed"]),
    "two devices, no strategy": (["trainer.devices=2"], ["trainer.strategy", "set trainer.strategy=ddp"]),
    "batch smaller than the devices": (
        ["trainer=ddp_cpu_2", "data.global_batch_size=2"],
        ["data.global_batch_size", "fewer than two", "raise it"],
    ),
    "several machines": (
        ["trainer=ddp_cpu_2", "trainer.num_nodes=2", "data.global_batch_size=16"],
        ["trainer.num_nodes: 2 machines are started by their scheduler", "CSE_BENCH_ON_EVERY_MACHINE", "srun"],
    ),
    "decoders only": (["method=cse_sfp"], ["backbone: tiny_bert is bidirectional", "smollm2_135m"]),
    "four bits of random weights": (["adapter=qlora"], ["backbone.adapter: qlora quantises", "adapter=lora"]),
    "fsdp": (
        ["trainer=ddp_cpu_2", "trainer.strategy=fsdp"],
        ["data.split_rows_by_length: ", "all ranks must forward equally often"],
    ),
    "fsdp, planned": (
        ["trainer=fsdp_4gpu", "dry_run=true"],
        ["data.split_rows_by_length: ", "all ranks must forward equally often"],
    ),
    "weights in half precision": (
        ["backbone=tiny_llama", "backbone.dtype=float16"],
        ["backbone.dtype: float16 weights cannot be trained", "backbone.dtype=float32", "adapter=lora"],
    ),
    "selection without dev task": (
        ["evaluation.selection_metric=sts/dev/stsb"],
        ["evaluation.selection_metric", "evaluation.dev has no task", "null"],
    ),
    "nothing to do": (["method=untrained"], ["evaluation: nothing is trained and nothing is measured"]),
    "hub without id": (["backbone=hub"], ["backbone.hub_id: this key is required", "backbone.hub_id=VALUE"]),
    "local without path": (["backbone=local"], ["backbone.path: this key is required"]),
    "plan without architecture": (
        ["backbone=hub", "backbone.hub_id=a/b", "dry_run=true"],
        ["describes no architecture"],
    ),
}


def refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> str:
    """The message with which a command is refused; fails when weights were asked for on the way."""

    def no_weights(*args: object, **kwargs: object) -> None:
        pytest.fail("weights were loaded before the message")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", no_weights)
    monkeypatch.setattr(transformers.AutoModel, "from_config", no_weights)
    answer = run_command(monkeypatch, *arguments)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert answer.err.count("error: ") == 1
    assert "Traceback" not in answer.err
    return answer.err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"sentence number {number} of a small corpus\n" for number in range(16)))
    return path


@pytest.mark.parametrize("name", [*TYPOS, *VALUES, *COMBINATIONS])
def test_wrong_invocation(name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, expected = (TYPOS | VALUES | COMBINATIONS)[name]
    base = [argument.format(corpus=corpus) for argument in BASE] + [f"paths.output_dir={tmp_path / 'out'}"]
    given = {argument.partition("=")[0] for argument in arguments}
    message = refused(
        monkeypatch, [argument for argument in base if argument.partition("=")[0] not in given] + arguments
    )
    for words in expected:
        assert words in message
    assert not list((tmp_path / "out").glob("*-*")), "a run directory was made for a command that was refused"


def test_at_least_thirty_wrong_invocations() -> None:
    assert len(TYPOS) + len(VALUES) + len(COMBINATIONS) >= 30


DATA = {
    "no path": ("", ["data.path: this key is required", "data.path=VALUE"]),
    "no such file": ("data.path=/nonexistent.txt", ["/nonexistent.txt: no such file", "one sentence a line"]),
    "a directory": ("data.path=/tmp", ["/tmp: is a directory"]),
}


@pytest.mark.parametrize("name", DATA)
def test_missing_corpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    argument, expected = DATA[name]
    arguments = ["backbone=tiny_bert", "data=text_file", "evaluation=none", *([argument] if argument else [])]
    message = refused(monkeypatch, arguments)
    assert all(words in message for words in expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["the file is empty"]),
        (b"one\n\nthree\n", [":2: empty line", "empty_lines=skip|keep"]),
        (b"one\ntwo\nthr\xffee\n", [":3: ", "not UTF-8", "0xff"]),
        (b"one\ntwo\n", ["2 sentences", "fewer than one batch of 64", "data.global_batch_size"]),
    ],
)
def test_damaged_corpus(content: bytes, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    message = refused(monkeypatch, ["backbone=tiny_bert", "data=text_file", f"data.path={path}", "evaluation=none"])
    for words in expected:
        assert words in message


def test_missing_evaluation_data(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["backbone=tiny_bert", "data=text_file", f"data.path={corpus}", "data.global_batch_size=4"]
    message = refused(monkeypatch, [*arguments, f"paths.data={tmp_path}"])
    assert str(tmp_path) in message
    assert "CSE_BENCH_DATA" in message


def test_metric_that_no_dev_task_measures(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gensim", reason="the sample tasks come with gensim")
    arguments = ["backbone=tiny_bert", "data=text_file", f"data.path={corpus}", "data.global_batch_size=4"]
    metric = "evaluation.selection_metric=wiki_sections/dev/acuracy"
    message = refused(monkeypatch, [*arguments, "evaluation=sample", metric])
    assert "did you mean 'wiki_sections/dev/accuracy'" in message


def test_local_backbone_without_a_model(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["backbone=local", f"backbone.path={tmp_path}", "data=text_file", f"data.path={corpus}"]
    message = refused(monkeypatch, [*arguments, "data.global_batch_size=4", "evaluation=none"])
    assert str(tmp_path) in message
    assert "config" in message


def test_all_problems_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(
        monkeypatch, ["method.temperature=0", "optimizer.lr=-1", "seed=-3", "logger=wandb", "+method.x=1"]
    )
    assert "4 problems" in message
    for key in ("method.temperature", "optimizer.lr", "seed", "method.x"):
        assert f"- {key}: " in message


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, ["logger=wandb", "+logger.wandb.api_key=0123456789abcdef"])
    assert "logger.wandb.api_key: unknown key" in message
    assert "0123456789abcdef" not in message


def test_four_gpus_that_are_not_there() -> None:
    """The command of the project's first page, as a process of its own: one clear line."""
    command = [sys.executable, "-m", "cse_bench", "method=simcse", "backbone=llama2_7b", "trainer=ddp_4gpu"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=None)
    import torch

    if torch.cuda.device_count() >= 4:
        pytest.skip("this machine has four GPUs")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: trainer: asks for 4 GPUs on this machine")
    assert "dry_run=true" in process.stderr
