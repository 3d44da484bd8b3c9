"""A user's own files become a run that serves; what stood in the run before is not lost."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import places
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.jobs.build import BY_VECTORS, build_run
from api.jobs.run_directory import draft_directory
from api.run.in_use import served
from api.run.progress import Quiet
from api.run.runs import open_run
from api.run.settings import load_settings
from api.run.versions import Versions
from bart.errors import BundleError, DataError
from bart.page.exploration import Exploration
from bart.types import Context

STATIONS = places.DATA / "classic_rock_radio" / "classic_rock_raw_data.csv"
NOON = Context(datetime(2024, 6, 1, 12, tzinfo=timezone.utc))


def write_plays(path: Path, listeners: int = 30, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    played = [(u, day, n, int(rng.integers(60))) for u in range(listeners) for day in range(15) for n in range(5)]
    rows = [
        {"user_id": f"u{u}", "item_id": f"s{60 * (u % 2) + song}", "started_at": 1_714_500_000 + day * 86_400 + n * 200}
        for u, day, n, song in played
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_three_columns_are_enough_for_a_page(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    report = build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    assert report.listeners == 30
    assert any("CoSeRNN" in gap for gap in report.cannot_build)
    run = open_run(tmp_path / "run", exploration=Exploration.fixed(0.0))
    decision = run.ranker.rank("r", run.store.listener("u3", NOON), NOON, 4, 5, seed=1)
    assert decision.page.shown.sum() >= 5
    assert decision.batch_id == report.batch_id
    shown = decision.item_id[decision.page.card[0][decision.page.card[0] >= 0]]
    assert np.mean([int(item[1:]) >= 60 for item in shown]) > 0.5  # u3 plays only songs from 60 on
    run.store.close()


def test_building_twice_gives_the_same_batch_and_keeps_the_log(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    settings = load_settings({})
    first = build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, settings, Quiet())
    (tmp_path / "run" / "log.sqlite").write_text("precious")
    again = tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, settings, Quiet()
    with pytest.raises(DataError, match="holds a run already; expected another --out, .* or --replace"):
        build_run(*again)
    second = build_run(*again, renew=True)
    assert first.batch_id == second.batch_id
    assert (tmp_path / "run" / "log.sqlite").read_text() == "precious"


def test_a_run_that_is_renewed_keeps_what_stood_there(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    write_plays(tmp_path / "others.parquet", listeners=12, seed=1)
    run, settings = tmp_path / "run", load_settings({})
    (tmp_path / "lists.csv").write_text("playlist_id,position,item_id\n" + "".join(f"p,{n},s{n}\n" for n in range(60)))
    first = build_run(tmp_path / "plays.parquet", None, tmp_path / "lists.csv", run, {}, settings, Quiet())
    name = Versions(run).active()
    before = (run / "events.parquet").read_bytes()
    with closing(open_run(run).store) as store:
        store.put_many([replace(store.get("u3"), blocked_artists=frozenset({"Nobody"}))])
    (run / "log.sqlite").write_text("precious")
    second = build_run(tmp_path / "others.parquet", None, None, run, {}, settings, Quiet(), renew=True)
    assert second.batch_id != first.batch_id
    assert (run / "log.sqlite").read_text() == "precious"
    assert (run / "replaced" / str(name) / "events.parquet").read_bytes() == before
    assert not (run / "playlists.parquet").exists()  # those of the run before say nothing of the new events
    assert any(f"before: {name}" in fact for fact in second.facts)
    with closing(open_run(run).store) as store:
        assert (len(store), store.get("u3").blocked_artists) == (12, {"Nobody"})
    Versions(run).rollback()
    with closing(open_run(run).store) as store:
        assert (len(store), store.get("u3").blocked_artists) == (30, {"Nobody"})


def test_a_run_that_is_served_is_not_renewed(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet", listeners=8)
    run, settings = tmp_path / "run", load_settings({})
    build_run(tmp_path / "plays.parquet", None, None, run, {}, settings, Quiet())
    files = {path.name: path.stat().st_mtime_ns for path in run.glob("*.parquet")}
    with (
        served(run),
        served(run),
        pytest.raises(BundleError, match="a service serves .*run; expected it to be stopped"),
    ):
        build_run(tmp_path / "plays.parquet", None, None, run, {}, settings, Quiet(), renew=True)
    assert {path.name: path.stat().st_mtime_ns for path in run.glob("*.parquet")} == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plays.parquet", "run"]


def test_shelves_of_what_is_near_are_left_out_where_vectors_carry_nothing(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    plays = pq.read_table(tmp_path / "plays.parquet")
    alone = plays.filter(pa.array(np.arange(len(plays)) % 5 == 0))  # one play an evening: nothing stands beside it
    pq.write_table(alone, tmp_path / "alone.parquet")
    for name, carries in (("plays", True), ("alone", False)):
        report = build_run(tmp_path / f"{name}.parquet", None, None, tmp_path / name, {}, load_settings({}), Quiet())
        run = open_run(tmp_path / name)
        run.store.close()
        near = set(BY_VECTORS) & set(run.ranker.source.rules)
        assert near == (set(BY_VECTORS) if carries else set())
        assert any("since vectors carry nothing" in fact for fact in report.facts) is not carries
        assert any(gap.startswith("shelves by what is near") for gap in report.cannot_build) is not carries
        assert run.page("u3").cards


def test_ratings_alone_give_pages_by_what_each_listener_likes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "user_id": f"u{u}",
            "item_id": f"s{s}",
            "started_at": 1_714_500_000 + u + s,
            "rating": 5 if s % 2 == u % 2 else 1,
        }
        for u in range(40)
        for s in rng.permutation(60)[:30].tolist()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ratings.parquet")
    report = build_run(tmp_path / "ratings.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    assert report.listeners == 40
    assert "by value: 1,200 ratings on a scale of 1 to 5, counted from -3 to +3" in report.facts
    with closing(open_run(tmp_path / "run", exploration=Exploration.fixed(0.0)).store) as store:
        row = store.get("u3")
        assert row is not None
        assert not row.known
        assert len(row.favourite) >= 10
        assert len(row.recent) == 0
        assert not np.allclose(store.listener("u3", NOON).vector, store.listener("u4", NOON).vector)


def test_a_history_of_two_items_gives_a_page_of_both(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "item_id": item, "started_at": 1_714_500_000 + n * 300} for n, item in enumerate("ab")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "plays.parquet")
    build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    run = open_run(tmp_path / "run")
    decision = run.ranker.rank("r", run.store.listener("u", NOON), NOON, 4, 5, seed=1)
    assert decision.page.shown.sum() == 2
    run.store.close()


def test_a_failed_build_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "items.parquet").write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), draft_directory(tmp_path / "run") as draft:
        (draft / "items.parquet").write_text("new")
        raise RuntimeError("half-way")
    assert (tmp_path / "run" / "items.parquet").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    weights = next(path for path in (tmp_path / "run" / "bundle" / "reward").iterdir() if path.is_file())
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(BundleError, match=f"reward/{weights.name} was altered or truncated"):
        open_run(tmp_path / "run", exploration=Exploration.fixed(0.0))


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"who": ["a"], "what": ["b"], "when": [1]}), tmp_path / "plays.parquet")
    with pytest.raises(DataError, match="who"):
        build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not STATIONS.is_file(), reason="the station plays (shared/data/classic_rock_radio) are not here")
def test_station_plays_give_a_page_of_real_songs(tmp_path: Path) -> None:
    mapping = {"user_id": "callsign", "item_id": "combined", "started_at": "time", "order": "seq"}
    mapping |= {"title": "song", "artist": "artist"}
    report = build_run(STATIONS, None, None, tmp_path / "run", mapping, load_settings({}), Quiet())
    assert report.listeners == 25
    run = open_run(tmp_path / "run", exploration=Exploration.fixed(0.0))
    items = run.items
    assert items.title[items.row_of["Learning to Fly by Pink Floyd"]] == "Learning to Fly"
    assert items.artists[items.row_of["Learning to Fly by Pink Floyd"]] == ("Pink Floyd",)
    decision = run.ranker.rank("r", run.store.listener("KZOK", NOON), NOON, 6, 6, seed=1)
    assert decision.page.card.shape == (6, 6)
    run.store.close()


def test_a_renewed_store_does_not_meet_the_write_ahead_log_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("listeners.sqlite", "listeners.sqlite-wal", "listeners.sqlite-shm", "log.sqlite-wal"):
        (tmp_path / "run" / name).write_text("old")
    with draft_directory(tmp_path / "run") as draft:
        (draft / "listeners.sqlite").write_text("new")
    left = {path.name: path.read_text() for path in (tmp_path / "run").glob("[!.]*")}
    assert left == {"listeners.sqlite": "new", "log.sqlite-wal": "old"}


def test_playlists_and_items_in_csv_under_other_names_are_read(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    plays = pq.read_table(tmp_path / "plays.parquet").rename_columns(["user_id", "song", "started_at"])
    pq.write_table(plays, tmp_path / "plays.parquet")
    songs = [f"s{n}" for n in range(120)]
    (tmp_path / "items.csv").write_text("song,title\n" + "".join(f"{song},Title of {song}\n" for song in songs))
    entries = [f"p{n // 10},{n % 10},{song}\n" for n, song in enumerate(songs)]
    (tmp_path / "lists.csv").write_text("playlist_id,position,song\n" + "".join(entries))
    mapping = {"item_id": "song"}
    paths = tmp_path / "plays.parquet", tmp_path / "items.csv", tmp_path / "lists.csv"
    report = build_run(*paths, tmp_path / "run", mapping, load_settings({}), Quiet())
    assert report.items == 120
    assert not any("titles" in gap for gap in report.cannot_build)
    assert "Title of s7" in pq.read_table(tmp_path / "run" / "items.parquet")["title"].to_pylist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("list,item\np,s1\n", "playlists lack playlist_id; columns: list, item"),
        ("playlist_id,position,item_id\np,first,s1\n", "position of row 1 is not a number"),
        ("playlist_id,item_id\np,nothing of ours\n", "names an item"),
    ],
)
def test_playlists_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write_plays(tmp_path / "plays.parquet")
    (tmp_path / "lists.csv").write_text(text)
    paths = tmp_path / "plays.parquet", None, tmp_path / "lists.csv"
    with pytest.raises(DataError, match=message):
        build_run(*paths, tmp_path / "run", {}, load_settings({}), Quiet())
    assert not (tmp_path / "run").exists()


def test_a_build_does_not_replace_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_plays(tmp_path / "mine" / "events.parquet")
    before = (tmp_path / "mine" / "events.parquet").read_bytes()
    with pytest.raises(DataError, match="is not a run made by bart build"):
        build_run(tmp_path / "mine" / "events.parquet", None, None, tmp_path / "mine", {}, load_settings({}), Quiet())
    build_run(tmp_path / "mine" / "events.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    with pytest.raises(DataError, match="where it would be replaced"):
        build_run(
            tmp_path / "run" / "events.parquet",
            None,
            None,
            tmp_path / "run",
            {},
            load_settings({}),
            Quiet(),
            renew=True,
        )
    assert (tmp_path / "mine" / "events.parquet").read_bytes() == before


def test_a_run_without_listener_states_is_refused(tmp_path: Path) -> None:
    write_plays(tmp_path / "plays.parquet")
    build_run(tmp_path / "plays.parquet", None, None, tmp_path / "run", {}, load_settings({}), Quiet())
    (tmp_path / "run" / "listeners.sqlite").unlink()
    with pytest.raises(BundleError, match=r"listeners\.sqlite is missing"):
        open_run(tmp_path / "run", exploration=Exploration.fixed(0.0))
