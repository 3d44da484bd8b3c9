"""ListenBrainz listens (CC0): the JSON lines of a dump, a user's own export, or one JSON array.

A listen holds listened_at (unix seconds), user_name or user_id, recording_msid, and track_metadata with artist_name,
track_name and additional_info. The export of a user is a ZIP: user.json, listens/YEAR/MONTH.jsonl without names and
with recording_msid inside track_metadata, feedback.jsonl and pinned_recording.jsonl, which are no listens. Feedback
(score 1 or -1) is a like or a dislike, counted with the first listen of its recording. A listen is submitted when a
track was played for half its length or four minutes, so a skip is never seen: skipped and listened_s stay null. The
item is the MusicBrainz recording where one is known, else the recording_msid, else artist and title.

`duration` should be seconds; some clients write milliseconds. No song lasts six hours: such a value is milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.importers.contract import Asked, Importer, Rows, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, head_records, number, part, records, text, time_text
from recommender.events.table import Said

_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("started_at", pa.string()),
        ("title", pa.string()),
        ("artist", pa.string()),
        ("duration_s", pa.float64()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("type", pa.string()),
    ]
)
_DEVICES = (("android", "mobile"), ("ios", "mobile"), ("iphone", "mobile"), ("mobile", "mobile"), ("web", "web"))
LONGEST_S = 6 * 3600.0
# Fields by which the other files of an export are told.
_FEEDBACK, _PINNED, _USER = {"score", "created"}, {"pinned_until", "blurb_content"}, {"username", "user_id"}


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The listens of all files; of exports without names, those of the user of each."""
    listens, owners, feedback, others = [], dict[str, str | None](), [], []
    for file in files:
        fields = _first_fields(file)
        if {"listened_at", "track_metadata"} & fields.keys() or not fields:
            listens.append(file)
        elif fields.keys() >= _USER:
            name = fields["username"]
            owners[file.name.removesuffix("user.json")] = name if isinstance(name, str) else None
        elif fields.keys() >= _FEEDBACK:
            feedback.append(file)
        elif fields.keys() >= _PINNED:
            others.append(file.name)
        else:
            listens.append(file)
    if not listens:
        raise DataError(f"{', '.join(file.name for file in files)} hold no listens; expected listens/YEAR/MONTH.jsonl")
    names = sorted({name for name in owners.values() if name})
    if asked.user is not None and len(names) > 1:
        raise DataError(f"--user names the listener of an export of one; these are of {', '.join(names)}")
    if others:
        said.notes.append(f"{', '.join(others)}: pins, no listens")
    opinions = _Opinions([(_owner(file, owners), file) for file in feedback])
    plays = _Listens(asked, opinions)
    same: dict[str, str] = {}

    def rows() -> Iterator[Block]:
        schema = _SCHEMA if feedback else pa.schema(list(_SCHEMA)[:-1])
        for file in listens:
            one = name_of_one(asked, _owner(file, owners))
            yield from blocks([file], said, schema, partial(plays.row, one), named=len(listens) > 1)
        same.update(plays.matched_since())
        if plays.milliseconds:
            said.notes.append(
                f"duration of {plays.milliseconds:,} listens is milliseconds, not seconds: divided by 1,000"
            )
        if feedback:
            said.notes.append(opinions.told())

    return Rows(rows(), {}, same)


def _owner(file: SourceFile, owners: Mapping[str, str | None]) -> str | None:
    """Whose a file is: of the user.json of its export, or of the only one. owners: {what names begin with: user}."""
    own = [begin for begin in owners if file.name.startswith(begin)]
    if own:
        return owners[max(own, key=len)]
    return next(iter(owners.values())) if len(owners) == 1 else None


