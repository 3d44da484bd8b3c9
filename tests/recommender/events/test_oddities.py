"""Every importer against one table of oddities: a record is kept or refused and counted, and the next one is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recommender.events.importers import IMPORTERS, load_events
from recommender.events.table import LoadedEvents

# What may stand where a value should, as JSON text.
ODD = {
    "nothing": "null",
    "a year that became a number": "1979",
    "a negative number": "-1",
    "zero": "0",
    "a fraction": "0.25",
    "ten to the eighteen": "1000000000000000000",
    "ten to the twenty-five": "10000000000000000000000000",
    "beyond what a float holds": "1" + "0" * 400,
    "more digits than Python reads": "1" * 5000,
    "an exponent that overflows": "1e999",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "a whole number past 2^53": "9007199254740993",
    "true": "true",
    "false": "false",
    "an empty text": '""',
    "blanks": '"  \\t "',
    "a word": '"soon"',
    "the word for nothing": '"null"',
    "a number as text": '"1709278265"',
    "half of a surrogate pair": '"\\ud800"',
    "a zero byte": '"a\\u0000b"',
    "a quote and a newline": '"say \\"hi\\"\\nagain"',
    "a very long text": '"' + "x" * 200_000 + '"',
    "right to left and a flag": '"\\u202e\\ud83c\\uddf8\\ud83c\\uddea"',
    "an empty list": "[]",
    "a list": "[1, [2]]",
    "an object": '{"a": {"b": null}}',
    "very deep nesting": "[" * 100_000 + "]" * 100_000,
    "a date that is none": '"2024-13-45T99:99:99Z"',
    "a date far away": '"9999-12-31T23:59:59Z"',
    "a date in the future": '"2031-01-01T00:00:00Z"',
}
GOOD: dict[str, dict[str, object]] = {
    "spotify": {
        "ts": "2024-03-01T07:31:05Z",
        "platform": "android",
        "ms_played": 201000,
        "master_metadata_track_name": "Song",
        "master_metadata_album_artist_name": "Artist",
        "spotify_track_uri": "spotify:track:1",
        "reason_start": "clickrow",
        "reason_end": "trackdone",
        "skipped": False,
        "offline": False,
        "offline_timestamp": 1709278064,
        "incognito_mode": False,
    },
    "spotify-account": {"endTime": "2023-09-15 14:04", "artistName": "A", "trackName": "B", "msPlayed": 200000},
    "listenbrainz": {
        "listened_at": 1709278265,
        "user_name": "rob",
        "user_id": 7,
        "recording_msid": "m",
        "track_metadata": {"artist_name": "A", "track_name": "S", "additional_info": {"duration_ms": 1, "duration": 2}},
    },
    "youtube-music": {
        "header": "YouTube Music",
        "title": "Watched Air",
        "titleUrl": "https://music.youtube.com/watch?v=884-vMqZslQ",
        "subtitles": [{"name": "Sault - Topic"}],
        "time": "2022-04-25T17:59:15.757Z",
    },
    "table": {
        "user_id": "u",
        "item_id": "i",
        "started_at": "2024-03-01T07:31:05Z",
        "listened_s": 12,
        "skipped": False,
        "device": "web",
        "order": 1,
        "title": "T",
        "utc_offset_min": 60,
        "tz": "UTC",
        "type": "play",
        "value": None,
        "rating": None,
        "liked": False,
        "weight": 1,
    },
}
# A text table's cells hold the same oddities, as far as they are text.
LINES = {
    "lastfm": (
        ["uts", "utc_time", "artist", "artist_mbid", "album", "album_mbid", "track", "track_mbid"],
        ["1270468794", "05 Apr 2010, 11:59", "Band", "", "", "", "Song", ""],
    ),
    "kuairand": (
        ["user_id", "video_id", "time_ms", "play_time_ms", "duration_ms", "is_like", "is_hate"],
        ["1", "a", "1649581149287", "46186", "45916", "1", "0"],
    ),
    "station-plays": (
        ["callsign", "seq", "time", "song", "artist", "combined", "unique_id"],
        ["KGB", "1", "1402884087", "Dream On", "Aerosmith", "Dream On by Aerosmith", "KGB2"],
    ),
    "table": (["user_id", "item_id", "started_at", "listened_s"], ["u", "i", "2024-03-01T07:31:05Z", "12"]),
    "table: ratings": (
        ["user_id", "item_id", "started_at", "type", "value", "weight"],
        ["u", "i", "2024-03-01T07:31:05Z", "rating", "4", ""],
    ),
    "lastfm: lastfmstats.com": (
        ["Artist", "Album", "AlbumId", "Track", "Date#norma"],
        ["Band", "First", "", "Song", "1270468794000"],
    ),
}
BROKEN_LINES = ["a line that is cut", "", ",,,", '"', "1,2,3,4,5,6,7,8,9,10,11,12", "\t", "\x01\x02"]


def kind_of(name: str) -> str:
    return name.partition(":")[0]


def adds_up(loaded: LoadedEvents, rows: int) -> None:
    check = loaded.check
    assert check.rows == rows
    assert check.kept == len(loaded.events)
    assert check.kept + sum(r.rows for r in check.rejected) == rows
    assert all(r.examples for r in check.rejected)
    assert check.lines()


def with_odd(record: dict[str, object], field: str, odd: str) -> str:
    """The record as JSON with one field's value replaced by raw text."""
    return json.dumps({**record, field: "@odd@"}).replace('"@odd@"', odd)


