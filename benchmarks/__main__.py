"""`make bench`: runs the benchmarks that need nothing else and prints their tables; the README beside lists all."""

import os

from benchmarks import (
    collect_runs,
    evaluation_speed,
    idle_sweep,
    length_split,
    memory_plan,
    startup,
    token_store,
    training_speed,
    whole_run,
)


def main() -> None:
    """The quick ones first; minutes each from `training_speed` on."""
    for benchmark in (collect_runs, length_split, memory_plan, idle_sweep, startup, token_store, training_speed):
        print(f"\n{benchmark.__name__}")
        benchmark.main()
    for benchmark in (evaluation_speed, whole_run):
        if os.environ.get("CSE_BENCH_DATA"):  # the STS files
            print(f"\n{benchmark.__name__}")
            benchmark.main()
        else:
            print(f"\n{benchmark.__name__} needs the STS files: set CSE_BENCH_DATA")


if __name__ == "__main__":
    main()
