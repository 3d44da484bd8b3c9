"""Small exports of one listener's history in the formats that people have: 80 evenings, 40 tracks of ten artists."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

ARTISTS = (
    "The Tin Kites", "Norma Winter", "Low Harbour", "Inez & the Rails", "Quiet Engines", "Marla Stone",
    "Old Lanterns", "Tessellate", "The Night Porters", "Hollow Coast",
)  # fmt: skip
SONGS = ("Morning Light", "Second Street", "Undertow", "Paper Moon")
TRACKS = [(artist, f"{song} {'I' * (1 + n % 3)}") for n, artist in enumerate(ARTISTS) for song in SONGS]
LENGTH_S = 210


def write_exports(folder: Path) -> None:
    """Every export, under the names that the sites give them."""
    spotify(folder / "my_spotify_data.zip")
    spotify_account(folder / "my_spotify_account_data.zip")
    lastfm(folder / "recenttracks-norma-1772395200.csv")
    listenbrainz(folder / "listenbrainz_norma_1772395200.zip")
    youtube_music(folder / "takeout-20260301T200000Z-001.zip")
    open_bandit(folder / "open_bandit_dataset")
    kuairand(folder / "log_standard_4_08_to_4_21_pure.csv")


def evenings() -> Iterator[tuple[datetime, int, bool]]:
    """When a play began (UTC), its track, and whether it was skipped: the artists of an evening stand together."""
    rng = np.random.default_rng(11)
    first = datetime(2025, 11, 3, 19, 30, tzinfo=timezone.utc)
    for day in range(80):
        at = first + timedelta(days=day, minutes=int(rng.integers(40)))
        mood = int(rng.integers(2)) * 20
        for _ in range(8):
            skipped = bool(rng.random() < 0.15)
            yield at, mood + int(rng.integers(20)), skipped
            at += timedelta(seconds=14 if skipped else LENGTH_S)


def spotify(path: Path) -> None:
    """The extended streaming history: `ts` is when a play ended."""
    records = []
    for at, track, skipped in evenings():
        played_s = 12 if skipped else LENGTH_S - 2
        artist, title = TRACKS[track]
        records.append(
            {
                "ts": f"{at + timedelta(seconds=played_s):%Y-%m-%dT%H:%M:%SZ}",
                "platform": "android",
                "ms_played": 1000 * played_s,
                "conn_country": "SE",
                "master_metadata_track_name": title,
                "master_metadata_album_artist_name": artist,
                "master_metadata_album_album_name": "First Songs",
                "spotify_track_uri": f"spotify:track:{track:022d}",
                "episode_name": None,
                "spotify_episode_uri": None,
                "reason_start": "trackdone",
                "reason_end": "fwdbtn" if skipped else "trackdone",
                "shuffle": False,
                "skipped": skipped,
                "offline": False,
                "offline_timestamp": None,
                "incognito_mode": False,
            }
        )
    inside = "Spotify Extended Streaming History"
    _zip(
        path, {f"{inside}/Streaming_History_Audio_2025-2026_0.json": records, f"{inside}/ReadMeFirst.pdf": b"%PDF-1.4"}
    )


def spotify_account(path: Path) -> None:
    """The account data: the last year, ends to the minute, beside other files of the account."""
    records = [
        {
            "endTime": f"{at + timedelta(seconds=12 if skipped else LENGTH_S - 2):%Y-%m-%d %H:%M}",
            "artistName": TRACKS[track][0],
            "trackName": TRACKS[track][1],
            "msPlayed": 12_000 if skipped else 1000 * (LENGTH_S - 2),
        }
        for at, track, skipped in evenings()
    ]
    inside = "Spotify Account Data"
    _zip(path, {f"{inside}/StreamingHistory_music_0.json": records, f"{inside}/Follow.json": {"followerCount": 3}})


def lastfm(path: Path) -> None:
    """The CSV of lastfm.ghan.nl: newest first."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(["uts", "utc_time", "artist", "artist_mbid", "album", "album_mbid", "track", "track_mbid"])
        for at, track, _ in reversed(list(evenings())):
            artist, title = TRACKS[track]
            writer.writerow([int(at.timestamp()), f"{at:%d %b %Y, %H:%M}", artist, "", "First Songs", "", title, ""])


