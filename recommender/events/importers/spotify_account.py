"""Spotify's account data: StreamingHistory*.json of the last year, with less in it than the extended history.

Objects with endTime (UTC, to the minute), artistName, trackName and msPlayed, oldest first. There is no id, device or
reason. Plays that ended in the same minute follow each other: the first is taken to have ended as it began to be that
minute, the next after it has played its length. An equal play in that minute is a play of its own only if it fits into
it; what two files of overlapping exports hold is the same play.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bart.types import Floats, Ints
from recommender.events import columns as read_columns
from recommender.events.blocks import Block
from recommender.events.importers.contract import Asked, Importer, Rows, Shape, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, number, text, time_text
from recommender.events.importers.spotify import DAY_MS, LONGEST_MS, STREAM_S
from recommender.events.table import Said

MINUTE_US = 60_000_000
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

    def plays() -> Iterator[Block]:
        slots = _Slots()
        for block in blocks(files, said, _RAW, _row):
            raw = block.table
            ended_us, ok, *_ = read_columns.times(raw["ended_at"])
            length_s = raw["listened_s"].to_numpy()
            start = slots.starts(block.file, ended_us, raw["item_id"].to_pylist(), length_s)
            skipped = pa.array(np.zeros(len(raw), dtype=bool), mask=~(np.nan_to_num(length_s) >= STREAM_S))
            table = pa.table(
                {
                    "user_id": pa.array([name_of_one(asked)] * len(raw), pa.string()),
                    "item_id": raw["item_id"],
                    "started_at": pa.array(start, mask=~ok).cast(pa.timestamp("us", "UTC")),
                    "listened_s": raw["listened_s"],
                    "skipped": skipped,
                    "title": raw["title"],
                    "artist": raw["artist"],
                }
            )
            yield Block(table, block.file, row=block.row)

    return Rows(plays(), {})


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
        """[n] microseconds UTC. file: what it holds twice are two plays, what two files hold is one."""
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
        before = self._minute.get(self._before[1])
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
        spoken = play.get("episodeName") or play.get("podcastName")
        raise Odd("a podcast or an audiobook" if spoken else "a play without a track")
    played_ms = number(play, "msPlayed")
    if played_ms is not None and not 0 <= played_ms <= LONGEST_MS:
        raise Odd("msPlayed is no length")
    length_s = None if played_ms is None or played_ms > DAY_MS else played_ms / 1000
    return time_text(play, "endTime"), f"{artist or ''} - {title}", length_s, title, artist


def _fits(shape: Shape) -> bool:
    return shape.form == "json" and not shape.lacks(("endTime", "msPlayed", "podcastName"))


KIND = Importer(
    "spotify-account",
    "Spotify's account data, the history of the last year",
    read,
    "json",
    ("endTime", "msPlayed", "trackName", "artistName"),
    fits=_fits,
)
