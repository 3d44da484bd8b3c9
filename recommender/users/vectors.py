"""Vectors of listeners with the id of their batch: what is compared is of one batch, or it is an error.

A vector is made from what the store keeps of a listener, whenever it is asked for: a play that was reported a moment
ago is in it. Vectors of everybody are made together (`bart users encode`) and kept as a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bart.errors import DataError, SchemaMismatch
from bart.types import Bools, Floats32, ItemTable, Strings
from recommender.features.tables import FeatureTables
from recommender.users.encoder import UserEncoder
from recommender.users.features import Known, UserFeatures

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = b"batch_id"
TOGETHER = 512


@dataclass(frozen=True, slots=True, eq=False)
class UserVectors:
    """vector [n, d] of user_id [n], distinct, all of one batch. Zero where nothing is known of a listener."""

    batch_id: str
    user_id: Strings
    vector: Floats32

    def __post_init__(self) -> None:
        if self.vector.ndim != 2 or len(self.vector) != len(self.user_id):
            raise ValueError(f"vector has shape {self.vector.shape}; expected ({len(self.user_id)}, d)")
        if not self.batch_id:
            raise ValueError("batch_id is empty; vectors without a batch cannot be compared")

    def __len__(self) -> int:
        return len(self.user_id)

    def same_batch(self, batch_id: str) -> None:
        """Raises SchemaMismatch where the other batch is not this one."""
        if batch_id != self.batch_id:
            both = f"vectors of batch {self.batch_id} and of batch {batch_id}"
            raise SchemaMismatch(f"{both}: vectors of different batches cannot be compared")

    @classmethod
    def together(cls, parts: Sequence[UserVectors]) -> UserVectors:
        """All listeners of some parts, in order. Raises SchemaMismatch where two are of different batches."""
        for part in parts:
            part.same_batch(parts[0].batch_id)
        user_id, vector = (np.concatenate([getattr(part, name) for part in parts]) for name in ("user_id", "vector"))
        return cls(parts[0].batch_id, user_id, vector)

    def only(self, kept: Bools) -> UserVectors:
        """Some of the listeners, [n]."""
        return UserVectors(self.batch_id, self.user_id[kept], self.vector[kept])

    def cosine(self, other: UserVectors) -> Floats32:
        """[n, m] likeness of these and others. Raises SchemaMismatch where they are of two batches."""
        self.same_batch(other.batch_id)
        out: Floats32 = _unit(self.vector) @ _unit(other.vector).T
        return out

    def nearest(self, one: UserVectors, k: int) -> list[tuple[str, float]]:
        """The k listeners most alike to a single one, without that one: ids and cosines, best first.

        Raises SchemaMismatch where it is of another batch.
        """
        if len(one) != 1:
            raise ValueError(f"{len(one)} listeners are given; expected one")
        near = self.cosine(one)[:, 0]
        near[(self.user_id == one.user_id[0]) | ~self.vector.any(axis=1)] = -np.inf
        order = np.argsort(-near, kind="stable")[: max(k, 0)]
        return [(str(self.user_id[row]), float(near[row])) for row in order.tolist() if np.isfinite(near[row])]

    def save(self, path: Path) -> None:
        """Writes Parquet: user_id, vector; the batch id stands in the metadata. Put in place in one step."""
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        pq.write_table(self.table(), beside, compression="zstd")
        beside.replace(path)

    def table(self) -> pa.Table:
        """user_id, vector; the batch id stands in the metadata."""
        import pyarrow as pa

        column = pa.FixedSizeListArray.from_arrays(pa.array(self.vector.reshape(-1)), self.vector.shape[1])
        table = pa.table({"user_id": pa.array(self.user_id.tolist(), pa.string()), "vector": column})
        return table.replace_schema_metadata({BATCH: self.batch_id.encode()})

    @classmethod
    def load(cls, path: Path, batch_id: str | None = None) -> UserVectors:
        """Reads what `save` wrote. Raises DataError for another file, SchemaMismatch for one of another batch."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            made = cls.of_table(pq.read_table(path))
        except (OSError, KeyError, AttributeError, ValueError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} holds no listener vectors; expected a file of bart users encode") from error
        if batch_id is not None:
            made.same_batch(batch_id)
        return made

    @classmethod
    def of_table(cls, table: pa.Table) -> UserVectors:
        """What `table` made. Raises KeyError, AttributeError or ValueError for another one."""
        batch_id = (table.schema.metadata or {})[BATCH].decode()
        column = table["vector"].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        users = np.array(table["user_id"].to_pylist(), dtype=object)
        return cls(batch_id, users, flat.reshape(len(table), column.type.list_size))


def forget_vector(path: Path, user_id: str) -> bool:
    """Removes a listener from a file of vectors; whether it held one."""
    every = UserVectors.load(path)
    kept = every.user_id != user_id
    if kept.all():
        return False
    every.only(kept).save(path)
    return True


@dataclass(frozen=True, eq=False)
class UserSpace:
    """The encoder of a batch with its features: what turns what is known of a listener into a vector of that batch."""

    features: UserFeatures
    encoder: UserEncoder
    batch_id: str

    @cached_property
    def dimension(self) -> int:
        return self.encoder.dimension

    def vectors(self, user_id: Sequence[str], known: Iterable[Known], at_s: float) -> UserVectors:
        """Of n listeners at a moment, seconds UTC."""
        parts, rows = [np.empty((0, self.dimension), np.float32)], []
        for one in known:
            rows.append(self.features.row(one, at_s))
            if len(rows) == TOGETHER:
                parts.append(self.encoder.encode(np.stack(rows)))
                rows = []
        if rows:
            parts.append(self.encoder.encode(np.stack(rows)))
        return UserVectors(self.batch_id, np.array(list(user_id), dtype=object), np.concatenate(parts))


def open_users(folder: Path, items: ItemTable, batch_id: str) -> UserSpace | None:
    """The space of a batch from its folder of the listener model; None where it was built without an encoder."""
    encoder = UserEncoder.load(folder)
    if encoder is None:
        return None
    tables = FeatureTables.load(folder)
    if tables is None:
        raise DataError(f"{folder} holds a user encoder and no features; expected both")
    features = UserFeatures(items, tables, encoder.countries, encoder.genres)
    return UserSpace(features, encoder.fitting(features), batch_id)


def _unit(vector: Floats32) -> Floats32:
    out: Floats32 = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), np.float32(1e-12))
    return out
