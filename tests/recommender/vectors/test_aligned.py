"""Truths of aligned vectors: a rotation is undone, cosines stay, and what did not change keeps its bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from bart.types import Floats32, ItemTable
from recommender.shelves.items import item_table, read_items
from recommender.vectors.aligned import aligned
from recommender.vectors.track import unit

IDS = [f"i{k:02d}" for k in range(60)]


def table(vector: Floats32, ids: list[str] = IDS) -> ItemTable:
    return item_table(read_items(pa.table({"item_id": ids})).items, vector)


def vectors(rng: np.random.Generator, n: int = 60, d: int = 8) -> Floats32:
    return unit(rng.normal(size=(n, d)).astype(np.float32))


def rotation(rng: np.random.Generator, d: int = 8) -> Floats32:
    return np.linalg.qr(rng.normal(size=(d, d)))[0].astype(np.float32)


def test_the_same_vectors_rotated_come_back_to_the_very_bytes() -> None:
    rng = np.random.default_rng(1)
    old = vectors(rng)
    order = rng.permutation(60)
    row_of = {IDS[k]: row for row, k in enumerate(order)}
    found = aligned((old @ rotation(rng))[order], row_of, table(old))
    assert found.tobytes() == np.ascontiguousarray(old[order]).tobytes()
    assert aligned(found, row_of, table(old)).tobytes() == found.tobytes()


def test_new_items_and_new_listening_keep_their_cosines_and_lie_near_the_old() -> None:
    rng = np.random.default_rng(2)
    old = vectors(rng)
    new = unit(np.concatenate([old + 0.1 * rng.normal(size=old.shape), vectors(rng, 5)]).astype(np.float32))
    turned = new @ rotation(rng)
    found = aligned(turned, {f"i{k:02d}": k for k in range(65)}, table(old))
    np.testing.assert_allclose(found @ found.T, new @ new.T, atol=1e-5)
    assert (found[:60] * old).sum(axis=1).mean() > 0.9
    assert abs((turned[:60] * old).sum(axis=1).mean()) < 0.5


def test_items_without_a_vector_stay_without_one_and_do_not_steer() -> None:
    rng = np.random.default_rng(3)
    old = vectors(rng)
    new = old @ rotation(rng)
    new[:5], before = 0, old.copy()
    before[5:10] = 0
    found = aligned(new, {item: k for k, item in enumerate(IDS)}, table(before))
    assert not found[:5].any()
    np.testing.assert_allclose(found[5:], old[5:], atol=1e-5)


def test_another_dimension_or_no_common_item_leaves_the_vectors_as_they_are() -> None:
    rng = np.random.default_rng(4)
    new, old = vectors(rng), table(vectors(rng, d=6))
    row_of = {item: k for k, item in enumerate(IDS)}
    assert aligned(new, row_of, old) is new
    strangers = replace(table(vectors(rng)), item_id=np.array([f"x{k:02d}" for k in range(60)], dtype=object))
    assert aligned(new, row_of, strangers) is new
