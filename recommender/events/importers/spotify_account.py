"""Spotify's account data: StreamingHistory*.json of the last year, with less in it than the extended history.

Objects with endTime (UTC, to the minute), artistName, trackName and msPlayed, oldest first. There is no id, device or
reason. Plays that ended in the same minute follow each other: the first is taken to have ended as it began to be that
minute, the next after it has played its length. An equal play in that minute is a play of its own only if it fits into
it; what two files of overlapping exports hold is the same play.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bart.types import Bools, Floats, Ints
from recommender.events import columns as read_columns
from recommender.events.blocks import Block
from recommender.events.check import EXAMPLES
from recommender.events.importers.contract import Asked, Importer, Rows, Shape, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, number, rows_of, text, time_text, timed
from recommender.events.table import AGAIN, Said

STREAM_S = 30.0
DAY_MS = 86_400_000  # longer than a day: not how long it was played
LONGEST_MS = 10**12  # thirty years: no length at all
MINUTE_US = 60_000_000
_SPOKEN = ("podcastName", "episodeName", "audiobookName", "chapterName")
_RAW = pa.schema(
    [
        ("ended_at", pa.string()),
        ("item_id", pa.string()),
        ("listened_s", pa.float64()),
        ("title", pa.string()),
        ("artist", pa.string()),
    ]
)


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The plays of one listener."""
    return Rows((block for block, _, _ in _plays(files, said, asked, len(files) > 1)), {})


def further(files: Sequence[SourceFile], said: Said, asked: Asked, extended: Extended) -> Iterator[Block]:
    """The plays that the extended history of the same listener lacks: later ones, where it is the older export."""
    lacking = 0
    for block, ended_us, length_s in _plays(files, said, asked, named=True):
        again = extended.holds(block.file, ended_us, block.table, length_s)
        lacking += int(np.count_nonzero(~again))
        shown = [block.place(row) for row in np.flatnonzero(again)[:EXAMPLES].tolist()]
        said.refusals.add(AGAIN, shown, int(np.count_nonzero(again)))
        yield rows_of(block, ~again)
    said.notes.append(f"account data beside the extended history: {lacking:,} plays that this lacks are read")


def _plays(files: Sequence[SourceFile], said: Said, asked: Asked, named: bool) -> Iterator[tuple[Block, Ints, Floats]]:
    """Blocks of events, and of each when it ended [n] (microseconds, to the minute) and its length [n]."""
    slots = _Slots()
    for raw_block in blocks(files, said, _RAW, _row, named=named):
        block, ended_us = timed(raw_block, "ended_at", "endTime", said)
        raw = block.table
        length_s = raw["listened_s"].to_numpy()
        start = slots.starts(block.file, ended_us, raw["item_id"].to_pylist(), length_s)
        skipped = pa.array(np.zeros(len(raw), dtype=bool), mask=~(np.nan_to_num(length_s) >= STREAM_S))
        table = pa.table(
            {
                "user_id": pa.array([name_of_one(asked)] * len(raw), pa.string()),
                "item_id": raw["item_id"],
                "started_at": pa.array(start).cast(pa.timestamp("us", "UTC")),
                "listened_s": raw["listened_s"],
                "skipped": skipped,
                "title": raw["title"],
                "artist": raw["artist"],
            }
        )
        yield Block(table, block.file, row=block.row), ended_us, length_s


