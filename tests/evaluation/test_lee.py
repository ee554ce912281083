"""The graded document pairs, on invented documents in a fake distribution and on the real files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cse_bench.data.packages import PackageFile
from cse_bench.errors import DataError
from cse_bench.evaluation import lee
from cse_bench.evaluation.lee import Lee
from cse_bench.evaluation.task import run_tasks

DOCUMENTS = [f"Document {number} costs £{number}." for number in range(50)]


def install(site: Path, monkeypatch: pytest.MonkeyPatch, *, documents: bytes, grades: str) -> None:
    """Puts the two files into a distribution fake-lee 1.0, with their true checksums."""
    metadata = site / "fake_lee-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-lee\nVersion: 1.0\n")
    for attribute, path, content in (("DOCUMENTS", "docs", documents), ("GRADES", "grades", grades.encode())):
        (site / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setattr(lee, attribute, PackageFile(package="fake-lee", version="1.0", path=path, sha256=digest))
    monkeypatch.syspath_prepend(str(site))


def table(grades: np.ndarray) -> str:
    return "\n".join("\t".join(f"{grade:.6f}" for grade in row) for row in grades)


@pytest.fixture
def grades() -> np.ndarray:
    """Grades in steps of a tenth, with ties, above the diagonal."""
    drawn = np.random.default_rng(0).integers(0, 11, size=(50, 50)) / 10
    return np.triu(drawn, k=1) + np.eye(50)


def vectors_of(documents: Sequence[str]) -> np.ndarray:
    """A fixed random vector for each document."""
    return np.stack(
        [
            np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)).normal(size=8)
            for text in documents
        ]
    )


def average_ranks(values: list[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def slow_spearman(left: list[float], right: list[float]) -> float:
    x, y = average_ranks(left), average_ranks(right)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return 100 * covariance / (sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)) ** 0.5


def test_score_and_arrays_match_a_double_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grades: np.ndarray
) -> None:
    install(tmp_path, monkeypatch, documents="\n".join(DOCUMENTS).encode("latin-1"), grades=table(grades))
    result = run_tasks([Lee()], vectors_of)

    vectors = vectors_of(DOCUMENTS)
    cosines, gold = [], []
    for i in range(50):
        for j in range(i + 1, 50):
            norms = float(np.sqrt(vectors[i] @ vectors[i]) * np.sqrt(vectors[j] @ vectors[j]))
            cosines.append(float(vectors[i] @ vectors[j]) / norms)
            gold.append(float(grades[i, j]))
    assert result.num_sentences == 50
    assert result.arrays.keys() == {"pairs/lee/cosine", "pairs/lee/gold"}
    np.testing.assert_allclose(result.arrays["pairs/lee/cosine"], cosines, atol=1e-12)
    np.testing.assert_allclose(result.arrays["pairs/lee/gold"], gold, atol=1e-12)
    assert result.metrics == {"lee/spearman": pytest.approx(slow_spearman(cosines, gold), abs=1e-6)}
    assert abs(result.metrics["lee/spearman"]) > 0.1
    assert set(result.sources) == {"fake-lee==1.0:docs", "fake-lee==1.0:grades"}
    assert all(path.startswith("lee/") for path in result.labels)


def test_collapsed_encoder_has_no_score_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grades: np.ndarray
) -> None:
    install(tmp_path, monkeypatch, documents="\n".join(DOCUMENTS).encode("latin-1"), grades=table(grades))
    result = run_tasks([Lee()], lambda documents: np.ones((len(documents), 3)))
    assert np.isnan(result.metrics["lee/spearman"])
    assert result.notes == {"lee/spearman": "collapsed"}


@pytest.mark.parametrize(
    "documents, problem",
    [
        (DOCUMENTS[:49], "49 lines, 49 of them different"),
        ([*DOCUMENTS, "One more."], "51 lines, 51 of them different"),
        ([*DOCUMENTS[:49], DOCUMENTS[0]], "50 lines, 49 of them different"),
        ([*DOCUMENTS[:49], ""], "expected 50 different documents"),
    ],
)
def test_another_set_of_documents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grades: np.ndarray, documents: list[str], problem: str
) -> None:
    install(tmp_path, monkeypatch, documents="\n".join(documents).encode("latin-1"), grades=table(grades))
    with pytest.raises(DataError, match=problem):
        Lee().sentences()


@pytest.mark.parametrize(
    "content, problem",
    [
        (table(np.eye(49)), r"shape \(49, 49\); expected 50 x 50"),
        (table(np.eye(50) + np.triu(np.full((50, 50), 1.5), k=1)), "between 0 and 1"),
        (table(np.full((50, 50), np.nan)), "between 0 and 1"),
        ("0.1 0.2\n0.3", "not a table of numbers"),
        ("a b\nc d", "not a table of numbers"),
    ],
)
def test_another_table_of_grades_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, problem: str
) -> None:
    install(tmp_path, monkeypatch, documents="\n".join(DOCUMENTS).encode("latin-1"), grades=content)
    with pytest.raises(DataError, match=problem):
        Lee().sentences()


def test_real_files_have_fifty_documents_and_all_grades() -> None:
    pytest.importorskip("gensim", reason="the graded documents are inside gensim: pip install gensim==4.4.0")
    result = run_tasks([Lee()], vectors_of)
    gold = result.arrays["pairs/lee/gold"]
    assert result.num_sentences == 50
    assert gold.shape == result.arrays["pairs/lee/cosine"].shape == (1225,)
    assert 0 < gold.min() < gold.max() <= 1
    documents = Lee().sentences()
    lengths = sorted(len(document.split()) for document in documents)
    assert (lengths[0], lengths[-1]) == (45, 126)
    assert sum("£" in document for document in documents) == 1  # the one character that tells Latin-1 from UTF-8
