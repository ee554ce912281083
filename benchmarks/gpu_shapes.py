"""Large shapes with random weights on a GPU: time and peak memory of a training step, next to the tokens it reads.

    python -m benchmarks.gpu_shapes decoder    # CSE-SFP against two passes, Llama-2-7B with LoRA, bf16
    python -m benchmarks.gpu_shapes decoder backbone=mistral_7b batch=32 words=8,18,28
    python -m benchmarks.gpu_shapes encoder    # SimCSE on bert-base: what each option is worth
    python -m benchmarks.gpu_shapes decoder device=cpu backbone=tiny_llama batch=8 steps=3    # that the script runs

Weights are drawn in the shape of the backbone's entry, so nothing is downloaded. Rows are of random tokens, as long as
those of sentences of so many tokens (`words`) in the prompts of the recipes, counted with the tokenizer of LLaMA.

`decoder` measures CSE-SFP (one row of sentence and two-stage prompt) against SimCSE on a one-stage prompt and on the
raw sentence (two rows each, dropout in the adapters alone). Same body, adapters, dtype and kernel, no gradient
checkpointing; interleaved, device synchronised, median of the steps after warm-up. Peak memory is
`torch.cuda.max_memory_allocated`: whole, and above what lies there before the step.

`encoder` measures SimCSE with every option that is off, or on only where it was measured: packed rows, `torch.compile`,
CUDA graphs (both with rows of constant length) and flash attention. Rows are as long as Wikipedia's, cut at `words`.
"""

import copy
import statistics
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.nn import functional
from transformers.utils import is_flash_attn_2_available

from cse_bench.config.bind import build
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_run
from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.encoder import build_encoder
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.methods.base import ContrastiveMethod
from cse_bench.training.precision import autocast
from cse_bench.training.train import quiet_lightning

WARM_UP = 5
# Tokens around the sentence, the first token of a row included: `This sentence : "` and its ends.
TWO_STAGES, SECOND_STAGE, ONE_STAGE, RAW = 16, 6, 11, 1


@dataclass
class Measured:
    """Of one variant: seconds of each step, tokens of a step, peak bytes, and bytes there before."""

    seconds: list[float]
    tokens: int
    peak: int = 0
    before: int = 0


def main() -> None:
    """Runs the measurement that the first argument names."""
    quiet_lightning()
    kind, *rest = sys.argv[1:] or [""]
    defaults = {"decoder": ("llama2_7b", "64", "8,18,28"), "encoder": ("bert_base", "64", "32")}
    if kind not in defaults:
        sys.exit(__doc__)
    options = dict(zip(("backbone", "batch", "words"), defaults[kind], strict=True)) | {"device": "cuda", "steps": "50"}
    options |= dict(argument.split("=", 1) for argument in rest)
    if options["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; device=cpu with a tiny backbone shows that the script runs")
    where = torch.cuda.get_device_name() if options["device"] == "cuda" else "CPU"
    print(
        f"{options['backbone']}, batch {options['batch']}, {options['steps']} steps, {where}, torch {torch.__version__}"
    )
    (_decoder if kind == "decoder" else _encoder)(options)


def _decoder(options: dict[str, str]) -> None:
    common = ["adapter=lora", "backbone.dropout=0"]
    single = _config(options, "method=cse_sfp", *common)
    double = _config(options, "method=simcse", *common)
    torch.manual_seed(0)
    with torch.device(options["device"]):  # drawn there: a CPU would take minutes
        encoder = build_encoder(single.backbone).to(options["device"])
    variants = {
        "CSE-SFP": (_method(single, encoder), TWO_STAGES),
        "two passes, one-stage prompt": (_method(double, encoder), ONE_STAGE),
        "two passes, raw sentence": (_method(double, encoder), RAW),
    }
    variants["CSE-SFP"][0].distance = SECOND_STAGE  # type: ignore[assignment]  # with the tokenizer it stands for
    for words in map(int, options["words"].split(",")):
        found = _interleaved(
            {
                name: (method, _rows([words + prompt] * int(options["batch"]), options["device"]))
                for name, (method, prompt) in variants.items()
            },
            single,
            options,
        )
        print(f"  sentences of {words} tokens")
        for name, one in found.items():
            _show(name, one)
        first, *others = found
        for name in others:
            _show_ratio(first, found[first], name, found[name])


