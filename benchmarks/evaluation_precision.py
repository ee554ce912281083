"""How far the scores of trained encoders move when their vectors are computed in bfloat16.

    CSE_BENCH_DATA=FOLDER python -m benchmarks.evaluation_precision RUN [RUN ...]

The seven STS tasks of every finished run in float32 and with `bf16-mixed`, in points.
"""

import os
import sys
from pathlib import Path

from benchmarks.shapes import configured
from cse_bench.encoders.artifact import load_encoder
from cse_bench.evaluation.suite import Evaluator, build_tasks


def main() -> None:
    """Prints a line for every run and the largest differences."""
    if not sys.argv[1:] or "CSE_BENCH_DATA" not in os.environ:
        sys.exit(__doc__)
    config = configured("experiment=quickstart", "evaluation=sts", "dry_run=true").evaluation
    tasks = build_tasks(config.test)
    averages, largest = [], []
    for run in map(Path, sys.argv[1:]):
        encoder = load_encoder(run / "model")
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
        print(f"{run.name}: average {exact['sts/test/avg']:.2f} {averages[-1]:+.4f}, most {most:+.4f} ({task})")
    print(f"{len(largest)} runs: averages move by at most {max(map(abs, averages)):.3f}, tasks by {max(largest):.3f}")


if __name__ == "__main__":
    main()