def every_odd_record(record: dict[str, object]) -> list[str]:
    out = [with_odd(record, field, odd) for field in record for odd in ODD.values()]
    for name in [name for name, value in record.items() if isinstance(value, dict)]:
        inner = record[name]
        assert isinstance(inner, dict)
        out += [
            json.dumps({**record, name: "@in@"}).replace('"@in@"', with_odd(inner, field, odd))
            for field in inner
            for odd in ODD.values()
        ]
    return out


def test_there_are_many_oddities_and_every_importer_meets_them() -> None:
    assert len(ODD) >= 25
    assert GOOD.keys() | {kind_of(name) for name in LINES} == IMPORTERS.keys()


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_in_any_field_costs_its_record_at_most(odd: str, kind: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD[kind])
    records = [with_odd(GOOD[kind], field, ODD[odd]) for field in GOOD[kind]]
    path = tmp_path / ("plays.jsonl" if kind in ("table", "listenbrainz") else "plays.json")
    if path.suffix == ".jsonl":
        path.write_text("\n".join([good, *records]) + "\n")
    else:
        path.write_text("[" + ",\n".join([good, *records]) + "]")
    adds_up(load_events(path, kind), 1 + len(records))


@pytest.mark.parametrize("kind", GOOD)
def test_all_oddities_in_one_file_add_up_and_the_first_and_last_good_ones_are_kept(kind: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD[kind])
    odd = [*every_odd_record(GOOD[kind]), "17", '"text"', "null", "[]", "{}"]
    for name, text in (
        ("a.json", "[" + ",".join([good, *odd, good]) + "]"),
        ("b.jsonl", "\n".join([good, *odd, good])),
    ):
        path = tmp_path / name
        path.write_text(text)
        loaded = load_events(path, kind)
        adds_up(loaded, 2 + len(odd))
        assert "the same play again" in {r.reason for r in loaded.check.rejected}


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_breaks_off_gives_what_came_before(kind: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD[kind])
    path = tmp_path / "cut.json"
    path.write_text(f"[{good}, {good[:-5]}")
    adds_up(load_events(path, kind), 2)
    path.write_bytes(f"[{good}, {good}, ".encode() + b'{"title": "\xff\xfe"}]')
    adds_up(load_events(path, kind), 3)


@pytest.mark.parametrize("kind", LINES)
def test_odd_cells_and_lines_of_a_text_table_add_up(kind: str, tmp_path: Path) -> None:
    header, good = LINES[kind]
    rows = [good]
    for at in range(len(header)):
        for odd in ODD.values():
            value = json.loads(odd) if odd.startswith('"') and "ud800" not in odd else odd
            rows.append([*good[:at], str(value)[:70_000], *good[at + 1 :]])
    cells = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path = tmp_path / "plays.csv"
    path.write_text("\n".join([",".join(header), *cells]) + "\n", newline="")
    adds_up(load_events(path, kind_of(kind)), len(rows))


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("line", BROKEN_LINES[:1] + BROKEN_LINES[2:3] + BROKEN_LINES[5:])
def test_a_broken_line_is_refused_and_the_next_is_read(line: str, kind: str, tmp_path: Path) -> None:
    header, good = LINES[kind]
    path = tmp_path / "plays.csv"
    path.write_text("\n".join([",".join(header), line, ",".join(f'"{cell}"' for cell in good)]) + "\n")
    loaded = load_events(path, kind_of(kind))
    adds_up(loaded, 2)
    assert loaded.check.kept == 1


@pytest.mark.parametrize("kind", LINES)
def test_bytes_that_are_no_text_cost_their_line(kind: str, tmp_path: Path) -> None:
    header, good = LINES[kind]
    line = ",".join(f'"{cell}"' for cell in good).encode()
    path = tmp_path / "plays.csv"
    bad = line.replace(good[1].encode(), b"\xff\xfe", 1)
    path.write_bytes(b"\n".join([",".join(header).encode(), *[line] * 20_000, bad, line]) + b"\n")
    adds_up(load_events(path, kind_of(kind)), 20_002)


@pytest.mark.parametrize(
    ("good", "delimiter"),
    [
        (["user_000001", "2009-05-04T23:08:57Z", "f1b1", "Deep Dish", "", "Flashdance"], "\t"),
        (["Band", "Album", "Song", "05 Apr 2010 11:59"], ","),
    ],
)
def test_odd_cells_of_scrobbles_without_a_header_add_up(good: list[str], delimiter: str, tmp_path: Path) -> None:
    rows = [good]
    for at in range(len(good)):
        for odd in ODD.values():
            value = json.loads(odd) if odd.startswith('"') and "ud800" not in odd else odd
            rows.append([*good[:at], " ".join(str(value)[:70_000].split()), *good[at + 1 :]])
    quoted = [[cell if delimiter == "\t" else '"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    path = tmp_path / "plays.csv"
    path.write_text("\n".join(delimiter.join(row) for row in quoted) + "\n", newline="")
    adds_up(load_events(path, "lastfm"), len(rows))


def test_odd_feedback_of_an_export_costs_no_listen(tmp_path: Path) -> None:
    feedback = {"recording_msid": "m", "recording_mbid": "r", "score": 1, "created": 1709278265}
    lines = every_odd_record(feedback)
    (tmp_path / "feedback.jsonl").write_text("\n".join([json.dumps(feedback), *lines, "17", "[]"]))
    (tmp_path / "listens.jsonl").write_text(
        json.dumps({k: v for k, v in GOOD["listenbrainz"].items() if k[:4] != "user"})
    )
    adds_up(load_events(tmp_path), 1)
