"""The place of MTEB among the evaluations: chosen by `evaluation=mteb`, run by `cse_bench.evaluation.mteb_run`."""

from cse_bench.errors import ConfigError
from cse_bench.evaluation.task import Encode, Yielded


class MTEBTasks:
    """Stands for the tasks that `python -m cse_bench.evaluate` hands to mteb, which asks encoders by itself."""

    name = "mteb"
    version = 1

    def sentences(self) -> list[str]:
        """Refuses: mteb does not tell its sentences before.

        Raises:
            ConfigError: always; says what to do instead.
        """
        raise ConfigError(
            "evaluation=mteb is for finished encoders: train with another evaluation (sts), then python -m "
            "cse_bench.evaluate model=RUN_DIRECTORY evaluation=mteb tasks=[STSBenchmark]"
        )

    def evaluate(self, encode: Encode) -> Yielded:
        """See `sentences`."""
        yield from ()
        self.sentences()

    def sources(self) -> dict[str, str]:
        """None of ours."""
        return {}

    def labels(self) -> dict[str, str]:
        """None of ours."""
        return {}
