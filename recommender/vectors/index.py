"""Nearest items by inner product: a faiss index that reaches a recall against exact search, with what was measured.

A small catalogue is searched exactly. A larger one gets inverted lists (IVF), probed as broadly as the recall floor
asks for, or a graph (HNSW) where lists do not reach it; recall is stored beside the index, measured again when items
are added, and an index below its floor is neither built nor loaded. Items without a vector are not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError
from bart.types import Floats, Floats32, Ints

INDEX_FILE = "items.faiss"
MEASURE_FILE = "items.faiss.json"
_EXACT_UP_TO = 10_000  # below, exact search takes under 0.1 ms and its recall needs no measurement
_QUERIES = 500
_SEED = 1234  # of what nobody has a stream for: centres, and queries near added items


@dataclass(frozen=True, slots=True)
class IndexMeasure:
    """What an index is and what was measured when it was built.

    kind: exact, ivf or hnsw. breadth: lists probed (ivf) or candidates kept (hnsw). recall: share of the k exact
    neighbours found, over `queries` queries; 1 for exact. search_ms: CPU time of one query, median, in indexes of
    version 0.1, which chose by it; None since, so that the same items give the same index on every machine.
    """

    kind: str
    breadth: int
    recall: float
    floor: float
    k: int
    queries: int
    search_ms: float | None
    n: int
    dimension: int


class ItemIndex:
    """Rows of the items nearest to a vector."""

    def __init__(self, index: Any, measure: IndexMeasure) -> None:
        if measure.recall < measure.floor:
            raise BundleError(f"index recall is {measure.recall:.4f}; expected at least {measure.floor:g}")
        self._index = index
        self.measure = measure

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        return self.measure.dimension

    def search(self, query: Floats32, k: int) -> tuple[Ints, Floats32]:
        """Rows and inner products of the k best, best first; fewer where the index holds fewer. query: [d]."""
        score, row = self._index.search(query.reshape(1, -1), k)
        found = row[0]
        if len(found) and found[-1] < 0:
            found = found[found >= 0]
        return found, score[0, : len(found)]

    def search_batch(self, query: Floats32, k: int) -> tuple[Ints, Floats32]:
        """Rows [b, k], -1 where the index holds fewer, and inner products [b, k]. query: [b, d]."""
        score, row = self._index.search(np.ascontiguousarray(query, dtype=np.float32), k)
        return row, score

    def add(self, row: Ints, vector: Floats32) -> None:
        """Puts new items in. row: [m], not yet in the index; vector: [m, d], unit length; zero vectors stay out.

        Recall is measured again, near the new items and elsewhere; where either is below the floor, the index is built
        anew from all its items. Raises ValueError where it then reaches the floor by no breadth.
        """
        has = vector.any(axis=1)
        new = np.ascontiguousarray(vector[has], dtype=np.float32)
        self._index.add_with_ids(new, np.ascontiguousarray(row[has], dtype=np.int64))
        if not len(new):
            return
        old, rows, x = self.measure, *_contents(self._index, self.dimension)
        if old.kind == "exact":
            self.measure = replace(old, n=len(x))
            return
        rng = np.random.default_rng(_SEED)
        asked = np.concatenate([_like_listeners(part, _QUERIES // 2, rng) for part in (new, x)])
        k = min(old.k, len(x))
        truth = _exact(x, rows).search(asked, k)[1]
        found = _recalls(truth, self._index.search(asked, k)[1]).reshape(2, -1).mean(axis=1)
        self.measure = replace(old, n=len(x), k=k, queries=len(asked), recall=float(found.min()))
        if self.measure.recall < old.floor:
            index, self.measure = _tuned(old.kind, x, rows, asked, truth, old.floor, parts=2)
            if self.measure.recall < old.floor:
                raise ValueError(_below([self.measure], old.floor))
            self._index = index

    def remove(self, row: Ints) -> int:
        """Takes items out; the number that was there. An HNSW graph cannot forget: ValueError."""
        if self.measure.kind == "hnsw":
            raise ValueError("an hnsw index cannot remove items; build it anew, or choose kind ivf")
        return int(self._index.remove_ids(np.ascontiguousarray(row, dtype=np.int64)))

    def save(self, folder: Path) -> None:
        """Writes the index, its measurements and its checksum."""
        import faiss

        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._index, str(folder / INDEX_FILE))
        measured = {**asdict(self.measure), "sha256": _sha256(folder / INDEX_FILE)}
        (folder / MEASURE_FILE).write_text(json.dumps(measured, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> ItemIndex:
        """Reads what `save` wrote; BundleError for a missing or altered file, or a recall below its floor."""
        import faiss

        try:
            measured = json.loads((folder / MEASURE_FILE).read_text())
            stored = measured.pop("sha256")
            measure = IndexMeasure(**measured)
            actual = _sha256(folder / INDEX_FILE)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{folder} holds no readable index: {error}") from error
        if stored != actual:
            raise BundleError(f"{folder / INDEX_FILE} has sha256 {actual[:12]}; expected {stored[:12]}: it was altered")
        faiss.omp_set_num_threads(1)
        return cls(faiss.read_index(str(folder / INDEX_FILE)), measure)


def build_index(
    vector: Floats32,
    *,
    kind: str = "auto",
    floor: float = 0.99,
    k: int = 100,
    queries: Floats32 | None = None,
    n_queries: int = _QUERIES,
    rng: np.random.Generator,
) -> ItemIndex:
    """The index of the items that have a vector; their rows are its ids.

    vector: [n, d], unit length or zero. kind: exact, ivf, hnsw, or auto: exact up to 10,000 items, else ivf, and hnsw
    where that stays below the floor. queries: [q, d] that stand for listeners; without them, items moved by noise.
    Raises ValueError for an unknown kind or where no kind reaches the floor.
    """
    import faiss

    if kind not in ("auto", "exact", *_KINDS):
        raise ValueError(f"kind is {kind!r}; expected auto, exact, {', '.join(_KINDS)}")
    if not 0 < floor <= 1:
        raise ValueError(f"floor is {floor}; expected a recall in (0, 1]")
    faiss.omp_set_num_threads(1)  # a request has one thread, and the order of sums must not vary
    row = np.flatnonzero(vector.any(axis=1))
    x = np.ascontiguousarray(vector[row], dtype=np.float32)
    n, d = x.shape
    exact = _exact(x, row)
    if kind == "exact" or (kind == "auto" and n <= _EXACT_UP_TO):
        return ItemIndex(exact, IndexMeasure("exact", 0, 1.0, floor, k, 0, None, n, d))
    if n < 1_000:
        raise ValueError(f"{n} items have a vector; an approximate index needs at least 1,000, use kind exact")
    k = min(k, n)
    asked = _like_listeners(x, n_queries, rng) if queries is None else np.ascontiguousarray(queries, dtype=np.float32)
    truth = exact.search(asked, k)[1]
    tried = []
    for name in _KINDS if kind == "auto" else (kind,):
        index, measure = _tuned(name, x, row, asked, truth, floor)
        if measure.recall >= floor:
            return ItemIndex(index, measure)
        tried.append(measure)
    raise ValueError(_below(tried, floor))


def _below(tried: list[IndexMeasure], floor: float) -> str:
    best = max(tried, key=lambda measure: measure.recall)
    return f"the best index, {best.kind}, has recall {best.recall:.4f}; expected at least {floor:g}"


def _exact(x: Floats32, row: Ints) -> Any:
    import faiss

    index = faiss.IndexIDMap2(faiss.IndexFlatIP(x.shape[1]))
    index.add_with_ids(x, row)
    return index


def _contents(index: Any, dimension: int) -> tuple[Ints, Floats32]:
    """Rows [n], ascending, and vectors [n, d] of the items in an index."""
    import faiss

    if not hasattr(index, "invlists"):  # a map of ids over vectors that lie in a row
        inner = faiss.downcast_index(index.index)
        row, x = faiss.vector_to_array(index.id_map), inner.reconstruct_n(0, inner.ntotal)
    else:
        lists, rows, vectors = index.invlists, [], []
        for number in range(lists.nlist):
            n = lists.list_size(number)
            if n:
                rows.append(faiss.rev_swig_ptr(lists.get_ids(number), n).copy())
                codes = faiss.rev_swig_ptr(lists.get_codes(number), n * lists.code_size)
                vectors.append(codes.view(np.float32).reshape(n, dimension).copy())
        row, x = np.concatenate(rows), np.concatenate(vectors)
    order = np.argsort(row)
    return row[order], np.ascontiguousarray(x[order])


def _ivf(n: int, d: int) -> tuple[Any, Callable[[int], None], Iterable[int]]:
    import faiss

    n_lists = int(4 * np.sqrt(n))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.niter = 10
    index.cp.min_points_per_centroid = 1  # few points are no reason for a warning: recall is measured
    index.cp.max_points_per_centroid = 64
    return index, lambda breadth: setattr(index, "nprobe", breadth), _steps(1, n_lists)


def _hnsw(_: int, d: int) -> tuple[Any, Callable[[int], None], Iterable[int]]:
    import faiss

    graph = faiss.IndexHNSWFlat(d, 24, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 80
    return faiss.IndexIDMap2(graph), lambda breadth: setattr(graph.hnsw, "efSearch", breadth), _steps(64, 2_048)


_KINDS = {"ivf": _ivf, "hnsw": _hnsw}


def _tuned(
    kind: str, x: Floats32, row: Ints, asked: Floats32, truth: Ints, floor: float, parts: int = 1
) -> tuple[Any, IndexMeasure]:
    """The index at the smallest breadth (or the largest tried) that reaches the floor in each part of the queries."""
    (n, d), k = x.shape, truth.shape[1]
    index, set_breadth, breadths = _KINDS[kind](n, d)
    if not index.is_trained:
        index.train(x)
    index.add_with_ids(x, row)
    for breadth in breadths:
        set_breadth(breadth)
        found = index.search(asked, k)[1]
        recall = float(_recalls(truth, found).reshape(parts, -1).mean(axis=1).min())
        if recall >= floor:
            break
    return index, IndexMeasure(kind, breadth, recall, floor, k, len(asked), None, n, d)


def _recalls(truth: Ints, found: Ints) -> Floats:
    """[q], the share of the right rows [q, k] that were found of each query."""
    return np.array([np.isin(t, f, assume_unique=True).mean() for t, f in zip(truth, found, strict=True)])


def _steps(first: int, last: int) -> list[int]:
    """Breadths to try, about 20 % apart."""
    out = [first]
    while out[-1] < last:
        out.append(min(max(out[-1] + 1, int(out[-1] * 1.2)), last))
    return out


def _like_listeners(x: Floats32, n: int, rng: np.random.Generator) -> Floats32:
    """Items moved by noise of 0.7 of their length: a listener's vector is near what they play, not on it."""
    first = rng.integers(len(x), size=n)
    mixed = x[first] + 0.7 * rng.standard_normal((n, x.shape[1]), dtype=np.float32) / np.float32(np.sqrt(x.shape[1]))
    out: Floats32 = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return out


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
