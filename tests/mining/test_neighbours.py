"""Nearest neighbours: exact ones against a full sort and faiss, approximate ones against exact ones."""

import subprocess
import sys

import faiss
import numpy as np
import pytest

from cse_bench.mining import neighbours
from cse_bench.mining.neighbours import exact_search, ivf_search, recall


def rows(count: int, width: int = 8, *, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sorted_positions(queries: np.ndarray, base: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ base.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("tile", [3, 7, 64, 4096])
@pytest.mark.parametrize("count", [5, 6, 200])
def test_exact_equals_a_full_sort(tile: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TILE", tile)
    monkeypatch.setattr(neighbours, "_QUERIES_AT_ONCE", 50)
    base, queries = rows(count), rows(120, seed=1)
    assert np.array_equal(exact_search(base)(queries, 5), sorted_positions(queries, base, 5))


@pytest.mark.parametrize("tile", [3, 16, 4096])
def test_of_equal_ones_the_smaller_position_comes_first(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TILE", tile)
    # Products of small whole numbers are exact: ties are true ties.
    draw = np.random.default_rng(0)
    base = draw.integers(-1, 2, size=(100, 3)).astype(np.float32)
    queries = draw.integers(-1, 2, size=(30, 3)).astype(np.float32)
    assert np.array_equal(exact_search(base)(queries, 12), sorted_positions(queries, base, 12))


def test_fewer_rows_than_asked_for_are_filled_up() -> None:
    found = exact_search(rows(3))(rows(2, seed=1), 5)
    assert np.array_equal(np.sort(found[:, :3], axis=1), [[0, 1, 2]] * 2)
    assert (found[:, 3:] == -1).all()


def test_exact_equals_faiss_flat() -> None:
    base = rows(2000, 16)
    index = faiss.IndexFlatIP(16)
    index.add(base)
    _, expected = index.search(base, 11)
    found = exact_search(base)(base, 11)
    assert (found == expected).mean() > 0.999
    # Where they differ, the scores are equal to the last bits, which another order of summation changes.
    products = base.astype(np.float64) @ base.T.astype(np.float64)
    of_found, of_expected = (np.take_along_axis(products, positions, axis=1) for positions in (found, expected))
    assert np.abs(of_found - of_expected).max() < 1e-6


def test_ivf_with_all_cells_is_exact_and_with_few_is_not() -> None:
    base = rows(1500, 16)
    exact = exact_search(base)(base[:100], 10)
    assert np.array_equal(ivf_search(base, lists=20, probes=20, seed=0)(base[:100], 10), exact)
    few = ivf_search(base, lists=50, probes=1, seed=0)
    assert not np.array_equal(few(base[:100], 10), exact)
    assert 0.05 < recall(few, base, 10, seed=0) < 0.9
    assert recall(exact_search(base), base, 10, seed=0) == 1.0
    again = ivf_search(base, lists=50, probes=1, seed=0)
    assert np.array_equal(few(base, 10), again(base, 10))  # the same seed, the same cells


def test_faiss_is_imported_only_when_it_is_used() -> None:
    script = "import sys, numpy as np; from cse_bench.mining.neighbours import exact_search; "
    script += "exact_search(np.eye(3, dtype=np.float32))(np.eye(3, dtype=np.float32), 1); print('faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