class Extended:
    """What the extended history of a listener holds, so that the account data of the last year can be told from it.

    A play is the same where track, artist and length are, and the account's minute is that of its end. What was played
    in a private session is known too, and is taken from no file. same: gets the tracks' uris by the names that the
    account data gives them, the latest of several.
    """

    def __init__(self, same: dict[str, str]) -> None:
        self._there: Counter[tuple[str, int, int]] = Counter()  # name, milliseconds, minute
        self._met: Counter[tuple[str, tuple[str, int, int]]] = Counter()  # of each in a file of account data
        self._same, self._latest = same, dict[str, int]()

    def add(self, raw: pa.Table, ended_us: Ints) -> None:
        """Plays with their ends, [n] microseconds."""
        columns = (raw[name].to_pylist() for name in ("artist", "title", "item_id", "listened_s"))
        for artist, title, item, length_s, end in zip(*columns, ended_us.tolist(), strict=True):
            name = _named(artist, title)
            if title is None:
                continue
            if end >= self._latest.get(name, end):
                self._latest[name], self._same[name] = end, item
            if length_s is not None:
                self._there[name, round(1000 * length_s), end // MINUTE_US] += 1

    def add_private(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Records of private sessions, as they are in the file."""
        rows = [
            (str(play.get("ts")), str(play.get("master_metadata_album_artist_name") or ""),
             str(play.get("master_metadata_track_name") or ""), play.get("ms_played"))
            for play in records
        ]  # fmt: skip
        at_us, ok, *_ = read_columns.times(pa.chunked_array([pa.array([row[0] for row in rows], pa.string())]))
        for (_, artist, title, ms), end, known in zip(rows, at_us.tolist(), ok.tolist(), strict=True):
            if known and isinstance(ms, int):
                self._there[_named(artist, title), ms, end // MINUTE_US] += 1

    def holds(self, file: str, ended_us: Ints, plays: pa.Table, length_s: Floats) -> Bools:
        """[n], plays of a file of account data that are here; a play here is one of each file at most."""
        out = np.zeros(len(ended_us), dtype=np.bool_)
        columns = (plays["item_id"].to_pylist(), length_s.tolist(), ended_us.tolist())
        for at, (name, seconds, end) in enumerate(zip(*columns, strict=True)):
            if np.isnan(seconds):
                continue
            for minute in (end // MINUTE_US, end // MINUTE_US - 1):  # cut off, else rounded
                key = (name, round(1000 * seconds), minute)
                if self._met[file, key] < self._there[key]:
                    self._met[file, key] += 1
                    out[at] = True
                    break
        return out


def _named(artist: str | None, title: str | None) -> str:
    return f"{artist or ''} - {title}"


@dataclass(slots=True)
class _Minute:
    """Plays that ended in one minute. end_us: of the last, if the first ended as the minute began; after_us: if they
    follow those of the minute before; start_us: where the last was put."""

    end_us: int
    after_us: int
    start_us: int


class _Slots:
    """When each play began: its minute less its length, and not before the plays of the minute before had ended.

    Nothing older is looked at, so that a later export, which begins elsewhere, gives the same plays the same times.
    """

    def __init__(self) -> None:
        self._minute: dict[int, _Minute] = {}
        self._start_us: dict[tuple[int, str, int, int], int] = {}
        self._seen: dict[tuple[str, int, str, int], int] = defaultdict(int)
        self._now, self._before = "", (0, 0)  # file, and its minute and the one before

    def starts(self, file: str, ended_us: Ints, item: list[str], length_s: Floats) -> Ints:
        """[n] microseconds UTC. file: what it holds twice are two plays, what two files hold is one. One that is newest
        first is read from its end."""
        if np.sign(np.diff(ended_us)).sum() < 0:
            return self.starts(file, ended_us[::-1], item[::-1], length_s[::-1])[::-1]
        if file != self._now:
            self._now, self._before = file, (0, 0)
        out = np.empty(len(ended_us), dtype=np.int64)
        for at, (minute, name, seconds) in enumerate(zip(ended_us.tolist(), item, length_s.tolist(), strict=True)):
            if minute != self._before[0]:
                self._before = minute, self._before[0]
            length_us = 0 if np.isnan(seconds) else round(seconds * 1e6)
            number = self._seen[file, minute, name, length_us]
            self._seen[file, minute, name, length_us] += 1
            key = (minute, name, length_us, number)
            if key not in self._start_us:
                self._start_us[key] = self._place(minute, name, length_us, number)
            out[at] = self._start_us[key]
        return out

    def _place(self, minute: int, name: str, length_us: int, number: int) -> int:
        here, latest = self._minute.get(minute), minute + MINUTE_US - 1_000_000
        if number and here and not (length_us and here.end_us + length_us <= latest):
            return self._start_us[minute, name, length_us, number - 1]  # no room for it again: the same play
        before = self._minute.get(self._before[1]) if self._before[1] < minute else None
        end = minute if here is None else here.end_us + length_us
        after = here.after_us if here is not None else before.end_us if before is not None else minute - length_us
        after += length_us
        start = min(max(end, after), latest) - length_us
        last = here or before  # what the file has later began later, whatever the lengths say
        start = start if last is None else max(start, last.start_us)
        self._minute[minute] = _Minute(min(end, latest), min(after, latest), start)
        return start


def _row(play: Mapping[str, Any]) -> tuple[object, ...]:
    title, artist = text(play, "trackName"), text(play, "artistName")
    if title is None:
        spoken = any(play.get(name) for name in _SPOKEN)
        raise Odd("a podcast or an audiobook" if spoken else "a play without a track")
    played_ms = number(play, "msPlayed")
    if played_ms is not None and not 0 <= played_ms <= LONGEST_MS:
        raise Odd("msPlayed is no length")
    length_s = None if played_ms is None or played_ms > DAY_MS else played_ms / 1000
    return time_text(play, "endTime"), _named(artist, title), length_s, title, artist


def _fits(shape: Shape) -> bool:
    """Files of podcasts and audiobooks are of the export too; what they hold is counted."""
    return shape.form == "json" and any(not shape.lacks(("endTime", "msPlayed", name)) for name in _SPOKEN)


KIND = Importer(
    "spotify-account",
    "Spotify's account data, the history of the last year",
    read,
    "json",
    ("endTime", "msPlayed", "trackName", "artistName"),
    fits=_fits,
)