def _encoder(options: dict[str, str]) -> None:
    length = int(options["words"])
    drawn = np.random.default_rng(0).normal(29, 11, size=int(options["batch"]))  # 40 % are cut, as of Wikipedia's
    longest = _rows([length] * len(drawn), options["device"])
    ragged = _rows(np.clip(drawn, 4, length).astype(int).tolist(), options["device"])
    constant = replace(ragged, ids=functional.pad(ragged.ids, (0, length - ragged.ids.shape[1])))
    variants = {}
    for name, (rows, *overrides) in {
        "padded": (ragged, "backbone.packed=false"),
        "padded pieces (default)": (ragged, "backbone.packed=false", "data.split_rows_by_length=true"),
        "padded, no row shorter": (longest, "backbone.packed=false"),
        "packed": (ragged, "backbone.packed=true"),
        "torch.compile": (constant, "backbone.compile=default"),
        "CUDA graphs": (constant, "backbone.compile=reduce-overhead", "data.padding=max_length"),
        "flash attention": (ragged, "backbone.attention=flash_attention_2"),
    }.items():
        if "flash" in name and not is_flash_attn_2_available():
            print(f"    {name:30s} not measured: flash-attn is not installed, or there is no GPU for it")
            continue
        config = _config(options, "method=simcse", *overrides)
        torch.manual_seed(0)
        encoder = build_encoder(config.backbone).to(options["device"])
        variants[name] = (_method(config, encoder), rows)
    found = _interleaved(variants, config, options)
    for name, one in found.items():
        _show(name, one)
        default = found["padded pieces (default)"].seconds
        ratio = statistics.median(a / b for a, b in zip(default, one.seconds, strict=True))
        print(f"      {len(drawn) / statistics.median(one.seconds):.0f} sentences/s, {ratio:.2f} times the default")


def _config(options: dict[str, str], *overrides: str) -> RunConfig:
    common = [f"backbone={options['backbone']}", "backbone.source=random", "data=wikipedia_sample", "evaluation=none"]
    common += ["data.split_rows_by_length=false", "dry_run=true", "precision=bf16-mixed"]
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return validate_run(compose("config", overrides=[*common, *overrides]))


def _method(config: RunConfig, encoder: torch.nn.Module) -> ContrastiveMethod:
    """On the shared body, with its own prompt."""
    own = copy.copy(encoder)
    shared: SentenceTokenizer = encoder.tokenizer  # type: ignore[assignment]
    own.tokenizer = SentenceTokenizer(
        shared.tokenizer, prompt=config.backbone.prompt, max_positions=shared.max_positions
    )
    method: ContrastiveMethod = build(
        config.method,
        encoder=own,
        optimizer=config.optimizer,
        split_rows_by_length=config.data.split_rows_by_length,
    )
    method._views_checked = True  # a look at the first batch of a run, not part of a step
    return method.to(encoder.body.device).train()  # type: ignore[union-attr, arg-type]


def _interleaved(
    variants: dict[str, tuple[ContrastiveMethod, TokenRows]], config: RunConfig, options: dict[str, str]
) -> dict[str, Measured]:
    """Every round takes one step of each variant."""
    # One for all, as they share what is trained: the memory beside a step is that of one run.
    trained = {id(p): p for method, _ in variants.values() for p in method.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5, fused=True)
    found = {name: Measured([], int(method.views(rows).lengths.sum())) for name, (method, rows) in variants.items()}
    for round_ in range(WARM_UP + int(options["steps"])):
        for name, (method, rows) in variants.items():
            seconds, before, peak = _step(method, optimizer, rows, config, options["device"])
            if round_ >= WARM_UP:
                found[name].seconds.append(seconds)
                found[name].before, found[name].peak = before, max(found[name].peak, peak)
    return found


def _rows(lengths: list[int], device: str) -> TokenRows:
    draw = torch.Generator().manual_seed(0)
    rows = rows_of([torch.randint(4, 250, (length,), generator=draw).tolist() for length in lengths])
    return replace(rows, ids=rows.ids.to(device))


def _step(
    method: ContrastiveMethod, optimizer: torch.optim.Optimizer, rows: TokenRows, config: RunConfig, device: str
) -> tuple[float, int, int]:
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    started = time.perf_counter()
    with autocast(config.precision, device):
        loss = method.loss_of(rows)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return seconds, before, torch.cuda.max_memory_allocated() if on_gpu else 0


def _show(name: str, one: Measured) -> None:
    memory = f"{one.peak / 2**30:7.2f} GiB, {(one.peak - one.before) / 2**30:7.2f} GiB above" if one.peak else ""
    print(f"    {name:30s} {one.tokens:7d} tokens  {1000 * statistics.median(one.seconds):9.1f} ms  {memory}")


def _show_ratio(first: str, one: Measured, name: str, other: Measured) -> None:
    ratio = statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))
    memory = ""
    if one.peak:
        above = (one.peak - one.before) / (other.peak - other.before)
        memory = f", peak memory {one.peak / other.peak:.3f}, above the weights {above:.3f}"
    print(f"    {first} / {name}: tokens {one.tokens / other.tokens:.3f}, time {ratio:.3f}{memory}")


if __name__ == "__main__":
    main()
