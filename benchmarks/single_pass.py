"""One training step of CSE-SFP against SimCSE's two passes on the same decoder, next to the ratio of their tokens.

    python -m benchmarks.single_pass [backbone=smollm2_135m] [batch=16] [rounds=5]

Two passes once with a one-stage prompt (PromptEOL) and once on the raw sentence. Same body, adapters, sentences,
truncation, dtype and kernel; no length split, no padding multiple. Interleaved: every round does one step of each.
Activation memory is what autograd keeps for the backward: every storage once, parameters left out.
"""

import copy
import itertools
import statistics
import sys
import time

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
from cse_bench.training.train import quiet_lightning

ONE_STAGE = '\'This sentence : "{sentence}" means in one word:"\''
WORDS = (12, 18, 25)


def main() -> None:
    """Prints tokens, time and memory of the three steps for three lengths of sentences."""
    quiet_lightning()
    options = {"backbone": "smollm2_135m", "batch": "16", "rounds": "5"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    backbone, batch, rounds = options["backbone"], int(options["batch"]), int(options["rounds"])
    common = [f"backbone={backbone}", "adapter=lora", "data=wikipedia_sample", "evaluation=none", "dry_run=true"]
    configs = {
        "CSE-SFP": _config(*common, "method=cse_sfp"),
        "two passes, one-stage prompt": _config(
            *common, "method=simcse", f"backbone.prompt={ONE_STAGE}", "backbone.clean_text=both"
        ),
        "two passes, raw sentence": _config(*common, "method=simcse"),
    }
    torch.manual_seed(0)
    encoder = build_encoder(configs["CSE-SFP"].backbone)
    methods = {name: _method(config, encoder) for name, config in configs.items()}
    corpus = list(build(configs["CSE-SFP"].data.corpus).lines())
    print(f"{backbone}, LoRA, batch {batch}, {rounds} rounds, {torch.get_num_threads()} threads, {encoder.dtype}")
    for words in WORDS:
        lines = itertools.islice((line for line in corpus if abs(len(line.split()) - words) <= 1), batch * rounds)
        sentences = list(lines)
        assert len(sentences) == batch * rounds, "the corpus has too few sentences of this length"
        _compare(methods, sentences, batch=batch, words=words)


def _config(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return validate_run(compose("config", overrides=list(overrides)))


def _method(config: RunConfig, encoder: torch.nn.Module) -> ContrastiveMethod:
    """On the shared body, with its own prompt."""
    own = copy.copy(encoder)
    shared: SentenceTokenizer = encoder.tokenizer  # type: ignore[assignment]
    own.tokenizer = SentenceTokenizer(
        shared.tokenizer,
        prompt=config.backbone.prompt,
        max_positions=shared.max_positions,
        clean_text=config.backbone.clean_text,
    )
    method: ContrastiveMethod = build(
        config.method, encoder=own, optimizer=config.optimizer, split_rows_by_length=False
    )
    method._views_checked = True  # a look at the first batch of a run, not part of a step
    return method.train()


def _compare(methods: dict[str, ContrastiveMethod], sentences: list[str], *, batch: int, words: int) -> None:
    tokens: dict[str, float] = {}
    memory: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in methods}
    blocks = {
        name: [
            rows_of(method.encoder.tokenizer(sentences[start : start + batch], max_length=32, training=True))
            for start in range(0, len(sentences), batch)
        ]
        for name, method in methods.items()
    }
    for name, method in methods.items():
        memory[name] = _kept_bytes(method, blocks[name][0])  # also the warm-up
        tokens[name] = statistics.fmean(method.views(rows).ids.numel() for rows in blocks[name])
    for index in range(len(sentences) // batch):
        for name, method in methods.items():
            started = time.perf_counter()
            method.loss_of(blocks[name][index])["loss"].backward()
            method.zero_grad()
            times[name].append(time.perf_counter() - started)
    first, *others = methods
    print(f"  sentences of about {words} words")
    for name in methods:
        seconds = statistics.median(times[name])
        print(f"    {name:30s} {tokens[name]:7.0f} tokens  {seconds:7.2f} s  {memory[name] / 2**20:8.1f} MiB kept")
    for name in others:
        ratio = statistics.median(a / b for a, b in zip(times[first], times[name], strict=True))
        print(
            f"    {first} / {name}: tokens {tokens[first] / tokens[name]:.3f}, time {ratio:.3f}, "
            f"kept memory {memory[first] / memory[name]:.3f}"
        )


def _kept_bytes(method: ContrastiveMethod, rows: TokenRows) -> int:
    """What one step keeps for its backward."""
    own = {parameter.untyped_storage()._cdata for parameter in method.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method.loss_of(rows)["loss"]
    loss.backward()
    method.zero_grad()
    return sum(kept.values())


if __name__ == "__main__":
    main()
