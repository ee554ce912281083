"""The tasks of a config, and running them on a module: encode in eval mode, in the evaluation's precision."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from cse_bench.config.bind import build
from cse_bench.config.messages import nearest
from cse_bench.config.schema import Component
from cse_bench.data.rows import TokenRows
from cse_bench.encoders.encoding import encode_sentences
from cse_bench.encoders.tokenization import SentenceTokenizer
from cse_bench.errors import ConfigError
from cse_bench.evaluation.task import Evaluation, Task, run_tasks
from cse_bench.training.bars import progress_bar
from cse_bench.training.precision import autocast, resolve_precision

_BAR_DELAY_S = 5.0  # a bar is shown only for what takes longer


def build_tasks(components: Mapping[str, Component]) -> list[Task]:
    """The tasks, with their data read and checked: missing data is told before any weights are loaded.

    Raises:
        DataError: a task's data is missing or damaged.
    """
    tasks: list[Task] = [build(component) for component in components.values()]
    for task in tasks:
        task.sentences()
    return tasks


def check_selection_metric(metric: str | None, dev_tasks: Sequence[Task]) -> None:
    """Checks that the dev tasks measure what shall select the checkpoint, before hours are spent on training.

    The tasks are asked with made-up vectors; only the names of their metrics are read.

    Raises:
        ConfigError: they do not; names what they measure.
    """
    if metric is None:
        return
    generator = np.random.default_rng(0)
    measured = run_tasks(list(dev_tasks), lambda sentences: generator.standard_normal((len(sentences), 4))).metrics
    if metric not in measured:
        raise ConfigError(
            f"evaluation.selection_metric: the dev tasks do not measure '{metric}'{nearest(metric, measured)} "
            f"(they measure: {', '.join(sorted(measured))})"
        )


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Runs tasks on whatever embeds token rows.

    Attributes:
        module: what holds the weights.
        embed: token rows -> vectors.
        tokenizer: sentences -> token rows.
        precision: of the embeddings (`auto`, `32-true`, `bf16-mixed`, `16-mixed`).
        batch_tokens: padded tokens per forward.
    """

    module: nn.Module
    embed: Callable[[TokenRows], Tensor]
    tokenizer: SentenceTokenizer
    precision: str
    batch_tokens: int

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Sentence vectors, (n, d)."""
        device = next(self.module.parameters()).device.type
        precision = resolve_precision(self.precision, accelerator="gpu" if device == "cuda" else device)
        # An evaluation inside training runs under the trainer's own autocast, which must not decide its precision.
        with (
            autocast(precision, device),
            progress_bar("encoding", unit=" sentences", total=len(sentences), delay_s=_BAR_DELAY_S) as bar,
        ):
            return encode_sentences(
                self.module,
                self.embed,
                self.tokenizer,
                sentences,
                batch_tokens=self.batch_tokens,
                on_progress=lambda done: bar.update(done - bar.n) and None,
            )

    def __call__(self, tasks: Iterable[Task]) -> Evaluation:
        """All metrics of the tasks; every distinct sentence is encoded once."""
        return run_tasks(list(tasks), self.encode)
