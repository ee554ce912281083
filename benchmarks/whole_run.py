"""A whole run as published, against the same schedule evaluated the official way.

    CSE_BENCH_DATA=FOLDER python -m benchmarks.whole_run [models=bert_tiny] [steps=500] [every=125] [rounds=3]

SimCSE in batches of 64 in float32, the dev score every 125 steps, the seven tasks at the end. At every evaluation the
same weights are also scored the official way (`benchmarks.senteval_way`), so that scores can be compared and both be
timed; neither counts as training. Interleaved: every round also trains with padded rows, as Transformers forwards them,
for at most 100 steps, from whose rate its time is told. The first ten steps of a training are warm-up and are left out.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from lightning.pytorch.utilities.seed import isolate_rng

from benchmarks.senteval_way import SentEvalWay
from benchmarks.shapes import configured, save_model
from cse_bench.config.schema import RunConfig
from cse_bench.evaluation.suite import Evaluator, build_tasks
from cse_bench.library import build_training
from cse_bench.training.train import quiet_lightning

WARM_UP = 10


def main() -> None:
    """Prints seconds, ratios and the largest difference of a score for every model."""
    options = {"models": "bert_tiny", "steps": "500", "every": "125", "rounds": "3"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    data = os.environ.get("CSE_BENCH_DATA")
    if data is None:
        sys.exit("set CSE_BENCH_DATA to the folder that holds sts/")
    quiet_lightning()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    steps, every, rounds = (int(options[name]) for name in ("steps", "every", "rounds"))
    for model in options["models"].split(","):
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder))
            _compare(model, Path(folder), SentEvalWay(Path(data)), steps=steps, every=every, rounds=rounds)


def _compare(model: str, directory: Path, official: SentEvalWay, *, steps: int, every: int, rounds: int) -> None:
    print(f"{model}: {steps} steps of 64, dev every {every}, fp32, {rounds} rounds, {torch.get_num_threads()} threads")
    found: dict[str, list[float]] = {}
    far = {"dev": 0.0, "test": 0.0}
    for _ in range(rounds):
        here = _Timed(official, every=every, config=_config(directory, steps=steps, packed=True))
        padded = _Timed(None, every=every, config=_config(directory, steps=min(steps, 100), packed=False))
        per_step = padded.training_s / min(steps, 100)
        seconds = {
            "training here": here.training_s,
            "training with padded rows": per_step * steps,
            "dev here": here.dev_s,
            "dev the official way": here.official_dev_s,
            "seven tasks here": here.test_s,
            "seven tasks the official way": here.official_test_s,
        }
        evaluated = here.official_dev_s + here.official_test_s
        ours = here.training_s + here.dev_s + here.test_s
        seconds["ratio, evaluation alone done the official way"] = (here.training_s + evaluated) / ours
        seconds["ratio, training with padded rows too"] = (per_step * steps + evaluated) / ours
        far = {part: max(value, here.far[part]) for part, value in far.items()}
        for name, value in seconds.items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(f"  {name:46s} {statistics.median(values):7.2f}  ({min(values):.2f} to {max(values):.2f})")
    print(f"  largest difference of a score: dev {far['dev']:.1e}, test {far['test']:.1e} points")


class _Timed(lightning.Callback):
    """Trains, and tells what went where."""

    def __init__(self, official: SentEvalWay | None, *, every: int, config: RunConfig) -> None:
        self.training_s = self.dev_s = self.test_s = self.official_dev_s = self.official_test_s = 0.0
        self.far = {"dev": 0.0, "test": 0.0}
        self._official, self._every, self._config = official, every, config
        self._method, data = build_training(config)
        trainer = lightning.Trainer(
            **{**config.trainer.arguments(), "enable_progress_bar": False, "max_epochs": -1},
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[self],
        )
        self._started = 0.0
        trainer.fit(self._method, datamodule=data)
        if official is not None:
            self._score("test")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step > WARM_UP:
            self.training_s += time.perf_counter() - self._started
        if step == trainer.max_steps:
            self.training_s *= step / (step - WARM_UP)
        if self._official is not None and step % self._every == 0:
            with isolate_rng():
                self._score("dev")

    def _score(self, part: str) -> None:
        assert self._official is not None
        encoder = self._method.encoder
        evaluator = Evaluator(
            module=self._method,
            embed=self._method.embed,
            tokenizer=encoder.tokenizer,
            precision=self._config.evaluation.precision,
            batch_tokens=self._config.evaluation.batch_tokens,
        )
        tasks = build_tasks(getattr(self._config.evaluation, part))
        started = time.perf_counter()
        metrics = evaluator(tasks).metrics
        between = time.perf_counter()
        self._method.eval()
        expected = getattr(self._official, part)(encoder.body, encoder.tokenizer.tokenizer)
        ended = time.perf_counter()
        self._method.train()
        self.far[part] = max([self.far[part], *(abs(metrics[name] - value) for name, value in expected.items())])
        setattr(self, f"{part}_s", getattr(self, f"{part}_s") + between - started)
        setattr(self, f"official_{part}_s", getattr(self, f"official_{part}_s") + ended - between)


def _config(directory: Path, *, steps: int, packed: bool) -> RunConfig:
    padded = [] if packed else ["backbone.packed=false", "data.split_rows_by_length=false"]
    return configured(
        "method=simcse",
        "backbone=local",
        f"backbone.path={directory}",
        "data=wikipedia_sample",
        "evaluation=sts",
        "evaluation.precision=32-true",
        "precision=32-true",
        "trainer=cpu",
        f"trainer.max_steps={steps}",
        *padded,
    )


if __name__ == "__main__":
    main()
