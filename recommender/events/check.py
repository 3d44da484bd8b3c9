"""What a file held: rows kept and refused, what was bounded, and what its columns and volume cannot give."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa

EXAMPLES = 3  # refused rows that are shown for each reason


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows refused for one reason, with up to three of them as text."""

    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bounded:
    """Plays that are kept with a value that was bounded or dropped, by reason."""

    reason: str
    rows: int


class Refusals:
    """Counts refused rows by reason while a file is read, and remembers the first of each."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, examples: Iterable[str] = (), rows: int = 1) -> None:
        """Counts `rows` rows; of the examples the first few are taken."""
        if rows <= 0:
            return
        self._rows[reason] = self._rows.get(reason, 0) + rows
        shown = self._examples.setdefault(reason, [])
        for example in examples:
            if len(shown) >= EXAMPLES:
                break
            shown.append(example)

    @property
    def rows(self) -> int:
        return sum(self._rows.values())

    def by_reason(self) -> tuple[Rejected, ...]:
        """Most rows first."""
        found = (Rejected(reason, rows, tuple(self._examples[reason])) for reason, rows in self._rows.items())
        return tuple(sorted(found, key=lambda r: -r.rows))


@dataclass(frozen=True, slots=True)
class EventCheck:
    """What a file held. rows = kept + the rows of `rejected`, repeats among them.

    read_as: the format that was recognised. unread: columns of the file that nothing reads.
    """

    rows: int
    kept: int
    rejected: tuple[Rejected, ...]
    listeners: int
    items: int
    sessions: int
    first_at: str
    last_at: str
    columns: tuple[str, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    bounded: tuple[Bounded, ...] = ()
    read_as: str = ""
    unread: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The check as plain text, a line each."""
        out = [
            f"rows: {self.rows:,} read, {self.kept:,} kept, {self.rows - self.kept:,} rejected",
            *(f"  {r.rows:,} rejected: {r.reason}{_shown(r)}" for r in self.rejected),
            f"listeners: {self.listeners:,}   items: {self.items:,}   sessions: {self.sessions:,}",
            f"from {self.first_at} to {self.last_at}",
            f"columns: {', '.join(self.columns)}",
        ]
        return [*out, *self.told(), *(f"cannot build: {gap}" for gap in self.gaps)]

    def told(self) -> list[str]:
        """What every command says of its events: how they were read, and what was changed in them."""
        return [
            *([f"read as {self.read_as}"] if self.read_as else []),
            *(f"bounded: {b.rows:,} plays {b.reason}" for b in self.bounded),
            *(f"note: {note}" for note in self.notes),
        ]

    def summary(self) -> list[str]:
        """`told`, and the refused rows: for commands that do not show the whole check."""
        refused = [f"{r.rows:,} rows left out: {r.reason}{_shown(r)}" for r in self.rejected]
        return [*self.told(), *refused]


def _shown(rejected: Rejected) -> str:
    return f"; e.g. {'; '.join(rejected.examples)}" if rejected.examples else ""


@dataclass(frozen=True, slots=True)
class Volume:
    """How much is needed for each part; below it, the check says what is built instead."""

    listeners: int = 100  # fewer do not show how context moves taste beyond their own habits
    sessions: int = 2_000  # fewer than this and a recurrent model does not beat a decayed average
    plays_per_item: float = 5.0  # fewer and a track's neighbours are mostly chance


def refused_whole(rows: int, rejected: tuple[Rejected, ...], notes: Iterable[str]) -> str:
    """The error of a file of which no row can be kept."""
    why = [f"{r.rows:,} rows: {r.reason}" + (f", e.g. {r.examples[0]}" if r.examples else "") for r in rejected]
    told = "; ".join([*why, *notes])
    return f"no event can be kept of {rows:,} rows{': ' + told if told else ''}"


def gaps(
    events: pa.Table, columns: Collection[str], listeners: int, items: int, sessions: int, volume: Volume
) -> tuple[str, ...]:
    """What cannot be built from these events, and what is built instead."""

    def empty(name: str) -> bool:
        return bool(events.column(name).null_count == len(events))

    out = []
    if listeners < volume.listeners or sessions < volume.sessions:
        out.append(
            f"CoSeRNN: {listeners:,} listeners and {sessions:,} sessions, {volume.listeners:,} and "
            f"{volume.sessions:,} are needed; a decayed average of sessions is the listener's vector"
        )
    if len(events) < volume.plays_per_item * items:
        out.append(
            f"reliable track vectors: {len(events) / items:.1f} plays an item, {volume.plays_per_item:g} are "
            "needed; rarely played items have weak neighbours"
        )
    if empty("skipped") and empty("listened_s"):
        out.append("the skipped pathway: neither skipped nor listened_s; every play counts as played")
    if empty("device"):
        out.append("device effects: no device; all plays count as one kind of device")
    if empty("utc_offset_min"):
        out.append("local hours: no tz, offset or default zone; hours and weekdays are UTC")
    if "title" not in columns:
        out.append("titles: none here; give an items file, or ids are shown")
    if "artist" not in columns and "genre" not in columns:
        out.append("artist and genre shelves: neither here; give an items file for them")
    return tuple(out)
