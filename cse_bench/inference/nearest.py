"""The nearest rows of a matrix of vectors that stays on the disk: exact, block by block, with faiss.

Shapes: m rows, n queries, d width, k neighbours.
"""

import logging

import numpy as np

from cse_bench.inference.streaming import unit

_BLOCK_BYTES = 2**26


def nearest_rows(
    index: np.ndarray, queries: np.ndarray, *, k: int, is_normalized: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the largest cosine, best first.

    Memory: one block of rows in float32, about 64 MiB, and the neighbours.

    Args:
        index: (m, d), float32 or float16; memory-mapped for large ones.
        queries: (n, d).
        k: at most m.
        is_normalized: the rows have length 1 already.

    Returns:
        Cosines in float32 and row numbers, both (n, k).
    """
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which instruction sets it tries
    import faiss

    width = index.shape[1]
    rows_at_once = max(1, _BLOCK_BYTES // (4 * width))
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    wanted = unit(queries)
    for start in range(0, len(index), rows_at_once):
        block = np.asarray(index[start : start + rows_at_once], dtype=np.float32)
        # Half precision has rounded the lengths, too.
        rows = block if is_normalized and index.dtype == np.float32 else unit(block)
        scores, positions = faiss.knn(wanted, rows, min(k, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, positions + start)
    heap.finalize()
    return heap.D, heap.I
