"""YouTube Music in Google's Takeout: watch-history.json, newest first.

Objects with header ("YouTube Music"; others were watched on YouTube), title ("Watched ..."), titleUrl, subtitles (the
channel, `Artist - Topic`) and time. There is no length and no skip. The item is the video. In other languages the words
around the title are others ("Vous avez regardé ..."): what all titles share at the beginning or at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from recommender.events.importers.contract import Asked, Importer, Rows, name_of_one
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, head_records, text, time_text
from recommender.events.table import Said

_SCHEMA = pa.schema([(name, pa.string()) for name in ("user_id", "item_id", "started_at", "title", "artist")])
_VIDEO = re.compile(r"[?&]v=([\w-]+)|youtu\.be/([\w-]+)")
_QUOTES = (
    ("„", "“"),
    ("“", "”"),
    ("«", "»"),
    ("»", "«"),
    ("「", "」"),
    ("『", "』"),
    ('"', '"'),
    ("‘", "’"),
    ("‚", "‘"),
)
_WATCHED, _TOPIC = "Watched ", " - Topic"
_LOOKED_AT, _ENOUGH = 200, 5  # records; different titles that tell the words around them


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The plays of one listener."""
    user = name_of_one(asked)
    around = _around([record for file in files for record in head_records(file.head(), _LOOKED_AT)])
    return Rows(blocks(files, said, _SCHEMA, lambda record: _row(record, user, around)), {})


def _around(first: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The words before and after each title. first: records."""
    videos = [record for record in first if "watch?" in str(record.get("titleUrl"))]
    titles = {one for record in videos if isinstance(one := record.get("title"), str) and "http" not in one}
    if len(titles) < _ENOUGH or any(title.startswith(_WATCHED) for title in titles):
        return _WATCHED, ""
    before, after = _shared(titles), _shared({title[::-1] for title in titles})[::-1]
    for opening, closing in _QUOTES:
        if opening in before and closing in after:
            return before[: before.rfind(opening) + 1], after[after.find(closing) :]
    return before[: before.rfind(" ") + 1], after[after.find(" ") :] if " " in after else ""


def _shared(words: set[str]) -> str:
    """What all words begin with."""
    least, most = min(words), max(words)
    return least[: next((n for n, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))]


def _row(record: Mapping[str, Any], user: str, around: tuple[str, str]) -> tuple[object, ...]:
    if text(record, "header") != "YouTube Music":
        raise Odd("watched on YouTube, not on YouTube Music")
    url, title = text(record, "titleUrl"), text(record, "title")
    title = None if title is None else title.removeprefix(around[0]).removesuffix(around[1]).strip() or None
    if title is not None and (title == url or title.startswith("http")):
        title = None  # a video that is gone has its address for a title
    artist = _artist(record)
    video = _VIDEO.search(url or "")
    item = (video.group(1) or video.group(2)) if video else f"{artist} - {title}" if artist and title else None
    return user, item, time_text(record, "time"), title, artist


def _artist(record: Mapping[str, Any]) -> str | None:
    channels = record.get("subtitles")
    if channels is None or channels == []:
        return None
    if not isinstance(channels, list) or not isinstance(channels[0], dict):
        raise Odd("subtitles is no list of channels")
    name = text(channels[0], "name")
    return name.removesuffix(_TOPIC).strip() or None if name is not None else None


KIND = Importer(
    "youtube-music",
    "YouTube Music's history from Google Takeout",
    read,
    "json",
    ("header", "title", "time"),
)
