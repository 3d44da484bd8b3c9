"""What shelf rules look up: popular, rising, by time of day, neighbours and moods, counted once when a bundle is built.

"Now" is the end of the events, never a clock, so that the same events give the same tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bart.errors import BundleError
from bart.tensors import mapped, to_bytes
from bart.types import Bools, Floats, Floats32, Ints, ItemTable, Labels
from recommender.events.columns import one_chunk, rows_of
from recommender.events.table import local_clock
from recommender.sessions.plays import is_play, only_plays, worth
from recommender.shelves.decayed import DecayedWeights, fit_decayed_weights
from recommender.shelves.labels import says_something
from recommender.shelves.reconsumption import ReplayWeights, fit_replay_weights
from recommender.vectors.index import ItemIndex
from recommender.vectors.track import unit

ARRAYS_FILE = "shelf_tables.safetensors"
_EARLIER_FILE = "shelf_tables.npz"  # in bundles of before 0.2
WORDS_FILE = "shelf_tables.json"
DAYPARTS = ("night", "morning", "afternoon", "evening")
_DAY_S = 86_400
_ARRAYS = ("popular", "rising", "daypart", "neighbours", "mood", "mood_centre")
_REPLAY_ITEM = "replay_item"
_AGAIN_OWN, _AGAIN_ITEM = "again_own", "again_item"


@dataclass(frozen=True, slots=True)
class TableConfig:
    """How the tables are counted.

    pool: rows kept a table; a rule orders them by the listener. neighbours: near items kept an item. now_d: days that
    count as now. new_d: days for which a release is new. moods: clusters at most.
    """

    pool: int = 300
    neighbours: int = 64
    now_d: float = 7.0
    new_d: float = 60.0
    moods: int = 16

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True, slots=True, eq=False)
class ShelfTables:
    """Rows of the item table, best first, -1 where a list is shorter.

    popular: [m], most played now. rising: [m], growing or newly released. daypart: [8, m], four parts of a working day,
    then of a weekend day. neighbours: [n, k] int32. mood: [c, m], with its centre [c, d] and words. replay,
    again: weights of known items, `again` of listeners whose history is kept.
    """

    popular: Ints
    rising: Ints
    daypart: Ints
    neighbours: np.ndarray[tuple[int, int], np.dtype[np.int32]]
    mood: Ints
    mood_centre: Floats32
    mood_words: tuple[tuple[str, ...], ...]
    replay: ReplayWeights
    again: DecayedWeights | None = None

    def save(self, folder: Path) -> None:
        """Writes the arrays and the words."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays[_REPLAY_ITEM] = self.replay.item.astype(np.float32)
        if self.again is not None:
            arrays |= {_AGAIN_OWN: self.again.own, _AGAIN_ITEM: self.again.item}
        (folder / ARRAYS_FILE).write_bytes(to_bytes(arrays))
        replay = {
            "recent": self.replay.recent.tolist(),
            "favourite": self.replay.favourite.tolist(),
            "replays": self.replay.replays,
            "again": 0 if self.again is None else self.again.replays,
        }
        words = {"mood_words": self.mood_words, "replay": replay}
        (folder / WORDS_FILE).write_text(json.dumps(words, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ShelfTables:
        """Reads what `save` wrote; BundleError where a file is missing or cannot be read."""
        try:
            words = json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))
            replay = words["replay"]
            by_place = np.array(replay["recent"]), np.array(replay["favourite"])
            arrays = _read(folder)
            by_item = arrays.get(_REPLAY_ITEM, np.empty(0))  # tables before 0.2 have none
            weights = ReplayWeights(*by_place, replay["replays"], by_item.astype(np.float64))
            again = None
            if _AGAIN_OWN in arrays:
                again = DecayedWeights(arrays[_AGAIN_OWN], arrays[_AGAIN_ITEM], replay["again"])
            return cls(
                **{name: arrays[name] for name in _ARRAYS},
                mood_words=tuple(tuple(pair) for pair in words["mood_words"]),
                replay=weights,
                again=again,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder} holds no readable shelf tables: {error}") from error


