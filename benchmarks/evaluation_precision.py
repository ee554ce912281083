"""How far the scores of encoders move when their vectors are computed in bfloat16.

    CSE_BENCH_DATA=FOLDER python -m benchmarks.evaluation_precision [RUN ...]

The seven STS tasks in float32 and with `bf16-mixed`, in points: of BERT-tiny without training, and of every finished
run that is named.
"""

import os
import sys
from pathlib import Path

from benchmarks.shapes import configured
from cse_bench.encoders.artifact import load_encoder
from cse_bench.encoders.encoder import SentenceEncoder, build_encoder
from cse_bench.evaluation.suite import Evaluator, build_tasks

POOLINGS = ("cls", "mean", "first_last_mean")


def main() -> None:
    """Prints a line for every encoder."""
    if "CSE_BENCH_DATA" not in os.environ:
        sys.exit(__doc__)
    config = configured("experiment=quickstart", "evaluation=sts", "dry_run=true").evaluation
    tasks = build_tasks(config.test)
    averages, largest = [], []

    def compare(name: str, encoder: SentenceEncoder) -> None:
        exact, rounded = (
            Evaluator(
                module=encoder,
                embed=encoder,
                tokenizer=encoder.tokenizer,
                precision=precision,
                batch_tokens=config.batch_tokens,
            )(tasks).metrics
            for precision in ("32-true", "bf16-mixed")
        )
        moved = {name.removeprefix("sts/test/"): rounded[name] - exact[name] for name in exact if "sts/test/" in name}
        averages.append(moved.pop("avg"))
        task, most = max(moved.items(), key=lambda one: abs(one[1]))
        largest.append(abs(most))
        print(f"{name}: average {exact['sts/test/avg']:.2f} {averages[-1]:+.4f}, most {most:+.4f} ({task})", flush=True)

    for pooling in POOLINGS:
        backbone = configured("experiment=quickstart", f"backbone.pooling={pooling}", "dry_run=true").backbone
        compare(f"untrained {pooling}", build_encoder(backbone))
    for run in map(Path, sys.argv[1:]):
        compare(run.name, load_encoder(run / "model"))
    count, average = len(largest), max(map(abs, averages))
    print(f"{count} encoders: averages move by at most {average:.3f}, tasks by {max(largest):.3f}")


if __name__ == "__main__":
    main()
