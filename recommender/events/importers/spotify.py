"""Spotify's "extended streaming history": what a listener gets when asking for their data.

A folder, a ZIP or one JSON file; each file is an array of objects. `ts` is when the stream stopped, so a play started
ms_played before. Account names, addresses and user agents are never read into a row; private sessions, podcasts and
audiobooks are left out and counted. Every field may be missing and every enumeration is open.

`skipped` is unreliable before late 2022: a play counts as skipped when it ended by a forward or back button, or was
left by a click, before 30 seconds; as played when it ran to its end or for 30 seconds; a stop by anything else (logout,
an error, the end of the app) before that is not known.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

from bart.errors import DataError

_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("listened_s", pa.float64()),
        ("skipped", pa.bool_()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("order", pa.int64()),
        ("title", pa.string()),
        ("artist", pa.string()),
    ]
)
_HISTORY = re.compile(r"(Streaming_History_(Audio|Video)_.*|endsong_\d+)\.json$")
STREAM_S = 30.0
# Reasons by which a listener leaves a track.
LEFT = frozenset({"fwdbtn", "nextbtn", "backbtn", "clickrow", "clickside"})
_PLATFORMS = (
    ("mobile", r"android|ios\b|iphone|ipad|windows phone"),
    ("speaker", r"cast|sonos|speaker|alexa|google home|tv|playstation|xbox|partner"),
    ("web", r"web"),
    ("desktop", r"windows|os ?x|macos|mac|linux"),
)


def read(path: Path) -> tuple[pa.Table, Mapping[str, str], tuple[str, ...]]:
    """The plays of one listener, named `listener`; files in the order of their names."""
    count: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for play in _plays(path):
        row = _row(play, count)
        if row is not None:
            rows.append({**row, "order": len(rows)})
    notes = tuple(f"{number:,} {what}" for what, number in sorted(count.items()))
    return pa.Table.from_pylist(rows, schema=_SCHEMA), {}, notes


def _plays(path: Path) -> Iterator[dict[str, Any]]:
    found = False
    for name, text in _documents(path):
        found = True
        try:
            plays = json.loads(text)
        except ValueError as error:
            raise DataError(f"{name} is not JSON: {error}") from error
        if not isinstance(plays, list) or not all(isinstance(play, dict) for play in plays):
            raise DataError(f"{name} is not a streaming history; expected an array of objects")
        yield from plays
    if not found:
        raise DataError(f"{path} holds no streaming history; expected Streaming_History_*.json or endsong_*.json")


def _documents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            if _HISTORY.search(file.name):
                yield str(file), file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if _HISTORY.search(name):
                    yield f"{path}:{name}", archive.read(name)
    else:
        yield str(path), path.read_bytes()


def _row(play: Mapping[str, Any], count: Counter[str]) -> dict[str, Any] | None:
    if play.get("incognito_mode"):
        count["plays of private sessions left out"] += 1
        return None
    title, artist = play.get("master_metadata_track_name"), play.get("master_metadata_album_artist_name")
    uri = play.get("spotify_track_uri")
    if not uri and not title:
        spoken = any(play.get(name) for name in ("spotify_episode_uri", "episode_name", "audiobook_uri"))
        count["plays of podcasts and audiobooks left out" if spoken else "plays without a track left out"] += 1
        return None
    played_ms = play.get("ms_played")
    known = isinstance(played_ms, int | float) and not isinstance(played_ms, bool) and played_ms >= 0
    listened_s = float(played_ms) / 1000 if known else None  # type: ignore[arg-type]
    return {
        "user_id": "listener",
        # a local file has no uri: artist and title name it
        "item_id": uri or f"{artist or ''} - {title}",
        "started_at": _start(play, listened_s or 0.0),
        "listened_s": listened_s,
        "skipped": _skipped(play, listened_s),
        "device": device(play.get("platform")),
        "source": play.get("reason_start") or None,
        "title": title,
        "artist": artist,
    }


def _start(play: Mapping[str, Any], listened_s: float) -> datetime | None:
    """When the stream began; null where `ts` cannot be read.

    A play made offline may carry the time of its upload in `ts`; `offline_timestamp` is then when it began, in seconds
    or milliseconds.
    """
    try:
        stop_s = datetime.fromisoformat(str(play.get("ts")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
    begin_s = stop_s - listened_s
    offline = play.get("offline_timestamp")
    if play.get("offline") and isinstance(offline, int) and offline > 0:
        offline_s = offline / 1000 if offline >= 10**12 else float(offline)
        begin_s = min(begin_s, offline_s)  # an upload comes after the play, never before
    return datetime.fromtimestamp(begin_s, timezone.utc)


def _skipped(play: Mapping[str, Any], listened_s: float | None) -> bool | None:
    reason = play.get("reason_end")
    if reason == "trackdone" or (listened_s is not None and listened_s >= STREAM_S):
        return False
    if reason in LEFT:
        return True
    return True if play.get("skipped") is True else None


def device(platform: object) -> str | None:
    """One of the known kinds of device, "other", or None where the platform is not said."""
    if not isinstance(platform, str) or platform in ("", "not_applicable", "unknown"):
        return None
    text = platform.lower()
    return next((kind for kind, words in _PLATFORMS if re.search(words, text)), "other")
