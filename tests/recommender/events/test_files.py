"""Files of one export: folders, ZIPs, what other engines leave, and tables whose files differ in their types."""

from __future__ import annotations

import bz2
import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.errors import DataError
from recommender.events.importers import load_events

CSV = "user_id,item_id,started_at\nu,i,2024-01-01T10:00:00Z\n"


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS", "_committed_123", "._SUCCESS.crc", ".part-0.parquet.crc", "part-1.parquet.tmp",
        "part-1.csv.inprogress", ".part-0-0.inprogress.5f1c", "_temporary/0/part-9.csv", "_delta_log/000.json",
        ".hive-staging/x.csv",
        "x.csv.crdownload", "part-2.csv.part", "sub/_started_17", "notes.md", "~lock.csv~",
    ],
)  # fmt: skip
def test_markers_and_unfinished_parts_are_no_data(name: str, tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text(CSV)
    other = tmp_path / name
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(CSV.replace("u,i", "other,j"))
    (tmp_path / "part-3.csv").write_text("")  # an empty partition
    loaded = load_events(tmp_path)
    assert loaded.events["user_id"].to_pylist() == ["u"]
    assert any("left aside" in note for note in loaded.check.notes)


def test_a_folder_whose_files_differ_harmlessly_is_one_table(tmp_path: Path) -> None:
    us, ns = pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")
    at = [pa.array([1_704_103_200_000_000]).cast(us), pa.array([1_704_103_260_000_000_000]).cast(ns)]
    parts: list[dict[str, object]] = [
        {"user_id": pa.array([7]), "item_id": ["a"], "started_at": at[0], "listened_s": pa.array([10])},
        {"user_id": pa.array([7.0]), "item_id": pa.array(["b"], pa.large_string()), "started_at": at[1],
         "listened_s": pa.array([10.5])},
        {"user_id": pa.array(["7"]).dictionary_encode(), "item_id": pa.array(["c"], pa.binary()),
         "started_at": pa.array(["2024-01-01T10:02:00Z"]), "listened_s": pa.nulls(1, pa.null())},
        {"user_id": pa.array(["7"], pa.string_view()), "item_id": ["d"], "started_at": pa.array([1704103380])},
    ]  # fmt: skip
    for number, columns in enumerate(parts):
        pq.write_table(pa.table(columns), tmp_path / f"part-{number}.parquet")
    pq.write_table(pa.table(parts[0]).schema.empty_table(), tmp_path / "part-9.parquet")
    events = load_events(tmp_path).events
    assert events["user_id"].to_pylist() == ["7"] * 4
    assert events["item_id"].to_pylist() == ["a", "b", "c", "d"]
    assert [t.minute for t in events["started_at"].to_pylist()] == [0, 1, 2, 3]
    assert events["listened_s"].to_pylist() == [10.0, 10.5, None, None]


@pytest.mark.parametrize(
    "data",
    [
        CSV.replace("\n", "\r\n").encode("utf-8-sig"),
        CSV.replace(",", ";").replace("\n", "\r\n").encode("utf-16"),
        CSV.replace("\n", "\r").encode(),
        ("sep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n")).encode(),
        b"\n  \n" + CSV.replace(",", "\t").encode(),
        gzip.compress(CSV.encode(), mtime=0),
        bz2.compress(CSV.encode()),
        CSV.replace("2024-01-01T10:00:00Z", "01.01.2024 10:00").encode(),
    ],
)
def test_a_table_is_read_however_its_text_is_written_or_packed(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "plays").write_bytes(data)
    (only,) = load_events(tmp_path / "plays").events.to_pylist()
    assert (only["user_id"], only["item_id"], only["started_at"].isoformat()) == ("u", "i", "2024-01-01T10:00:00+00:00")


def test_a_decimal_comma_is_one_where_it_cannot_part_thousands(tmp_path: Path) -> None:
    rows = [f"u;i{n};2024-01-0{n}T10:00:00Z;{length}" for n, length in enumerate(["200,5", "12,125", "7"], 1)]
    (tmp_path / "a.csv").write_text("\n".join(["user_id;item_id;started_at;listened_s", *rows]))
    assert load_events(tmp_path / "a.csv").events["listened_s"].to_pylist() == [200.5, 12.125, 7]
    (tmp_path / "b.csv").write_text("\n".join(["user_id;item_id;started_at;listened_s", *rows[1:]]))
    refused = load_events(tmp_path / "b.csv").check.rejected
    assert [(one.reason, one.rows) for one in refused] == [("listened_s is not a number", 1)]


