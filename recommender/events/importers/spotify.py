"""Spotify's "extended streaming history": what a listener gets when asking for their data.

Arrays of objects in files Streaming_History_*.json or endsong_*.json. `ts` is when the stream stopped. Account names,
addresses and user agents are never read into a row; private sessions, podcasts and audiobooks are left out and counted.
Every field may be missing and every enumeration is open.

A play began `ms_played` before its end, or earlier, where it was paused: `offline_timestamp`, in seconds or
milliseconds, says when it began, but holds nonsense too. It is believed where it is the end of another play, and for
a play made offline, whose `ts` may be that of its upload, where it lies within the month that downloads last.

`skipped` is unreliable before late 2022: a play counts as skipped when it ended by a button or a click, by the end of
the player or for a reason not known, before 30 seconds; as played when it ran to its end or for 30 seconds; a stop by
anything else (logout, an error) before that is not known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from recommender.events.blocks import Block
from recommender.events.importers import spotify_account
from recommender.events.importers.contract import Asked, Importer, Rows, Shape, name_of_one
from recommender.events.importers.detect import shape_of
from recommender.events.importers.files import SourceFile
from recommender.events.importers.records import Odd, blocks, flag, number, text, time_text, timed
from recommender.events.importers.spotify_account import DAY_MS, LONGEST_MS, STREAM_S
from recommender.events.table import Said

# Reasons by which a listener leaves a track.
LEFT = frozenset({"fwdbtn", "nextbtn", "backbtn", "clickrow", "clickside"})
ENDED = frozenset({"endplay", "unknown"})  # another track was begun, or nobody knows; left, unless `skipped` denies it
RELIABLE_US = 1_664_582_400_000_000  # 2022-10-01: from here `skipped` is to be believed
MONTH_US = 31 * 86_400_000_000  # a download is good for 30 days
FITS_US = 5_000_000
_SPOKEN = ("spotify_episode_uri", "episode_name", "audiobook_uri", "audiobook_title")
_PLATFORMS = (
    ("mobile", r"android|ios\b|iphone|ipad|windows phone"),
    ("speaker", r"cast|sonos|speaker|alexa|google home|tv|playstation|xbox|partner"),
    ("web", r"web"),
    ("desktop", r"windows|os ?x|macos|mac|linux"),
)
_RAW = pa.schema(
    [
        ("item_id", pa.string()),
        ("ended_at", pa.string()),
        ("listened_s", pa.float64()),
        ("begun", pa.float64()),
        ("offline", pa.bool_()),
        ("reason", pa.string()),
        ("said_skipped", pa.bool_()),
        ("device", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("artist", pa.string()),
    ]
)


def read(files: Sequence[SourceFile], said: Said, asked: Asked) -> Rows:
    """The plays of one listener; of account data beside the extended history, those that this lacks."""
    account = [file for file in files if spotify_account.KIND.is_it(shape_of(file))]
    extended = [file for file in files if file not in account]
    private: list[Mapping[str, Any]] = []
    accounts: set[str] = set()
    same: dict[str, str] = {}

    def row(play: Mapping[str, Any]) -> tuple[object, ...]:
        if isinstance(play.get("username"), str):
            accounts.add(play["username"])
        if flag(play, "incognito_mode"):
            if account:
                private.append(play)
            raise Odd("a private session")
        return _row(play)

    def plays() -> Iterator[Block]:
        read_all = blocks(extended, said, _RAW, row, named=len(files) > 1)
        # the end of any play may be the beginning of another
        found = [timed(block, "ended_at", "ts", said) for block in read_all]
        if len(accounts) > 1 and asked.user is None:
            raise DataError(
                f"these files are of {len(accounts)} accounts; expected one listener's (--user NAME reads them as one)"
            )
        known = np.unique(np.concatenate([ended_us for _, ended_us in found] or [np.empty(0, dtype=np.int64)]))
        starts = [_start_us(block.table, ended_us, known) for block, ended_us in found]
        _agree([block.table for block, _ in found], [ended_us for _, ended_us in found], starts)
        for (block, ended_us), start in zip(found, starts, strict=True):
            yield _block(block, ended_us, start, name_of_one(asked))
        if account:
            there = spotify_account.Extended(same)
            for block, ended_us in found:
                there.add(block.table, ended_us)
            there.add_private(private)
            yield from spotify_account.further(account, said, asked, there)

    return Rows(plays(), {}, same)


def _row(play: Mapping[str, Any]) -> tuple[object, ...]:
    title, artist = text(play, "master_metadata_track_name"), text(play, "master_metadata_album_artist_name")
    uri = text(play, "spotify_track_uri")
    if (uri is None and title is None) or (uri or "").startswith("spotify:episode"):
        spoken = any(play.get(name) for name in _SPOKEN)
        raise Odd("a podcast or an audiobook" if spoken or uri else "a play without a track")
    played_ms = number(play, "ms_played")
    if played_ms is not None and not 0 <= played_ms <= LONGEST_MS:
        raise Odd("ms_played is no length")
    return (
        uri or f"{artist or ''} - {title}",  # a local file has no uri: artist and title name it
        time_text(play, "ts"),
        None if played_ms is None or played_ms > DAY_MS else played_ms / 1000,
        _begun(play.get("offline_timestamp")),
        flag(play, "offline"),
        text(play, "reason_end"),
        flag(play, "skipped"),
        device(text(play, "platform")),
        text(play, "reason_start"),
        title,
        artist,
    )


def _begun(value: object) -> float:
    """Seconds since 1970 that `offline_timestamp` says, NaN for nonsense."""
    try:
        at = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else np.nan
    except (ValueError, OverflowError):
        return np.nan
    at = at / 1000 if at >= 1e11 else at
    return at if 0 < at < 1e11 else np.nan


def _block(block: Block, ended_us: Ints, start_us: Ints, user: str) -> Block:
    """A block with the columns of events."""
    raw = block.table
    n = len(raw)
    listened_s = raw["listened_s"].to_numpy()
    skipped, unknown = _skipped(raw, listened_s, ended_us)
    table = pa.table(
        {
            "user_id": pa.array([user] * n, pa.string()),
            "item_id": raw["item_id"],
            "started_at": pa.array(start_us).cast(pa.timestamp("us", "UTC")),
            "listened_s": raw["listened_s"],
            "skipped": pa.array(skipped, mask=unknown),
            "device": raw["device"],
            "source": raw["source"],
            "title": raw["title"],
            "artist": raw["artist"],
        }
    )
    return Block(table, block.file, row=block.row)


def _unpaused_us(raw: pa.Table, ended_us: Ints) -> Ints:
    """When each play began if it was not paused."""
    listened_us = np.round(np.nan_to_num(raw["listened_s"].to_numpy()) * 1e6)
    return np.asarray(ended_us - listened_us.astype(np.int64))


def _start_us(raw: pa.Table, ended_us: Ints, known_us: Ints) -> Ints:
    """When each play began. known_us: the ends of all plays, ascending."""
    begun_s, offline = raw["begun"].to_numpy(), _true(raw["offline"])
    start = _unpaused_us(raw, ended_us)
    said = np.where(np.isnan(begun_s), 0, np.round(np.nan_to_num(begun_s) * 1e6)).astype(np.int64)
    earlier = ~np.isnan(begun_s) & (said <= start)
    month = said >= ended_us - MONTH_US
    place = np.searchsorted(known_us, said)
    near = np.zeros(len(said), dtype=bool)
    for other in (place - 1, place):
        inside = (other >= 0) & (other < len(known_us))
        near |= inside & (np.abs(known_us[np.clip(other, 0, max(len(known_us) - 1, 0))] - said) <= FITS_US)
    return np.where(earlier & month & (near | offline), said, start)


def _agree(tables: list[pa.Table], ended_us: list[Ints], start_us: list[Ints]) -> None:
    """Gives copies of a play one start, in place: `offline_timestamp` is in seconds in one export, in milliseconds or
    not at all in another. A copy has the end, the track and the length of the other."""
    copies: dict[tuple[int, str, float], list[tuple[int, int]]] = defaultdict(list)
    for n, (table, ended) in enumerate(zip(tables, ended_us, strict=True)):
        length = np.nan_to_num(table["listened_s"].to_numpy(), nan=-1.0).tolist()
        for row, key in enumerate(zip(ended.tolist(), table["item_id"].to_pylist(), length, strict=True)):
            copies[key].append((n, row))
    unpaused = [_unpaused_us(table, ended) for table, ended in zip(tables, ended_us, strict=True)]
    for places in copies.values():
        if len(places) < 2:
            continue
        paused = sorted({int(start_us[n][row]) for n, row in places if start_us[n][row] != unpaused[n][row]})
        for n, row in places:
            at = int(start_us[n][row])
            near = [one for one in paused if abs(one - at) <= FITS_US]
            start_us[n][row] = near[0] if near else paused[0] if paused and at == unpaused[n][row] else at


def _skipped(raw: pa.Table, listened_s: Floats, ended_us: Ints) -> tuple[Bools, Bools]:
    """[n], where a play was skipped and where that is not known."""
    reason = np.array(raw["reason"].to_pylist(), dtype=object)
    done = (reason == "trackdone") | (np.nan_to_num(listened_s) >= STREAM_S)
    left = np.isin(reason, sorted(LEFT))
    told, denied = _true(raw["said_skipped"]), _true(raw["said_skipped"], False)
    ended = np.isin(reason, sorted(ENDED)) & ~np.isnan(listened_s) & ~(denied & (ended_us >= RELIABLE_US))
    skipped = ~done & (left | told | ended)
    return skipped, ~done & ~skipped


def _true(column: pa.ChunkedArray, value: bool = True) -> Bools:
    return np.array([flag is value for flag in column.to_pylist()], dtype=bool)


def device(platform: object) -> str | None:
    """One of the known kinds of device, "other", or None where the platform is not said."""
    if not isinstance(platform, str) or platform in ("", "not_applicable", "unknown"):
        return None
    words = platform.lower()
    return next((kind for kind, pattern in _PLATFORMS if re.search(pattern, words)), "other")


def _fits(shape: Shape) -> bool:
    """Every field may be missing of a play, but a file without lengths is not this."""
    told = ("spotify_track_uri", "master_metadata_track_name", "episode_name")
    return shape.form == "json" and not shape.lacks(("ts", "ms_played")) and len(shape.lacks(told)) < len(told)


KIND = Importer(
    "spotify",
    "Spotify's extended streaming history",
    read,
    "json",
    ("ts", "ms_played", "spotify_track_uri", "master_metadata_track_name"),
    fits=_fits,
)
