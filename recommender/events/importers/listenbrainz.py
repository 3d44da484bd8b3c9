"""ListenBrainz listens: the JSON lines of a dump or an export (CC0), or one JSON array.

A line holds listened_at (unix seconds), user_name or user_id, recording_msid, and track_metadata with artist_name,
track_name and additional_info. A listen is submitted when a track was played for half its length or four minutes, so a
skip is never seen: skipped and listened_s stay null. The item is the MusicBrainz recording where one is known, else the
recording_msid, else artist and title.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bart.errors import DataError
from recommender.events.importers.tabular import open_text

_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("started_at", pa.int64()),
        ("title", pa.string()),
        ("artist", pa.string()),
        ("duration_s", pa.float64()),
        ("device", pa.string()),
        ("source", pa.string()),
    ]
)
_DEVICES = (("android", "mobile"), ("ios", "mobile"), ("iphone", "mobile"), ("mobile", "mobile"), ("web", "web"))


def read(path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
    """The listens of one file, or of all .listens, .jsonl and .json files below a folder."""
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if _plain_suffix(f) in (".listens", ".jsonl", ".ndjson", ".json"))
        if not files:
            raise DataError(f"{path} holds no .listens, .jsonl or .json file")
    count: Counter[str] = Counter()
    rows = [_row(listen) for file in files for listen in _listens(file, count)]
    notes = tuple(f"{number:,} {what}" for what, number in sorted(count.items()))
    return pa.Table.from_pylist(rows, schema=_SCHEMA), {}, notes


def _listens(path: Path, count: Counter[str]) -> Iterator[dict[str, Any]]:
    with open_text(path) as file:
        array = file.read(1) == "["
        file.seek(0)
        if array:
            try:
                listens = json.load(file)
            except ValueError as error:
                raise DataError(f"{path} is not JSON: {error}") from error
        else:
            listens = _lines(file, count)
        for listen in listens:
            if isinstance(listen, dict):
                yield listen
            else:
                count["entries that are not listens left out"] += 1


def _lines(lines: Any, count: Counter[str]) -> Iterator[Any]:
    for line in lines:
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError:
            count["lines that are not JSON left out"] += 1


def _row(listen: dict[str, Any]) -> dict[str, Any]:
    meta = _part(listen, "track_metadata")
    info, mapped = _part(meta, "additional_info"), _part(meta, "mbid_mapping")
    artist, title = _text(meta.get("artist_name")), _text(meta.get("track_name"))
    named = f"{artist} - {title}" if artist and title else None
    msid = _text(listen.get("recording_msid")) or _text(info.get("recording_msid"))
    duration_ms, duration_s = _positive(info.get("duration_ms")), _positive(info.get("duration"))
    at = listen.get("listened_at", listen.get("timestamp"))
    return {
        "user_id": _text(listen.get("user_name")) or _text(listen.get("user_id")),
        "item_id": _text(mapped.get("recording_mbid")) or _text(info.get("recording_mbid")) or msid or named,
        "started_at": int(at) if isinstance(at, int | float) else None,
        "title": title,
        "artist": artist,
        "duration_s": duration_s if duration_ms is None else duration_ms / 1000,
        "device": _device(info),
        "source": _text(info.get("music_service")) or _text(info.get("listening_from")),
    }


def _device(info: Mapping[str, Any]) -> str | None:
    """Only what the client's name says for certain."""
    client = f"{info.get('media_player') or ''} {info.get('submission_client') or ''}".lower()
    return next((device for word, device in _DEVICES if word in client.split()), None)


def _part(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str | None:
    return str(value).strip() or None if isinstance(value, str | int) else None


def _positive(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if number else None  # type: ignore[arg-type]


def _plain_suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
