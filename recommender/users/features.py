"""The features of a listener, each group defined once: name, what it says, where it comes from, how wide it is.

Worked out from what the listener stores keep (`recommender.features`: the history, by the same fading counts and
factors as the features of candidates, and the usage), so a vector made from events and one made while serving are the
same function of the same record. Missing is missing: a group of which nothing is known is NaN, never zero.

Source: Fazelnia et al. 2025, section 2: mean track vectors over several windows, with demographics, signals of the
onboarding and contexts. Departure: windows fade (a play counts half for every half-life) instead of ending at a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bart.types import Bools, Floats32, Ints, ItemTable
from bart.types.items import CONTAINERS, ITEM_TYPES
from recommender.features.history import HALF_LIVES_D, History, faded
from recommender.features.tables import FeatureTables
from recommender.features.usage import HOURS, Usage
from recommender.sessions.table import DAY_S, N_DEVICES

MOST_GENRES = 64
MOST_COUNTRIES = 64
NEWEST_SAVED = 200


@dataclass(frozen=True, slots=True)
class Group:
    """Features that are known together, and masked together in training. moves: what changes them."""

    name: str
    says: str
    source: str
    moves: str


GROUPS: tuple[Group, ...] = (
    Group("content", "mean content vectors of plays, half-lives 2, 30 and 90 days", "plays", "with each play"),
    Group("collaborative", "the same of factors of co-listening", "plays", "with each play"),
    Group("skipped", "mean content vector and factor of skips", "skips", "with each play"),
    Group("saved", "mean content vector and factor of what was saved or liked", "saves", "with each save"),
    Group("containers", "mean vector of albums, playlists, artists and shows, their shares", "plays", "with each play"),
    Group("genres", "shares of genres in plays", "plays", "with each play"),
    Group("habits", "plays, skips, repeats, popularity, diversity, days since a play", "plays", "with each play"),
    Group("hours", "shares of sessions by local hour", "sessions", "with each session"),
    Group("devices", "shares of sessions by device", "sessions", "with each session"),
    Group("lengths", "number of sessions, tracks and minutes of one", "sessions", "with each session"),
    Group("onboarding", "mean content vector and factor of the picks", "onboarding", "with the picks"),
    Group("country", "country", "traits", "with the account"),
    Group("age", "age of the account", "traits", "with time"),
)
GROUP_NAMES = tuple(group.name for group in GROUPS)
VECTORS = ("content", "collaborative", "skipped", "saved", "containers", "onboarding")  # whose widths are directions
HABITS = ("log_plays", "skips", "repeats", "usual_popularity", "diversity", "log_days")


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one listener at a moment. made_at_s: when the account was made, seconds UTC, or None."""

    history: History | None
    usage: Usage
    made_at_s: int | None