class _Listens:
    """Rows of listens. milliseconds: how many durations were such."""

    def __init__(self, asked: Asked, opinions: _Opinions) -> None:
        self._asked, self._opinions = asked, opinions
        self.milliseconds = 0
        self._unmatched: dict[str, str | None] = {}  # the name of each recording_msid
        self._matched: dict[tuple[str, str | None], str] = {}  # recording_mbid of recording_msid and name

    def matched_since(self) -> dict[str, str]:
        """{recording_msid: recording_mbid}, of recordings that were matched after some of their listens."""
        known = self._matched
        return {msid: known[msid, name] for msid, name in self._unmatched.items() if (msid, name) in known}

    def row(self, one: str, listen: Mapping[str, Any]) -> tuple[object, ...]:
        """The values of a listen. one: its user, where it names none."""
        meta = part(listen, "track_metadata")
        if self._asked.user is not None and (listen.get("user_name") or listen.get("user_id")):
            raise DataError("--user names the listener of an export of one; these listens name theirs")
        info, mapped = part(meta, "additional_info"), part(meta, "mbid_mapping")
        artist, title = text(meta, "artist_name"), text(meta, "track_name")
        named = f"{artist} - {title}" if artist and title else None
        msid = text(listen, "recording_msid") or text(meta, "recording_msid") or text(info, "recording_msid")
        duration_s, in_ms = _duration(info)
        mbid = text(mapped, "recording_mbid") or text(info, "recording_mbid")
        user = text(listen, "user_name") or _user_id(listen) or one
        cells = (
            user,
            mbid or msid or named,
            time_text(listen, "listened_at" if "listened_at" in listen else "timestamp"),
            title,
            artist,
            duration_s,
            _device(info),
            text(info, "music_service") or text(info, "listening_from"),
        )
        self.milliseconds += in_ms
        if msid and mbid:
            self._matched[msid, named] = mbid
        elif msid:
            self._unmatched[msid] = named
        return (*cells, self._opinions.take(user, mbid, msid)) if self._opinions.there else cells


class _Opinions:
    """Feedback by user and recording, the last of each to be counted once. files: of feedback, and whose each is."""

    def __init__(self, files: Sequence[tuple[str | None, SourceFile]]) -> None:
        self.there = bool(files)
        self._names = ", ".join(file.name for _, file in files)
        self._score: dict[tuple[str | None, str, str], tuple[float, float]] = {}  # when, and what
        self._unread = Said()
        for user, file in files:
            for number_, record in records(file, self._unread):
                try:
                    self._add(user, record)
                except Odd as odd:
                    self._unread.refusals.add(str(odd), [f"{file.name} record {number_}"])
        self._of: dict[tuple[str | None, str], list[str]] = {}  # emptied when it was counted
        self._all: list[list[str]] = []
        for (user, *ids), (_, score) in self._score.items():
            if score:  # 0 takes feedback back
                opinion = ["like" if score > 0 else "dislike"]
                self._all.append(opinion)
                self._of.update(dict.fromkeys([(user, one) for one in ids if one], opinion))

    def _add(self, user: str | None, record: Mapping[str, Any]) -> None:
        score = number(record, "score")
        if score not in (-1, 0, 1):
            raise Odd("score is none of 1, 0 and -1")
        mbid, msid = text(record, "recording_mbid") or "", text(record, "recording_msid") or ""
        if not mbid and not msid:
            raise Odd("feedback without a recording")
        made = (number(record, "created") or 0.0, score)
        known = self._score.get((user, mbid, msid))
        if known is None or made[0] >= known[0]:
            self._score[user, mbid, msid] = made

    def take(self, user: str, *ids: str | None) -> str | None:
        """The type of a user's listen of a recording: with its feedback, where that was not counted yet."""
        keys = [(whose, one) for whose in (user, None) for one in ids if one is not None]
        opinion = next((self._of[key] for key in keys if key in self._of), None)
        return f"play+{opinion.pop()}" if opinion else None

    def told(self) -> str:
        """What became of all of it."""
        left = sum(len(opinion) for opinion in self._all)
        out = f"{self._names}: {len(self._all) - left:,} likes and dislikes counted with a listen of their recording"
        out += f", {left:,} of recordings that no listen has left out" if left else ""
        unread = self._unread.refusals.by_reason()
        return out + "".join(f"; {one.rows:,} not read: {one.reason}" for one in unread)


def _first_fields(file: SourceFile) -> dict[str, Any]:
    return dict(next(iter(head_records(file.head(), 1)), {}))


def _user_id(listen: Mapping[str, Any]) -> str | None:
    value = listen.get("user_id")
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise Odd("user_id is neither text nor a whole number")
    return None if value is None else str(value).strip() or None


def _duration(info: Mapping[str, Any]) -> tuple[float | None, bool]:
    """Seconds, and whether `duration` held milliseconds."""
    in_ms, in_s = number(info, "duration_ms"), number(info, "duration")
    if in_ms is not None and in_ms > 0:
        return in_ms / 1000, False
    if in_s is None or in_s <= 0:
        return None, False
    return (in_s / 1000, True) if in_s >= LONGEST_S else (in_s, False)


def _device(info: Mapping[str, Any]) -> str | None:
    """Only what the client's name says for certain."""
    client = f"{info.get('media_player') or ''} {info.get('submission_client') or ''}".lower()
    return next((device for word, device in _DEVICES if word in client.split()), None)


KIND = Importer("listenbrainz", "ListenBrainz listens", read, "json", ("listened_at", "track_metadata"), close=1)