def listenbrainz(path: Path) -> None:
    """A user's own export: user.json, listens by year and month without names, feedback and pins."""
    by_month: dict[str, list[dict[str, Any]]] = {}
    for at, track, _ in evenings():
        artist, title = TRACKS[track]
        info = {"recording_msid": f"{track:08d}-0000-4000-8000-000000000000", "duration_ms": 1000 * LENGTH_S}
        metadata = {"track_name": title, "artist_name": artist, "release_name": "First Songs", "additional_info": info}
        metadata["recording_msid"] = info["recording_msid"]
        listen = {"listened_at": int(at.timestamp()), "inserted_at": int(at.timestamp()), "track_metadata": metadata}
        by_month.setdefault(f"listens/{at.year}/{at.month}.jsonl", []).append(listen)
    files: dict[str, Any] = {"user.json": {"user_id": 7, "username": "norma"}}
    files |= {name: _lines(listens) for name, listens in by_month.items()}
    files["feedback.jsonl"] = _lines(
        [{"recording_msid": f"{7:08d}-0000-4000-8000-000000000000", "score": 1, "created": 1_772_395_200}]
    )
    _zip(path, files)


def youtube_music(path: Path) -> None:
    """Google Takeout: the history as JSON, newest first, with what was watched on YouTube itself."""
    records: list[dict[str, Any]] = [
        {"header": "YouTube", "title": "Watched How to tune a lute", "time": "2026-01-30T10:00:00.000Z"}
    ]
    for at, track, _ in reversed(list(evenings())):
        artist, title = TRACKS[track]
        records.append(
            {
                "header": "YouTube Music",
                "title": f"Watched {title}",
                "titleUrl": f"https://music.youtube.com/watch?v={track:011d}",
                "subtitles": [{"name": f"{artist} - Topic", "url": "https://www.youtube.com/channel/UC0"}],
                "time": f"{at:%Y-%m-%dT%H:%M:%S.000Z}",
                "products": ["YouTube"],
            }
        )
    _zip(path, {"Takeout/YouTube and YouTube Music/history/watch-history.json": records})


def kuairand(path: Path) -> None:
    """A log of KuaiRand-Pure: twelve users, every video with its length."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "play_time_ms", "duration_ms"]
        )
        for user in range(12):
            for n, (at, track, skipped) in enumerate(evenings()):
                video = (track + 7 * user) % len(TRACKS)
                shown = at + timedelta(minutes=user)
                row = [
                    user,
                    video,
                    f"{shown:%Y%m%d}",
                    f"{shown:%H%M}",
                    int(1000 * shown.timestamp()),
                    1,
                    int(n % 9 == 0),
                ]
                writer.writerow([*row, 3000 if skipped else 45_000, 52_000])


def open_bandit(folder: Path) -> None:
    """The Open Bandit Dataset's own layout, one campaign, 1,500 impressions a policy of six items."""
    rng = np.random.default_rng(3)
    for policy, pmf in (("random", np.full(6, 1 / 6)), ("bts", np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.3]))):
        (folder / policy / "women").mkdir(parents=True)
        with (folder / policy / "women" / "women.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["", "timestamp", "item_id", "position", "click", "propensity_score"])
            for n, item in enumerate(rng.choice(6, size=1_500, p=pmf).tolist()):
                click = int(rng.random() < 0.05 + 0.03 * item)
                writer.writerow([n, "2019-11-24 00:00:18+00:00", item, 1 + n % 3, click, pmf[item]])


def _lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _zip(path: Path, files: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
