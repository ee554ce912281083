"""STS as it is done elsewhere: every pair as it stands, nothing remembered.

SimCSE's evaluation through SentEval: each sub-set is sorted by length and both sides of its pairs are encoded in
batches of 128 by plain Transformers in float32. To select on dev, SentEval's STS-B and SICK-R encode their train, dev
and test splits every time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from cse_bench.evaluation.sts_files import Pairs, STSFiles, parse_sick
from cse_bench.evaluation.sts_tables import TEST_PAIRS

BATCH = 128


class SentEvalWay:
    """The seven tasks, and the selection in training.

    Args:
        data: the folder that holds `sts/`.

    Attributes:
        tasks: the sub-sets of each of the seven.
    """

    def __init__(self, data: Path) -> None:
        files = STSFiles(data=str(data), cache="unused")
        self.tasks = {task: files.test(task) for task in TEST_PAIRS}
        self._selection = [files.benchmark(split) for split in ("train", "dev", "test")] + list(_sick(data))

    def test(self, body: Any, tokenizer: Any) -> dict[str, float]:
        """Spearman of every task, in points."""
        return {f"sts/test/{task}": _spearman(body, tokenizer, subsets) for task, subsets in self.tasks.items()}

    def dev(self, body: Any, tokenizer: Any) -> dict[str, float]:
        """STS-B dev, as it comes out of encoding six splits."""
        found = [_spearman(body, tokenizer, [pairs]) for pairs in self._selection]
        return {"sts/dev/stsb": found[1]}


def score_by_sentence_transformers(model: SentenceTransformer, tasks: dict[str, list[Pairs]]) -> dict[str, float]:
    """The same Spearman correlations by its own evaluator with its defaults: all left sides, then all right sides."""
    found = {}
    for task, subsets in tasks.items():
        left = [text for pairs in subsets for text in pairs.left]
        right = [text for pairs in subsets for text in pairs.right]
        gold = np.concatenate([pairs.gold for pairs in subsets]).tolist()
        evaluator = EmbeddingSimilarityEvaluator(left, right, gold, main_similarity="cosine", write_csv=False)
        found[f"sts/test/{task}"] = 100 * evaluator(model)["spearman_cosine"]
    return found


def _sick(data: Path) -> Iterator[Pairs]:
    for split in ("train", "trial", "test_annotated"):
        path = next(
            path for parent in ("sts", "STS", "") if (path := data / parent / f"SICK/SICK_{split}.txt").is_file()
        )
        yield parse_sick(path.read_text(encoding="utf-8"), name=f"sick-{split}", file=str(path))


def _spearman(body: Any, tokenizer: Any, subsets: list[Pairs]) -> float:
    cosines, gold = [], []
    for pairs in subsets:
        rows = sorted(zip(pairs.left, pairs.right, pairs.gold, strict=True), key=lambda row: len(row[0].split()))
        for start in range(0, len(rows), BATCH):
            left, right, grades = zip(*rows[start : start + BATCH], strict=True)
            one, other = _encode(body, tokenizer, left), _encode(body, tokenizer, right)
            cosines.append(torch.nn.functional.cosine_similarity(one, other).numpy())
            gold.append(np.array(grades))
    return 100 * float(spearmanr(np.concatenate(cosines), np.concatenate(gold)).statistic)


@torch.no_grad()
def _encode(body: Any, tokenizer: Any, sentences: tuple[str, ...]) -> torch.Tensor:
    batch = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    vectors: torch.Tensor = body(**batch).last_hidden_state[:, 0]
    return vectors
