"""Nearest rows by inner product: exact in tiles, or approximate with faiss.

Shapes: m rows searched, n queries, d width, k neighbours.
"""

from collections.abc import Callable

import numpy as np
import torch

from cse_bench.mining.keyed import PROBE, TRAINING, keyed_uniform

Search = Callable[[np.ndarray, int], np.ndarray]
"""Queries (n, d) in float32 and k -> positions of the nearest rows, best first, int64, (n, k); -1: there are fewer."""

_TILE = 4096
_QUERIES_AT_ONCE = 1024
_IVF_TRAINING_ROWS = 256_000
_PROBES = 1000


def exact_search(rows: np.ndarray, *, device: str = "cpu") -> Search:
    """Compares every query with every row; of equal ones the smaller position comes first.

    Memory: the rows in float32 and one tile of scores.

    Args:
        rows: what is searched, (m, d), float32.
        device: where the products are taken.
    """
    base = torch.from_numpy(rows).to(device)

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        parts = [
            _nearest(torch.from_numpy(queries[start : start + _QUERIES_AT_ONCE]).to(device), base, k)
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
        ]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, k), dtype=np.int64)

    return search


def _nearest(queries: torch.Tensor, base: torch.Tensor, k: int) -> torch.Tensor:
    count = len(queries)
    best = queries.new_full((count, k), -torch.inf)
    positions = torch.full((count, k), -1, dtype=torch.long, device=queries.device)
    for start in range(0, len(base), _TILE):
        scores = queries @ base[start : start + _TILE].T
        # Few scores of a tile can still enter: those above the k-th so far. Equal ones cannot, their positions are
        # larger. Before there are k, the tile's own k-th is the bound.
        if start == 0 and scores.shape[1] > k:
            enters = scores >= scores.topk(k).values[:, -1:]
        else:
            enters = scores > best[:, -1:]
        row, column = enters.nonzero(as_tuple=True)
        if len(row) == 0:
            continue
        found = torch.bincount(row, minlength=count)
        place = torch.arange(len(row), device=row.device) - (found.cumsum(0) - found)[row]
        width = int(found.max())
        new = scores.new_full((count, width), -torch.inf)
        new_positions = torch.full((count, width), -1, dtype=torch.long, device=row.device)
        new[row, place] = scores[row, column]
        new_positions[row, place] = column + start
        # Stable: what came first, the smaller positions, stays first among equals.
        best, order = torch.cat([best, new], dim=1).sort(dim=1, descending=True, stable=True)
        best, order = best[:, :k], order[:, :k]
        positions = torch.cat([positions, new_positions], dim=1).gather(1, order)
    return positions


def ivf_search(rows: np.ndarray, *, lists: int, probes: int, seed: int) -> Search:
    """An inverted-file index of faiss: rows in cells around trained centres, of which a query searches a few.

    Args:
        rows: what is searched, (m, d), float32.
        lists: cells; at most m.
        probes: cells that a query searches.
        seed: of the training of the centres.
    """
    import faiss

    lists = min(lists, len(rows))
    quantiser = faiss.IndexFlatIP(rows.shape[1])
    index = faiss.IndexIVFFlat(quantiser, rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed % 2**31
    index.cp.min_points_per_centroid = 1  # small corpora: fewer points per cell than faiss likes
    chosen = np.argsort(keyed_uniform(seed, TRAINING, np.arange(len(rows))), kind="stable")[:_IVF_TRAINING_ROWS]
    index.train(rows[np.sort(chosen)])
    index.add(rows)
    index.nprobe = min(probes, lists)

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        scores, positions = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        scores = np.where(positions >= 0, scores, -np.inf)
        order = np.lexsort((positions, -scores), axis=1)  # equal scores: the smaller position first
        return np.take_along_axis(positions, order, axis=1)

    return search


def recall(search: Search, rows: np.ndarray, k: int, *, seed: int, device: str = "cpu") -> float:
    """The share of the true k nearest rows that an approximate search finds, over 1,000 rows as queries.

    A row itself does not count: no search misses it.
    """
    chosen = np.sort(np.argsort(keyed_uniform(seed, PROBE, np.arange(len(rows))), kind="stable")[:_PROBES])
    queries = rows[chosen]
    found, true = search(queries, k + 1), exact_search(rows, device=device)(queries, k + 1)
    hits = total = 0
    for own, near, nearest in zip(chosen, found, true, strict=True):
        others = nearest[(nearest >= 0) & (nearest != own)]
        hits += len(np.intersect1d(near, others))
        total += len(others)
    return hits / max(1, total)
