"""What a file is, told by what is in it; and what it is close to."""

from __future__ import annotations

import gzip
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.errors import DataError
from recommender.events.importers import load_events

PLAY = {
    "ts": "2024-03-01T07:31:05Z",
    "ms_played": 201000,
    "master_metadata_track_name": "Song",
    "master_metadata_album_artist_name": "Artist",
    "spotify_track_uri": "spotify:track:1",
}
ACCOUNT = {"endTime": "2024-03-01 07:31", "artistName": "Artist", "trackName": "Song", "msPlayed": 201000}
LISTEN = {
    "listened_at": 1709278265.0,
    "track_metadata": {"artist_name": "A", "track_name": "S", "recording_msid": "m1"},
}
GHAN = (
    '"uts","utc_time","artist","artist_mbid","album","album_mbid","track","track_mbid"\n'
    '"1270468999","05 Apr 2010, 12:03","Band","","","","Other",""\n'
    '"1270468794","05 Apr 2010, 11:59","Band","","","","Song",""\n'
)


def kind_of(path: Path) -> str:
    read_as = load_events(path).check.read_as
    return read_as[read_as.rindex("(") + 1 : -1].split(",")[0]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", json.dumps([PLAY]), "spotify"),
        ("anything.txt", json.dumps([PLAY]), "spotify"),
        ("b.json", json.dumps([ACCOUNT]), "spotify-account"),
        ("c.json", json.dumps([{**LISTEN, "user_name": "u"}]), "listenbrainz"),
        ("pretty.json", "\n" + json.dumps([{**LISTEN, "user_name": "u"}], indent=1), "listenbrainz"),
        ("one.json", json.dumps({**LISTEN, "user_name": "u"}, indent=2), "listenbrainz"),
        ("d.tsv", GHAN, "lastfm"),
        ("d2.csv", "Band,Album,Song,05 Apr 2010 11:59\nBand,Album,Other,05 Apr 2010 11:55\n", "lastfm"),
        ("d3.csv", "\ufeffArtist;Album;AlbumId;Track;Date#someone\nA;B;c;T;1709278265000\n", "lastfm"),
        ("d4", "user_1\t2009-05-04T23:08:57Z\tm\tBand\t\tSong\n", "lastfm"),
        ("e.csv", "user_id,video_id,time_ms,play_time_ms,duration_ms\n1,a,1649581149287,46186,45916\n", "kuairand"),
        ("f.csv", "callsign,seq,time,song,artist,combined\nK,1,1402884087,S,A,S by A\n", "station-plays"),
        ("g.json", json.dumps([{"header": "YouTube Music", "title": "Watched A", "time": "2022-04-25T17:59:15Z",
                                "titleUrl": "https://music.youtube.com/watch?v=x"}]), "youtube-music"),
        ("h.csv", "user_id|item_id|started_at\nu|i|2024-01-01\n", "table"),
        ("i.jsonl", '{"user_id": 1, "item_id": 2, "started_at": "2024-01-01"}\n', "table"),
    ],
)  # fmt: skip
def test_the_content_says_what_a_file_is_whatever_its_name(name: str, text: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert kind_of(tmp_path / name) == kind
    with gzip.open(tmp_path / "packed", "wt") as file:
        file.write(text)
    assert load_events(tmp_path / "packed").events.equals(load_events(tmp_path / name).events)
    with zipfile.ZipFile(tmp_path / "my_data.zip", "w") as archive:
        archive.writestr(f"My Data/{name}", text)
        archive.writestr("__MACOSX/._x", "x")
        archive.writestr("ReadMeFirst.pdf", "%PDF")
    assert load_events(tmp_path / "my_data.zip").events.equals(load_events(tmp_path / name).events)


@pytest.mark.parametrize("listener", [None, "ana"])
def test_an_export_of_one_is_of_the_listener_named_or_of_me(listener: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([PLAY]))
    loaded = load_events(tmp_path / "a.json", user=listener)
    assert loaded.events["user_id"].to_pylist() == [listener or "me"]
    (tmp_path / "b.csv").write_text("item_id,started_at\ni,2024-01-01\n")
    if listener is not None:
        assert load_events(tmp_path / "b.csv", user=listener).events["user_id"].to_pylist() == ["ana"]
    (tmp_path / "c.csv").write_text("user_id,item_id,started_at\nu,i,2024-01-01\n")
    with pytest.raises(DataError, match="--user names the listener of a table without one"):
        load_events(tmp_path / "c.csv", user="ana")


def export(folder: Path) -> Path:
    """ListenBrainz's own export of a user, as its server writes it."""
    mapped = {**LISTEN["track_metadata"], "track_name": "S2", "mbid_mapping": {"recording_mbid": "r2"}}  # type: ignore[dict-item]
    second = {"listened_at": 1709278565.0, "inserted_at": 1.5, "track_metadata": mapped}
    (folder / "listens" / "2024").mkdir(parents=True)
    (folder / "user.json").write_text('{"user_id":1,"username":"someone"}\n')
    (folder / "listens" / "2024" / "3.jsonl").write_text("\n".join(map(json.dumps, [LISTEN, second])))
    (folder / "feedback.jsonl").write_text(
        '{"recording_msid": "m1", "recording_mbid": null, "score": 1, "created": 1}\n'
    )
    pin = {"recording_msid": None, "recording_mbid": "r2", "blurb_content": None, "pinned_until": 9, "created": 1}
    (folder / "pinned_recording.jsonl").write_text(json.dumps(pin) + "\n")
    return folder


def test_the_export_of_a_listenbrainz_user_is_two_listens_of_that_user(tmp_path: Path) -> None:
    folder = export(tmp_path / "export")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in folder.rglob("*.json*"):
            archive.write(file, file.relative_to(folder))
    for path in (folder, tmp_path / "export.zip"):
        for kind in (None, "listenbrainz"):
            loaded = load_events(path, kind)
            assert loaded.events["item_id"].to_pylist() == ["m1", "r2"]
            assert loaded.events["user_id"].to_pylist() == ["someone"] * 2
            assert (loaded.check.rows, loaded.check.kept) == (2, 2)
            assert any("feedback.jsonl" in note for note in loaded.check.notes)
        assert load_events(path, user="ana").events["user_id"].to_pylist() == ["ana"] * 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "user_id,video_id,time_ms,play_time_ms\n1,a,1649581149287,46186\n",
         r"this looks like a log of KuaiRand \(kuairand\), which lacks duration_ms"),
        ("b.json", json.dumps([{k: v for k, v in PLAY.items() if k != "ms_played"}]),
         r"this looks like Spotify's extended streaming history \(spotify\), which lacks ms_played"),
        ("c.json", json.dumps([{k: v for k, v in ACCOUNT.items() if k != "endTime"}]),
         r"this looks like Spotify's account data.*which lacks endTime"),
        ("d.csv", "uts,artist,album\n1,2,3\n", r"this looks like Last.fm scrobbles \(lastfm\), which lacks track"),
        ("e.csv", "uid,song,time\n1,2,3\n", "--map user_id=uid --map item_id=song --map started_at=time"),
        ("f.csv", "listener,track id,played at\n1,2,3\n",
         "--map user_id=listener --map item_id='track id' --map started_at='played at'"),
        ("g.csv", "item_id,started_at\n1,2024-01-01\n", "no column for user_id.*--user NAME where all plays"),
        ("h.csv", "u1,a,2024-01-01T10:00:00Z\nu1,b,2024-01-01T10:04:00Z\n", "has no header: its first line is data"),
        ("i.csv", "u1,a,1709278265\n", "has no header"),
        ("j.bin", "\x00\x01\x02\x03" * 50, "no table and no export that is known; expected Parquet, CSV"),
        ("k.json", "[]", "holds no record that can be read"),
        ("watch-history.html", "<html><body>Watched", "no table and no export that is known"),
    ],
)  # fmt: skip
def test_a_file_close_to_something_is_told_what_it_lacks(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        load_events(tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        ["Benutzer", "Titel", "Zeit"],
        [
            "\u0441\u043b\u0443\u0448\u0430\u0442\u0435\u043b\u044c",
            "\u043f\u0435\u0441\u043d\u044f",
            "\u0432\u0440\u0435\u043c\u044f",
        ],
    ],
)
@pytest.mark.parametrize("ends", [";", ","])
def test_columns_of_another_language_are_proposed_by_their_values(header: list[str], ends: str, tmp_path: Path) -> None:
    path = tmp_path / "plays.csv"
    rows = [[f"u{n % 3}", f"song {n % 17}", f"{1 + n // 20:02d}.03.2024 10:{n % 60:02d}"] for n in range(60)]
    path.write_text("\n".join(ends.join(row) for row in [header, *rows]), encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_events(path)
    user, item, at = header
    assert f"--map user_id={user} --map item_id={item} --map started_at={at}" in str(error.value)
    found = load_events(path, mapping={"user_id": user, "item_id": item, "started_at": at})
    assert (found.check.kept, found.check.listeners, found.check.items) == (60, 3, 17)


def test_an_item_of_another_name_is_the_id_of_most_values(tmp_path: Path) -> None:
    rows = [f"{n % 3},{n % 17},{n % 5},{1_260_759_144 + 300 * n},x" for n in range(60)]
    (tmp_path / "plays.csv").write_text("\n".join(["userId,bookId,stars,timestamp,note", *rows]))
    with pytest.raises(DataError, match="--map user_id=userId --map item_id=bookId --map started_at=timestamp"):
        load_events(tmp_path / "plays.csv")


def test_the_map_proposed_in_an_error_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,song,uid,notes\n2024-01-01,s,u,x\n")
    with pytest.raises(DataError) as error:
        load_events(tmp_path / "a.csv")
    words = str(error.value).split()
    mapping = dict(pair.split("=") for flag, pair in pairwise(words) if flag == "--map")
    loaded = load_events(tmp_path / "a.csv", mapping=mapping)
    assert loaded.check.kept == 1
    assert loaded.check.unread == ("notes",)


def test_a_kind_that_is_given_wins_and_says_where_the_file_is_another(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps([ACCOUNT]))
    with pytest.raises(DataError, match="is Spotify's account data.*not Spotify's extended streaming history"):
        load_events(tmp_path / "b.json", "spotify")
    (tmp_path / "f.csv").write_text("callsign,seq,time,song,artist,combined\nK,1,1402884087,S,A,S by A\n")
    mapping = {"user_id": "artist", "item_id": "song", "started_at": "time"}
    assert load_events(tmp_path / "f.csv", "table", mapping).events["user_id"].to_pylist() == ["A"]
    assert load_events(tmp_path / "f.csv", None, mapping).events["user_id"].to_pylist() == ["A"]


def test_two_formats_in_one_folder_are_named_and_account_data_stands_beside_the_history(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([PLAY]))
    (tmp_path / "b.json").write_text(json.dumps([ACCOUNT]))
    loaded = load_events(tmp_path)
    assert loaded.check.kept == 1
    assert "account data beside the extended history: 0 plays that this lacks are read" in loaded.check.notes
    alone = load_events(tmp_path, "spotify").check
    assert alone.kept == 1
    assert "1 other files are not read: b.json" in alone.notes
    (tmp_path / "c.csv").write_text(GHAN)
    with pytest.raises(DataError, match="these files are .*lastfm.*spotify.*expected one format, or --kind"):
        load_events(tmp_path)
    assert load_events(tmp_path, "lastfm").check.kept == 2


def test_what_stands_beside_a_table_is_not_read_and_named(tmp_path: Path) -> None:
    plays = pa.table({"user_id": ["u"], "item_id": ["i"], "started_at": [1709278265]})
    pq.write_table(plays, tmp_path / "part-0.parquet")
    pq.write_table(pa.table({"item_id": ["i"], "title": ["T"]}), tmp_path / "items.parquet")
    loaded = load_events(tmp_path)
    assert loaded.check.kept == 1
    assert "1 other files are not read: items.parquet" in loaded.check.notes
