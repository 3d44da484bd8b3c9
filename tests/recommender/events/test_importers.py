"""Every importer against one contract, and what each format hides."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.errors import DataError
from recommender.events.importers import IMPORTERS, load_events
from recommender.events.importers.spotify import device
from recommender.events.table import EVENT_SCHEMA, LoadedEvents

SPOTIFY = [
    {
        "ts": "2024-03-01T07:31:05Z",
        "username": "secret-name",
        "platform": "android",
        "ms_played": 201000,
        "ip_addr": "203.0.113.7",
        "master_metadata_track_name": "Song A",
        "master_metadata_album_artist_name": "Artist",
        "spotify_track_uri": "spotify:track:1",
        "reason_start": "clickrow",
        "reason_end": "trackdone",
        "skipped": None,
        "offline": False,
        "offline_timestamp": 1709278064,
        "incognito_mode": False,
    },
    {
        "ts": "2024-03-01T07:31:17Z",
        "platform": "Windows 10 (10.0.19044; x64)",
        "ms_played": 11500,
        "master_metadata_track_name": "Song B",
        "master_metadata_album_artist_name": "Artist",
        "spotify_track_uri": "spotify:track:2",
        "reason_end": "fwdbtn",
        "skipped": None,
    },
    {
        "ts": "2024-03-01T08:00:00Z",
        "platform": "not_applicable",
        "ms_played": 4000,
        "master_metadata_track_name": "Local file",
        "master_metadata_album_artist_name": "Artist",
        "spotify_track_uri": None,
        "reason_end": "logout",
        "skipped": None,
        "offline": True,
        "offline_timestamp": 1709200000000,
    },
    {"ts": "2024-03-01T09:00:00Z", "ms_played": 9, "spotify_track_uri": "spotify:track:3", "incognito_mode": True},
    {"ts": "2024-03-01T09:00:00Z", "ms_played": 9, "episode_name": "Talk", "spotify_episode_uri": "spotify:episode:1"},
]
LISTENS = [
    {
        "listened_at": 1709278265,
        "user_name": "rob",
        "recording_msid": "msid-1",
        "track_metadata": {
            "artist_name": "Artist",
            "track_name": "Song A",
            "additional_info": {"duration_ms": 201000, "recording_mbid": "mbid-1", "music_service": "example.org"},
        },
    },
    {
        "listened_at": 1709278500,
        "user_name": "rob",
        "track_metadata": {"artist_name": "Artist", "track_name": "Song B", "additional_info": None},
    },
]


def write_table(folder: Path) -> Path:
    path = folder / "plays.csv"
    path.write_text("user_id;item_id;started_at;title\nu;007;2024-03-01 07:31:05;Hello\n")
    return path


def write_spotify(folder: Path) -> Path:
    path = folder / "Streaming_History_Audio_2024_0.json"
    path.write_text(json.dumps(SPOTIFY))
    return path


def write_lastfm(folder: Path) -> Path:
    path = folder / "plays.tsv"
    path.write_text(
        'user_1\t2009-05-04T23:08:57Z\tmb-1\tDeep "Dish"\t\tLive at the "Pier"\n'
        "user_1\t2009-05-04T13:54:10Z\tmb-2\t坂本龍一\tmb-3\tComposition 0919\n"
        "a line that is cut\n"
    )
    return path


def write_listenbrainz(folder: Path) -> Path:
    path = folder / "1.listens"
    path.write_text("\n".join(json.dumps(listen) for listen in LISTENS) + "\n{cut")
    return path


def write_kuairand(folder: Path) -> Path:
    path = folder / "log.csv"
    path.write_text(
        "user_id,video_id,time_ms,play_time_ms,duration_ms\n"
        "1,a,1649581149287,46186,45916\n1,b,1649581250000,2000,45916\n1,c,1649581260000,2000,0\n"
    )
    return path


def write_station_plays(folder: Path) -> Path:
    path = folder / "radio.csv"
    path.write_text(
        "callsign,seq,time,song,artist,combined,unique_id\n"
        "KGB,1,1402884087,Dream On,Aerosmith,Dream On by Aerosmith,KGB2\n"
        'KGB,0,1402884087,"Hello, Goodbye",The Beatles,"Hello, Goodbye by The Beatles",KGB1\n'
    )
    return path


def write_spotify_account(folder: Path) -> Path:
    path = folder / "StreamingHistory_music_0.json"
    play = {"endTime": "2023-09-15 14:04", "artistName": "A", "trackName": "B", "msPlayed": 200000}
    path.write_text(json.dumps([play, {**play, "trackName": "C", "msPlayed": 20000}, play]))
    return path


def write_youtube_music(folder: Path) -> Path:
    path = folder / "watch-history.json"
    watched = {
        "header": "YouTube Music",
        "title": "Watched Air",
        "titleUrl": "https://music.youtube.com/watch?v=884-vMqZslQ",
        "subtitles": [{"name": "Sault - Topic", "url": "https://www.youtube.com/channel/UC-o"}],
        "time": "2022-04-25T17:59:15.757Z",
        "products": ["YouTube"],
    }
    path.write_text(json.dumps([watched, {**watched, "header": "YouTube", "title": "Watched a film"}]))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "table": write_table,
    "spotify": write_spotify,
    "lastfm": write_lastfm,
    "listenbrainz": write_listenbrainz,
    "kuairand": write_kuairand,
    "station-plays": write_station_plays,
    "spotify-account": write_spotify_account,
    "youtube-music": write_youtube_music,
}


def reasons(loaded: LoadedEvents) -> dict[str, int]:
    return {r.reason: r.rows for r in loaded.check.rejected}


def test_every_importer_is_tested() -> None:
    assert WRITERS.keys() == IMPORTERS.keys()


@pytest.mark.parametrize("kind", IMPORTERS)
def test_every_importer_gives_the_event_table_and_says_what_it_kept(kind: str, tmp_path: Path) -> None:
    loaded = load_events(WRITERS[kind](tmp_path), kind)
    assert loaded.events.schema == EVENT_SCHEMA
    assert loaded.check.kept == len(loaded.events) > 0
    assert loaded.check.rows == loaded.check.kept + sum(r.rows for r in loaded.check.rejected)
    assert load_events(WRITERS[kind](tmp_path)).events.equals(loaded.events)  # told by its content
    assert set(loaded.item_text["item_id"].to_pylist()) == set(loaded.events["item_id"].to_pylist())
    at = loaded.events["started_at"].to_pylist()
    assert at == sorted(at)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_every_importer_gives_the_same_events_twice(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path)
    assert load_events(path, kind).events.equals(load_events(path, kind).events)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_a_missing_file_is_a_clear_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_events(tmp_path / "nothing.csv", kind)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_a_file_of_another_kind_is_a_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "plays.csv"
    path.write_text("colour,size\nred,3\n")
    with pytest.raises(DataError):
        load_events(path, kind)


def test_an_unknown_kind_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kind is 'winamp'; expected one of table, spotify"):
        load_events(tmp_path, "winamp")


def test_spotify_times_are_starts_skips_are_derived_and_identities_are_gone(tmp_path: Path) -> None:
    loaded = load_events(write_spotify(tmp_path), "spotify")
    plays = {p["item_id"]: p for p in loaded.events.to_pylist()}
    assert plays["spotify:track:1"]["started_at"].isoformat() == "2024-03-01T07:27:44+00:00"
    assert plays["spotify:track:1"]["skipped"] is False
    assert plays["spotify:track:2"]["skipped"] is True
    assert plays["spotify:track:2"]["device"] == "desktop"
    assert plays["Artist - Local file"]["skipped"] is None
    assert plays["Artist - Local file"]["started_at"].isoformat() == "2024-02-29T09:46:40+00:00"
    assert reasons(loaded) == {"a private session": 1, "a podcast or an audiobook": 1}
    everything = str(loaded.events.to_pylist()) + str(loaded.check)
    assert "secret-name" not in everything
    assert "203.0.113.7" not in everything


def test_a_spotify_folder_and_a_zip_give_what_their_files_give(tmp_path: Path) -> None:
    expected = load_events(write_spotify(tmp_path), "spotify").events
    (tmp_path / "notes.json").write_text("not a history")
    assert load_events(tmp_path, "spotify").events.equals(expected)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("Spotify Extended Streaming History/endsong_0.json", json.dumps(SPOTIFY))
    assert load_events(tmp_path / "data.zip", "spotify").events.equals(expected)


@pytest.mark.parametrize(
    ("platform", "kind"),
    [
        ("ios", "mobile"),
        ("Android OS 4.2.2 API 17 (samsung)", "mobile"),
        ("Windows 10 (10.0.19044; x64)", "desktop"),
        ("osx", "desktop"),
        ("web_player windows 10;chrome", "web"),
        ("Partner google cast_tv Chromecast", "speaker"),
        ("something new", "other"),
        ("not_applicable", None),
        (None, None),
    ],
)
def test_spotify_platforms_are_told_apart(platform: str | None, kind: str | None) -> None:
    assert device(platform) == kind


def test_lastfm_songs_are_one_item_with_or_without_an_id_and_quotes_are_letters(tmp_path: Path) -> None:
    loaded = load_events(write_lastfm(tmp_path), "lastfm")
    assert loaded.events["item_id"].to_pylist() == ["坂本龍一 - Composition 0919", 'Deep "Dish" - Live at the "Pier"']
    assert reasons(loaded) == {"a line without 6 fields": 1}


def test_listenbrainz_prefers_the_recording_and_reads_arrays_and_packed_files(tmp_path: Path) -> None:
    loaded = load_events(write_listenbrainz(tmp_path), "listenbrainz")
    assert loaded.events["item_id"].to_pylist() == ["mbid-1", "Artist - Song B"]
    assert loaded.events["duration_s"].to_pylist() == [201.0, None]
    assert reasons(loaded) == {"a record that is not JSON": 1}
    (tmp_path / "all.json").write_text(json.dumps(LISTENS))
    with gzip.open(tmp_path / "all.json.gz", "wt") as file:
        json.dump(LISTENS, file)
    for name in ("all.json", "all.json.gz"):
        assert load_events(tmp_path / name, "listenbrainz").events.equals(loaded.events)


def test_kuairand_skips_need_a_length_and_hours_are_those_of_shanghai(tmp_path: Path) -> None:
    loaded = load_events(write_kuairand(tmp_path), "kuairand")
    assert loaded.events["skipped"].to_pylist() == [False, True, None]
    assert loaded.events["duration_s"].to_pylist() == [45.916, 45.916, None]
    assert set(loaded.events["utc_offset_min"].to_pylist()) == {480}


def test_station_plays_keep_the_sequence_of_equal_times_and_work_through_the_generic_mapping(tmp_path: Path) -> None:
    path = write_station_plays(tmp_path)
    loaded = load_events(path, "station-plays")
    assert loaded.events["item_id"].to_pylist() == ["Hello, Goodbye by The Beatles", "Dream On by Aerosmith"]
    mapping = {"user_id": "callsign", "item_id": "combined", "started_at": "time", "order": "seq", "title": "song"}
    assert load_events(path, "table", mapping).events.equals(loaded.events)


def test_parquet_csv_and_a_folder_of_both_give_the_same_events(tmp_path: Path) -> None:
    expected = load_events(write_table(tmp_path), "table").events
    assert expected["item_id"].to_pylist() == ["007"]
    own = pa.table({"user_id": ["u"], "item_id": ["007"], "started_at": ["2024-03-01 07:31:05"], "title": ["Hello"]})
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(own, folder / "b.parquet")
    assert load_events(folder / "b.parquet").events.equals(expected)
    (folder / "a.tsv").write_text("user_id\titem_id\tstarted_at\nv\t8\t1709278265\n")
    assert load_events(folder).events["user_id"].to_pylist() == ["u", "v"]


@pytest.mark.parametrize(("name", "text"), [("plays.csv", ""), ("plays.csv", "a,a\n1,2\n"), ("plays.xls", "x")])
def test_an_unreadable_table_says_which_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        load_events(tmp_path / name)


@pytest.mark.parametrize(("before", "after"), [("Vous avez regardé ", ""), ("", " angesehen"), ("Watched ", "")])
def test_titles_of_a_takeout_are_freed_of_the_words_around_them_in_any_language(
    before: str, after: str, tmp_path: Path
) -> None:
    titles = ["Air", "Second Street", "Undertow", "Paper Moon", "Morning Light", "Air on a Wire"]
    records = [
        {
            "header": "YouTube Music",
            "title": f"{before}{title}{after}",
            "titleUrl": f"https://music.youtube.com/watch?v=video-{n}",
            "subtitles": [{"name": "Sault - Topic"}],
            "time": f"2022-04-25T17:{59 - n}:15.757Z",
        }
        for n, title in enumerate(titles)
    ]
    gone = {
        **records[0],
        "title": f"{before}https://music.youtube.com/watch?v=gone{after}",
        "time": "2022-04-24T17:00:00Z",
    }
    path = tmp_path / "watch-history.json"
    path.write_text(json.dumps([*records, gone], ensure_ascii=False), encoding="utf-8")
    found = load_events(path)
    assert sorted(found.item_text["title"].drop_null().to_pylist()) == sorted(titles)


@pytest.mark.parametrize(
    "around", ["Watched {}", "„{}“ angesehen", "Vous avez regardé «{}»", "{} angesehen", "『{}』を視聴しました"]
)
def test_titles_of_a_takeout_come_without_the_words_and_quotes_around_them(around: str, tmp_path: Path) -> None:
    titles = ["Air", "Sun", "Moon", "Rain", "Snow", "Ice"]
    records = [
        {
            "header": "YouTube Music",
            "title": around.format(title),
            "titleUrl": f"https://music.youtube.com/watch?v=v{n}",
            "time": f"2024-03-01T07:{50 - n}:05Z",
        }
        for n, title in enumerate(titles)
    ]
    (tmp_path / "history.json").write_text(json.dumps(records))
    assert load_events(tmp_path).item_text["title"].to_pylist() == titles
