"""Truths of the shelves whose cards are albums, playlists, artists, shows and episodes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from bart.types import ITEM_TYPES, Context, Ints, ItemTable, Listener
from recommender.containers.vectors import complete_vectors
from recommender.events.table import EVENT_SCHEMA
from recommender.features.tables import Histories, build_tables
from recommender.features.tables import Plays as Played
from recommender.shelves.candidates import ShelfCandidates, build_candidates
from recommender.shelves.items import complete, item_table, read_items
from recommender.vectors.track import unit

NOW = datetime(2024, 3, 4, 12, tzinfo=timezone.utc)
RULES = {"continue", "albums_for_you", "artists_for_you", "playlists_like_yours", "shows_you_may_like"}
CORNERS, ARTISTS, TRACKS, SHOWS, EPISODES = 4, 24, 10, 12, 5


def plays(pairs: list[tuple[str, str, int]], container: dict[str, str] | None = None) -> pa.Table:
    """(listener, item, hours before now); container: of items, what they were played from."""
    columns = {name: pa.nulls(len(pairs), EVENT_SCHEMA.field(name).type) for name in EVENT_SCHEMA.names}
    columns["user_id"] = pa.array([user for user, _, _ in pairs])
    columns["item_id"] = pa.array([item for _, item, _ in pairs])
    at_us = [int((NOW - timedelta(hours=hours)).timestamp()) * 1_000_000 for _, _, hours in pairs]
    columns["started_at"] = pa.array(at_us).cast(pa.timestamp("us", "UTC"))
    table = pa.table(columns, schema=EVENT_SCHEMA)
    if container is None:
        return table
    return table.append_column("container_id", pa.array([container.get(item) for _, item, _ in pairs], pa.string()))


def catalogue() -> tuple[pa.Table, pa.Table]:
    """items.parquet of tracks in albums by artist and of episodes in shows, and playlists.parquet."""
    rows = [
        {"item_id": f"t{a:02}{k}", "title": f"Song {a} {k}", "type": "track", "artist": f"Artist {a}",
         "genre": f"genre {a % CORNERS}", "album": f"Album {a}", "show": None, "released_at": "2020-01-01"}
        for a in range(ARTISTS) for k in range(TRACKS)
    ]  # fmt: skip
    rows += [
        {"item_id": f"e{s:02}{k}", "title": f"Episode {s} {k}", "type": "episode", "artist": f"Host {s}",
         "genre": f"genre {s % CORNERS}", "album": None, "show": f"Show {s}", "released_at": f"2024-03-0{1 + k}"}
        for s in range(SHOWS) for k in range(EPISODES)
    ]  # fmt: skip
    rows += [{"item_id": f"artist {a}", "title": f"Artist {a}", "type": "artist"} for a in range(ARTISTS)]
    lists = [
        {"playlist_id": f"p{c}{n}", "position": k, "item_id": f"t{c + CORNERS * n:02}{k}", "title": f"List {c} {n}"}
        for c in range(CORNERS) for n in range(3) for k in range(6)
    ]  # fmt: skip
    return read_items(pa.Table.from_pylist(rows)).items, pa.Table.from_pylist(lists)


def make() -> tuple[ItemTable, pa.Table, pa.Table]:
    rng = np.random.default_rng(3)
    given, lists = catalogue()
    events = plays([("u", "t000", 1)])
    rows = complete(given, events, None, lists)
    items = item_table(rows, playlists=lists)
    centre = rng.standard_normal((CORNERS, 40))
    corner = np.array(
        [int(genre[0].split()[1]) if genre else -1 for genre in map(items.genres.__getitem__, range(len(items)))]
    )
    sound = unit((centre[corner] + 0.4 * rng.standard_normal((len(items), 40))).astype(np.float32))
    known = np.array([name.startswith("t") for name in items.item_id.tolist()])
    items = replace(items, vector=np.where(known[:, None], sound, 0).astype(np.float32))
    return replace(items, vector=complete_vectors(items)), rows, lists


ITEMS, ROWS, LISTS = make()
SOURCE = build_candidates(ITEMS, plays([("u", f"t{a:02}0", 1 + a) for a in range(ARTISTS)]), np.random.default_rng(0))


def row(item_id: str) -> int:
    return ITEMS.row_of[item_id]


def listener(events: pa.Table, corner: int = 0) -> Listener:
    """Who played these, with a taste for one corner."""
    played = Played.of(events, ITEMS)
    keeps = Histories(ITEMS, build_tables(played.credited(ITEMS), len(ITEMS), np.random.default_rng(0)))
    history = next(iter(keeps.of_plays(played).values()))
    recent = ITEMS.rows(events["item_id"].to_pylist())
    vector = unit(ITEMS.vector[[row(f"t{corner:02}{k}") for k in range(TRACKS)]].mean(axis=0, keepdims=True))[0]
    return Listener("u", vector, recent=recent, favourite=recent, history=history.arrays)


def shelves(who: Listener, source: ShelfCandidates = SOURCE, at: datetime = NOW) -> dict[str, Ints]:
    found = source.candidates(who, Context(at), np.random.default_rng(1))
    return {shelf.rule: found.item[found.shelf == k] for k, shelf in enumerate(found.shelves)}


HEARD = listener(
    plays([("u", f"t{a:02}{k}", 30 + k) for a in (0, 4, 8) for k in range(5)] + [("u", "e000", 2), ("u", "e001", 1)])
)
CARD_TYPES = {
    "albums_for_you": "album",
    "artists_for_you": "artist",
    "playlists_like_yours": "playlist",
    "shows_you_may_like": "show",
}


@pytest.mark.parametrize(("rule", "kind"), CARD_TYPES.items())
def test_a_shelf_of_containers_holds_its_type_alone_the_listeners_corner_first(rule: str, kind: str) -> None:
    cards = shelves(HEARD)[rule]
    assert {ITEM_TYPES[code] for code in ITEMS.type[cards]} == {kind}
    assert {ITEMS.genres[card] for card in cards[:2].tolist()} == {("genre 0",)}


def test_every_other_shelf_holds_what_stands_alone() -> None:
    for rule, cards in shelves(HEARD).items():
        if rule not in RULES:
            assert ITEMS.stands_alone[cards].all(), rule


def test_the_next_episode_comes_after_the_last_one_that_was_heard() -> None:
    assert row("e002") in shelves(HEARD)["continue"]


def test_an_episode_that_is_not_out_is_not_next() -> None:
    early = shelves(HEARD, at=datetime(2024, 3, 2, 12, tzinfo=timezone.utc)).get("continue", np.empty(0))
    assert not set(early.tolist()) & {row(f"e00{k}") for k in range(EPISODES)}


def test_a_show_that_was_heard_is_not_one_that_the_listener_may_like() -> None:
    assert row("show:Show 0") not in shelves(HEARD)["shows_you_may_like"]
    stranger = replace(HEARD, history={})
    assert row("show:Show 0") in shelves(stranger)["shows_you_may_like"]


def test_a_play_counts_for_its_album_its_artist_and_its_show() -> None:
    history = dict(zip(HEARD.history["item"].tolist(), HEARD.history["plays"].tolist(), strict=True))
    assert history[row("album:Artist 0:Album 0")] == history[row("artist 0")] == 5
    assert history[row("show:Show 0")] == 2
    assert not any(row(f"p{c}{n}") in history for c in range(CORNERS) for n in range(3))


def test_a_play_from_a_playlist_counts_for_the_playlist_and_from_an_album_once() -> None:
    who = listener(plays([("u", "t000", 2), ("u", "t001", 1)], {"t000": "p00", "t001": "album:Artist 0:Album 0"}))
    history = dict(zip(who.history["item"].tolist(), who.history["plays"].tolist(), strict=True))
    assert history[row("p00")] == 1
    assert history[row("album:Artist 0:Album 0")] == 2


def test_a_container_has_the_mean_vector_of_its_members_and_moves_with_them() -> None:
    album = row("album:Artist 3:Album 3")
    mean = ITEMS.vector[ITEMS.members[album]].mean(axis=0)
    assert np.allclose(ITEMS.vector[album], mean / np.linalg.norm(mean), atol=1e-6)
    fewer = ROWS.slice(0, len(ROWS))
    left = [
        None if item == "t030" else name
        for item, name in zip(fewer["item_id"].to_pylist(), fewer["album"].to_pylist(), strict=True)
    ]
    at = fewer.column_names.index("album")
    changed = item_table(fewer.set_column(at, "album", pa.array(left, pa.string())), ITEMS.vector, playlists=LISTS)
    vector = complete_vectors(changed)
    assert len(changed.members[album]) == TRACKS - 1
    assert not np.allclose(vector[album], ITEMS.vector[album], atol=1e-3)


def test_without_containers_nothing_is_proposed() -> None:
    bare = replace(ITEMS, members=type(ITEMS.members).none())
    source = build_candidates(
        bare, plays([("u", f"t{a:02}0", 1 + a) for a in range(ARTISTS)]), np.random.default_rng(0)
    )
    assert not RULES & set(shelves(replace(HEARD, history={}), source))


def test_a_container_of_an_explicit_track_is_explicit() -> None:
    rows = read_items(pa.table({"item_id": ["a", "b"], "album": ["X", "X"], "explicit": [True, False]})).items
    done = complete(rows, plays([("u", "a", 1)]))
    assert dict(zip(done["item_id"].to_pylist(), done["explicit"].to_pylist(), strict=True))["album:X"] is True


def test_completing_twice_changes_nothing() -> None:
    again = complete(ROWS, plays([("u", "t000", 1)]), None, LISTS)
    assert again.equals(ROWS)
