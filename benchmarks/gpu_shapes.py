"""Large shapes with random weights on a GPU: time and peak memory of a training step, next to the tokens it reads.

    python -m benchmarks.gpu_shapes decoder                     # CSE-SFP against two passes, Llama-2-7B with LoRA, bf16
    python -m benchmarks.gpu_shapes decoder backbone=mistral_7b batch=32 words=8,18,28
    python -m benchmarks.gpu_shapes encoder                     # SimCSE on bert-base: sentences/s and peak memory
    python -m benchmarks.gpu_shapes decoder device=cpu backbone=tiny_llama batch=8 steps=3    # that the script runs

Weights are drawn in the shape of the backbone's entry, so nothing is downloaded. Rows are of random tokens, as long as
those of sentences of so many tokens (`words`) in the prompts of the recipes, counted with the tokenizer of LLaMA.

`decoder` measures CSE-SFP (one row of sentence and two-stage prompt) against SimCSE on a one-stage prompt and on the
raw sentence (two rows each, dropout in the adapters alone). Same body, adapters, dtype and kernel, no gradient
checkpointing; interleaved, device synchronised, median of the steps after warm-up. Peak memory is
`torch.cuda.max_memory_allocated`: whole, and above what lies there before the step.
"""

import copy
import statistics
import sys
import time
from dataclasses import dataclass, replace

import torch
from hydra import compose, initialize_config_dir

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
            {name: (method, words + prompt) for name, (method, prompt) in variants.items()}, single, options
        )
        print(f"  sentences of {words} tokens")
        for name, one in found.items():
            _show(name, one)
        first, *others = found
        for name in others:
            _show_ratio(first, found[first], name, found[name])


def _encoder(options: dict[str, str]) -> None:
    config = _config(options, "method=simcse")
    torch.manual_seed(0)
    method = _method(config, build_encoder(config.backbone).to(options["device"]))
    for words in map(int, options["words"].split(",")):
        (one,) = _interleaved({"SimCSE": (method, words)}, config, options).values()
        _show(f"SimCSE, rows of {words} tokens", one)
        print(f"    {int(options['batch']) / statistics.median(one.seconds):.0f} sentences/s")


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
        config.method, encoder=own, optimizer=config.optimizer, split_rows_by_length=False
    )
    method._views_checked = True  # a look at the first batch of a run, not part of a step
    return method.to(encoder.body.device).train()  # type: ignore[union-attr, arg-type]


def _interleaved(
    variants: dict[str, tuple[ContrastiveMethod, int]], config: RunConfig, options: dict[str, str]
) -> dict[str, Measured]:
    """Every round takes one step of each variant."""
    # One for all, as they share what is trained: the memory beside a step is that of one run.
    trained = {id(p): p for method, _ in variants.values() for p in method.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5, fused=True)
    rows = {name: _rows(int(options["batch"]), length, options["device"]) for name, (_, length) in variants.items()}
    found = {name: Measured([], method.views(rows[name]).ids.numel()) for name, (method, _) in variants.items()}
    for round_ in range(WARM_UP + int(options["steps"])):
        for name, (method, _) in variants.items():
            seconds, before, peak = _step(method, optimizer, rows[name], config, options["device"])
            if round_ >= WARM_UP:
                found[name].seconds.append(seconds)
                found[name].before, found[name].peak = before, max(found[name].peak, peak)
    return found


def _rows(batch: int, length: int, device: str) -> TokenRows:
    draw = torch.Generator().manual_seed(0)
    rows = rows_of(torch.randint(4, 250, (batch, length), generator=draw).tolist())
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
