"""Training here against sentence-transformers' trainer: whole loops, in sentences per second and as a ratio.

    python -m benchmarks.training_speed [models=bert_tiny,distilbert] [rounds=3] [steps=60]

DistilBERT takes a third of the steps, and about eight minutes a round on two cores.

Both train the same model directory on the same sentences, batch 64, length 32, CLS, AdamW, in-batch negatives with
scale 20 and gradient clipping at 1; the loop includes reading the data, the step and the logging (every 10 steps, the
first 10 are warm-up). There the text stands in both columns and is tokenised in every step, as its documentation
shows SimCSE. Interleaved: every round does each variant once; ratios are taken within a round. "Its defaults" are
float32 and no limit of length but the model's own (run in the first round only, for it takes longest); ours are
bfloat16 where the hardware has it, and 32 tokens. SimCSE's head is left out here, which there is none of there.

DistilBERT is of that shape with random weights: 66 M parameters, which neither trainer cares about.

The utilisation is useful arithmetic, that of forward and backward over real tokens (6 FLOPs per token and weight of
the layers, and the attention scores), over time, as a part of the fastest square matrix product measured in the same
process. It is told of what is computed, the last layer for the first tokens only, and of the whole model, as it is
usually counted, which contains what is saved.
"""

import contextlib
import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning.pytorch.loggers.logger import Logger
from transformers import AutoModel, AutoTokenizer

from benchmarks.shapes import configured, save_model
from cse_bench.config.bind import build
from cse_bench.results.run_directory import RunDirectory
from cse_bench.training.train import quiet_lightning, train

BATCH, LENGTH, LOG_EVERY = 64, 32, 10
PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16"}
WHOLE = "fp32, whole length"


def main() -> None:
    """Prints rates and ratios for every model."""
    options = {"models": "bert_tiny,distilbert", "rounds": "3", "steps": "60"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    rounds, steps = int(options["rounds"]), int(options["steps"])
    quiet_lightning()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        for model in options["models"].split(","):
            _compare(model, Path(folder), rounds=rounds, steps=steps if model == "bert_tiny" else steps // 3)


def _compare(model: str, folder: Path, *, rounds: int, steps: int) -> None:
    directory = folder / model
    save_model(model, directory)
    corpus = build(configured("experiment=quickstart").data.corpus)
    sentences = list(itertools.islice(corpus.lines(), BATCH * steps))
    text = folder / f"{model}.txt"
    text.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    print(
        f"{model}: batch {BATCH}, length {LENGTH}, {rounds} rounds of {steps} steps, {torch.get_num_threads()} threads"
    )
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for precision, short in PRECISIONS.items():
            here = _ours(directory, text, precision, steps=steps, output=folder / f"run-{model}-{short}-{number}")
            there = _sentence_transformers(directory, sentences, short, steps=steps, output=folder / "trainer")
            rates.setdefault(("cse_bench", short), []).append(here)
            rates.setdefault(("sentence-transformers", short), []).append(there)
        if number == 0:
            whole = _sentence_transformers(directory, sentences, "fp32", length=None, steps=steps, output=folder / "w")
            rates["sentence-transformers", WHOLE] = [whole]
    for (name, short), values in rates.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"  {name:22s} {short:18s}  {statistics.median(values):8.1f} sentences/s  ({spread})")
    for ours, theirs, words in (
        ("fp32", "fp32", "equal precision, fp32"),
        ("bf16", "bf16", "equal precision, bf16"),
        ("bf16", "fp32", "our default precision against its default precision"),
        ("bf16", WHOLE, "our defaults of precision and length against its defaults"),
    ):
        pairs = zip(rates["cse_bench", ours], rates["sentence-transformers", theirs], strict=False)
        ratios = [one / other for one, other in pairs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else "one round"
        print(f"  ratio {statistics.median(ratios):.2f} ({spread}): {words}")
    flops, computed = _useful_flops(directory, sentences)
    for short, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        peak, rate = _peak_flops(dtype), statistics.median(rates["cse_bench", short])
        share = f"{100 * rate * computed / peak:.0f} % of {peak / 1e9:.0f}"
        whole = f"{100 * rate * flops / peak:.0f} %"
        print(f"  useful FLOPs {short}: {rate * computed / 1e9:.0f} GFLOP/s, {share}; of the whole model {whole}")


class _Clock(Logger):
    """Remembers when a step was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[int, float] = {}

    name = version = None  # type: ignore[assignment]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.times.setdefault(step or 0, time.perf_counter())

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        pass

    def rate(self, steps: int) -> float:
        return BATCH * (steps - LOG_EVERY) / (self.times[steps] - self.times[LOG_EVERY])


def _ours(model: Path, text: Path, precision: str, *, steps: int, output: Path) -> float:
    config = configured(
        "backbone=local",
        f"backbone.path={model}",
        "method.head=none",
        "data=text_file",
        f"data.path={text}",
        "evaluation=none",
        f"precision={precision}",
        f"trainer.max_steps={steps}",
        f"trainer.log_every_n_steps={LOG_EVERY}",
        "trainer.enable_progress_bar=false",
        f"paths.output_dir={output}",
        f"paths.cache={output}",
    )
    clock, directory = _Clock(), RunDirectory(output)
    directory.path.mkdir(parents=True)
    train(config, directory, loggers=[clock])
    return clock.rate(steps)


def _sentence_transformers(
    model: Path, sentences: list[str], precision: str, *, length: int | None = LENGTH, steps: int, output: Path
) -> float:
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import TrainerCallback

    clock = _Clock()

    class Timer(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            clock.log_metrics({}, step=state.global_step)

    disable_progress_bars()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        body = Transformer(str(model), **({} if length is None else {"max_seq_length": length}))
        width = body.auto_model.config.hidden_size
        encoder = SentenceTransformer(modules=[body, Pooling(width, pooling_mode="cls")], device="cpu")
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(output),
                max_steps=steps,
                per_device_train_batch_size=BATCH,
                learning_rate=3e-5,
                logging_steps=LOG_EVERY,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                bf16=precision == "bf16",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"anchor": sentences, "positive": sentences}),
            loss=MultipleNegativesRankingLoss(encoder, scale=20.0),
            callbacks=[Timer()],
        )
        trainer.train()
    return clock.rate(steps)


def _useful_flops(model: Path, sentences: list[str]) -> tuple[float, float]:
    """Of one sentence in two views, forward and backward, padding left out: of the whole model, and as it is run."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(ids) for ids in tokenizer(sentences, truncation=True, max_length=LENGTH)["input_ids"]]
    body = AutoModel.from_pretrained(model)
    layers = next(stack for stack in body.modules() if isinstance(stack, torch.nn.ModuleList))
    weights = sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)
    width, tokens = body.config.hidden_size, statistics.mean(lengths)
    attention = sum(2 * 2 * length**2 * width for length in lengths) / len(lengths)
    once = weights / len(layers) - 2 * width**2  # of the last layer, all but keys and values
    whole = 2 * weights * tokens + attention * len(layers)
    left_out = 2 * once * (tokens - 1) + attention * (1 - 1 / tokens)
    return 6 * whole, 6 * (whole - left_out)


def _peak_flops(dtype: torch.dtype) -> float:
    size, best = 2048, 0.0
    one, other = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    for _ in range(10):
        started = time.perf_counter()
        one @ other
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
