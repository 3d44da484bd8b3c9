"""Truths of the item index: exact search is exact, an approximate one reaches its floor or is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bart.errors import BundleError
from bart.types import Floats32
from recommender.vectors import index as index_module
from recommender.vectors.index import INDEX_FILE, MEASURE_FILE, ItemIndex, build_index
from recommender.vectors.track import unit

KINDS = ("exact", "ivf", "hnsw")


def clustered(n: int, seed: int = 0) -> Floats32:
    centre = np.random.default_rng(0).standard_normal((20, 16), dtype=np.float32)
    rng = np.random.default_rng(100 + seed)
    return unit(centre[rng.integers(20, size=n)] + 0.4 * rng.standard_normal((n, 16), dtype=np.float32))


VECTOR = clustered(3_000)
VECTOR[::7] = 0  # items without a vector


def brute(query: Floats32, k: int) -> list[int]:
    score = np.where(VECTOR.any(axis=1), VECTOR @ query, -np.inf)
    return np.argsort(-score, kind="stable")[:k].tolist()


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    return build_index(VECTOR, kind=request.param, k=20, rng=np.random.default_rng(0))


def test_exact_search_finds_what_a_full_sort_finds() -> None:
    built = build_index(VECTOR, kind="auto", rng=np.random.default_rng(0))
    assert built.measure.kind == "exact"
    for row in (1, 2, 500):
        assert built.search(VECTOR[row], 15)[0].tolist() == brute(VECTOR[row], 15)


def test_every_kind_reaches_the_floor_it_was_built_for(index: ItemIndex) -> None:
    asked = clustered(200, seed=9)
    found = [np.isin(brute(q, 20), index.search(q, 20)[0]).mean() for q in asked]
    assert index.measure.recall >= 0.99
    # the floor was measured at 500 other queries, so allow 4 standard errors of a mean of 200 shares
    assert np.mean(found) >= 0.99 - 4 * np.std(found) / np.sqrt(200)


def test_an_item_finds_itself_first_with_score_one_and_scores_fall(index: ItemIndex) -> None:
    row, score = index.search(VECTOR[11], 10)
    assert row[0] == 11
    assert score[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(score) <= 1e-6).all()


def test_items_without_a_vector_are_never_found(index: ItemIndex) -> None:
    assert len(index) == int(VECTOR.any(axis=1).sum())
    row, _ = index.search_batch(clustered(50, seed=3), 30)
    assert not np.isin(row, np.arange(0, 3_000, 7)).any()


def test_more_than_there_are_gives_all_there_are() -> None:
    built = build_index(VECTOR[:10], rng=np.random.default_rng(0))
    row, score = built.search(VECTOR[1], 50)
    assert sorted(row.tolist()) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert len(score) == len(row)
    assert (built.search_batch(VECTOR[1:2], 50)[0][0, 8:] == -1).all()


def test_a_catalogue_without_vectors_finds_nothing() -> None:
    built = build_index(np.zeros((5, 16), np.float32), rng=np.random.default_rng(0))
    assert built.search(VECTOR[1], 3)[0].tolist() == []


def test_saving_and_loading_changes_no_answer(index: ItemIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    again = ItemIndex.load(tmp_path)
    assert again.measure == index.measure
    for q in clustered(20, seed=4):
        assert again.search(q, 20)[0].tolist() == index.search(q, 20)[0].tolist()


def test_the_same_stream_builds_the_same_index() -> None:
    first, again = (build_index(VECTOR, kind="ivf", k=20, rng=np.random.default_rng(5)) for _ in range(2))
    assert dataclasses.replace(first.measure, search_ms=None) == dataclasses.replace(again.measure, search_ms=None)
    for q in clustered(20, seed=4):
        assert first.search(q, 20)[0].tolist() == again.search(q, 20)[0].tolist()


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    build_index(VECTOR, rng=np.random.default_rng(0)).save(tmp_path)
    raw = bytearray((tmp_path / INDEX_FILE).read_bytes())
    raw[-1] ^= 1
    (tmp_path / INDEX_FILE).write_bytes(bytes(raw))
    with pytest.raises(BundleError, match="it was altered"):
        ItemIndex.load(tmp_path)
    (tmp_path / MEASURE_FILE).unlink()
    with pytest.raises(BundleError, match="holds no readable index"):
        ItemIndex.load(tmp_path)


def test_an_index_below_its_floor_is_not_loaded(tmp_path: Path) -> None:
    build_index(VECTOR, rng=np.random.default_rng(0)).save(tmp_path)
    measured = json.loads((tmp_path / MEASURE_FILE).read_text())
    (tmp_path / MEASURE_FILE).write_text(json.dumps({**measured, "recall": 0.9}))
    with pytest.raises(BundleError, match=r"index recall is 0\.9000; expected at least 0\.99"):
        ItemIndex.load(tmp_path)


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_items_can_come_and_go(kind: str) -> None:
    built = build_index(VECTOR, kind=kind, k=20, rng=np.random.default_rng(0))
    size = len(built)
    assert built.remove(np.array([11, 12])) == 2
    assert 11 not in built.search(VECTOR[11], 20)[0]
    built.add(np.array([11, 9_000, 9_001]), np.stack([VECTOR[11], VECTOR[12], VECTOR[0]]))
    assert len(built) == size  # the third has no vector and stays out
    assert built.search(VECTOR[11], 1)[0].tolist() == [11]
    assert built.search(VECTOR[12], 1)[0].tolist() == [9_000]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_items_of_a_new_kind_lower_no_recall(kind: str) -> None:
    rng = np.random.default_rng(0)
    built = build_index(VECTOR, kind=kind, k=20, rng=rng)
    before = built.measure
    far = unit(np.eye(16, dtype=np.float32)[:2].sum(axis=0, keepdims=True) * 3)  # where nothing lay
    new = unit(far + 0.05 * rng.standard_normal((600, 16), dtype=np.float32))
    rows = 10_000 + np.arange(len(new))
    built.add(rows, new)
    assert built.measure.n == len(built) == before.n + len(new)
    assert built.measure.recall >= 0.99
    asked = unit(far + 0.2 * rng.standard_normal((100, 16), dtype=np.float32))
    every, x = np.concatenate([np.arange(len(VECTOR)), rows]), np.concatenate([VECTOR, new])
    right = [every[np.argsort(-(x @ q), kind="stable")[:20]] for q in asked]
    found = [np.isin(true, built.search(q, 20)[0]).mean() for true, q in zip(right, asked, strict=True)]
    assert np.mean(found) >= 0.99 - 4 * np.std(found) / np.sqrt(100)


def test_a_graph_is_built_only_where_lists_stay_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_EXACT_UP_TO", 1_000)
    assert build_index(VECTOR, k=20, rng=np.random.default_rng(0)).measure.kind == "ivf"
    lists = index_module._KINDS["ivf"]
    too_narrow = {**index_module._KINDS, "ivf": lambda n, d: (*lists(n, d)[:2], [1])}
    monkeypatch.setattr(index_module, "_KINDS", too_narrow)
    assert build_index(VECTOR, k=20, rng=np.random.default_rng(0)).measure.kind == "hnsw"


def test_a_graph_says_that_it_cannot_forget() -> None:
    built = build_index(VECTOR, kind="hnsw", k=20, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="an hnsw index cannot remove items"):
        built.remove(np.array([1]))


def test_mistakes_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="kind is 'tree'; expected auto, exact, ivf, hnsw"):
        build_index(VECTOR, kind="tree", rng=rng)
    with pytest.raises(ValueError, match="floor is 1.5; expected a recall in"):
        build_index(VECTOR, floor=1.5, rng=rng)
    with pytest.raises(ValueError, match="8 items have a vector; an approximate index needs at least 1,000"):
        build_index(VECTOR[:10], kind="ivf", rng=rng)
