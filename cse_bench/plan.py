"""The plan of a run (`dry_run=true`): parameters, steps, tokens, negatives and memory, without weights or a download.

The model is built on the meta device from its registry entry, and one training step runs on tensors that have a shape
and no content (see `cse_bench.training.memory`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cse_bench.config.bind import build, locate
from cse_bench.config.messages import refuse
from cse_bench.config.schema import Backbone, QLoraAdapter, RunConfig
from cse_bench.config.strategy import FSDP
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.architecture import architecture_config
from cse_bench.encoders.encoder import Encoder, build_encoder
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.methods.method import Method
from cse_bench.results.run_directory import method_name
from cse_bench.training.devices import device_problems
from cse_bench.training.four_bit import store_in_four_bits
from cse_bench.training.memory import Memory, inference_memory, training_memory, with_fake_tensors
from cse_bench.training.precision import device_type, resolve_precision
from cse_bench.training.schedule import Schedule, planned_schedule


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would be.

    Attributes:
        method: name of the method's class.
        status: where its definition comes from.
        backbone: registry entry, with its adapter and prompt.
        pooling: how a sentence vector is read.
        devices: number of them, over all machines.
        device: `cuda` or `cpu`.
        strategy: Lightning's name.
        precision: Lightning's name.
        parameters: `total` and `trainable` in training, `inference` in the encoder that is kept.
        trains: whether the method trains anything.
        schedule: steps and sentences; None: nothing is trained.
        global_batch_size: sentences of a step over all devices.
        views: rows per sentence.
        rows: of a step on one device.
        row_tokens: the longest row, in tokens.
        negatives: per anchor.
        memory: on one device.
        before: the runs that must be done first, as `name: method, seed`, in their order.
        remarks: what a number rests on, by the name of its field.
    """

    method: str
    status: str
    backbone: str
    pooling: str
    devices: int
    device: str
    strategy: str
    precision: str
    parameters: dict[str, int]
    trains: bool
    schedule: Schedule | None
    global_batch_size: int
    views: int
    rows: int
    row_tokens: int
    negatives: int
    memory: Memory
    before: list[str]
    remarks: dict[str, str]

    @property
    def step_tokens(self) -> int:
        """Tokens of a step over all devices, at most."""
        return self.views * self.global_batch_size * self.row_tokens

    @property
    def run_tokens(self) -> int | None:
        """Tokens of the run, at most; None: not known before the corpus is read."""
        seen = self.schedule.sentences_seen if self.schedule else 0
        return None if seen is None else self.views * seen * self.row_tokens


