"""Nearest rows against sorting all cosines."""

import numpy as np
import pytest

from cse_bench.inference import nearest
from cse_bench.inference.nearest import nearest_rows
from cse_bench.inference.streaming import unit


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_blocks_find_what_sorting_finds(
    dtype: str, is_normalized: bool, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_BLOCK_BYTES", 4 * 8 * 13)  # blocks of 13 rows, the last one smaller
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((50, 8)) * draw.uniform(0.1, 10, size=(50, 1))
    index = (unit(rows) if is_normalized else rows).astype(dtype)
    queries = 3 * draw.standard_normal((4, 8)).astype(np.float32)
    scores, positions = nearest_rows(index, queries, k=k, is_normalized=is_normalized)
    cosines = unit(queries).astype(np.float64) @ unit(index).astype(np.float64).T
    assert np.array_equal(positions, np.argsort(-cosines, axis=1)[:, :k])
    assert np.allclose(scores, -np.sort(-cosines, axis=1)[:, :k], atol=1e-6)
