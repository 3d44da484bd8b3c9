"""What comes in later: every play is heard once, every change is told, and no clock deafens a listener."""

from __future__ import annotations

import inspect
import json
import shutil
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.hosts.shared import listener_store
from api.jobs.attempt import alone
from api.jobs.build import build_run, check_events
from api.jobs.ingest import Heard, hear, merge_events
from api.run.listening import Listening
from api.run.progress import Quiet, ignore
from api.run.runs import RunPaths
from api.run.settings import load_settings
from bart.bundle import open_bundle
from bart.item_store import load_items

FIRST = datetime(2026, 3, 1, 20, tzinfo=timezone.utc)


def evenings(path: Path, days: range, last_listened_s: float = 200.0, *, future: bool = False) -> Path:
    """Four plays an evening of three listeners; the last play of u0's last evening as long as is said."""
    rows = []
    for user in range(3):
        for day in days:
            for k in range(4):
                at = FIRST + timedelta(days=day, minutes=4 * k)
                stuck = user == 0 and day == days[-1] and k == 3
                rows.append(f"u{user},i{(user + day + k) % 12},{at.isoformat()},{last_listened_s if stuck else 200}")
    if future:
        rows.append(f"u0,i0,{(FIRST + timedelta(days=3650)).isoformat()},200")
    path.write_text("\n".join(["user_id,item_id,started_at,listened_s", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run = folder / "run"
    build_run(evenings(folder / "base.csv", range(10)), None, None, run, {}, load_settings({}), Quiet())
    return run


def take_in(run: Path, file: Path) -> tuple[int, list[str], Heard]:
    paths, settings = RunPaths(run), load_settings({})
    added, told = merge_events(paths, Listening(file), settings)
    bundle = open_bundle((run / "bundle").resolve())
    with closing(listener_store(paths, bundle, settings)) as store:
        return added, told, hear(paths, load_items(bundle.folder("items")), store, Quiet().stage(""))


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


@pytest.mark.parametrize("stuck", [200.0, 20_000.0, 43_000.0, 85_000.0, 432_000.0, 10**9])
def test_a_stuck_player_deafens_no_listener(stuck: float, built: Path, tmp_path: Path) -> None:
    run = copied(built, tmp_path)
    first = take_in(run, evenings(tmp_path / "long.csv", range(10, 11), stuck))
    assert (first[0], first[2].sessions) == (12, 3)
    added, _, heard = take_in(run, evenings(tmp_path / "next.csv", range(11, 14)))
    assert (added, heard.sessions, heard.listeners) == (36, 9, 3)


def test_a_play_in_a_later_year_is_refused_told_and_deafens_nobody(built: Path, tmp_path: Path) -> None:
    run = copied(built, tmp_path)
    added, told, heard = take_in(run, evenings(tmp_path / "a.csv", range(10, 11), future=True))
    assert (added, heard.sessions) == (12, 3)
    assert any("1 rows left out: started_at lies after now" in line for line in told)
    assert take_in(run, evenings(tmp_path / "b.csv", range(11, 12)))[2].sessions == 3


def test_what_is_merged_again_changes_nothing_and_check_build_and_retrain_agree(tmp_path: Path) -> None:
    plays = [
        {
            "ts": (FIRST + timedelta(days=k // 4, minutes=4 * (k % 4))).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ms_played": 200_000,
            "master_metadata_track_name": f"Song {k % 7}",
            "master_metadata_album_artist_name": "Artist",
            "spotify_track_uri": f"spotify:track:{k % 7}",
        }
        for k in range(80)
    ]
    export = tmp_path / "export"
    export.mkdir()
    (export / "Streaming_History_Audio_2025_0.json").write_text(json.dumps(plays[:50]))
    (export / "Streaming_History_Audio_2026_1.json").write_text(json.dumps(plays[40:] + plays[60:65]))
    settings = load_settings({})
    checked = check_events(Listening(export), settings)
    assert (checked.rows, checked.kept) == (95, 80)
    report = build_run(export, None, None, tmp_path / "run", {}, settings, Quiet())
    assert any("15 rows left out: the same play again" in fact for fact in report.facts)
    assert any(fact.startswith("read as Spotify's extended streaming history") for fact in report.facts)
    events = pq.read_table(tmp_path / "run" / "events.parquet")
    assert len(events) == checked.kept
    assert set(pq.read_table(tmp_path / "run" / "items.parquet")["title"].to_pylist()) == {
        f"Song {k}" for k in range(7)
    }
    added, told, _ = take_in(tmp_path / "run", export)
    assert added == 0
    assert "80 plays were there before" in told
    assert pq.read_table(tmp_path / "run" / "events.parquet").equals(events)


def test_new_items_bring_their_titles(built: Path, tmp_path: Path) -> None:
    run = copied(built, tmp_path)
    (tmp_path / "new.csv").write_text(
        f"user_id,item_id,started_at,title,artist\nu0,new,{(FIRST + timedelta(days=30)).isoformat()},A Song,A Band\n"
    )
    take_in(run, tmp_path / "new.csv")
    row = next(row for row in pq.read_table(run / "items.parquet").to_pylist() if row["item_id"] == "new")
    assert (row["title"], row["artist_ids"], row["popularity"]) == ("A Song", ["A Band"], None)


@pytest.mark.parametrize("command", ["check", "build", "retrain", "train_listener", "evaluate_listener", "evaluate"])
def test_every_command_takes_listening_in_the_same_way(command: str) -> None:
    from importlib import import_module

    home = {"check": "data", "build": "data", "train_listener": "listener", "evaluate_listener": "listener"}
    function = getattr(import_module(f"api.commands.{home.get(command, command)}"), command)
    assert {"kind", "user", "mapping", "tz", "config"} <= set(inspect.signature(function).parameters)


def test_check_reads_an_export_and_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from api.cli import main

    play = {"endTime": "2023-09-15 14:04", "artistName": "A", "trackName": "B", "msPlayed": 200000}
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps([play, {**play, "trackName": 1979}]))
    with pytest.raises(SystemExit) as done:
        main(["check", str(tmp_path), "--user", "ana"])
    assert done.value.code in (0, None)
    said = capsys.readouterr().out
    assert "rows: 2 read, 1 kept, 1 rejected" in said
    assert "trackName is a number, not text" in said
    assert "read as Spotify's account data" in said


def test_a_second_retraining_reads_no_part_of_the_events_again(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recommender.events import parts

    run = copied(built, tmp_path)
    opened: list[str] = []
    once = parts.read_parts

    def told(found: object, columns: object = None) -> pa.Table:
        opened.extend(part.path.name for part in found)  # type: ignore[attr-defined]
        return once(found, columns)  # type: ignore[arg-type]

    paths, items = RunPaths(run), load_items(open_bundle(RunPaths(run).bundle.resolve()).folder("items"))
    take_in(run, evenings(tmp_path / "a.csv", range(10, 12)))
    monkeypatch.setattr(parts, "read_parts", told)
    with closing(listener_store(paths, open_bundle(paths.bundle.resolve()))) as store:
        assert hear(paths, items, store, ignore).sessions == 0
        assert opened == []
        store.note_parts_heard({})
        assert hear(paths, items, store, ignore).sessions == 0
        assert opened == ["events.parquet"]


def test_events_whose_name_a_killed_import_took_are_given_back_before_anything_is_read(
    built: Path, tmp_path: Path
) -> None:
    run = copied(built, tmp_path)
    before = pq.read_table(run / "events.parquet")
    (run / "events.parquet").rename(run / ".events.parquet.old-1")
    with alone(run, load_settings({})) as (paths, _):
        assert pq.read_table(paths.events).equals(before)
    assert not list(run.glob(".events*"))
