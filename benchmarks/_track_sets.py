"""Data sets by which track vectors are judged: sentences of the earlier listening, sessions of the later.

Simulated worlds, by playlists or by sessions; and from a folder of real data what is there of plays of 25 stations,
setlists (a year of a band is a listener) and KuaiRand.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recommender.events.table import read_events
from recommender.importers import load_events
from recommender.vectors.sentences import Sentences, sentences_of_events, sentences_of_playlists
from simulator.world.config import WorldConfig
from simulator.world.listening import simulate_events
from simulator.world.world import World

PARTS = {"validation": (0.70, 0.85), "test": (0.85, 1.0)}  # of the listening in time; what is before is learnt from
BLOCK = 10  # plays of a station that count as a session, and at most of any
_LATER = dt.timedelta(days=30 * 365.25)  # setlists begin in 1965, events in 1990


@dataclass(frozen=True, eq=False)
class TrackSet:
    """sentences: to learn from. held: [(listener, rows)] of later sessions in sequence. label: codes by name, [n]."""

    name: str
    events: pa.Table
    row_of: dict[str, int]
    sentences: Sentences
    held: list[tuple[int, np.ndarray[Any, Any]]]
    label: dict[str, np.ndarray[Any, Any]]
    hours_only: bool = False

    @property
    def n(self) -> int:
        return len(self.row_of)

    @property
    def found(self) -> int:
        """Length of the lists in which recall looks."""
        return 100 if self.n > 4_000 else 20


def track_sets(folder: Path | None, part: str, seeds: list[int], listeners: int) -> Iterator[TrackSet]:
    """All that can be made: the worlds of the seeds, and what of the real data lies in `folder`."""
    for seed in seeds:
        config = WorldConfig(n_listeners=listeners, n_tracks=25 * listeners, n_playlists=20 * listeners, days=45)
        world = World.make(config, np.random.default_rng(seed))
        events = read_events(pa.Table.from_batches(list(simulate_events(world, np.random.default_rng(seed + 100)))))
        rows = world.items()
        label = {
            "artist": _codes([artists[0] for artists in rows["artist_ids"].to_pylist()]),
            "genre": _codes([genres[0] for genres in rows["genres"].to_pylist()]),
        }
        row_of = {item: row for row, item in enumerate(rows["item_id"].to_pylist())}
        lists = sentences_of_playlists(world.playlists(), row_of)
        for by, sentences in (("playlists", lists), ("sessions", None)):
            yield _cut(f"world {seed}, {by}", events.events, row_of, part, label, sentences)
    if folder is None:
        return
    stations = folder / "classic_rock_radio" / "classic_rock_raw_data.csv"
    if stations.exists():
        yield _real("stations", load_events(stations, "station-plays").events, part, hours_only=True)
    setlists = folder / "grateful_dead_setlists" / "setlists.jsonl"
    if setlists.exists():
        yield _real("setlists", _setlists(setlists), part)
    videos = folder / "kuairand_k15" / "processed_standard_kcore_15.tsv"
    if videos.exists():
        yield _real("KuaiRand", load_events(videos, "kuairand").events, part)


def _real(name: str, events: pa.Table, part: str, hours_only: bool = False) -> TrackSet:
    ids = sorted(set(events["item_id"].to_pylist()))
    label = {"artist": _codes([item.rsplit(" by ", 1)[-1] for item in ids])} if name == "stations" else {}
    return _cut(name, events, {item: row for row, item in enumerate(ids)}, part, label, None, hours_only)


def _cut(
    name: str,
    events: pa.Table,
    row_of: dict[str, int],
    part: str,
    label: dict[str, np.ndarray[Any, Any]],
    sentences: Sentences | None,
    hours_only: bool = False,
) -> TrackSet:
    since, until = PARTS[part]
    user = _codes(events["user_id"].to_pylist())
    at = events["started_at"].cast(pa.int64()).to_numpy()
    if hours_only:  # a share of each listener's sequence
        size = np.bincount(user)
        place = (np.arange(len(user)) - np.searchsorted(user, np.arange(len(size)))[user]) / size[user]
    else:
        place = np.argsort(np.argsort(at, kind="stable"), kind="stable") / len(at)
    before = events.filter(pa.array(place < since))
    inside = (place >= since) & (place < until)
    later = sentences_of_events(events.filter(pa.array(inside)), row_of)
    held = []
    for start, end in zip(later.offset[:-1].tolist(), later.offset[1:].tolist(), strict=True):
        listener = int(user[inside][start]) if name != "setlists" else 0
        blocks = range(start, end - BLOCK + 1, BLOCK) if hours_only else [start]
        most = None if name == "setlists" else BLOCK
        held += [(listener, later.row[at:end][:most]) for at in blocks]
    return TrackSet(name, events, row_of, sentences or sentences_of_events(before, row_of), held, label, hours_only)


def _setlists(path: Path) -> pa.Table:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        show = json.loads(line)
        day = dt.datetime.strptime(show["date"][:10], "%Y/%m/%d").replace(tzinfo=dt.timezone.utc)
        start = day + _LATER + dt.timedelta(hours=12 if show["date"][10:] == "/0" else 19)
        songs = [song for part in show["sets"] for song in part]
        rows += [(show["date"][:4], song, start + dt.timedelta(minutes=7 * k)) for k, song in enumerate(songs)]
    user, item, at = zip(*rows, strict=True)
    columns = {"user_id": user, "item_id": item, "started_at": pa.array(at, pa.timestamp("us", "UTC"))}
    return read_events(pa.table(columns)).events


def _codes(names: list[str]) -> np.ndarray[Any, Any]:
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1]
