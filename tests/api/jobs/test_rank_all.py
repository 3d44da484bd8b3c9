"""Pages for a table of listeners: exact, repeatable however the work is divided, whole or absent."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.jobs import rank_all as module
from api.jobs.rank_all import Compared, compare_pages, rank_all, seed_of
from bart.errors import DataError
from bart.log.care.verify import verify
from bart.log.record.columns import decision_of
from bart.log.store.files import export_files

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listeners") / "listeners.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "device", "surface", "at", "utc_offset_min"])
        for i in range(30):
            writer.writerow([f"listener-{i:02d}", "desktop", "default", f"2026-03-0{1 + i % 2}T08:00:00", 60])
        writer.writerow(["stranger", "", "", "", ""])
    return path


@pytest.fixture(scope="module")
def pages(built_run: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "out"
    found = rank_all(built_run, table, out, at=AT, seed=3, rows=3, columns=4, workers=1, shard=8)
    assert (found.listeners, found.unknown) == (31, 1)
    return out


def test_every_page_can_be_replayed_to_the_last_bit(pages: Path) -> None:
    found = verify(pages)
    assert found.ok, found.problems
    assert found.verified == 31


def test_every_listener_has_the_page_that_the_serving_path_decides(pages: Path, built_run: Path) -> None:
    from api.run.runs import open_run
    from api.run.settings import load_settings

    settings = load_settings({})
    run = open_run(built_run, settings)
    rows = [row for file in export_files(pages) for row in pq.ParquetFile(file).read().to_pylist()]
    assert sorted(row["user_id"] for row in rows) == sorted([*(f"listener-{i:02d}" for i in range(30)), "stranger"])
    for row in rows:
        one = decision_of(row)
        context = replace(one.context, zone_known=one.user_id != "stranger")  # whose row tells no offset
        again = run.ranker.rank(
            one.request_id, run.store.listener(one.user_id, context), context, 3, 4, seed_of(3, one.user_id)
        )
        assert (again.page.card == one.page.card).all()
        assert (again.score == one.score).all()
        assert row["displayed"] is False
        assert row["closed"] is False


def test_the_number_of_workers_and_of_shards_changes_no_page(
    pages: Path, built_run: Path, table: Path, tmp_path: Path
) -> None:
    rank_all(built_run, table, tmp_path / "two", at=AT, seed=3, rows=3, columns=4, workers=2, shard=8)
    for mine, theirs in zip(export_files(pages), export_files(tmp_path / "two"), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    assert compare_pages(pages, tmp_path / "two") == Compared(31, 31, 0, 0)


def test_another_seed_draws_other_pages(pages: Path, built_run: Path, table: Path, tmp_path: Path) -> None:
    rank_all(built_run, table, tmp_path / "other", at=AT, seed=4, rows=3, columns=4, workers=1, shard=8)
    with pytest.raises(DataError, match="not of the same listeners, seed and bundle"):
        compare_pages(pages, tmp_path / "other")


def test_pages_that_differ_in_ties_are_told_from_those_that_differ_otherwise(pages: Path) -> None:
    row = pq.ParquetFile(export_files(pages)[0]).read().to_pylist()[0]
    one = decision_of(row)
    card = one.page.card.copy()
    card[0, :2] = card[0, 1::-1]
    flat = one.score.copy()
    flat[card[0, :2]] = 0.5
    tied = replace(one, score=flat)
    assert module._tied(tied, replace(tied, page=replace(one.page, card=card)))
    flat[card[0, 0]] += 1e-5
    assert not module._tied(tied, replace(tied, page=replace(one.page, card=card)))


def test_a_failure_leaves_the_old_output_and_no_draft(
    built_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    table = tmp_path / "listeners.parquet"
    pq.write_table(pa.table({"user_id": [f"listener-{i:02d}" for i in range(6)]}), table)
    rank_all(built_run, table, out, at=AT, workers=1, shard=2)
    before = {file.name: file.read_bytes() for file in out.rglob("*.parquet")}
    real = module.rank_shard

    def fails(job: module.Job, number: int) -> tuple[int, int, int]:
        if number == 2:
            raise DataError("the disk is full")
        return real(job, number)

    monkeypatch.setattr(module, "rank_shard", fails)
    with pytest.raises(DataError, match="the disk is full"):
        rank_all(built_run, table, out, at=AT, workers=1, shard=2, seed=99)
    assert {file.name: file.read_bytes() for file in out.rglob("*.parquet")} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_draft_of_a_dead_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    dead, living = tmp_path / ".out.draft-999999999", tmp_path / f".out.draft-{os.getppid()}"
    dead.mkdir()
    living.mkdir()
    module.remove_drafts(tmp_path / "out")
    assert not dead.exists()
    assert living.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a"]}, "has no column 'user_id'"),
        ({"user_id": ["a", "a"]}, "row 2: user_id 'a' comes twice"),
        ({"user_id": ["a", ""]}, "column 'user_id', row 2 is empty"),
        ({"user_id": ["a"], "at": ["noon"]}, "column 'at', row 1 is 'noon'; expected a date or time"),
        ({"user_id": ["a"], "utc_offset_min": ["x"]}, "row 1 is 'x'; expected whole minutes within a day"),
        ({"user_id": pa.array([], pa.string())}, "holds no row; expected listeners"),
    ],
)
def test_a_wrong_table_is_one_line_that_names_the_row(
    columns: dict[str, list[str]], message: str, built_run: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        rank_all(built_run, tmp_path / "t.parquet", tmp_path / "out", at=AT, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_directory_of_something_else_is_not_replaced(built_run: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(DataError, match="exists and is not of rank-all"):
        rank_all(built_run, table, tmp_path / "mine", at=AT, workers=1)
