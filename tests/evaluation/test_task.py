"""`run_tasks`: each distinct sentence once, nothing overwritten, nothing undefined unnoticed."""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cse_bench.errors import DataError
from cse_bench.evaluation.task import Encode, Task, Yielded, run_tasks


class Sums:
    """Yields the sum of all embeddings it asks for, and one value per sentence."""

    version = 3

    def __init__(self, name: str, texts: list[str], *, label: str = "a sum", digest: str = "00") -> None:
        self.name = name
        self._texts = texts
        self._label = label
        self._digest = digest

    def sentences(self) -> list[str]:
        return self._texts

    def evaluate(self, encode: Encode) -> Yielded:
        embeddings = encode(self._texts)
        yield f"{self.name}/sum", float(embeddings.sum())
        yield f"pairs/{self.name}", embeddings[:, 0]

    def sources(self) -> dict[str, str]:
        return {"shared.txt": self._digest}

    def labels(self) -> dict[str, str]:
        return {"sum": self._label}


class Yields(Sums):
    """Yields what it is given."""

    def __init__(self, *values: tuple[str, float | np.ndarray | str], name: str = "yields") -> None:
        super().__init__(name, ["a"])
        self._values = values

    def evaluate(self, encode: Encode) -> Yielded:
        yield from self._values


def lengths(sentences: Sequence[str]) -> np.ndarray:
    return np.array([[len(sentence), 1.0] for sentence in sentences], dtype=np.float32)


def fixed(rows: list[list[float]]) -> Callable[[Sequence[str]], np.ndarray]:
    return lambda sentences: np.array(rows, dtype=np.float32)


def test_every_distinct_sentence_is_encoded_exactly_once() -> None:
    calls: list[list[str]] = []

    def encode(sentences: Sequence[str]) -> np.ndarray:
        calls.append(list(sentences))
        return lengths(sentences)

    tasks: list[Task] = [Sums("one", ["aa", "b", "aa"]), Sums("two", ["cccc", "aa"])]
    result = run_tasks(tasks, encode)
    assert calls == [["aa", "b", "cccc"]]
    assert result.num_sentences == 3
    assert result.metrics == {"one/sum": 2 + 1 + 2 + 3.0, "two/sum": 4 + 2 + 2.0}
    assert result.arrays["pairs/one"].tolist() == [2, 1, 2]
    assert result.arrays["pairs/two"].tolist() == [4, 2]
    assert result.task_versions == {"one": 3, "two": 3}
    assert result.labels == {"sum": "a sum"}
    assert result.sources == {"shared.txt": "00"}
    assert result.notes == {}
    assert result.time_s > 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [([0.0, 0.0], "is all zeros"), ([math.nan, 1.0], "not finite"), ([1.0, -math.inf], "not finite")],
)
def test_embedding_without_direction_names_row_and_sentence(row: list[float], reason: str) -> None:
    with pytest.raises(DataError, match=f"sentence 1, 'second one', .*{reason}"):
        run_tasks([Sums("one", ["first", "second one"])], fixed([[1.0, 2.0], row]))


@pytest.mark.parametrize(
    "embeddings", [np.ones((1, 2)), np.ones(2), np.ones((2, 2), dtype=np.float16), np.ones((2, 2), dtype=np.int64)]
)
def test_wrong_shape_or_type_of_embeddings_is_refused(embeddings: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"for 2 sentences; expected \(2, width\) of float32 or float64"):
        run_tasks([Sums("one", ["a", "b"])], lambda sentences: embeddings)


def test_sentence_that_was_not_announced_is_refused() -> None:
    class Greedy(Sums):
        def evaluate(self, encode: Encode) -> Yielded:
            yield "greedy", float(encode(["never announced"]).sum())

    with pytest.raises(ValueError, match="'never announced', which its sentences"):
        run_tasks([Greedy("greedy", ["a"])], lengths)


def test_nothing_is_overwritten() -> None:
    with pytest.raises(ValueError, match="metric path 'x' is given twice"):
        run_tasks([Yields(("x", 1.0), name="one"), Yields(("x", 2.0), name="two")], lengths)
    with pytest.raises(ValueError, match="array path 'x' is given twice"):
        run_tasks([Yields(("x", np.ones(1)), ("x", np.ones(1)))], lengths)
    with pytest.raises(ValueError, match="task name 'one' is given twice"):
        run_tasks([Yields(name="one"), Yields(name="one")], lengths)
    with pytest.raises(ValueError, match="label 'sum' different values"):
        run_tasks([Sums("one", ["a"]), Sums("two", ["a"], label="another sum")], lengths)
    with pytest.raises(ValueError, match=r"source 'shared.txt' different values"):
        run_tasks([Sums("one", ["a"]), Sums("two", ["a"], digest="01")], lengths)


def test_nan_is_kept_with_its_reason_and_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = run_tasks([Yields(("x", math.nan), ("x", "collapsed"), ("y", math.nan), ("z", 1.0))], lengths)
    assert math.isnan(result.metrics["x"])
    assert result.notes == {"x": "collapsed"}
    assert [record.getMessage() for record in caplog.records] == [
        "x is nan: collapsed",
        "y is nan: the task gives no reason",
    ]


def test_note_without_metric_and_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="a note at x belongs to no metric"):
        run_tasks([Yields(("x", "collapsed"))], lengths)
    with pytest.raises(ValueError, match=r"array x has shape \(2, 2\)"):
        run_tasks([Yields(("x", np.ones((2, 2))))], lengths)


def test_no_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="no tasks given"):
        run_tasks([], lengths)
