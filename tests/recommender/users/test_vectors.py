"""Vectors know their batch, wherever they come from, and never meet those of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.errors import DataError, SchemaMismatch
from recommender.users.vectors import UserVectors, forget_vector


def some(batch_id: str = "a", n: int = 6, seed: int = 0) -> UserVectors:
    vector = np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
    return UserVectors(batch_id, np.array([f"u{k}" for k in range(n)], dtype=object), vector)


def one(of: UserVectors, row: int) -> UserVectors:
    return UserVectors(of.batch_id, of.user_id[row : row + 1], of.vector[row : row + 1])


def test_the_nearest_are_by_cosine_and_without_oneself() -> None:
    every = some()
    near = every.nearest(one(every, 2), 3)
    cosine = every.cosine(every)[2]
    order = [k for k in np.argsort(-cosine).tolist() if k != 2][:3]
    assert [user for user, _ in near] == [f"u{k}" for k in order]
    assert [likeness for _, likeness in near] == pytest.approx(cosine[order].tolist())


def test_length_does_not_count_and_who_is_not_known_is_near_to_nobody() -> None:
    every = some()
    longer = replace(every, vector=every.vector * np.array([[1], [5], [1], [9], [1], [0]], np.float32))
    assert "u5" not in [user for user, _ in longer.nearest(one(every, 0), 9)]
    np.testing.assert_allclose(every.cosine(every)[:5, :5], longer.cosine(every)[:5, :5], atol=1e-6)


@pytest.mark.parametrize("compare", [
    lambda a, b: a.cosine(b),
    lambda a, b: a.nearest(one(b, 0), 2),
    lambda a, b: a.same_batch(b.batch_id),
])  # fmt: skip
def test_vectors_of_two_batches_are_not_compared(compare: object) -> None:
    with pytest.raises(SchemaMismatch, match="batch a and of batch b"):
        compare(some("a"), some("b"))  # type: ignore[operator]


def test_a_file_tells_its_batch_and_is_refused_for_another(tmp_path: Path) -> None:
    every = some()
    every.save(tmp_path / "x" / "v.parquet")
    again = UserVectors.load(tmp_path / "x" / "v.parquet", "a")
    np.testing.assert_array_equal(again.vector, every.vector)
    assert again.user_id.tolist() == every.user_id.tolist()
    with pytest.raises(SchemaMismatch):
        UserVectors.load(tmp_path / "x" / "v.parquet", "b")


def test_another_file_is_no_file_of_vectors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no")
    for name in ("other", "text", "missing"):
        with pytest.raises(DataError, match="bart users encode"):
            UserVectors.load(tmp_path / f"{name}.parquet")


def test_who_is_forgotten_is_in_the_file_no_more_and_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    some().save(path)
    assert forget_vector(path, "u2")
    assert not forget_vector(path, "u2")
    assert UserVectors.load(path, "a").user_id.tolist() == ["u0", "u1", "u3", "u4", "u5"]


def test_vectors_without_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="without a batch"):
        some("")