def zipped(path: Path, **files: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path.read_bytes()


def test_zips_in_a_zip_are_read_and_count_towards_the_limit(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", a=CSV.encode())
    office = zipped(tmp_path / "x.xlsx", **{"[Content_Types].xml": b"<Types/>"})
    zipped(tmp_path / "outer.zip", inner=inner, other=zipped(tmp_path / "deep.zip", deep=inner), book=office)
    found = load_events(tmp_path / "outer.zip")
    assert (found.check.rows, found.check.kept) == (2, 1)
    assert "book left aside: an Office file; save its table as CSV" in found.check.notes
    with pytest.raises(DataError, match="would unpack to"):
        load_events(tmp_path / "outer.zip", zip_limit=len(inner) + 10)
    for _ in range(4):
        inner = zipped(tmp_path / "deep.zip", deep=inner)
    with pytest.raises(DataError, match="too deep in others"):
        load_events(tmp_path / "deep.zip")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(CSV.encode() * 99, mtime=0)[:60], "cannot be unpacked: .*; expected a whole file"),
        (gzip.compress(CSV.encode() * 99, mtime=0)[:-9] + b"x" * 9, "cannot be unpacked: .*; expected a whole file"),
        (bz2.compress(CSV.encode() * 99)[:40], "cannot be unpacked: .*; expected a whole file"),
        (b"PK\x05\x06" + bytes(18), "is an empty ZIP"),
        (b"PK\x03\x04" + bytes(90), "begins as a ZIP and does not end as one"),
        (b"", "no export that is known .empty.; expected"),
        (b"\n<!DOCTYPE html><html>Watched Air</html>", "a web page: ask for the same export as JSON"),
        (CSV.splitlines()[0].encode(), "no event can be kept of 0 rows: there is none"),
    ],
)
def test_a_file_that_is_not_whole_gets_one_line(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "plays").write_bytes(data)
    with pytest.raises(DataError, match=said):
        load_events(tmp_path / "plays")