def plan(config: RunConfig) -> Plan:
    """Plans a run.

    Args:
        config: checked config.

    Raises:
        EncoderError: the backbone describes no architecture, or one that cannot be built.
        ConfigError: PEFT is needed and missing, or devices and batch do not fit.
        DataError: the corpus is smaller than a batch.
    """
    trainer = config.trainer.arguments()
    devices = _devices(config)
    device = device_type(str(trainer.get("accelerator", "auto")))
    mode = FakeTensorMode()
    method = method_on_meta(config)
    precision, precision_remark = _precision(config, device=device, trains=method.trains)
    parameters = {
        "total": sum(p.numel() for p in method.parameters()),
        "trainable": sum(p.numel() for p in method.parameters() if p.requires_grad) if method.trains else 0,
        "inference": sum(p.numel() for p in method.sentence_encoder.parameters()),
    }
    if isinstance(config.backbone.adapter, QLoraAdapter):
        store_in_four_bits(method.encoder.plain_body, config.backbone.adapter)
    length, length_remark = _row_tokens(config, limit=method.encoder.tokenizer.max_positions)
    strategy = str(trainer.get("strategy", "auto"))
    _forward_as_on(device, method, strategy=strategy)
    with_fake_tensors(method, mode)
    if isinstance(method, ContrastiveMethod):
        batch = _batch(rows=-(-config.data.global_batch_size // devices), length=length)
        rows = method.views(batch)
        with mode:
            memory = training_memory(
                method,
                _fake(rows, mode),
                precision=precision,
                gpu=device == "cuda",
                strategy=strategy,
                world_size=devices,
            )
        temporaries = "gradients in flight, copies in another dtype"
        negatives = method.negatives_per_anchor(config.data.global_batch_size)
    else:
        rows = _batch(rows=max(1, config.evaluation.batch_tokens // length), length=length)
        with mode:
            memory = inference_memory(method, _fake(rows, mode), precision=precision, gpu=device == "cuda")
        temporaries = f"of one forward, evaluation.batch_tokens={config.evaluation.batch_tokens}"
        negatives = 0
    max_steps, max_epochs = trainer.get("max_steps", -1), trainer.get("max_epochs", 1)
    return Plan(
        method=type(method).__name__,
        status=method.status,
        backbone=_described(config.backbone),
        pooling=method.sentence_encoder.pooling,
        devices=devices,
        device=device,
        strategy=strategy,
        precision=precision,
        parameters=parameters,
        trains=method.trains,
        schedule=planned_schedule(config, devices=devices) if method.trains else None,
        global_batch_size=config.data.global_batch_size,
        views=rows.num_views,
        rows=len(rows),
        row_tokens=rows.ids.shape[1],
        negatives=negatives,
        memory=memory,
        before=list(_before(config)),
        remarks={
            "precision": precision_remark,
            "row_tokens": length_remark,
            "steps": f"trainer.max_steps={max_steps}" if max_steps > 0 else f"trainer.max_epochs={max_epochs}",
            "parameters": _storage(config.backbone),
            "activations": "run without content" + (", as fused GPU kernels keep it" if device == "cuda" else ""),
            "temporaries": temporaries,
        },
    )


def _before(config: RunConfig) -> Iterator[str]:
    for name, needed in locate(config.method.target).prerequisites(config).items():
        yield from _before(needed)
        yield f"{name}: {method_name(needed)}, seed {needed.seed}"


def method_on_meta(config: RunConfig) -> Method:
    """The method on the meta device, as training builds it."""
    backbone = config.backbone
    kind = architecture_config(backbone)
    changes: dict[str, Any] = {"source": "random"}  # the same architecture, with weights that nobody draws
    if backbone.attention == "flash_attention_2":  # need not be installed here, and keeps as much as sdpa does
        changes["attention"] = "sdpa"
    if backbone.source == "local":
        known = type(kind)()
        changes["architecture"] = {key: value for key, value in kind.to_diff_dict().items() if hasattr(known, key)}
    if config.precision == "64-true":
        changes["dtype"] = "float64"
    with torch.device("meta"):
        method: Method = build(
            config.method,
            encoder=build_encoder(backbone.model_copy(update=changes)),
            optimizer=config.optimizer,
            seed=config.seed,
            split_rows_by_length=config.data.split_rows_by_length,
            gradient_cache_rows=config.data.gradient_cache_rows,
        )
    return method.train()


def _devices(config: RunConfig) -> int:
    trainer = config.trainer.arguments()
    problems = device_problems(trainer, global_batch_size=config.data.global_batch_size)
    refuse(problem for problem in problems if problem.key != "trainer")  # `trainer`: this machine lacks the GPUs
    return int(trainer.get("devices", 1)) * int(trainer.get("num_nodes", 1))


def _precision(config: RunConfig, *, device: str, trains: bool) -> tuple[str, str]:
    precision = config.precision if trains else config.evaluation.precision
    if precision != "auto":
        return precision, ""
    if device == "cuda" and not torch.cuda.is_available():
        return "bf16-mixed", "auto; no GPU here, planned for one that has bfloat16"
    return resolve_precision("auto", accelerator="gpu" if device == "cuda" else "cpu"), "auto, for this machine"


def _row_tokens(config: RunConfig, *, limit: int) -> tuple[int, str]:
    longest = config.data.max_length
    if config.backbone.prompt is None:
        return min(longest, limit), "data.max_length" if longest <= limit else "what the model takes"
    # Without the tokenizer: common words and punctuation marks are mostly one token each, and two are special.
    prompt = len(re.findall(r"\w+|[^\w\s]", config.backbone.prompt.replace("{sentence}", ""))) + 2
    return min(longest + prompt, limit), f"data.max_length + about {prompt} of the prompt"


def _batch(*, rows: int, length: int) -> TokenRows:
    """Rows of full length; the ids only have to be those of ordinary tokens."""
    ids = (torch.arange(rows * length) % 100 + 100).view(rows, length)
    sentence = torch.arange(rows)
    return TokenRows(ids=ids, lengths=torch.full((rows,), length), sentence=sentence, view=torch.zeros_like(sentence))


class _FullRows(TokenRows):
    """Rows whose lengths cannot be asked for; they are full."""

    @property
    def is_full(self) -> bool:
        return True


def _fake(rows: TokenRows, mode: FakeTensorMode) -> TokenRows:
    return _FullRows(
        ids=mode.from_tensor(rows.ids),
        lengths=mode.from_tensor(rows.lengths),
        sentence=rows.sentence,
        view=rows.view,
        num_views=rows.num_views,
    )


def _forward_as_on(device: str, method: Method, *, strategy: str) -> None:
    """Fake tensors lie on the CPU, where an encoder would run packed: a GPU, or shards, do so only if asked."""
    for part in method.modules():
        if isinstance(part, Encoder) and (strategy == FSDP or (device == "cuda" and part.packed == "auto")):
            part.packed = False


def _described(backbone: Backbone) -> str:
    kind = {"lora": "LoRA", "qlora": "QLoRA"}
    adapter = f" + {kind[backbone.adapter.type]} r={backbone.adapter.r}" if backbone.adapter else ""
    return f"{backbone.name}{adapter}{' with a prompt' if backbone.prompt else ''}"


def _storage(backbone: Backbone) -> str:
    if not isinstance(backbone.adapter, QLoraAdapter):
        return f"backbone.dtype={backbone.dtype}"
    scales = "8-bit scales" if backbone.adapter.double_quant else "float32 scales"
    return f"linear layers in {backbone.adapter.quant_type} with {scales}, the rest in float32"
