"""Tasks of MTEB (Muennighoff et al. 2022, arXiv 2210.07316) on our encoders, through the package `mteb` as it is.

Data, scores and result files are mteb's own; here is only what hands it sentence vectors.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from datasets.exceptions import DatasetNotFoundError
from mteb.abstasks.abstask import AbsTask
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from cse_bench.config.messages import nearest
from cse_bench.encoders.encoder import SentenceEncoder
from cse_bench.encoders.weights import weights_sha256
from cse_bench.errors import ConfigError, DataError, first_line
from cse_bench.evaluation.suite import Evaluator


class MTEBEncoder(AbsEncoder):
    """An encoder as mteb calls it: every distinct sentence of a call is encoded once, sorted by length.

    Prompts are the encoder's own; mteb's instructions, for models trained with such, are not used.

    Args:
        encoder: on its device.
        name: of the model, for mteb's result files.
        precision: of the forward.
        batch_tokens: padded tokens per forward.
    """

    def __init__(self, encoder: SentenceEncoder, *, name: str, precision: str, batch_tokens: int) -> None:
        self._encode = Evaluator(
            module=encoder, embed=encoder, tokenizer=encoder.tokenizer, precision=precision, batch_tokens=batch_tokens
        ).encode
        parameters = list(encoder.parameters())
        facts: dict[str, Any] = {
            "name": f"cse_bench/{name}",
            "revision": _revision(encoder, precision),
            "n_parameters": sum(parameter.numel() for parameter in parameters),
            "max_tokens": encoder.tokenizer.max_positions,
            "embed_dim": encoder.width,
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "use_instructions": False,
        }
        self.mteb_model_meta = ModelMeta.create_empty(facts)

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        """Vectors of all texts of a loader of batches, (n, d)."""
        texts = [str(text) for batch in inputs for text in batch["text"]]
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        return self._encode(list(rows))[[rows[text] for text in texts]]


def _revision(encoder: SentenceEncoder, precision: str) -> str:
    """Changes when the vectors do: mteb finds finished tasks by name and revision, whatever is behind the name.

    Of what the vectors are computed from, not of the vectors: their last digits differ between machines.
    """
    parts = [weights_sha256(encoder), encoder.tokenizer.fingerprint(), encoder.pooling, precision]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def tasks_named(names: Sequence[str]) -> list[AbsTask]:
    """Tasks by their names in mteb.

    Raises:
        ConfigError: there is no such task, or it is not about texts in the way an encoder can do.
    """
    known = {task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)}
    problems = [f"no task '{name}'{nearest(name, sorted(known))}" for name in names if name not in known]
    if problems:
        raise ConfigError(f"tasks: {'; '.join(problems)} ({len(known)} are known: mteb.get_tasks())")
    tasks = [mteb.get_task(name) for name in names]
    for task in tasks:
        if task.modalities != ["text"]:
            raise ConfigError(
                f"tasks: '{task.metadata.name}' is about {', '.join(task.modalities)}; give tasks of text"
            )
    return tasks


def run_mteb(encoder: MTEBEncoder, tasks: Sequence[AbsTask], *, folder: Path, overwrite: bool) -> dict[str, float]:
    """Runs tasks, writes mteb's result files, and leaves out what is finished.

    Args:
        encoder: what is evaluated.
        tasks: of mteb. Data that is loaded already is used as it is.
        folder: for `results/<model>/<revision>/<task>.json`.
        overwrite: run finished tasks again.

    Returns:
        mteb's main score of each task, x100, by name.

    Raises:
        DataError: a task's data cannot be had.
    """
    scores = {}
    cache = mteb.ResultCache(folder)
    for task in tasks:
        try:
            with _quiet():
                result = mteb.evaluate(
                    encoder,  # type: ignore[arg-type]  # mteb asks for a constructor it never calls
                    task,
                    cache=cache,
                    overwrite_strategy="always" if overwrite else "only-missing",
                    show_progress_bar=False,
                    co2_tracker=False,
                )
        except (OSError, DatasetNotFoundError) as error:
            raise DataError(
                f"the data of mteb's task '{task.metadata.name}' cannot be loaded from "
                f"'{task.metadata.dataset.get('path')}': {first_line(error)}; it comes from the Hub, once, and is kept "
                "in HF_HOME"
            ) from error
        (found,) = result.task_results
        scores[task.metadata.name] = 100 * float(found.get_score())
    return scores


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that mteb logs per task."""
    logger = logging.getLogger("mteb")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
