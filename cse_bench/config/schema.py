"""The schema of every config group: what a key may be, and the words that explain a refusal.

Groups with fixed keys are pydantic models here. A group that names a component by `_target_` (method, corpus, task,
logger, Lightning's Trainer) has the signature of that component as its schema: see `cse_bench.config.bind`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Pooling = Literal["cls", "mean", "first_last_mean", "last_token"]
Precision = Literal["auto", "64-true", "32-true", "bf16-mixed", "16-mixed"]

# Lightning accepts these spellings for the same precisions; the run records the one on the right.
_PRECISION_SPELLINGS = {
    "64": "64-true",
    "fp64": "64-true",
    "32": "32-true",
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
    "fp16": "16-mixed",
}


def _normalise_precision(value: Any) -> Any:
    return _PRECISION_SPELLINGS.get(str(value), value)


class Section(BaseModel):
    """A config group: unknown keys are errors, and values are not converted between unrelated types."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Component(BaseModel):
    """A group that names a class by `_target_`; its other keys are bound to the signature of that class."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    target: str = Field(alias="_target_")

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, without `_target_`."""
        return dict(self.model_extra or {})


class PackageSource(Section):
    """Weights inside an installed Python package, checked by version and checksum."""

    name: str
    version: str
    directory: str
    gguf_file: str | None = None
    sha256: dict[str, str]


class LoraAdapter(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), through PEFT's `LoraConfig`."""

    type: Literal["lora"]
    r: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: str | list[str]


class QLoraAdapter(LoraAdapter):
    """Low-rank adapters on a body whose weights are kept in four bits (Dettmers et al. 2023, arXiv 2305.14314)."""

    type: Literal["qlora"]  # type: ignore[assignment]  # one of two: pydantic tells them apart by it
    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    compute_dtype: Literal["float32", "bfloat16", "float16"]


Adapter = Annotated[LoraAdapter | QLoraAdapter, Field(discriminator="type")]


