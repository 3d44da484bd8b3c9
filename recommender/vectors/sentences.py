"""Sentences: rows of items in the sequence in which they were heard or put together, from playlists or events.

What stands near in a sentence belongs together. Playlists are the better sentences where there are any; sessions of the
events serve otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from bart.types import Bools, Ints
from recommender.events.columns import numbers, one_chunk, rows_of, text
from recommender.events.table import SESSION_GAP_S
from recommender.sessions.codes import coded
from recommender.sessions.plays import only_plays, worth

_COARSE = 0.5  # share of equal neighbouring times from which a clock says nothing about sessions
_A_LIFE_S = 200 * 365 * 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Sentences:
    """Rows of items in sequence: sentence i is `row[offset[i]:offset[i + 1]]`."""

    row: Ints
    offset: Ints

    def __len__(self) -> int:
        return len(self.offset) - 1

    def only(self, kept: Bools) -> Sentences:
        """Without the items outside of `kept` [items]; what is left stands nearer together."""
        inside = kept[self.row]
        before = np.concatenate([[0], np.cumsum(inside)])
        return Sentences(self.row[inside], before[self.offset].astype(np.int64))


def check_columns(playlists: pa.Table) -> None:
    """Raises DataError where a column is missing or holds what cannot be read."""
    for name in ("playlist_id", "item_id"):
        if name not in playlists.column_names:
            raise DataError(f"playlists lack {name}; columns: {', '.join(playlists.column_names)}")
    for name in ("playlist_id", "item_id", "title", "position"):
        if name in playlists.column_names and pa.types.is_nested(playlists.schema.field(name).type):
            held = playlists.schema.field(name).type
            raise DataError(f"playlists: {name} holds {held}; expected {'numbers' if name == 'position' else 'text'}")


def sentences_of_playlists(playlists: pa.Table, row_of: Mapping[str, int]) -> Sentences:
    """One sentence a playlist, in order of position; items that `row_of` lacks are left out.

    playlists: playlist_id, position (optional: the order of the rows), item_id. Raises DataError for a missing column,
    a position that is not a number, or where no item is known.
    """
    check_columns(playlists)
    playlist = text(playlists["playlist_id"]).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    n = len(playlists)
    position = np.arange(n, dtype=np.float64)
    if "position" in playlists.column_names:
        position, bad = numbers(playlists["position"])
        bad |= np.isnan(position)
        if bad.any():
            raise DataError(f"playlists: position of row {int(np.flatnonzero(bad)[0]) + 1} is not a number")
    row = rows_of(playlists["item_id"], row_of)
    if n and (row < 0).all():
        raise DataError(f"none of the {n:,} playlist entries names an item of the events or the items file")
    order = np.lexsort((np.arange(n), position, playlist))
    return _sentences(playlist[order].astype(np.int64), row[order])


def sentences_of_events(events: pa.Table, row_of: Mapping[str, int], gap_s: int = SESSION_GAP_S) -> Sentences:
    """One sentence a session, or a listener where the clock is too coarse to cut sessions (hourly polls of a station).

    Where no event is a play, what each listener likes is a sentence, in the order of time. events: the event table,
    sorted by listener and time. gap_s: inactivity that ends a session, seconds.
    """
    plays = only_plays(events)
    if len(events) and not len(plays):
        plays, gap_s = events.filter(pa.array(worth(events) > 0)), _A_LIFE_S
    events = plays
    _, user = coded(events["user_id"])
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    same_user = np.diff(user) == 0
    step_us = np.diff(at_us)
    coarse = same_user.any() and np.mean(step_us[same_user] == 0) > _COARSE
    new = ~same_user if coarse else ~same_user | (step_us > gap_s * 1_000_000)
    return _sentences(np.concatenate([[0], np.cumsum(new)])[: len(user)], rows_of(events["item_id"], row_of))


def _sentences(group: Ints, row: Ints) -> Sentences:
    """Runs of equal `group`, without the unknown rows and empty sentences."""
    known = row >= 0
    group, row = group[known], row[known]
    start = np.flatnonzero(np.diff(group, prepend=-1) != 0) if len(group) else np.empty(0, dtype=np.int64)
    return Sentences(row, np.concatenate([start, [len(row)]]).astype(np.int64))
