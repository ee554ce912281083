r"""Scoring the seven STS tasks, and one evaluation in training, against encoding every pair as it stands.

    CSE_BENCH_DATA=FOLDER python -m benchmarks.evaluation_speed [models=bert_tiny] [parts=test,dev] [rounds=3] \
        [against=SentEval,sentence-transformers]

`models=distilbert parts=test against=SentEval` takes about half an hour a round on two cores.

Every pair as it stands is encoded by SimCSE's evaluation through SentEval (see `benchmarks.senteval_way`), and by
sentence-transformers' evaluator with its defaults, one for each task. In training (`dev`), STS-B and SICK-R of SentEval
encode their train, dev and test splits each time to select on dev; here, only STS-B dev is encoded (and the geometry
read off the same vectors). Interleaved: every round does each once.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModel, AutoTokenizer

from benchmarks.senteval_way import SentEvalWay, score_by_sentence_transformers
from benchmarks.shapes import configured, save_model
from cse_bench.encoders.encoder import build_encoder
from cse_bench.evaluation.suite import Evaluator, build_tasks

Scores = dict[str, float]
HERE = {"here, fp32": "32-true", "here, bf16": "bf16-mixed"}


def main() -> None:
    """Prints seconds and ratios for every model."""
    options = {"models": "bert_tiny", "parts": "test,dev", "rounds": "3", "against": "SentEval,sentence-transformers"}
    options |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    data = os.environ.get("CSE_BENCH_DATA")
    if data is None:
        sys.exit("set CSE_BENCH_DATA to the folder that holds sts/")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for model in options["models"].split(","):
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder))
            for part in options["parts"].split(","):
                what = "the seven tasks" if part == "test" else "one evaluation in training"
                print(f"{model}: {what}, {options['rounds']} rounds, {torch.get_num_threads()} threads")
                columns = _columns(Path(folder), Path(data), part)
                others = [name for name in options["against"].split(",") if name in columns]
                chosen = {name: columns[name] for name in (*HERE, *others)}
                _compare(chosen, others, rounds=int(options["rounds"]))


def _compare(columns: dict[str, Callable[[], Scores]], others: list[str], *, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in columns}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for name, column in columns.items():
            started = time.perf_counter()
            scores[name] = column()
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"  {name:22s} {statistics.median(values):7.2f} s  ({min(values):.2f} to {max(values):.2f})")
    for here in HERE:
        for other in others:
            ratios = [other_s / here_s for here_s, other_s in zip(seconds[here], seconds[other], strict=True)]
            far = max(abs(scores[here][name] - value) for name, value in scores[other].items())
            print(
                f"  {here}, against {other} in fp32: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}); scores differ by at most {far / 100:.1e}"
            )


def _columns(directory: Path, data: Path, part: str) -> dict[str, Callable[[], Scores]]:
    """What each way does, with everything loaded before; a correlation is in points (hundredths)."""
    senteval = SentEvalWay(data)
    body, tokenizer = AutoModel.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    columns = {name: _here(directory, precision, part) for name, precision in HERE.items()}
    columns["SentEval"] = partial(senteval.test if part == "test" else senteval.dev, body, tokenizer)
    if part == "test":
        pooling = Pooling(body.config.hidden_size, pooling_mode="cls")
        model = SentenceTransformer(modules=[Transformer(str(directory)), pooling], device="cpu")
        columns["sentence-transformers"] = partial(score_by_sentence_transformers, model, senteval.tasks)
    return columns


def _here(directory: Path, precision: str, part: str) -> Callable[[], Scores]:
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
    return lambda: dict(evaluator(tasks).metrics)


if __name__ == "__main__":
    main()
