"""Scoring the seven STS tasks, and one evaluation in training, against encoding every pair as it stands.

    CSE_BENCH_DATA=FOLDER python -m benchmarks.evaluation_speed [models=bert_tiny] [rounds=3]

`models=distilbert` takes about half an hour a round on two cores.

The other column does what SimCSE's evaluation does through SentEval, see `benchmarks.senteval_way`. Then one evaluation
in training: there, STS-B and SICK-R encode their train, dev and test splits each time to select on dev; here, only
STS-B dev is encoded (and the geometry read off the same vectors). Interleaved: every round does each once.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModel, AutoTokenizer

from benchmarks.senteval_way import SentEvalWay
from benchmarks.shapes import configured, save_model
from cse_bench.encoders.encoder import build_encoder
from cse_bench.evaluation.suite import Evaluator, build_tasks


def main() -> None:
    """Prints seconds and ratios for every model."""
    options = {"models": "bert_tiny", "rounds": "3"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    data = os.environ.get("CSE_BENCH_DATA")
    if data is None:
        sys.exit("set CSE_BENCH_DATA to the folder that holds sts/")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for model in options["models"].split(","):
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder))
            _compare(model, Path(folder), Path(data), rounds=int(options["rounds"]))


def _compare(model: str, directory: Path, data: Path, *, rounds: int) -> None:
    print(f"{model}: the seven tasks, {rounds} rounds, {torch.get_num_threads()} threads")
    official = SentEvalWay(data)
    body, tokenizer = AutoModel.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    seconds: dict[str, list[float]] = {}
    scores: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for precision, short in (("32-true", "fp32"), ("bf16-mixed", "bf16")):
            for part in ("test", "dev"):
                spent, metrics = _ours(directory, precision, part=part)
                seconds.setdefault(f"{part} {short}", []).append(spent)
                scores[f"{part} {short}"] = metrics
        for name, score in (("pairs as they stand", official.test), ("official dev", official.dev)):
            started = time.perf_counter()
            scores[name] = score(body, tokenizer)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"  {name:22s} {statistics.median(values):7.2f} s  ({min(values):.2f} to {max(values):.2f})")
    for ours, theirs in (
        ("test fp32", "pairs as they stand"),
        ("test bf16", "pairs as they stand"),
        ("dev fp32", "official dev"),
        ("dev bf16", "official dev"),
    ):
        far = max(abs(scores[ours][name] - value) for name, value in scores[theirs].items())
        print(f"  largest difference of a score, {ours} and {theirs}: {far:.1e} points")
    for ours, theirs, words in (
        ("test fp32", "pairs as they stand", "seven tasks, equal precision"),
        ("test bf16", "pairs as they stand", "seven tasks, evaluation.precision=bf16-mixed against fp32"),
        ("dev fp32", "official dev", "one evaluation in training, equal precision"),
        ("dev bf16", "official dev", "one evaluation in training, bf16 against fp32"),
    ):
        ratios = [there / here for here, there in zip(seconds[ours], seconds[theirs], strict=True)]
        print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}): {words}")


def _ours(directory: Path, precision: str, *, part: str) -> tuple[float, dict[str, float]]:
    config = configured("backbone=local", f"backbone.path={directory}", "evaluation=sts", "dry_run=true")
    encoder = build_encoder(config.backbone).eval()
    tasks = build_tasks(getattr(config.evaluation, part))
    evaluator = Evaluator(
        module=encoder,
        embed=encoder,
        tokenizer=encoder.tokenizer,
        precision=precision,
        batch_tokens=config.evaluation.batch_tokens,
    )
    started = time.perf_counter()
    metrics = evaluator(tasks).metrics
    return time.perf_counter() - started, dict(metrics)


if __name__ == "__main__":
    main()
