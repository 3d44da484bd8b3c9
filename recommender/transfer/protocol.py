"""The protocol: what is known before a cut, who is asked about, which tracks they are asked about.

Everything that makes a vector ends a week before the last event; the task is the last week. Half of the listeners who
are heard before and after teach the task model (a fifth of them chooses its setting), the other half is tested. A
listener's tracks of the week stand beside as many tracks not played in it, drawn uniformly or by popularity^.75, never
heard ones beside never heard ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import DataError
from bart.types import Bools, Floats, Floats32, Ints, ItemTable
from recommender.containers.vectors import complete_vectors
from recommender.features.factors import plays_matrix
from recommender.features.tables import FeatureTables, Histories, Plays, build_tables
from recommender.sessions.table import DAY_S
from recommender.shelves.items import complete, item_table
from recommender.transfer.task import Pairs
from recommender.users.features import UserFeatures, item_sides
from recommender.users.snapshots import Accounts, Later, Moments, Timeline, moments, played_after
from recommender.users.training import Lessons
from recommender.vectors.sentences import sentences_of_events, sentences_of_playlists
from recommender.vectors.track import train_track_vectors

if TYPE_CHECKING:
    import pyarrow as pa

NEGATIVES = {"uniform": 0.0, "popularity^.75": 0.75}
FEWEST_TRACKS = 5  # of the last week, of a listener who is asked about
FEWEST_LISTENERS = 20


@dataclass(frozen=True, slots=True)
class ProtocolConfig:
    """days: of the task. snapshots: weeks before the cut that the encoder learns from, at most. tracks: a listener is
    asked about at most. seeds: trainings of each kind of vector and of the task model, over which figures are means.
    """

    days: float = 7.0
    snapshots: int = 8
    tracks: int = 40
    seeds: int = 5


@dataclass(frozen=True, eq=False)
class Prepared:
    """events: all; before: those before cut_s. user_id [users]; at the cut: `now`, one snapshot a listener. lessons:
    of the encoder. plays [users, items] sparse counts before the cut."""

    events: pa.Table
    before: pa.Table
    cut_s: int
    items: ItemTable
    tables: FeatureTables
    accounts: Accounts
    features: UserFeatures
    now: Moments
    later: Later
    lessons: Lessons
    plays: Any
    config: ProtocolConfig

    @property
    def user_id(self) -> Sequence[str]:
        return tuple(self.now.user_id.tolist())

    @cached_property
    def popular(self) -> Floats:
        """[items] plays by all before the cut."""
        return np.asarray(self.plays.sum(axis=0), dtype=np.float64).ravel()

    @cached_property
    def side(self) -> Floats32:
        """[items, s] what the task model knows of a track, each column of unit deviation."""
        known = np.log1p(self.popular)[:, None]
        side = np.concatenate([item_sides(self.items, self.tables), known], axis=1)
        out: Floats32 = ((side - side.mean(axis=0)) / np.maximum(side.std(axis=0), 1e-6)).astype(np.float32)
        return out

    @cached_property
    def asked(self) -> Ints:
        """Places in `now` of the listeners who are heard before the cut and after it."""
        return np.flatnonzero(self.now.heard & (np.diff(self.later.offset) >= FEWEST_TRACKS))

    def by_user(self, value: Floats32) -> Floats32:
        """[users, d] of values [n, d] of `now`; zeros of listeners without a snapshot."""
        out = np.zeros((len(self.now.user_id), value.shape[1]), np.float32)
        out[self.now.listener] = value
        return out


def prepare(
    events: pa.Table,
    item_rows: pa.Table,
    playlists: pa.Table | None,
    listeners: pa.Table | None,
    config: ProtocolConfig,
    rng: np.random.Generator,
    on_stage: Callable[[str], Any] | None = None,
) -> Prepared:
    """What the protocol starts from. item_rows: of a file or of the events. listeners: user_id, and what is known of
    accounts. Raises DataError where too few listeners are heard before and after the cut."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tell = on_stage or (lambda _: None)
    started = events["started_at"].cast(pa.int64())
    cut_s = pc.max(started).as_py() // 1_000_000 + 1 - int(config.days * DAY_S)
    before = events.filter(pc.less(started, cut_s * 1_000_000))
    if not len(before):
        raise DataError(f"no event is older than {config.days:g} days; expected weeks before the one that is predicted")
    tell("Track vectors and factors before the cut")
    item_rows = _without_popularity(item_rows)
    item_rows = complete(item_rows, before, None, playlists)
    row_of = {item: row for row, item in enumerate(item_rows["item_id"].to_pylist())}
    sentences = sentences_of_events(before, row_of) if playlists is None else sentences_of_playlists(playlists, row_of)
    vector = train_track_vectors(sentences, len(row_of), seed=int(rng.integers(2**31 - 1)))
    items = item_table(item_rows, vector, playlists=playlists)
    items = replace(items, vector=complete_vectors(items))
    plays = Plays.of(before, items)
    tables = build_tables(plays.credited(items), len(items), rng)
    accounts = Accounts.of(listeners)
    features = UserFeatures.of(items, tables, accounts.countries)
    tell("Features at several moments")
    users = sorted(set(accounts.made_at_s) | set(pc.unique(events["user_id"]).to_pylist()))
    first_s = pc.min(started).as_py() // 1_000_000
    weeks = min(config.snapshots, max(int((cut_s - first_s) / (config.days * DAY_S)) - 1, 1))
    at_s = [cut_s - int(k * config.days * DAY_S) for k in range(weeks, -1, -1)]
    timeline = Timeline(before, items, Histories(items, tables), accounts)
    every = moments(timeline, features, at_s, users)
    now = every.take(every.at_s == cut_s)
    past = every.take(every.at_s < cut_s)
    later_past, later = played_after(before, items, past, config.days), played_after(events, items, now, config.days)
    number = {user: place for place, user in enumerate(users)}
    kept = ~plays.skipped & ~items.is_container[plays.item]
    who = np.array([number[user] for user in plays.user_id.tolist()], dtype=np.int64)[plays.listener[kept]]
    matrix = plays_matrix(who, plays.item[kept], len(users), len(items))
    matrix.sum_duplicates()
    matrix.sort_indices()
    popular = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()
    taught = _established(past, accounts, first_s)
    lessons = Lessons.of(features, past.take(taught), later_past.take(taught), popular, rng)
    made = Prepared(events, before, cut_s, items, tables, accounts, features, now, later, lessons, matrix, config)
    if len(made.asked) < FEWEST_LISTENERS:
        raise DataError(
            f"{len(made.asked)} listeners are heard before the last {config.days:g} days and play at least "
            f"{FEWEST_TRACKS} tracks in them; expected {FEWEST_LISTENERS}"
        )
    return made


