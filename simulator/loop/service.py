"""A home-page service for a world: what a build makes of its listening, held in memory.

Track vectors come from the playlists, listener vectors from sessions, candidates from the shelf rules: nothing here
knows the truth. The listener model is a decayed average of sessions, which needs no training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.page.rules import Rules
from bart.types import (
    ITEM_TYPES,
    Bools,
    CandidateSource,
    Context,
    FeatureSource,
    Floats32,
    Ints,
    ItemTable,
    Listener,
    ListenerStore,
    device_code,
)
from simulator.world.listening import simulate_events
from simulator.world.world import World

_MEMORY = "ema_0.99"  # of about a hundred sessions: what a page is chosen by lasts longer than a mood
NOBODY: Ints = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Service:
    """What serves pages in a world.

    batch_id: names the items and vectors in the log. heard: sorted keys (`novelty_key`) of what each listener has
    played. strangers: listeners of whom nothing is known. unheard [n]: items that nobody has played.
    features: of candidates, None where nobody's history is kept.
    """

    world: World
    items: ItemTable
    source: CandidateSource
    store: ListenerStore
    heard: Ints
    rules: Rules = field(default_factory=Rules)
    batch_id: str = "simulated"
    strangers: Ints = field(default_factory=lambda: NOBODY)
    unheard: Bools = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    features: FeatureSource | None = None

    def novelty_key(self, listener: Ints, item: Ints) -> Ints:
        """[m] a number for each pair of a listener's index and of what is new to a listener with an item's row: the
        main artist of a track, an album, a playlist or a show itself, and the show of an episode."""
        items, artists = self.items, len(self.items.artists.vocabulary) + 1
        what = items.artists.first[item] + 1
        itself = items.is_container[item]
        what[itself] = artists + item[itself]
        episode = np.flatnonzero(~itself & ~items.stands_alone[item])
        place, holder = items.held_by.of(item[episode])
        show = items.type[holder] == ITEM_TYPES.index("show")
        what[episode[place[show]]] = artists + holder[show]
        out: Ints = listener * (artists + len(items)) + what
        return out


def make_service(
    world: World,
    rng: np.random.Generator,
    *,
    events: Iterable[pa.RecordBatch] | None = None,
    per_shelf: int = 30,
    rules: Rules | None = None,
    strangers: Ints = NOBODY,
    unheard: Ints = NOBODY,
    knowing: bool = False,
) -> Service:
    """A service for the listeners of `world`.

    events: what was listened to, as `simulate_events` gives it; simulated from `rng` by default. per_shelf: candidates
    that a shelf rule may bring. strangers: listeners whose listening is withheld; unheard: rows of the world's
    catalogue that are withheld from listening and playlists. knowing: serve by the world's own vectors, every item's
    and every listener's taste of the moment, instead of what was found in playlists and sessions; a model then lacks
    nothing but the terms that no feature expresses. The same world and rng give the same service.
    """
    from recommender.containers.vectors import complete_vectors
    from recommender.events.table import read_events
    from recommender.features.source import HistoryFeatures
    from recommender.features.tables import Histories, Plays, build_tables
    from recommender.listener.model import MemoryListener, compute_states
    from recommender.sessions.sessions import cut_sessions
    from recommender.shelves.calibration import sampled_visits
    from recommender.shelves.candidates import CandidateConfig, build_candidates
    from recommender.shelves.items import item_table
    from recommender.shelves.profile import build_profiles
    from recommender.states.states import ListenerRow, SqliteListenerStore
    from recommender.vectors.sentences import sentences_of_playlists
    from recommender.vectors.track import train_track_vectors

    listening_rng, vector_rng, index_rng, feature_rng = rng.spawn(4)
    new = np.zeros(len(world.cards), dtype=np.bool_)
    new[unheard] = True
    withheld = pa.array([world.cards.item_id[row] for row in np.flatnonzero(new)], pa.string())
    unknown = pa.array([world.population.user_id[i] for i in strangers.tolist()], pa.string())
    batches = list(simulate_events(world, listening_rng) if events is None else events)
    kept = _without(_without(pa.Table.from_batches(batches), "item_id", withheld), "user_id", unknown)
    table = read_events(kept).events
    rows = world.items()
    row_of = {item: row for row, item in enumerate(rows["item_id"].to_pylist())}
    sentences = sentences_of_playlists(_without(world.playlists(), "item_id", withheld), row_of)
    seed = int(vector_rng.integers(2**31 - 1))
    vector = world.cards.vector if knowing else train_track_vectors(sentences, len(row_of), seed=seed)
    items = item_table(rows, vector, playlists=world.playlists())
    items = replace(items, vector=complete_vectors(items), popularity=np.where(new, 0.0, items.popularity))

    sessions = cut_sessions(table, row_of, items.vector)
    model = MemoryListener(items.dimension, _MEMORY)
    state = compute_states(model, sessions)
    profiles = build_profiles(table, items)
    source = build_candidates(items, table, index_rng, config=CandidateConfig(per_shelf=per_shelf), index_kind="exact")
    plays = Plays.of(table, items)
    features = HistoryFeatures(items, build_tables(plays.credited(items), len(items), feature_rng))
    keeps = Histories(items, features.tables)
    histories, until_s = keeps.of_plays(plays), int(plays.at_s.max(initial=0))
    batch_id = hashlib.sha256(items.vector.tobytes() + state.tobytes()).hexdigest()[:16]
    store = SqliteListenerStore(Path(":memory:"), model, batch_id, cold_vector=mean_vector(items), histories=keeps)
    joined = dict(zip(world.population.user_id, world.population.joined_at_s.tolist(), strict=True))
    store.put_many(
        ListenerRow(
            user_id=user,
            state=state[number],
            recent=profiles.recent(user),
            favourite=profiles.favourite(user),
            made_at_s=joined[user],
            diversity=profiles.diversity(user),
            history=histories[user],
        )
        for number, user in enumerate(sessions.user_id.tolist())
    )
    visits = sampled_visits(
        source, lambda i, at: store.listener(str(sessions.user_id[i]), at), sessions.n_users, until_s, feature_rng
    )
    features = features.calibrated(visits)
    service = Service(
        world,
        items,
        source,
        _Knowing(world, store) if knowing else store,
        NOBODY,
        rules or Rules(),
        batch_id,
        strangers=np.sort(strangers),
        unheard=new,
        features=features,
    )
    return replace(service, heard=_heard(service, table))


@dataclass(frozen=True, eq=False)
class _Knowing:
    """A listener store that knows what everybody feels like at the moment."""

    world: World
    store: ListenerStore

    def listener(self, user_id: str, context: Context) -> Listener:
        hour, weekday = np.array([context.hour]), np.array([context.weekday])
        device, at_s = np.array([device_code(context.device)]), np.array([int(context.at.timestamp())])
        taste = self.world.taste(self.world.listener_of([user_id]), hour, weekday, device, at_s)
        return replace(self.store.listener(user_id, context), vector=taste[0].astype(np.float32))


def mean_vector(items: ItemTable) -> Floats32:
    """[d] for a listener of whom nothing is known: the unit mean of item vectors, weighted by popularity."""
    mean = (items.vector * (items.popularity * items.stands_alone)[:, None]).sum(axis=0)
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm > 0 else mean, dtype=np.float32)


def _without(table: pa.Table, column: str, names: pa.Array) -> pa.Table:
    return table if len(names) == 0 else table.filter(pc.invert(pc.is_in(table[column], names)))


def _heard(service: Service, events: pa.Table) -> Ints:
    """Sorted keys of what the listeners of the events have played, containers by their members and as events tell."""
    user = events["user_id"].combine_chunks().dictionary_encode()
    item = events["item_id"].combine_chunks().dictionary_encode()
    listener = service.world.listener_of(user.dictionary.to_pylist())[user.indices.to_numpy()]
    row = service.items.rows(item.dictionary.to_pylist())[item.indices.to_numpy()]
    place, container = service.items.credits.of(row)
    keys = [service.novelty_key(listener, row), service.novelty_key(listener[place], container)]
    if "container_id" in events.column_names:
        source = events["container_id"].combine_chunks().dictionary_encode()
        known = np.flatnonzero(source.indices.is_valid().to_numpy(zero_copy_only=False))
        code = source.indices.fill_null(0).to_numpy()[known]
        keys.append(service.novelty_key(listener[known], service.items.rows(source.dictionary.to_pylist())[code]))
    return np.unique(np.concatenate(keys))
