"""Shelf rules whose cards are albums, playlists, artists, shows and their episodes.

They need items that hold others (`ItemTable.members`) and propose nothing without. A container was heard where the
listener's history holds it: every play of a track counts for its album and artist, of an episode for its show, and of
anything for the container that it was played from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bart.types import ITEM_TYPES, Bools, Floats, Floats32, Ints, Shelf
from recommender.shelves.inputs import Proposal, ShelfInputs, shelf_of

_PLAYED = 20  # items played last that say what playlists should be like
_DAY_S = 86_400
_LETS_GO_D = 10.0  # days after which what one stopped listening to stands as far behind as if played 2.7 times less
_NOTHING = np.empty(0, dtype=np.int64)
_SHOW, _ARTIST = ITEM_TYPES.index("show"), ITEM_TYPES.index("artist")


def albums_for_you(x: ShelfInputs) -> Iterator[Proposal]:
    """Albums near the listener, well-known ones first among equals."""
    yield from _nearest(x, "album", _ALBUMS, x.listener.vector)


def artists_for_you(x: ShelfInputs) -> Iterator[Proposal]:
    """Artists near the listener; those that block an artist do not see them (the rules of the page see to it)."""
    yield from _nearest(x, "artist", _ARTISTS, x.listener.vector)


def playlists_like_yours(x: ShelfInputs) -> Iterator[Proposal]:
    """Playlists near what was played last."""
    if not len(x.lookups.containers["playlist"].row):
        return
    vector = x.lookups.items.vector[x.listener.recent[:_PLAYED]]
    sound = vector.mean(axis=0) if len(vector) else x.listener.vector
    yield from _nearest(x, "playlist", _PLAYLISTS, sound if sound.any() else x.listener.vector)


def shows_you_may_like(x: ShelfInputs) -> Iterator[Proposal]:
    """Shows near the listener of which nothing was heard yet."""
    heard, _, _ = _heard(x)
    yield from _nearest(x, "show", _SHOWS, x.listener.vector, without=heard)


def continue_listening(x: ShelfInputs) -> Iterator[Proposal]:
    """Where the listener left off: the next episode of shows, albums and playlists that were played, the most and the
    latest played first."""
    row, plays, last_s = _heard(x)
    if not len(row):
        return
    items = x.lookups.items
    kept = (items.type[row] != _ARTIST) & (plays > 1)
    row, plays, last_s = row[kept], plays[kept], last_s[kept]
    if not len(row):
        return
    days: Floats = np.maximum(x.context.at.timestamp() - last_s, 0) / _DAY_S
    order = np.argsort(days / _LETS_GO_D - np.log1p(plays), kind="stable")[: 2 * x.want]
    out = row[order].copy()
    for k in np.flatnonzero(items.type[out] == _SHOW).tolist():
        out[k] = _next_episode(x, int(out[k]))
    out = out[out >= 0][: x.want]
    if len(out):
        yield _CONTINUE, out


def _nearest(x: ShelfInputs, kind: str, shelf: Shelf, u: Floats32, without: Ints | None = None) -> Iterator[Proposal]:
    pool = x.lookups.containers[kind]
    if not len(pool.row):
        return
    row = pool.best(u, x.want + (0 if without is None else len(without)))
    if without is not None:
        row = row[~np.isin(row, without)][: x.want]
    if len(row):
        yield shelf, row


def _heard(x: ShelfInputs) -> tuple[Ints, Ints, Ints]:
    """Rows, plays and seconds UTC of the last play of the containers that the listener has played."""
    history, holds = x.listener.history, x.lookups.items.is_container
    if not history or not len(x.lookups.items.members.row):
        return _NOTHING, _NOTHING, _NOTHING
    item = history["item"]
    known: Bools = (item < len(holds)) & (history["plays"] > 0)
    known[known] = holds[item[known]]
    return item[known], history["plays"][known].astype(np.int64), history["last_s"][known]


def _next_episode(x: ShelfInputs, show: int) -> int:
    """The episode after the last one that was heard, of those that are out; -1 where there is none."""
    items = x.lookups.items
    episode = items.members[show]
    heard = np.flatnonzero(np.isin(episode, x.listener.history["item"]))
    later = episode[int(heard[-1]) + 1 if len(heard) else 0 :]
    out = items.released_at[later]
    later = later[np.isnat(out) | (out <= np.datetime64(x.context.at.date()))]
    return int(later[0]) if len(later) else -1


_ALBUMS = shelf_of("albums_for_you", "Albums for you", "Whole albums close to what you play")
_ARTISTS = shelf_of("artists_for_you", "Artists for you", "Artists close to what you play")
_PLAYLISTS = shelf_of("playlists_like_yours", "Playlists like what you play", "Lists close to what you played lately")
_SHOWS = shelf_of("shows_you_may_like", "Shows you may like", "Shows on what you listen to, new to you")
_CONTINUE = shelf_of("continue", "Continue listening", "Where you left off")
