"""What a file held: rows kept and refused, what was bounded, and what its columns and volume cannot give."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa

from recommender.events.schema import MAPPABLE, WORTH_NAMES

EXAMPLES = 3  # refused rows that are shown for each reason
UNTOLD = ("dislike", "is_hate", "thumbs", "feedback", "value")  # say what a row is worth, and not in a way to be mapped
CLOSE_NAME = 0.8  # similarity of two names from which one may be a slip of the other


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
    paired_sessions: int = 0  # sessions of two or more items
    plays: int = 0  # of the rows kept
    by_value: tuple[str, ...] = ()  # rows that are more or less than plays, by what they count

    def lines(self) -> list[str]:
        """The check as plain text, a line each."""
        out = [
            f"rows: {self.rows:,} read, {self.kept:,} kept, {self.rows - self.kept:,} rejected",
            *(f"  {r.rows:,} rejected: {r.reason}{_shown(r)}" for r in self.rejected),
            f"listeners: {self.listeners:,}   items: {self.items:,}   sessions: {self.sessions:,}, of which "
            f"{self.paired_sessions:,} hold two or more items",
            f"from {self.first_at} to {self.last_at}",
            f"columns: {', '.join(self.columns)}",
        ]
        aside = [f"not read: {', '.join(self.unread)}"] if self.unread else []
        return [*out, *aside, *self.told(), *(f"cannot build: {gap}" for gap in self.gaps)]

    def told(self) -> list[str]:
        """What every command says of its events: how they were read, and what was changed in them."""
        return [
            *([f"read as {self.read_as}"] if self.read_as else []),
            *(f"by value: {line}" for line in self.by_value),
            *([f"plays: {self.plays:,}; sessions are made of these alone"] if self.plays < self.kept else []),
            *(f"bounded: {b.rows:,} plays {b.reason}" for b in self.bounded),
            *(f"note: {note}" for note in self.notes),
            *self.slips(),
        ]

    def slips(self) -> list[str]:
        """Columns that are not read: those with nearly the name of one that would be, and those that say what a row is
        worth."""
        plain = {name.lower().replace(" ", "_").replace("-", "_"): name for name in self.unread}
        near = {theirs: get_close_matches(said, MAPPABLE, 1, CLOSE_NAME) for said, theirs in plain.items()}
        meant = {said: ours for ours, names in WORTH_NAMES.items() for said in names}
        near |= {theirs: [meant[said]] for said, theirs in plain.items() if said in meant}
        worth = [theirs for said, theirs in plain.items() if said in UNTOLD]
        valued = [f"not read: column {name!r}; no row counts more or less by what it says" for name in worth]
        return valued + [
            f"not read: column {theirs!r}; did you mean {ours[0]}? (--map {ours[0]}={theirs})"
            for theirs, ours in near.items()
            if ours and ours[0] not in self.columns and ours[0] != theirs
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
    neighbours: int = 100  # pairs of items that follow each other; fewer say nothing of any item
    neighbours_per_item: float = 1.0  # fewer and most vectors are where they began
    plays_per_listener: int = 5  # with fewer a listener is nearly a newcomer


@dataclass(frozen=True, slots=True)
class Held:
    """What kept events hold. neighbours: pairs of different items, one after the other in a session; None where the
    clock is too coarse to tell sessions. newcomers: listeners of few plays. untitled, unlabelled: items without a
    title, without artist and genre. plays: of the events, those that are."""

    listeners: int
    items: int
    sessions: int
    paired_sessions: int
    neighbours: int | None
    newcomers: int
    untitled: int
    unlabelled: int
    plays: int


def refused_whole(rows: int, rejected: tuple[Rejected, ...], notes: Iterable[str]) -> str:
    """The error of a file of which no row can be kept."""
    why = [f"{r.rows:,} rows: {r.reason}" + (f", e.g. {r.examples[0]}" if r.examples else "") for r in rejected]
    told = "; ".join([*why, *([] if rows else ["there is none"]), *notes])
    return f"no event can be kept of {rows:,} rows{': ' + told if told else ''}"


def vectors_carry(neighbours: int, items: int, volume: Volume | None = None) -> bool:
    """Whether items have met enough others for their vectors to say what is near."""
    volume = volume or Volume()
    return neighbours >= max(volume.neighbours, volume.neighbours_per_item * items)


def gaps(events: pa.Table, columns: Collection[str], held: Held, volume: Volume) -> tuple[str, ...]:
    """What cannot be built from these events, and what is built instead."""
    listeners, items, sessions = held.listeners, held.items, held.sessions

    def empty(name: str) -> bool:
        return bool(events.column(name).null_count == len(events))

    out = []
    if not held.plays:
        out.append("sessions: no event is a play; vectors are learnt from what a listener likes, states from picks")
    if listeners < volume.listeners or sessions < volume.sessions:
        out.append(
            f"CoSeRNN: {listeners:,} listeners and {sessions:,} sessions, {volume.listeners:,} and "
            f"{volume.sessions:,} are needed; a decayed average of sessions is the listener's vector"
        )
    if 0 < held.plays < volume.plays_per_item * items:
        out.append(
            f"reliable track vectors: {held.plays / items:.1f} plays an item, {volume.plays_per_item:g} are "
            "needed; rarely played items have weak neighbours"
        )
    if held.neighbours is not None and not vectors_carry(held.neighbours, items, volume):
        out.append(
            f"shelves by what is near (because you played, made for you, moods): {held.paired_sessions:,} of "
            f"{sessions:,} sessions hold two or more items, and vectors are learnt from these alone; without "
            "--playlists these shelves are left out"
        )
    if listeners == 1:
        out.append("listeners who differ: there is one; pages follow the hour and what was played")
    elif 2 * held.newcomers > listeners:
        out.append(
            f"listeners who differ: {held.newcomers:,} of {listeners:,} have fewer than {volume.plays_per_listener} "
            "plays; their pages are nearly a newcomer's"
        )
    if held.plays and empty("skipped") and empty("listened_s"):
        out.append("the skipped pathway: neither skipped nor listened_s; every play counts as played")
    if empty("device"):
        out.append("device effects: no device; all plays count as one kind of device")
    if empty("utc_offset_min"):
        out.append("local hours: no tz, offset or default zone; hours and weekdays are UTC")
    if "title" not in columns:
        out.append("titles: none here; give an items file, or ids are shown")
    elif held.untitled:
        out.append(f"titles: {held.untitled:,} of {items:,} items have none; their ids are shown")
    if "artist" not in columns and "genre" not in columns:
        out.append("artist and genre shelves: neither here; give an items file for them")
    elif held.unlabelled:
        out.append(
            f"artist and genre shelves: {held.unlabelled:,} of {items:,} items have neither and stand in none of them"
        )
    return tuple(out)
