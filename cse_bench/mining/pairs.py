"""The mined pairs of a corpus under a teacher, on disk and memory-mapped.

* `vectors.npy`: unit vectors of the teacher, float16, (n, d)
* `candidates.npy`: candidate sentences, int32, (n, c); the semantic ones first; -1: none
* `similarity.npy`, `surface.npy`: cosine and surface similarity of each, float16, (n, c)
* `manifest.json`: what it was made from, calibration and cost; written last

Not weights but what they are computed from is kept: thresholds and propensities can be changed, and calibrated, without
mining again. Making it goes on after an interruption, in shards of 50,000 sentences.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap

from cse_bench.data.corpora import Corpus
from cse_bench.errors import DataError
from cse_bench.mining.candidates import CandidateFinder, eligible_sentences
from cse_bench.mining.keyed import CALIBRATION, keyed_integers
from cse_bench.mining.neighbours import Search, exact_search, ivf_search, recall
from cse_bench.mining.settings import MiningSettings
from cse_bench.mining.surface import surface_similarity
from cse_bench.mining.teacher import Teacher, unit_rows
from cse_bench.mining.words import Words, postings_of, read_words
from cse_bench.training.bars import progress_bar

_FORMAT = 1
_SHARD = 50_000
_BLOCK = 1024
_TABLES = {"candidates": np.int32, "similarity": np.float16, "surface": np.float16}
_LIBRARIES = ("numpy", "torch", "rapidfuzz", "scipy", "faiss-cpu")
_RANDOM_PAIRS, _DROPOUT_SENTENCES = 100_000, 1000
_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99, 0.999)


class Pairs:
    """Mined pairs. Open with `mine_pairs`.

    Args:
        directory: finished.

    Raises:
        DataError: its files are not those its manifest states.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
            self.settings = MiningSettings(**self.manifest["settings"])
            self.vectors, self.candidates, self.similarity, self.surface = (
                np.load(directory / f"{name}.npy", mmap_mode="r") for name in ("vectors", *_TABLES)
            )
            shape = (self.manifest["sentences"], self.settings.columns)
            tables = (self.candidates, self.similarity, self.surface)
            is_whole = len(self.vectors) == shape[0] and all(table.shape == shape for table in tables)
        except (OSError, ValueError, KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise DataError(f"the mined pairs in {directory} are damaged; delete the folder and run again")

    def __len__(self) -> int:
        return len(self.vectors)


def mine_pairs(corpus: Corpus, teacher: Teacher, settings: MiningSettings, *, sentences: int, cache: Path) -> Pairs:
    """The pairs of a corpus; mined on first use, found afterwards.

    Two processes at once are safe: one mines, the other waits and then reads.

    Args:
        corpus: the sentences.
        teacher: says which mean the same.
        settings: which candidates.
        sentences: how many the corpus has.
        cache: folder for artefacts.

    Raises:
        DataError: the corpus is not what it should be, or the cache folder cannot be written.
    """
    key = {
        "format": _FORMAT,
        "corpus": corpus.fingerprint(),
        "teacher": teacher.describe(),
        "settings": _resolved(settings, sentences=sentences, device=teacher.device),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    directory = cache / "pairs" / f"{corpus.name}-{digest}"
    if not _is_finished(directory, key):
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(str(directory) + ".lock"):
                if not _is_finished(directory, key):
                    _Mining(corpus, teacher, settings, sentences=sentences, key=key, directory=directory).run()
        except OSError as error:
            raise DataError(
                f"the mined pairs cannot be written under {cache} ({error}); set paths.cache to a folder with space"
            ) from error
    return Pairs(directory)


def _resolved(settings: MiningSettings, *, sentences: int, device: str) -> dict[str, Any]:
    """The settings that decide the artefact: `auto` decided, and what the search does not use left out."""
    content = settings.model_dump(mode="json")
    if settings.search == "auto":
        content["search"] = "exact" if device == "cuda" or sentences <= settings.exact_up_to else "ivf"
    unused = ["exact_up_to"] + (["ivf_lists", "ivf_probes"] if content["search"] == "exact" else [])
    return {name: value for name, value in content.items() if name not in unused}


def _is_finished(directory: Path, key: dict[str, Any]) -> bool:
    """Whether the folder holds exactly what the key describes."""
    return _read(directory / "manifest.json").get("key") == key


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass
class _State:
    """How far an unfinished mining came."""

    key: dict[str, Any]
    vectors: int = 0
    tables: int = 0
    time_s: float = 0.0

    def write(self, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(vars(self)))
        os.replace(temporary, path)


class _Mining:
    """Makes the artefact in a folder beside its place, shard by shard, and moves it there when it is whole."""

    def __init__(
        self,
        corpus: Corpus,
        teacher: Teacher,
        settings: MiningSettings,
        *,
        sentences: int,
        key: dict[str, Any],
        directory: Path,
    ) -> None:
        self._corpus, self._teacher, self._settings, self._sentences = corpus, teacher, settings, sentences
        self._key, self._directory = key, directory
        self._work = directory.with_name(f".{directory.name}.new")
        self._state = _State(key)
        self._mark = time.perf_counter()

    def run(self) -> None:
        """Goes on where an earlier process stopped, if it was about the same."""
        known = _read(self._work / "state.json")
        if known.get("key") == self._key and self._arrays_are_whole(_State(**known)):
            self._state = _State(**known)
        else:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work.mkdir(parents=True)
        self._encode()
        words = read_words(self._corpus.lines())
        found_recall = self._find(words)
        calibration = self._calibrate()
        self._save_state()
        manifest = {
            "key": self._key,
            "settings": self._settings.model_dump(mode="json"),
            "teacher": self._teacher.encoder.provenance,
            "sentences": self._sentences,
            "recall": found_recall,
            "calibration": calibration,
            "time_s": self._state.time_s,
            "versions": {name: version(name) for name in _LIBRARIES},
        }
        (self._work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(self._directory, ignore_errors=True)
        os.rename(self._work, self._directory)
        (self._directory / "state.json").unlink()

    def _arrays_are_whole(self, state: _State) -> bool:
        """Whether what the state calls done is there; else all begins anew."""
        needed = (["vectors"] if state.vectors else []) + (list(_TABLES) if state.tables else [])
        try:
            return all(len(np.load(self._work / f"{name}.npy", mmap_mode="r")) == self._sentences for name in needed)
        except (OSError, ValueError, EOFError):
            return False

    def _save_state(self) -> None:
        now = time.perf_counter()
        self._state.time_s += now - self._mark
        self._mark = now
        self._state.write(self._work / "state.json")

    def _shards(self, done: int) -> Iterator[range]:
        for start in range(done * _SHARD, self._sentences, _SHARD):
            yield range(start, min(start + _SHARD, self._sentences))

    def _encode(self) -> None:
        path = self._work / "vectors.npy"
        lines = islice(self._corpus.lines(), self._state.vectors * _SHARD, None)
        done = min(self._state.vectors * _SHARD, self._sentences)
        with progress_bar("encoding", unit=" sentences", total=self._sentences, done=done, delay_s=2.0) as bar:
            for shard in self._shards(self._state.vectors):
                begun = bar.n
                vectors = self._teacher.vectors(
                    list(islice(lines, len(shard))),
                    on_progress=lambda count, begun=begun: bar.update(begun + count - bar.n) and None,  # type: ignore[misc]
                )
                if len(vectors) != len(shard):
                    raise DataError(
                        f"the corpus '{self._corpus.name}' ends after {shard.start + len(vectors)} sentences, "
                        f"{self._sentences} were expected; was it changed while it was read?"
                    )
                array = _opened(path, np.float16, (self._sentences, vectors.shape[1]))
                array[shard.start : shard.stop] = vectors
                array.flush()
                self._state.vectors += 1
                self._save_state()

    def _find(self, words: Words) -> float | None:
        """The tables; the recall of the search where it is approximate."""
        vectors = np.load(self._work / "vectors.npy", mmap_mode="r")
        eligible = eligible_sentences(words, min_words=self._settings.min_words)
        positions = np.flatnonzero(eligible)
        rows = unit_rows(vectors[positions])
        search, found_recall = self._search(rows)
        find = CandidateFinder(
            words,
            vectors,
            eligible=positions,
            search=search,
            postings=postings_of(words, among=eligible, allowed=self._settings.rare_frequency),
            surface=surface_similarity(self._settings.surface, words, workers=torch.get_num_threads()),
            settings=self._settings,
        )
        shape = (self._sentences, self._settings.columns)
        tables = {name: _opened(self._work / f"{name}.npy", dtype, shape) for name, dtype in _TABLES.items()}
        done = min(self._state.tables * _SHARD, self._sentences)
        with progress_bar("mining", unit=" sentences", total=self._sentences, done=done, delay_s=2.0) as bar:
            for shard in self._shards(self._state.tables):
                for start in range(shard.start, shard.stop, _BLOCK):
                    anchors = np.arange(start, min(start + _BLOCK, shard.stop))
                    block = find(anchors)
                    for name, table in tables.items():
                        table[anchors[0] : anchors[-1] + 1] = getattr(block, name)
                    bar.update(len(anchors))
                for table in tables.values():
                    table.flush()
                self._state.tables += 1
                self._save_state()
        return found_recall

    def _search(self, rows: np.ndarray) -> tuple[Search, float | None]:
        settings, device = self._settings, self._teacher.device
        if self._key["settings"]["search"] == "exact" or len(rows) == 0:
            return exact_search(rows, device=device), None
        search = ivf_search(rows, lists=settings.ivf_lists, probes=settings.ivf_probes, seed=settings.seed)
        return search, recall(search, rows, settings.semantic, seed=settings.seed, device=device)

    def _calibrate(self) -> dict[str, dict[str, float]]:
        """Quantiles of the teacher's cosines: of random pairs, of nearest neighbours, of a sentence with itself."""
        vectors = np.load(self._work / "vectors.npy", mmap_mode="r")
        count, seed = self._sentences, self._settings.seed
        draws = np.arange(_RANDOM_PAIRS)
        first = keyed_integers(count, seed, CALIBRATION, 2, draws)
        second = keyed_integers(count, seed, CALIBRATION, 3, draws)
        first, second = first[first != second], second[first != second]
        cosines = np.concatenate(
            [
                np.einsum("nd,nd->n", unit_rows(vectors[a]), unit_rows(vectors[b]))
                for a, b in zip(np.array_split(first, 16), np.array_split(second, 16), strict=True)
            ]
        )
        nearest = np.load(self._work / "similarity.npy", mmap_mode="r")[:, 0].astype(np.float32)
        has_neighbour = np.load(self._work / "candidates.npy", mmap_mode="r")[:, 0] >= 0
        chosen = set(keyed_integers(count, seed, CALIBRATION, 4, np.arange(_DROPOUT_SENTENCES)).tolist())
        lines = [line for index, line in enumerate(self._corpus.lines()) if index in chosen]
        return {
            "random pairs": quantiles(cosines),
            "nearest neighbours": quantiles(nearest[has_neighbour]),
            "a sentence with itself, dropout on": quantiles(self._teacher.dropout_cosines(lines, seed=seed)),
        }


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Quantiles by their order, e.g. `0.999`; zeros where there is no value."""
    found = np.quantile(values, _QUANTILES) if len(values) else np.zeros(len(_QUANTILES))
    return {f"{order:g}": float(value) for order, value in zip(_QUANTILES, found, strict=True)}


def _opened(path: Path, dtype: Any, shape: tuple[int, int]) -> np.memmap:
    """An array on disk, made if it is not there."""
    if path.is_file():
        return open_memmap(path, mode="r+")
    return open_memmap(path, mode="w+", dtype=dtype, shape=shape)