def test_a_zip_that_would_unpack_beyond_the_limit_is_refused_before_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("plays.csv", CSV + "x" * 5_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"would unpack to 5 MB; expected at most 1 MB \(events.zip_limit_mb"):
        load_events(path, zip_limit=1024**2)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"[Content_Types].xml": "x", "xl/a.xml": "y"}, "is an Office file; expected a table saved as CSV"),
        ({"folder/": ""}, "holds no file that could be read as events"),
    ],
)
def test_a_zip_of_something_else_says_so(names: dict[str, str], said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in names.items():
            archive.writestr(name, text)
    with pytest.raises(DataError, match=said):
        load_events(tmp_path / "a.zip")


def test_a_zip_that_is_cut_off_is_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("plays.csv", CSV * 50)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.zip begins as a ZIP and does not end as one"):
        load_events(tmp_path / "cut.zip")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_in_the_encodings_of_spreadsheets_keep_their_letters(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("user_id\titem_id\tstarted_at\nÅsa\tKöln – 1\t2024-01-01\n".encode(encoding))
    events = load_events(tmp_path / "a.csv").events
    assert events["user_id"].to_pylist() == ["Åsa"]
    assert events["item_id"].to_pylist() == ["Köln – 1"]


@pytest.mark.parametrize("place", [0, 5, 29])
@pytest.mark.parametrize(
    ("line", "titles"),
    [
        ('"Heroes', ['"Heroes']),
        ('7" mix', ['7" mix']),
        ('"a ""quoted"" title"', ['a "quoted" title']),
        ('"over\ntwo, lines"', ["over\ntwo, lines"]),
        ('"Heroes\nu,y,2024-01-01T13:00:00Z,"Zeros', ['"Heroes', '"Zeros']),
        ('say "hi" and "bye', ['say "hi" and "bye']),
    ],
)
def test_a_quote_that_never_ends_costs_no_other_line(line: str, titles: list[str], place: int, tmp_path: Path) -> None:
    rows = [f"u,i{k},2024-01-01T10:{k:02d}:00Z,T{k}" for k in range(30)]
    rows.insert(place, f"u,x,2024-01-01T12:00:00Z,{line}")
    for end in ("\n", "\r\n"):
        text = "\n".join(["user_id,item_id,started_at,title", *rows]) + "\n"
        (tmp_path / "a.csv").write_bytes(text.replace("\n", end).encode())
        loaded = load_events(tmp_path / "a.csv")
        assert loaded.check.rows == loaded.check.kept == 30 + len(titles)
        said = [t.replace("\r\n", "\n") for t in loaded.item_text["title"].to_pylist() if not t.startswith("T")]
        assert sorted(said) == sorted(titles)


def test_a_quote_at_a_place_where_reading_pauses_is_mended_too(tmp_path: Path) -> None:
    good = "u,i,2024-01-01T10:00:00Z,some title that takes place\n"
    lines = [good.replace("u,i", f"u{k},i") for k in range(120_000)]
    for at in range(0, len(lines), 7_001):
        lines[at] = lines[at].replace("some", '"some')
    (tmp_path / "a.csv").write_text("user_id,item_id,started_at,title\n" + "".join(lines))
    assert load_events(tmp_path / "a.csv").check.kept == len(lines)


def test_the_times_of_lastfm_are_utc_whatever_zone_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Band,Album,Song,05 Apr 2010 11:59\n")
    event = load_events(tmp_path / "a.csv", default_tz="Europe/Berlin").events.to_pylist()[0]
    assert event["started_at"].isoformat() == "2010-04-05T11:59:00+00:00"
    assert event["utc_offset_min"] == 120


def test_a_part_with_nothing_but_its_header_is_an_empty_part(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text(CSV)
    (tmp_path / "part-1.csv").write_text(CSV.splitlines()[0] + "\n\n")
    assert load_events(tmp_path).check.kept == 1
    with pytest.raises(DataError, match="no event can be kept of 0 rows"):
        load_events(tmp_path / "part-1.csv")


def test_files_of_one_name_in_two_zips_are_two_files(tmp_path: Path) -> None:
    rows = "user_id,item_id,started_at,listened_s\n" + "u,i,2024-01-01T10:00,20\n" * 2
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("plays.csv", rows)
    loaded = load_events(tmp_path)
    assert (loaded.check.rows, loaded.check.kept) == (4, 2)
    assert "2 files" in loaded.check.read_as


def test_a_damaged_file_in_a_zip_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    lines = "".join(f"u{k % 3},i{k * 7919 % 1000},{1_709_278_265 + k * 200}\n" for k in range(500))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("plays.csv", "user_id,item_id,started_at\n" + lines)
    whole = path.read_bytes()
    for at in range(60, 400, 20):
        path.write_bytes(whole[:at] + b"XXXX" + whole[at + 4 :])
        with pytest.raises(DataError, match="plays.csv cannot be unpacked: .*; expected a whole file"):
            load_events(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("array", [False, True])
def test_json_is_read_in_the_encodings_that_shells_write(encoding: str, array: bool, tmp_path: Path) -> None:
    records = [f'{{"user_id": "u", "item_id": "å{k}", "started_at": {1_709_278_265 + k}}}' for k in range(3)]
    path = tmp_path / "plays.jsonl"
    path.write_bytes(("[" + ",\n".join(records) + "]" if array else "\n".join(records) + "\n").encode(encoding))
    assert load_events(path).events["item_id"].to_pylist() == ["å0", "å1", "å2"]


def test_blanks_around_ids_make_no_others(tmp_path: Path) -> None:
    path = tmp_path / "plays.csv"
    path.write_text("user_id, item_id, started_at\nann, a,2024-03-01\n ann ,b ,2024-03-02\nAnn,c,2024-03-03\n")
    loaded = load_events(path)
    assert loaded.events["user_id"].to_pylist() == ["Ann", "ann", "ann"]  # another case is another listener
    assert loaded.events["item_id"].to_pylist() == ["c", "a", "b"]
