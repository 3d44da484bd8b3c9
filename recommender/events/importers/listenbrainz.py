"""ListenBrainz listens (CC0): the JSON lines of a dump, a user's own export, or one JSON array.

A listen holds listened_at (unix seconds), user_name or user_id, recording_msid, and track_metadata with artist_name,
track_name and additional_info. The export of a user is a ZIP: user.json, listens/YEAR/MONTH.jsonl without names and
with recording_msid inside track_metadata, feedback.jsonl and pinned_recording.jsonl, which are no listens. A listen is
submitted when a track was played for half its length or four minutes, so a skip is never seen: skipped and listened_s
stay null. The item is the MusicBrainz recording where one is known, else the recording_msid, else artist and title.

`duration` should be seconds; some clients write milliseconds. No song lasts six hours: such a value is milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from bart.errors import DataError
from recommender.events.blocks import Block
from recommender.events.importers.contract import Asked, Importer, Rows, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, head_records, number, part, text, time_text
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
    ]
)
_DEVICES = (("android", "mobile"), ("ios", "mobile"), ("iphone", "mobile"), ("mobile", "mobile"), ("web", "web"))
LONGEST_S = 6 * 3600.0
# Fields by which the other files of an export are told.
_FEEDBACK, _PINNED, _USER = {"score", "created"}, {"pinned_until", "blurb_content"}, {"username", "user_id"}


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The listens of all files; of an export without names, those of its user."""
    listens, owner, others = [], None, []
    for file in files:
        fields = _first_fields(file)
        if {"listened_at", "track_metadata"} & fields.keys() or not fields:
            listens.append(file)
        elif fields.keys() >= _USER:
            name = fields["username"]
            owner = name if isinstance(name, str) else None
        elif fields.keys() >= _FEEDBACK or fields.keys() >= _PINNED:
            others.append(file.name)
        else:
            listens.append(file)
    if not listens:
        raise DataError(f"{', '.join(file.name for file in files)} hold no listens; expected listens/YEAR/MONTH.jsonl")
    if others:
        said.notes.append(f"{', '.join(others)}: feedback and pins, no listens")
    one = name_of_one(asked, owner)
    milliseconds = 0

    def row(listen: Mapping[str, Any]) -> tuple[object, ...]:
        nonlocal milliseconds
        meta = part(listen, "track_metadata")
        if asked.user is not None and (listen.get("user_name") or listen.get("user_id")):
            raise DataError("--user names the listener of an export of one; these listens name theirs")
        info, mapped = part(meta, "additional_info"), part(meta, "mbid_mapping")
        artist, title = text(meta, "artist_name"), text(meta, "track_name")
        named = f"{artist} - {title}" if artist and title else None
        msid = text(listen, "recording_msid") or text(meta, "recording_msid") or text(info, "recording_msid")
        duration_s, in_ms = _duration(info)
        milliseconds += in_ms
        return (
            text(listen, "user_name") or _user_id(listen) or one,
            text(mapped, "recording_mbid") or text(info, "recording_mbid") or msid or named,
            time_text(listen, "listened_at" if "listened_at" in listen else "timestamp"),
            title,
            artist,
            duration_s,
            _device(info),
            text(info, "music_service") or text(info, "listening_from"),
        )

    def plays() -> Iterator[Block]:
        yield from blocks(listens, said, _SCHEMA, row)
        if milliseconds:
            said.notes.append(f"duration of {milliseconds:,} listens is milliseconds, not seconds: divided by 1,000")

    return Rows(plays(), {})


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
