"""What a batch knows for the features of its visits: item factors, plays and skips by all, bounds of the levels.

Made when a batch is built, kept in its bundle, never changed: a value of the same listener and item at the same moment
comes out the same whenever it is worked out again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.errors import BundleError, DataError
from bart.tensors import mapped, to_bytes
from bart.types import Bools, Floats32, Ints, ItemTable, Strings
from bart.types.levels import UNKNOWN
from recommender.events.columns import rows_of
from recommender.features.definitions import NAMES
from recommender.features.factors import item_factors, listener_factor, plays_matrix
from recommender.features.history import History
from recommender.features.interests import interests_of
from recommender.sessions.codes import coded
from recommender.sessions.plays import only_plays

FILE = "features.safetensors"
N_FACTORS = 128  # of 32, 64, 128 and 256 the fewest beyond which a learnt page gained nothing


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTables:
    """factor [items, f], weight [items]: see `item_factors`. of_all [items, 2]: plays by all, share of skips.

    bound [features, levels - 1]: where the levels of each feature begin, inf where it has fewer. Items that came after
    the batch was built are beyond these tables: nothing is known of them here.
    """

    factor: Floats32
    weight: Floats32
    of_all: Floats32
    bound: Floats32

    @property
    def version(self) -> str:
        """16 hex digits that differ for tables that differ."""
        return hashlib.sha256(self._bytes()).hexdigest()[:16]

    def with_bounds(self, bound: Floats32) -> FeatureTables:
        return replace(self, bound=bound)

    def save(self, folder: Path) -> None:
        """Writes `features.safetensors` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self._bytes())

    @classmethod
    def load(cls, folder: Path) -> FeatureTables | None:
        """Reads what `save` wrote; None where a batch was built without features."""
        file = folder / FILE
        if not file.is_file():
            return None
        try:
            arrays = mapped(file)
            tables = cls(*(arrays[name].astype(np.float32, copy=False) for name in cls.__slots__))
        except (OSError, KeyError, DataError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from None
        if tables.bound.shape != (len(NAMES), UNKNOWN - 1):
            raise BundleError(f"{file} is of {len(tables.bound)} features; this code has {len(NAMES)}")
        return tables

    def _bytes(self) -> bytes:
        return to_bytes({name: getattr(self, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, eq=False)
class Plays:
    """m plays of known items, in any order: listener [m] (places in user_id), item [m] rows, skipped, at_s [m]; of an
    event table listener and item are int32."""

    user_id: Strings
    listener: Ints
    item: Ints
    skipped: Bools
    at_s: Ints

    @classmethod
    def of(cls, events: pa.Table, items: ItemTable) -> Plays:
        """Those of an event table; what it does not say was skipped was played.

        A play from a container that the item does not stand for by itself (a playlist) is one of the container too.
        """
        events = only_plays(events)
        words, listener = coded(events["user_id"])
        row: NDArray[Any] = rows_of(events["item_id"], items.item_id).astype(np.int32)
        skipped = events["skipped"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_)
        at_s = events["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
        known = row >= 0
        user_id = np.array(words.to_pylist(), dtype=object)
        plays = cls(user_id, listener[known], row[known], skipped[known], at_s[known])
        if "container_id" not in events.column_names:
            return plays
        container = rows_of(events["container_id"], items.item_id)[known]
        return plays.with_more(*not_credited(items, plays.item, container))

    def with_more(self, place: Ints, item: Ints) -> Plays:
        """The same, and behind them the plays at `place` [k] once more as plays of `item` [k]."""
        arrays = (self.listener, self.item, self.skipped, self.at_s)
        more = (self.listener[place], item, self.skipped[place], self.at_s[place])
        joined = (np.concatenate([a, b.astype(a.dtype)]) for a, b in zip(arrays, more, strict=True))
        return Plays(self.user_id, *joined)

    def credited(self, items: ItemTable) -> Plays:
        """The same, and each once more as a play of the containers that it counts for."""
        return self.with_more(*items.credits.of(self.item))

    def by_listener(self) -> list[Ints]:
        """Places of each listener's plays."""
        order = np.argsort(self.listener, kind="stable")
        return np.split(order, np.searchsorted(self.listener[order], np.arange(1, len(self.user_id))))[
            : len(self.user_id)
        ]


def not_credited(items: ItemTable, item: Ints, container: Ints) -> tuple[Ints, Ints]:
    """Places of the plays whose container [m] is known and none of those that their item counts for, and its rows."""
    place = np.flatnonzero((container >= 0) & (container != item))
    of, credit = items.credits.of(item[place])
    twice = of[credit == container[place][of]]
    place = np.delete(place, twice)
    return place, container[place]


def build_tables(plays: Plays, n_items: int, rng: np.random.Generator) -> FeatureTables:
    """The tables of a batch but for the bounds, which the values of its candidates give (`bounds_of`).

    plays: with those of containers (`Plays.credited`).
    """
    played = ~plays.skipped
    counts = plays_matrix(plays.listener[played], plays.item[played], len(plays.user_id), n_items)
    factor, weight = item_factors(counts, N_FACTORS, rng)
    n_played = np.bincount(plays.item[played], minlength=n_items)
    n_skipped = np.bincount(plays.item[~played], minlength=n_items)
    of_all = np.stack([n_played, (n_skipped + 3.0) / (n_played + n_skipped + 6.0)], axis=1)
    bound = np.full((len(NAMES), UNKNOWN - 1), np.inf, dtype=np.float32)
    return FeatureTables(factor, weight, of_all.astype(np.float32), bound)


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Makes and moves the histories of a batch's listeners."""

    items: ItemTable
    tables: FeatureTables

    def empty(self) -> History:
        return History.empty(self.items.dimension, self.tables.factor.shape[1])

    def after(self, history: History | None, item: Ints, skipped: Bools, at_s: Ints) -> History:
        """The history after m more plays; the same whether they come at once or one after another."""
        counted = self.heard(history, item, skipped, at_s)
        known = counted.item < len(self.items)
        known[known] = ~self.items.is_container[counted.item[known]]  # their members say the same
        plays = counted.plays[known].astype(np.float32)
        row = counted.item[known]
        interest, weight = interests_of(self.items.vector[row], plays)
        there = row < len(self.tables.factor)
        row, plays = row[there], plays[there]
        factor = listener_factor(plays, self.tables.factor[row], self.tables.weight[row])
        return replace(counted, interest=interest, weight=weight, factor=factor)

    def heard(self, history: History | None, item: Ints, skipped: Bools, at_s: Ints) -> History:
        """The same with interests and factor as they were: of a session that is not over."""
        place, container = self.items.credits.of(item)
        if len(place):
            item, skipped = np.concatenate([item, container]), np.concatenate([skipped, skipped[place]])
            at_s = np.concatenate([at_s, at_s[place]])
        return (self.empty() if history is None else history).counted(item, skipped, at_s)

    def of_plays(self, plays: Plays) -> Mapping[str, History]:
        """The history of each listener of an event table, worked out when it is asked for."""
        return _HistoriesOf(self, plays, dict(zip(plays.user_id.tolist(), plays.by_listener(), strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class _HistoriesOf(Mapping[str, History]):
    """place: of each listener's plays."""

    histories: Histories
    plays: Plays
    place: dict[str, Ints]

    def __getitem__(self, user: str) -> History:
        place, plays = self.place[user], self.plays
        return self.histories.after(None, plays.item[place], plays.skipped[place], plays.at_s[place])

    def __iter__(self) -> Iterator[str]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)