@dataclass(frozen=True, eq=False)
class UserFeatures:
    """The features of a batch's listeners.

    countries, genres: those told apart, which stay when items are added to the batch; another country is not known,
    another genre is none of them.
    """

    items: ItemTable
    tables: FeatureTables
    countries: tuple[str, ...]
    genres: tuple[str, ...]

    @classmethod
    def of(cls, items: ItemTable, tables: FeatureTables, countries: tuple[str, ...] = ()) -> UserFeatures:
        """Of a new batch: the most frequent first genres of its items, and the first of the given countries."""
        first = items.genres.first
        count = np.bincount(first[first >= 0], minlength=len(items.genres.vocabulary))
        kept = np.argsort(-count, kind="stable")[:MOST_GENRES]
        genres = tuple(items.genres.vocabulary[code] for code in kept.tolist())
        return cls(items, tables, countries[:MOST_COUNTRIES], genres)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group stands in a row of features."""
        d, f, windows = self.items.dimension, self.tables.factor.shape[1], len(HALF_LIVES_D)
        width = {
            "content": windows * d, "collaborative": windows * f, "skipped": d + f, "saved": d + f,
            "containers": d + len(CONTAINERS), "genres": len(self.genres), "habits": len(HABITS), "hours": HOURS,
            "devices": N_DEVICES, "lengths": 3, "onboarding": d + f, "country": len(self.countries), "age": 1,
        }  # fmt: skip
        out, start = {}, 0
        for name in GROUP_NAMES:
            out[name] = slice(start, start + width[name])
            start = out[name].stop
        return out

    @property
    def width(self) -> int:
        return int(self.slices[GROUP_NAMES[-1]].stop)

    @cached_property
    def _genre(self) -> Ints:
        """[items] place of an item's first genre in `genres`; behind the last for any other or none."""
        number = {name: k for k, name in enumerate(self.genres)}
        other = len(self.genres)
        place = np.array([*(number.get(name, other) for name in self.items.genres.vocabulary), other], dtype=np.int64)
        return place[self.items.genres.first]  # -1, no genre, is the last

    @cached_property
    def _container_type(self) -> Ints:
        """[items] place in CONTAINERS, -1 for what is none."""
        place = np.full(len(ITEM_TYPES), -1, dtype=np.int64)
        for number, name in enumerate(CONTAINERS):
            place[ITEM_TYPES.index(name)] = number
        return place[self.items.type]

    def row(self, known: Known, at_s: float) -> Floats32:
        """[width] the features of one listener at a moment (seconds UTC), NaN where not known."""
        out = np.full(self.width, np.nan, dtype=np.float32)
        if known.history is not None and len(known.history.item):
            self._of_history(known.history, at_s, out)
        self._of_usage(known.usage, out)
        if known.made_at_s is not None:
            out[self.slices["age"]] = np.log1p(max(at_s - known.made_at_s, 0.0) / DAY_S)
        return out

    def _of_history(self, history: History, at_s: float, out: Floats32) -> None:
        of = self.slices
        there = int(np.searchsorted(history.item, len(self.items)))  # ascending
        item = history.item[:there]
        plays, skips = history.plays[:there].astype(np.float32), history.skips[:there].astype(np.float32)
        since_s = np.where(plays > 0, np.maximum(at_s - history.last_s[:there], 0), 0).astype(np.float32)
        count = history.decayed[:there] * faded(since_s)  # [k, windows]
        container = self.items.is_container[item]
        held = np.flatnonzero(container & (plays > 0))
        if len(held):
            kind = np.bincount(self._container_type[item[held]], plays[held], minlength=len(CONTAINERS))
            out[of["containers"]] = np.concatenate(
                [self._means(plays[held, None], item[held])[0], kind / plays[held].sum()]
            )
        if container.any():
            single = ~container
            item, plays, skips, count = item[single], plays[single], skips[single], count[single]
        played, skipped = bool(plays.any()), bool(skips.any())
        if not (played or skipped):
            return
        each = np.concatenate([count, skips[:, None], plays[:, None]], axis=1)  # [k, windows, skips, plays]
        content, factor = self._means(each, item), self._factors(each[:, :-1], item)
        if played:
            out[of["content"]] = content[:-2].ravel()
            out[of["collaborative"]] = factor[:-1].ravel()
            genre = np.bincount(self._genre[item], plays, minlength=len(self.genres) + 1)[: len(self.genres)]
            out[of["genres"]] = genre / plays.sum()
        if skipped:
            out[of["skipped"]] = np.concatenate([content[-2], factor[-1]])
        diversity = 1.0 - float(np.linalg.norm(content[-1]))
        out[of["habits"]] = self._habits(plays, skips, item, diversity, float(at_s - history.last_s.max()))

    def _habits(self, plays: Floats32, skips: Floats32, item: Ints, diversity: float, since_s: float) -> Floats32:
        """As the features of the listener in `recommender.features.definitions`, the first and the last as logarithms;
        diversity: what the length of the mean vector of plays lacks to 1."""
        total = float(plays.sum())
        nan = float("nan")
        known = total > 0
        return np.array(
            [
                np.log1p(total),
                float(skips.sum()) / (total + float(skips.sum())),
                1.0 - np.count_nonzero(plays) / total if known else nan,
                float(plays @ self.items.popularity[item]) / total if known else nan,
                diversity if known else nan,
                np.log1p(max(since_s, 0.0) / DAY_S) if known else nan,
            ],
            dtype=np.float32,
        )

    def _of_usage(self, usage: Usage, out: Floats32) -> None:
        of = self.slices
        for name, rows in (("onboarding", usage.picked), ("saved", usage.saved[-NEWEST_SAVED:])):
            rows = rows[rows < len(self.items)]
            if len(rows):
                out[of[name]] = self._both(np.ones(len(rows), dtype=np.float32), rows)
        if usage.sessions > 0:
            out[of["hours"]] = usage.hour / usage.sessions
            out[of["devices"]] = usage.device / usage.sessions
            tracks, minutes = usage.tracks / usage.sessions, usage.minutes / usage.sessions
            out[of["lengths"]] = np.log1p([usage.sessions, tracks, minutes])
        if usage.country in self.countries:
            out[of["country"]] = np.array([usage.country == one for one in self.countries], dtype=np.float32)

    def _both(self, count: Floats32, item: Ints) -> Floats32:
        return np.concatenate([self._means(count[:, None], item)[0], self._factors(count[:, None], item)[0]])

    def _means(self, count: Floats32, item: Ints) -> Floats32:
        """[c, d] mean content vectors of items by each column of counts [k, c]; zero where one counts nothing."""
        total = np.ones(len(count), np.float32) @ count
        out: Floats32 = _sums(count, item, self.items.vector) / np.maximum(total[:, None], np.float32(1e-30))
        return out

    def _factors(self, count: Floats32, item: Ints) -> Floats32:
        """[c, f] `listener_factor` of each column of counts [k, c] of items."""
        weight = self.tables.weight[
            np.minimum(item, len(self.tables.weight) - 1)
        ]  # beyond the factors nothing is added
        total = _sums(np.log1p(count) * weight[:, None], item, self.tables.factor)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        out: Floats32 = np.where(length > 1e-9, total / np.maximum(length, 1e-9), 0).astype(np.float32)
        return out


def _sums(weight: Floats32, item: Ints, table: Floats32) -> Floats32:
    from recommender.users.kernel import add_rows  # numba loads only where vectors are made

    out = np.zeros((weight.shape[1], table.shape[1]), dtype=np.float32)
    add_rows(item, np.ascontiguousarray(weight), table, out)
    return out


def presence(value: Floats32, slices: Mapping[str, slice]) -> Bools:
    """[n, groups] whether anything of a group is known, of rows of features [n, width]."""
    known = np.isfinite(value)
    return np.stack([known[:, of].any(axis=1) for of in slices.values()], axis=1)


def item_sides(items: ItemTable, tables: FeatureTables) -> Floats32:
    """[items, d + f] content vector and unit factor of each item, both of length 1 where they are known."""
    factor = np.zeros((len(items), tables.factor.shape[1]), np.float32)
    known = tables.factor[: len(items)]
    factor[: len(known)] = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-9)
    return np.concatenate([items.vector, factor], axis=1).astype(np.float32)