def _established(past: Moments, accounts: Accounts, since_s: int) -> Ints:
    """Snapshots of listeners whose account is not made within the data: newcomers are kept for the first hours."""
    made = np.array([accounts.made_at_s.get(user, 0) for user in past.user_id.tolist()])
    return np.flatnonzero(made[past.listener] < since_s)


def _without_popularity(rows: pa.Table) -> pa.Table:
    """A file's popularity may have seen the week that is predicted: it is counted from the events before it."""
    import pyarrow as pa

    at = rows.column_names.index("popularity")
    return rows.set_column(at, "popularity", pa.nulls(len(rows), pa.float64()))


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Pairs of the three parts, and of the tested ones which are never heard (both sides)."""

    train: Pairs
    valid: Pairs
    test: Pairs
    new: Bools


def ask(prepared: Prepared, power: float, rng: np.random.Generator) -> Asked:
    """The pairs of a task; power: of popularity, by which tracks not played are drawn."""
    order = rng.permutation(prepared.asked)
    half = len(order) // 2
    parts = np.split(order, [int(0.8 * half), half])
    chance = prepared.popular**power if power else np.ones(len(prepared.items))
    chance = np.where(prepared.items.is_container, 0.0, chance)
    draw = Drawn(np.cumsum(chance), rng)
    made = [_pairs(prepared, part, draw, rng) for part in parts]
    (train, _), (valid, _), (test, new) = made
    return Asked(train, valid, test, new)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    cumulative: Floats
    rng: np.random.Generator

    def __call__(self, n: int, without: Ints) -> Ints:
        """n tracks outside of `without` (ascending)."""
        found: Ints = np.empty(0, dtype=np.int64)
        while len(found) < n:
            at = self.rng.random(2 * n + 8) * self.cumulative[-1]
            some = np.minimum(np.searchsorted(self.cumulative, at, side="right"), len(self.cumulative) - 1)
            found = np.concatenate([found, some[~np.isin(some, without)]])
        return found[:n]


def _pairs(prepared: Prepared, places: Ints, draw: Drawn, rng: np.random.Generator) -> tuple[Pairs, Bools]:
    user, item, played, new = [], [], [], []
    for place in places.tolist():
        week = prepared.later.of(place)
        some = rng.permutation(week)[: prepared.config.tracks]
        own = int(prepared.now.listener[place])
        heard = prepared.plays.indices[prepared.plays.indptr[own] : prepared.plays.indptr[own + 1]]
        known = np.isin(some, heard)
        for part, without in ((some[known], week), (some[~known], np.union1d(week, heard))):
            others = draw(len(part), without)
            item += [part, others]
            user.append(np.full(2 * len(part), own))
            played.append(np.repeat([1.0, 0.0], len(part)))
            new.append(np.full(2 * len(part), without is not week))
    pairs = Pairs(np.concatenate(user), np.concatenate(item), np.concatenate(played).astype(np.float32))
    return pairs, np.concatenate(new)


def aucs(score: Floats, pairs: Pairs, within: Bools | None = None) -> Mapping[str, Floats]:
    """By tested listener: auc and accuracy, NaN of one without both kinds of pairs; and pooled, the AUC over all."""
    kept = np.ones(len(score), dtype=np.bool_) if within is None else within
    s, played = score[kept], pairs.played[kept] > 0
    listener, place = np.unique(pairs.user, return_inverse=True)
    place = place[kept]
    order = np.lexsort((s, place))
    first = np.searchsorted(place[order], np.arange(len(listener)))
    rank = np.empty(len(s))
    rank[order] = np.arange(len(s)) - first[place[order]] + 1.0
    yes = np.bincount(place, played, minlength=len(listener))
    no = np.bincount(place, ~played, minlength=len(listener))
    total = np.bincount(place, rank * played, minlength=len(listener))
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = np.where((yes > 0) & (no > 0), (total - yes * (yes + 1) / 2) / (yes * no), np.nan)
        right = np.bincount(place, (s > 0) == played, minlength=len(listener)) / (yes + no)
    return {"auc": auc, "accuracy": right, "pooled": np.array([_pooled(s, played)])}


def _pooled(score: Floats, played: Bools) -> float:
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(len(score)) + 1.0
    yes = int(played.sum())
    no = len(score) - yes
    return float((rank[played].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else float("nan")