def _read(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    if (folder / ARRAYS_FILE).exists() or not (folder / _EARLIER_FILE).exists():
        return mapped(folder / ARRAYS_FILE)
    with np.load(folder / _EARLIER_FILE, allow_pickle=False) as arrays:
        return dict(arrays)


def alone_vectors(items: ItemTable) -> Floats32:
    """[n, d] vectors of the items that are offered for themselves; zero for the others."""
    alone = items.stands_alone
    return items.vector if alone.all() else items.vector * alone[:, None]


def daypart_of(hour: int, weekday: int) -> int:
    """Index into `ShelfTables.daypart`: six hours each, weekend days after working days."""
    return hour // 6 + (4 if weekday >= 5 else 0)


def build_tables(
    items: ItemTable, events: pa.Table, index: ItemIndex, rng: np.random.Generator, config: TableConfig | None = None
) -> ShelfTables:
    """The tables of a batch. events: the event table; rng: draws the moods' first centres."""
    config, plays = config or TableConfig(), only_plays(events)
    row, at_s, part, count, play = _counted(items, events)
    now_s = int(at_s.max(initial=0))
    n = len(items)
    total = _sums(row, count, n)
    late = at_s > now_s - config.now_d * _DAY_S
    lately = _sums(row[late], count[late], n)
    alone = items.stands_alone
    centre, mood, words = _moods(items, config, rng)
    kept = alone[row]
    popular: Floats = np.where(alone, lately + items.popularity, -np.inf)
    return ShelfTables(
        popular=_best(popular, config.pool),
        rising=_best(_growth(items, lately, total, at_s, now_s, config), config.pool, least=1e-9),
        daypart=_by_daypart(row[play & kept], part[play & kept], n, config.pool),
        neighbours=_neighbours(alone_vectors(items), index, config.neighbours),
        mood=mood,
        mood_centre=centre,
        mood_words=words,
        replay=fit_replay_weights(plays, items),
        again=fit_decayed_weights(plays, items),
    )


def _counted(items: ItemTable, events: pa.Table) -> tuple[Ints, Ints, Ints, Floats, Bools]:
    """Row, seconds UTC, part of the day, what it counts in plays, and whether it is a play, of each event of a known
    item that counts anything."""
    row = rows_of(events["item_id"], items.item_id)
    hour, weekday = local_clock(events)
    at_s = one_chunk(events["started_at"].cast(pa.int64())).to_numpy() // 1_000_000
    count, play = worth(events), is_play(events)
    keep = (row >= 0) & (count != 0)
    part = hour // 6 + np.where(weekday >= 5, 4, 0)
    return row[keep], at_s[keep], part[keep], count[keep], play[keep]


def _sums(row: Ints, count: Floats, n: int) -> Floats:
    """What events count together by item, [n], at least 0."""
    return np.maximum(np.bincount(row, weights=count, minlength=n), 0.0)


def _best(score: Floats, m: int, least: float = -np.inf) -> Ints:
    """Rows of the m highest scores above `least`, best first; ties by row."""
    order = np.argsort(-score, kind="stable")[:m]
    return order[score[order] > least]


def _growth(items: ItemTable, lately: Floats, total: Floats, at_s: Ints, now_s: int, config: TableConfig) -> Floats:
    """Plays of late against what earlier weeks let expect, and 2 at least for a new release; 0 where neither."""
    earlier_d = (now_s - int(at_s.min(initial=now_s))) / _DAY_S - config.now_d
    growth = np.zeros(len(items))
    if earlier_d >= config.now_d:  # less than two spans compare nothing
        expected = (total - lately) * config.now_d / earlier_d
        growth = np.where(lately >= 3, (lately + 5) / (expected + 5), 0.0)
        growth[growth < 1.2] = 0
    today = np.datetime64(now_s, "s").astype("datetime64[D]")
    with np.errstate(invalid="ignore"):
        age_d = (today - items.released_at).astype("timedelta64[D]").astype(np.float64)
    new = ~np.isnat(items.released_at) & (age_d >= 0) & (age_d <= config.new_d)
    score: Floats = np.where(new, np.maximum(growth, 2.0), growth) * np.log1p(lately + new) * items.stands_alone
    return score


def _by_daypart(row: Ints, part: Ints, n: int, m: int) -> Ints:
    """Items with more of their plays in a part of the day than others have, weighted by how much they are played.

    row, part: of each play. When something is liked says nothing of when it is played.
    """
    total = np.bincount(row, minlength=n).astype(np.float64)
    count = np.bincount(part * n + row, minlength=8 * n).reshape(8, n).astype(np.float64)
    usual = count.sum(axis=1) / max(count.sum(), 1.0)
    out = np.full((8, m), -1, dtype=np.int64)
    for p in range(8):
        if usual[p] > 0:
            share = (count[p] + 20 * usual[p]) / (total + 20)  # 20 imagined plays hold rare items at the usual share
            best = _best(share / usual[p] * np.log1p(count[p]), m, least=1e-9)
            out[p, : len(best)] = best
    return out


def _neighbours(
    vector: Floats32, index: ItemIndex, k: int, block: int = 2_048
) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """[n, k] nearest items of each item, itself left out; -1 for items without a vector."""
    out = np.full((len(vector), k), -1, dtype=np.int32)
    able = np.flatnonzero(vector.any(axis=1))
    for start in range(0, len(able), block):
        rows = able[start : start + block]
        near, _ = index.search_batch(vector[rows], k + 1)
        itself = near == rows[:, None]
        itself[~itself.any(axis=1), -1] = True  # an approximate search may miss the item itself: drop the farthest
        out[rows] = near[~itself].reshape(len(rows), k)
    return out


def _moods(
    items: ItemTable, config: TableConfig, rng: np.random.Generator
) -> tuple[Floats32, Ints, tuple[tuple[str, ...], ...]]:
    """Clusters of the track space named by what is common in them and rare elsewhere; none without words or vectors."""
    able = np.flatnonzero(alone_vectors(items).any(axis=1))
    labels = items.genres if len(items.genres.code) else items.artists
    n_moods = int(min(config.moods, len(able) // 50))
    if n_moods < 2 or not len(labels.code):
        return np.zeros((0, items.dimension), np.float32), np.zeros((0, config.pool), np.int64), ()
    x = items.vector[able]
    centre = x[rng.choice(len(able), n_moods, replace=False)]
    learn = x[np.sort(rng.permutation(len(able))[:50_000])]
    for _ in range(15):
        near = np.argmax(learn @ centre.T, axis=1)
        total = np.zeros_like(centre)
        np.add.at(total, near, learn)
        centre = np.where(total.any(axis=1, keepdims=True), unit(total), centre)
    closeness = x @ centre.T
    cluster = np.argmax(closeness, axis=1)
    rows = np.full((n_moods, config.pool), -1, dtype=np.int64)
    for c in range(n_moods):
        member = np.flatnonzero(cluster == c)
        best = able[member[_best(closeness[member, c] + items.popularity[able[member]], config.pool)]]
        rows[c, : len(best)] = best
    words = _words(labels, able, cluster, n_moods)
    named = np.array([c for c in range(n_moods) if words[c] and rows[c, 0] >= 0], dtype=np.int64)
    return centre[named].astype(np.float32), rows[named], tuple(words[c] for c in named)


def _words(labels: Labels, able: Ints, cluster: Ints, n_moods: int) -> list[tuple[str, ...]]:
    """Up to two labels a cluster, by count times the logarithm of how much more frequent than elsewhere."""
    size = np.diff(labels.offset)
    of_item = np.full(len(labels), -1, dtype=np.int64)
    of_item[able] = cluster
    of_label = np.repeat(of_item, size)
    known = of_label >= 0
    n_labels = len(labels.vocabulary)
    count = np.bincount(of_label[known] * n_labels + labels.code[known], minlength=n_moods * n_labels)
    count = count.reshape(n_moods, n_labels).astype(np.float64)
    expected = count.sum(axis=1, keepdims=True) * count.sum(axis=0) / max(count.sum(), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where((count > 0) & says_something(labels), count * np.log(count / expected), 0.0)
    return [tuple(labels.vocabulary[i] for i in _best(weight[c], 2, least=1e-9)) for c in range(n_moods)]
