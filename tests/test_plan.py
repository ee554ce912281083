"""The plan must say what the real thing does: same parameters, same steps, same memory, and load nothing."""

import io
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from cse_bench import __main__ as command
from cse_bench.config.bind import build
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.data.rows import rows_of
from cse_bench.data.sampler import GlobalBatchSampler
from cse_bench.encoders.encoder import build_encoder
from cse_bench.errors import ConfigError, DataError, EncoderError
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.plan import Plan, plan
from cse_bench.results.plan_table import plan_table
from cse_bench.training.precision import autocast
from tests.tiny import composed

_ENTRIES = sorted(path.stem for path in (conf_directory() / "backbone").glob("*.yaml"))
_METHODS = sorted(path.stem for path in (conf_directory() / "method").glob("*.yaml"))
LORA = "backbone.adapter={type:lora,r:4,alpha:8,dropout:0.1,target_modules:all-linear}"
BERT_256 = [
    "backbone=tiny_bert",
    "backbone.architecture.hidden_size=256",
    "backbone.architecture.num_hidden_layers=4",
    "backbone.architecture.num_attention_heads=4",
    "backbone.architecture.intermediate_size=1024",
]
# Millions, of the body without head and pooler: the sizes that Transformers' own checkpoints have.
_KNOWN_SIZES = {
    "bert_base": 108.89,
    "bert_large": 334.09,
    "bert_tiny": 4.37,
    "gpt2": 124.44,
    "llama2_7b": 6607.34,
    "llama3_8b": 7504.92,
    "mistral_7b": 7110.66,
    "modernbert_base": 149.01,
    "opt_6_7b": 6658.47,
    "qwen3_0_6b": 596.05,
    "roberta_base": 124.06,
    "roberta_large": 354.31,
    "smollm2_135m": 134.52,
}


def planned(*overrides: str) -> Plan:
    return plan(composed("dry_run=true", "evaluation=none", *overrides))


def printed(made: Plan) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(plan_table(made))
    return console.file.getvalue()


def real_method(config: RunConfig) -> ContrastiveMethod:
    method: ContrastiveMethod = build(
        config.method,
        encoder=build_encoder(config.backbone),
        optimizer=config.optimizer,
        split_rows_by_length=False,
        gradient_cache_rows=config.data.gradient_cache_rows,
    )
    return method.train()


def real_step(method: ContrastiveMethod, config: RunConfig) -> Callable[[], None]:
    """A training step in the order of Lightning's, on rows of full length but one (so that padding is masked)."""
    lengths = [config.data.max_length] * (config.data.global_batch_size - 1) + [config.data.max_length - 1]
    batch = rows_of([[5] * length for length in lengths])

    def step() -> None:
        with autocast(config.precision, "cpu"):
            loss = method.loss_of(batch)["loss"]
        method.zero_grad()
        loss.backward()

    return step


def saved_bytes(method: ContrastiveMethod, step: Callable[[], None]) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in [*method.parameters(), *method.buffers()]}
    saved: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor.detach())  # kept, so that no address is used twice
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(size for size, _ in saved.values())


