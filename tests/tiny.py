"""A run in miniature: made-up sentences, the random two-layer backbone, and tasks that score it."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from cse_bench.config.bind import build
from cse_bench.config.location import conf_directory
from cse_bench.config.schema import RunConfig
from cse_bench.config.validate import validate_run
from cse_bench.data.rows import TokenRows, rows_of
from cse_bench.encoders.encoder import build_encoder
from cse_bench.evaluation.task import Encode, Yielded
from cse_bench.methods.base import ContrastiveMethod

_WORDS = ("a", "the", "old", "new", "river", "stone", "bird", "walks", "sings", "over", "near", "never", "red", "who")


def made_up_sentences(count: int = 100, *, seed: int = 0) -> list[str]:
    """Different sentences of 1 to 14 words, so that their lengths differ as real ones do."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(_WORDS, k=draw.randint(1, 14)))] = None
    return list(found)


def composed(*overrides: str) -> RunConfig:
    """The checked config of a command line."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return validate_run(compose("config", overrides=list(overrides)))


def overrides_in(folder: Path, *overrides: str) -> list[str]:
    """The overrides of a tiny run that keeps everything below `folder`; later ones win."""
    text = folder / "sentences.txt"
    if not text.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(made_up_sentences()) + "\n")
    return [
        "backbone=tiny_bert",
        "data=text_file",
        f"data.path={text}",
        "data.global_batch_size=16",
        "evaluation=none",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
        "precision=32-true",
        "optimizer.lr=1e-3",
        f"paths.output_dir={folder / 'outputs'}",
        f"paths.cache={folder / 'cache'}",
        *overrides,
    ]


def config_in(folder: Path, *overrides: str) -> RunConfig:
    """As `overrides_in`, composed and checked."""
    return composed(*overrides_in(folder, *overrides))


def task_overrides(**arguments: Any) -> list[str]:
    """Overrides that make `PairScore` the dev task and the test task of `evaluation=none`."""
    extra = "".join(f",{key}:{value}" for key, value in arguments.items())
    task = f"{{_target_:tests.tiny.PairScore,split:%s{extra}}}"
    return [
        f"+evaluation.dev.pairs={task % 'dev'}",
        f"+evaluation.test.pairs={task % 'test'}",
        "evaluation.selection_metric=pairs/dev/score",
    ]


class PairScore:
    """A real score of real embeddings: 100 x the correlation of cosine and word overlap over pairs of sentences.

    Args:
        split: dev | test; other sentences.
        scores: instead of the real ones, in the order in which they are asked for.
        draws: random numbers to draw from every global generator at each evaluation, as a careless task might.
    """

    name = "pairs"
    version = 1
    embeddings: list[np.ndarray] = []  # what the tasks of this process were given, newest last

    def __init__(self, *, split: str, scores: list[float] | None = None, draws: int = 0) -> None:
        self.name = f"pairs_{split}"
        self.split = split
        self.scores = scores
        self.draws = draws
        self._sentences = made_up_sentences(12, seed={"dev": 1, "test": 2}[split])

    def sentences(self) -> list[str]:
        return self._sentences

    def evaluate(self, encode: Encode) -> Yielded:
        vectors = encode(self._sentences)
        if vectors.shape[1] == 32:  # the backbone's; the check of the selection metric asks with made-up ones
            PairScore.embeddings.append(vectors)
        if self.draws:
            torch.rand(self.draws), np.random.rand(self.draws), random.random()
        score = self.scores.pop(0) if self.scores else self._score(vectors)
        yield f"pairs/{self.split}/score", score
        if not np.isfinite(score):
            yield f"pairs/{self.split}/score", "the test wants it so"
        yield f"pairs/{self.split}/norms", np.linalg.norm(vectors, axis=1)

    def _score(self, vectors: np.ndarray) -> float:
        rows = vectors.astype(np.float64)  # the cosines of a random encoder differ in their last digits only
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        words = [set(sentence.split()) for sentence in self._sentences]
        first, second = np.triu_indices(len(words), k=1)
        overlap = [len(words[i] & words[j]) / len(words[i] | words[j]) for i, j in zip(first, second, strict=True)]
        return 100 * float(np.corrcoef((unit @ unit.T)[first, second], overlap)[0, 1])

    def sources(self) -> dict[str, str]:
        return {f"made-up-{self.split}": "0" * 64}

    def labels(self) -> dict[str, str]:
        return {f"pairs/{self.split}": "correlation of cosine and word overlap"}


def tiny_method(
    *overrides: str,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    split: bool = False,
    cache_rows: int | None = None,
) -> ContrastiveMethod:
    """A method on the random backbone, in train mode."""
    torch.manual_seed(seed)
    config = composed("backbone=tiny_bert", "data=wikipedia_sample", "evaluation=none", *overrides)
    method: ContrastiveMethod = build(
        config.method,
        encoder=build_encoder(config.backbone).to(dtype),
        optimizer=config.optimizer,
        seed=seed,
        split_rows_by_length=split,
        gradient_cache_rows=cache_rows,
    )
    return method.to(dtype).train()


def token_rows(lengths: Sequence[int], *, seed: int = 0) -> TokenRows:
    """Random token rows of these lengths, `<s> ... </s>` as the byte tokenizer writes them."""
    draw = torch.Generator().manual_seed(seed)
    return rows_of([[1, *torch.randint(4, 260, (n - 2,), generator=draw).tolist(), 2] for n in lengths])


def gradients(method: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that has one."""
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Over all tensors, which must have the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def metric_rows(rows: Sequence[tuple[int, str, float]], metric: str) -> Iterator[tuple[int, float]]:
    """(step, value) of one metric of a metrics log."""
    return ((step, value) for step, name, value in rows if name == metric)