class Backbone(Section):
    """One entry of the encoder registry."""

    name: str
    family: Literal["encoder", "decoder"] | None
    source: Literal["hub", "local", "package", "random"]
    hub_id: str | None
    revision: str | None
    path: str | None
    package: PackageSource | None
    pooling: Pooling
    prompt: str | None
    clean_text: Literal["none", "eval", "both"] = "none"
    adapter: Adapter | None
    dtype: Literal["float64", "float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    padding_side: Literal["right", "left"]
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    gradient_checkpointing: bool = False
    packed: Literal["auto"] | bool = "auto"
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    trust_remote_code: bool
    architecture: dict[str, Any] | None

    @field_validator("prompt")
    @classmethod
    def _prompt_holds_the_sentence(cls, prompt: str | None) -> str | None:
        if prompt is not None and prompt.count("{sentence}") != 1:
            raise ValueError("a prompt holds {sentence} exactly once, e.g. 'This sentence : \"{sentence}\" means'")
        return prompt

    @model_validator(mode="after")
    def _source_is_named(self) -> "Backbone":
        key = {"hub": "hub_id", "local": "path", "package": "package", "random": "architecture"}[self.source]
        if getattr(self, key) is None:
            raise ValueError(f"source={self.source} needs backbone.{key}, which this entry leaves empty")
        return self

    @model_validator(mode="after")
    def _packed_is_possible(self) -> "Backbone":
        if self.packed is True and self.gradient_checkpointing:
            raise ValueError("packed=true leaves no layer to gradient_checkpointing; set one of the two to false")
        if self.packed is True and self.compile is not None:
            raise ValueError("compile is of Transformers' own forward, which packed=true replaces; give one of the two")
        return self


class Data(Section):
    """The training corpus and how it is cut into batches."""

    corpus: Component
    path: str | None = None
    global_batch_size: Annotated[int, Field(ge=1)]
    max_length: Annotated[int, Field(ge=3)]
    padding: Literal["longest", "max_length"] = "longest"
    drop_last: bool
    split_rows_by_length: bool
    gradient_cache_rows: Annotated[int, Field(ge=1)] | None
    num_workers: Annotated[int, Field(ge=0)]


class Optimizer(Section):
    """AdamW and its schedule."""

    lr: Annotated[float, Field(gt=0)]
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    eps: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["linear", "constant", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]


class Evaluation(Section):
    """What is measured, when, and what selects the checkpoint."""

    eval_every_steps: Annotated[int, Field(ge=1)]
    eval_last_step: bool
    selection_metric: str | None
    dev: dict[str, Component]
    test: dict[str, Component]
    precision: Precision
    batch_tokens: Annotated[int, Field(ge=1)]
    baseline: bool

    _spelling = field_validator("precision", mode="before")(_normalise_precision)


class Paths(Section):
    """Where things are read and written."""

    output_dir: str
    data: str | None
    cache: str


class RunConfig(Section):
    """One run, complete: everything that decides its numbers, and where they go."""

    method: Component
    backbone: Backbone
    data: Data
    trainer: Component
    optimizer: Optimizer
    evaluation: Evaluation
    logger: dict[str, Component]
    paths: Paths
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    precision: Precision
    study: str | None
    checkpoint_every_steps: Annotated[int, Field(ge=0)]
    dry_run: bool
    overwrite: bool

    _spelling = field_validator("precision", mode="before")(_normalise_precision)


class EvaluateConfig(Section):
    """`python -m cse_bench.evaluate`: any encoder, trained here or not."""

    model: str
    pooling: Pooling | None
    prompt: str | None
    padding_side: Literal["right", "left"] | None
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    trust_remote_code: bool
    evaluation: Evaluation
    accelerator: Literal["auto", "cpu", "gpu"]
    output: str | None
    tasks: Annotated[list[str], Field(min_length=1)] | None
    mteb_output: str
    overwrite: bool
    paths: Paths


class WandbTarget(Section):
    """Where in Weights & Biases a report goes; nowhere without a project."""

    project: str | None
    entity: str | None
    group: str | None
    offline: bool


class ReportConfig(Section):
    """`python -m cse_bench.report`: what finished runs say."""

    runs: str | Annotated[list[str], Field(min_length=1)]
    against: str | None
    metric: str | None
    resamples: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    title: str | None
    output: str
    wandb: WandbTarget


class DashboardConfig(Section):
    """`python -m cse_bench.dashboard`: the Weights & Biases workspace of a project."""

    entity: str
    project: str
    name: str
    scores: Annotated[list[Literal["sts", "transfer", "sample"]], Field(min_length=1)]
    study: str | None
    url: str | None
    dry_run: bool
    output: str | None


class EncodeConfig(Section):
    """`python -m cse_bench.encode`: sentences in, vectors out."""

    model: str
    input: str
    output: str
    input_format: Literal["text", "jsonl", "parquet"] | None
    field: str | None
    column: str | None
    empty_lines: Literal["keep", "error"]
    max_length: Annotated[int, Field(ge=3)] | None
    normalize: bool
    output_dtype: Literal["float32", "float16"]
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    batch_tokens: Annotated[int, Field(ge=1)]
    window: Annotated[int, Field(ge=1)]
    overwrite: bool
    pooling: Pooling | None
    prompt: str | None
    padding_side: Literal["right", "left"] | None
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    trust_remote_code: bool
    accelerator: Literal["auto", "cpu", "gpu"]

    _spelling = field_validator("precision", mode="before")(_normalise_precision)


class SearchConfig(Section):
    """`python -m cse_bench.search`: the nearest sentences of a query."""

    index: str
    text: str | None
    query: str | None
    top_k: Annotated[int, Field(ge=1)]
    model: str | None
    trust_remote_code: bool
    accelerator: Literal["auto", "cpu", "gpu"]


class ExportConfig(Section):
    """`python -m cse_bench.export`: a run's encoder for sentence-transformers, without cse_bench."""

    run: str
    to: str
    adapter_weights: Literal["merge", "keep"]
    overwrite: bool
    push_to_hub: str | None
    private: bool