def allocated_at_peak(step: Callable[[], None], *, times: int = 1) -> int:
    """By how much steps raise what PyTorch's CPU allocator has given out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(times):
            step()
    kineto: Any = recorded.profiler
    now = peak = 0
    for event in kineto.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.fixture
def no_weights_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a plan loads and downloads nothing")

    for cls in (PreTrainedModel, AutoTokenizer, AutoConfig):
        monkeypatch.setattr(cls, "from_pretrained", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


# Parameters


@pytest.mark.parametrize("overrides", [[], [LORA], ["backbone=tiny_llama"], ["backbone=tiny_llama", LORA]])
def test_parameters_are_those_of_the_real_method(overrides: list[str]) -> None:
    overrides = ["backbone=tiny_bert", *overrides]
    method = real_method(composed("evaluation=none", *overrides))
    made = planned(*overrides)
    assert made.parameters == {
        "total": sum(p.numel() for p in method.parameters()),
        "trainable": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "inference": sum(p.numel() for p in method.encoder.parameters()),
    }
    trainable = [p for p in method.parameters() if p.requires_grad]
    assert made.memory.gradients == sum(p.numel() * p.element_size() for p in trainable)
    assert made.memory.optimizer == 2 * made.memory.gradients


@pytest.mark.usefixtures("no_weights_no_network")
@pytest.mark.parametrize("entry", [name for name in _ENTRIES if name in _KNOWN_SIZES])
def test_every_entry_has_its_known_size(entry: str) -> None:
    made = planned(
        f"backbone={entry}", "method=untrained", "backbone.adapter=null", "evaluation=sts", "evaluation.batch_tokens=64"
    )
    assert made.parameters["total"] / 1e6 == pytest.approx(_KNOWN_SIZES[entry], abs=0.01)
    assert made.parameters["trainable"] == 0


def test_every_entry_with_an_architecture_is_covered() -> None:
    assert set(_ENTRIES) - set(_KNOWN_SIZES) == {"hub", "local", "tiny_bert", "tiny_llama", "tiny_mistral", "tiny_opt"}


@pytest.mark.usefixtures("no_weights_no_network")
@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("backbone", ["tiny_bert", "tiny_llama"])
def test_every_method_can_be_planned(method: str, backbone: str) -> None:
    try:
        config = composed("dry_run=true", f"method={method}", f"backbone={backbone}")
    except ConfigError:
        pytest.skip("the method refuses this backbone")
    made = plan(config)
    assert made.memory.total > 0
    assert made.method in printed(made)


def test_runs_that_come_before_are_named() -> None:
    config = composed("dry_run=true", "method=jtcse_distil", "backbone=tiny_bert", "evaluation=none", "seed=5")
    made = plan(config)
    assert made.before == ["first: simcse, seed 5", "second: esimcse, seed 1005", "teacher: jtcse, seed 5"]
    assert "second: esimcse, seed 1005" in printed(made)
    assert plan(composed("dry_run=true", "backbone=tiny_bert", "evaluation=none")).before == []


def test_a_local_directory_is_planned_from_its_config(tmp_path: Path) -> None:
    config = composed("backbone=tiny_bert", "evaluation=none")
    encoder = build_encoder(config.backbone)
    encoder.plain_body.config.save_pretrained(tmp_path)  # no weights there
    made = planned("backbone=local", f"backbone.path={tmp_path}")
    assert made.parameters["inference"] == sum(p.numel() for p in encoder.parameters())
    assert made.memory == planned("backbone=tiny_bert").memory


def test_a_hub_model_without_architecture_is_refused() -> None:
    with pytest.raises(EncoderError, match="describes no architecture.*backbone.architecture"):
        planned("backbone=hub", "backbone.hub_id=someone/something")


# Memory


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone=tiny_bert"],
        ["backbone=bert_tiny"],
        BERT_256,
        ["backbone=tiny_llama"],
        ["backbone=tiny_llama", LORA],
    ],
    ids=["tiny_bert", "bert_tiny", "bert_256x4", "tiny_llama", "tiny_llama_lora"],
)
def test_memory_is_what_a_real_step_takes(overrides: list[str], precision: str) -> None:
    config = composed("evaluation=none", "data.global_batch_size=16", f"precision={precision}", *overrides)
    made = plan(config)
    method = real_method(config)
    step = real_step(method, config)
    assert saved_bytes(method, step) == pytest.approx(made.memory.activations, rel=0.01)
    method.zero_grad()  # the profiler does not see the end of what was there before it
    # The second step finds the gradients of the first one, as that of the plan does.
    peak = made.memory.gradients + made.memory.activations + made.memory.temporaries
    assert allocated_at_peak(step, times=2) == pytest.approx(peak, rel=0.02)


def test_gradients_of_the_last_step_are_gone_when_the_new_ones_come() -> None:
    """Where the weights outweigh everything else, and the peak is at the end of the backward."""
    config = composed("evaluation=none", "backbone=bert_tiny", "data.global_batch_size=4", "data.max_length=8")
    memory, method = plan(config).memory, real_method(config)
    assert memory.activations < 0.1 * memory.gradients
    step = real_step(method, config)
    measured = allocated_at_peak(step, times=2)
    assert memory.gradients + memory.activations + memory.temporaries == pytest.approx(measured, rel=0.02)


def test_memory_of_a_forward_without_training() -> None:
    config = composed("dry_run=true", "method=untrained", "backbone=tiny_bert", "precision=32-true", "evaluation=sts")
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"precision": "32-true"})})
    made = plan(config)
    method = real_method(config).eval()
    rows = rows_of([[5] * 32] * (config.evaluation.batch_tokens // 32))

    def forward() -> None:
        with torch.no_grad():
            method.embed(rows)

    assert made.memory.gradients == made.memory.optimizer == made.memory.activations == 0
    assert allocated_at_peak(forward) == pytest.approx(made.memory.temporaries, rel=0.15)


def test_planning_allocates_no_weights_and_no_activations() -> None:
    config = composed("dry_run=true", "evaluation=none", "backbone=bert_base")
    plan(config)  # imports and caches
    assert allocated_at_peak(lambda: plan(config) and None) < 2**20


@pytest.mark.parametrize(
    "saving", ["data.gradient_cache_rows=16", "backbone.gradient_checkpointing=true"], ids=["caching", "checkpointing"]
)
def test_what_a_gpu_computes_again_is_planned(saving: str) -> None:
    plain, saved = (planned("backbone=tiny_bert", "trainer=gpu", *more) for more in ([], [saving]))
    assert saved.memory.activations < 0.5 * plain.memory.activations


def test_a_gpu_keeps_less_than_the_cpu() -> None:
    """One byte per dropout mask, no attention probabilities."""
    common = ("backbone=tiny_bert", "backbone.packed=false", "precision=32-true")
    cpu, gpu = (planned(*common, f"trainer={trainer}") for trainer in ("cpu", "gpu"))
    assert gpu.memory.activations < 0.8 * cpu.memory.activations
    assert gpu.memory.parameters == cpu.memory.parameters
    tokens, length, width, ffn, heads, layers = gpu.rows * gpu.row_tokens, gpu.row_tokens, 32, 64, 2, 2
    # Counted by hand, float32. Per token and layer: q, k, v and the attention's output; the sum and the normalised
    # vector after attention and after the feed-forward, each with its mask; the feed-forward's two hidden vectors; the
    # additive attention mask; one number per head, and mean and deviation of two norms. The embedding has a sum, a
    # normalised vector and a mask.
    layer = 4 * (width * (4 + 2 + 2) + 2 * ffn) + 2 * width + 4 * length + 4 * (heads + 4)
    by_hand = tokens * (layers * layer + 4 * 2 * width + width)
    assert gpu.memory.activations == pytest.approx(by_hand, rel=0.05)


def test_packed_rows_on_a_gpu_keep_less_than_padded_ones() -> None:
    """Of the last layer one token a row; no attention probabilities, as a GPU keeps none."""
    common = ("backbone=bert_base", "trainer=gpu", "precision=bf16-mixed", "data.max_length=256")
    packed, padded = (planned(*common, f"backbone.packed={value}").memory.activations for value in ("true", "false"))
    assert 0.8 < packed / padded < 0.95
    assert planned(*common).memory.activations == padded  # auto


@pytest.mark.parametrize("precision,factor", [("32-true", 1), ("bf16-mixed", 0.5)])
def test_autocast_keeps_attention_in_half_the_bytes(precision: str, factor: float) -> None:
    kernel = ["backbone=tiny_bert", "trainer=gpu", f"precision={precision}"]
    activations = planned(*kernel).memory.activations
    full = planned("backbone=tiny_bert", "trainer=gpu", "precision=32-true").memory.activations
    assert factor * full <= activations <= full


def test_ddp_adds_a_copy_of_the_gradients_and_shares_the_batch() -> None:
    one, four = planned("backbone=tiny_bert", "trainer=gpu"), planned("backbone=tiny_bert", "trainer=ddp_4gpu")
    assert four.rows * 4 == one.rows
    assert four.step_tokens == one.step_tokens
    assert four.negatives == one.negatives == 63
    assert four.memory.buckets == four.memory.gradients == one.memory.gradients
    assert four.memory.activations < one.memory.activations / 3


def test_fsdp_shards_what_every_device_would_hold() -> None:
    base = ["backbone=bert_base", "data.split_rows_by_length=false"]
    ddp, fsdp = planned(*base, "trainer=ddp_4gpu"), planned(*base, "trainer=fsdp_4gpu")
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(fsdp.memory, part) == getattr(ddp.memory, part) // 4
    assert 0 < fsdp.memory.gathered < ddp.memory.parameters
    assert fsdp.memory.activations == ddp.memory.activations
    assert fsdp.memory.total < ddp.memory.total
    assert "1/4" in printed(fsdp)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "data.split_rows_by_length: "),
        (["data.split_rows_by_length=false", "method=esimcse"], "trainer.strategy: fsdp splits the body .* use ddp"),
        (["trainer.devices=auto"], "data.split_rows_by_length: "),
        (["data.split_rows_by_length=false", "method=cse_sfp"], "^backbone: tiny_bert is bidirectional"),
    ],
    ids=["pieces", "weights beside the body", "devices", "something else first"],
)
def test_what_cannot_be_trained_in_shards_is_not_planned(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed("dry_run=true", "backbone=tiny_bert", "trainer=fsdp_4gpu", "evaluation=none", *overrides)


def test_weights_in_half_precision_are_trained_through_adapters_only() -> None:
    half = ["backbone=tiny_llama", "backbone.dtype=bfloat16", "dry_run=true", "evaluation=sts"]
    with pytest.raises(ConfigError, match="backbone.dtype: bfloat16 weights .* backbone.dtype=float32 .* adapter=lora"):
        composed(*half)
    composed(*half, LORA)
    composed(*half, "method=untrained")
    composed(*half, "precision=64-true")


@pytest.mark.parametrize("backbone", _ENTRIES)
def test_no_entry_trains_weights_in_half_precision(backbone: str) -> None:
    entry = OmegaConf.load(conf_directory() / "backbone" / f"{backbone}.yaml")
    assert entry.dtype == "float32" or entry.adapter


def test_64_bits_take_twice_as_much() -> None:
    single, double = (planned("backbone=tiny_bert", f"precision={name}") for name in ("32-true", "64-true"))
    assert double.memory.gradients == 2 * single.memory.gradients


def test_auto_is_bfloat16_where_a_gpu_is_only_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = composed("dry_run=true", "evaluation=none", "backbone=tiny_bert", "trainer=ddp_4gpu")
    made = plan(config.model_copy(update={"precision": "auto"}))
    assert made.precision == "bf16-mixed"
    assert "no GPU here" in printed(made)


# Steps and tokens


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("count", [64, 100, 129])
@pytest.mark.parametrize("max_epochs", [1, 3])
def test_steps_are_those_of_the_sampler(tmp_path: Path, drop_last: bool, count: int, max_epochs: int) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b c\n" * count)
    made = planned(
        "backbone=tiny_bert", "data=text_file", f"data.path={text}", f"data.drop_last={drop_last}",
        f"trainer.max_epochs={max_epochs}", "trainer=ddp_cpu_2",
    )  # fmt: skip
    epoch = [
        [
            b
            for _, b in GlobalBatchSampler(
                count, global_batch_size=64, seed=1, rank=rank, world_size=2, drop_last=drop_last
            )
        ]
        for rank in range(2)
    ]
    schedule = made.schedule
    assert schedule.sentences == count
    assert schedule.steps_per_epoch == len(epoch[0])
    assert schedule.steps == max_epochs * len(epoch[0])
    assert schedule.sentences_seen == max_epochs * sum(len(batch) for rank in epoch for batch in rank)
    assert made.run_tokens == 2 * schedule.sentences_seen * 32


def test_max_steps_wins_over_max_epochs(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b c\n" * 100)
    overrides = ["backbone=tiny_bert", "data=text_file", f"data.path={text}", "trainer.max_epochs=5"]
    schedule = planned(*overrides, "trainer.max_steps=7").schedule
    assert schedule is not None
    assert (schedule.steps, schedule.steps_per_epoch) == (7, 2)
    assert schedule.sentences_seen == 3 * 100 + 64  # three epochs of 64 and 36, and one batch more


def test_an_unknown_corpus_is_said_to_be_unknown(tmp_path: Path) -> None:
    overrides = ["backbone=tiny_bert", "data=text_file", f"data.path={tmp_path / 'absent.txt'}"]
    made = planned(*overrides)
    assert made.schedule.steps is None
    assert made.run_tokens is None
    assert "unknown until the corpus is read" in " ".join(printed(made).replace("│", " ").split())
    assert planned(*overrides, "trainer.max_steps=10").run_tokens == 10 * 64 * 2 * 32


def test_a_corpus_smaller_than_a_batch_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b c\n" * 10)
    with pytest.raises(DataError, match="10 sentences, fewer than one batch"):
        planned("backbone=tiny_bert", "data=text_file", f"data.path={text}")


def test_a_prompt_makes_longer_rows() -> None:
    made = planned("backbone=tiny_llama", "backbone.prompt='This sentence: {sentence} means'")
    assert made.row_tokens == 32 + 6
    assert "about 6 of the prompt" in printed(made)


def test_devices_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="data.global_batch_size"):
        planned("backbone=tiny_bert", "trainer=ddp_4gpu", "data.global_batch_size=4")
    with pytest.raises(ConfigError, match="trainer.devices"):
        planned("backbone=tiny_bert", "trainer=gpu", "trainer.devices=auto")


# The command


@pytest.mark.usefixtures("no_weights_no_network")
def test_the_command_prints_a_plan_of_a_7b_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["method=simcse", "backbone=llama2_7b", "trainer=ddp_4gpu", "dry_run=true"]
    monkeypatch.setattr(sys, "argv", ["cse_bench", *overrides])
    GlobalHydra.instance().clear()
    command.main()
    output = capsys.readouterr().out
    for text in (
        "SimCSE (official code)",
        "llama2_7b + LoRA r=64",
        "4 x cuda",
        "6,784,032,768",
        "176,689,152",
        "15,625",
    ):
        assert text in output
    assert "Not included" in output
    assert max(len(line) for line in output.splitlines()) <= 100


def test_nothing_fake_is_left_behind() -> None:
    planned("backbone=tiny_bert", "trainer=gpu")
    assert not isinstance(torch.ones(1), FakeTensor)
    assert not torch.is_autocast_enabled("cpu")
