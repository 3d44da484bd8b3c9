"""Events in parts: the same events as in one file, and only the parts that new plays touch are read and replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.run.events import known_items, note, replace_parts, unheard
from recommender.events import parts as stored
from recommender.events.merge import merge
from recommender.events.parts import DAY_US, by_listener, parts_near, parts_of, read_parts, write_parts
from recommender.events.table import read_events

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PART_ROWS", 40)


def events(rng: np.random.Generator, n: int = 600, days: int = 30, first_day: int = 20_000) -> pa.Table:
    at_s = (first_day + days * rng.random(n)) * DAY_S
    table = pa.table(
        {
            "user_id": [f"u{k}" for k in rng.integers(0, 7, n)],
            "item_id": [f"i{k}" for k in rng.integers(0, 50, n)],
            "started_at": pa.array(at_s.astype(np.int64) * 1_000_000).cast(pa.timestamp("us", "UTC")),
            "listened_s": rng.choice([30.0, 200.0, 7_000.0], n),
        }
    )
    return read_events(table).events


def stored_at(path: Path, table: pa.Table) -> Path:
    write_parts(table, path)
    return path


def test_many_events_stand_in_parts_of_whole_days_and_come_back_as_they_were(tmp_path: Path) -> None:
    table = events(np.random.default_rng(1))
    path = stored_at(tmp_path / "events.parquet", table)
    parts = parts_of(path)
    assert len(parts) > 5
    assert read_parts(path).equals(table)
    assert pq.read_table(path).num_rows == len(table)  # as any reader of a directory finds them
    for part in parts:
        at_us = pq.read_table(part.path)["started_at"].cast(pa.int64()).to_numpy()
        assert part.from_us <= at_us.min() <= at_us.max() < part.until_us
        assert len(at_us) >= 40 or part is parts[-1]


def test_few_events_are_one_file(tmp_path: Path) -> None:
    table = events(np.random.default_rng(1), n=30)
    path = stored_at(tmp_path / "events.parquet", table)
    assert path.is_file()
    assert read_parts(path).equals(table)


@pytest.mark.parametrize("span", [(29.0, 1.5), (14.0, 2.0), (-3.0, 1.0), (0.0, 30.0)])
def test_merging_the_parts_near_new_plays_is_merging_everything(tmp_path: Path, span: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    old = events(rng)
    path = stored_at(tmp_path / "events.parquet", old)
    since, days = span
    again = old.filter(pa.array(rng.random(len(old)) < 0.1))
    new = events(rng, n=80, days=1, first_day=20_000)
    at_us = new["started_at"].cast(pa.int64()).to_numpy()
    moved = (at_us - 20_000 * DAY_US) * days + (20_000 + since) * DAY_US
    new = new.set_column(2, "started_at", pa.array(moved.astype(np.int64)).cast(pa.timestamp("us", "UTC")))
    near_old = again.filter(pa.array(np.abs(again["started_at"].cast(pa.int64()).to_numpy() - moved.mean()) < DAY_US))
    new = read_events(pa.concat_tables([new.cast(near_old.schema), near_old])).events
    whole = merge(old, new)
    parts = parts_of(path)
    near = parts_near(parts, new)
    found = merge(read_parts(near), new, unfinished=near[-1] != parts[-1])
    replace_parts(path, near, found.events)
    assert (found.added, found.known, found.fuller, found.bounded) == (
        whole.added, whole.known, whole.fuller, whole.bounded,
    )  # fmt: skip
    assert read_parts(path).equals(whole.events)
    untouched = {part.path.name: part.stamp for part in parts if part not in near}
    assert untouched.items() <= {part.path.name: part.stamp for part in parts_of(path)}.items()


def test_a_file_that_grows_becomes_parts_and_a_failed_write_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = events(np.random.default_rng(1), n=30), events(np.random.default_rng(2))
    path = stored_at(tmp_path / "events.parquet", few)
    replace_parts(path, parts_of(path), many)
    assert path.is_dir()
    assert read_parts(path).equals(many)

    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", fails)
    with pytest.raises(OSError, match="no space"):
        replace_parts(path, parts_of(path)[-2:], few)
    assert read_parts(path).equals(many)
    assert [file.name for file in tmp_path.iterdir()] == ["events.parquet"]


def test_a_column_that_comes_later_is_in_every_part_so_that_any_reader_finds_it(tmp_path: Path) -> None:
    old, new = events(np.random.default_rng(1)), events(np.random.default_rng(2), n=9, days=1, first_day=20_029)
    new = new.append_column("type", pa.array(["like"] * len(new)))
    path = stored_at(tmp_path / "events.parquet", old)
    kept = shutil.copytree(path, tmp_path / "kept", copy_function=os.link)
    near = parts_near(parts_of(path), new)
    replace_parts(path, near, merge(read_parts(near), new).events)
    assert len(near) < len(parts_of(path))
    assert pq.read_table(path)["type"].to_pylist().count("like") == len(new)
    assert read_parts(path).equals(merge(old, new).events)
    assert read_parts(kept).equals(old)  # files with a second name are not written to


def test_a_part_is_heard_again_when_it_changed_or_has_more_to_say(tmp_path: Path) -> None:
    path = stored_at(tmp_path / "events.parquet", events(np.random.default_rng(1)))
    parts = parts_of(path)
    notes = {part.path.name: note(part, (), False, "50") for part in parts}
    assert unheard(parts, notes, (), "60") == []
    assert unheard(parts, {}, (), "60") == parts
    notes[parts[0].path.name] = note(parts[0], (), True, "50")  # of unknown items
    assert unheard(parts, notes, (), "50") == []
    assert unheard(parts, notes, (), "51") == parts[:1]
    notes[parts[0].path.name] = note(parts[0], ["u1"], False, "50")  # of somebody who is not profiled
    assert unheard(parts, notes, {"u1", "u2"}, "50") == []
    assert unheard(parts, notes, (), "50") == parts[:1]
    pq.write_table(pq.read_table(parts[2].path).slice(0, 3), parts[2].path)
    assert parts[2] in unheard(parts, notes, {"u1"}, "50")


def test_as_many_other_items_are_not_the_items_that_were_known() -> None:
    told = {known_items(np.array(ids, object)) for ids in ([], ["a"], ["a", "b"], ["a", "c"], ["ab"], ["a", "b", "c"])}
    assert len(told) == 6
    assert known_items(np.array(["a", "ü"], object)) == known_items(np.array(["a", "ü"], object))


def test_sorting_by_listener_keeps_the_order_of_each() -> None:
    table = pa.table({"user_id": ["b", "a", "b", "a"], "number": [0, 1, 2, 3]})
    assert by_listener(table)["number"].to_pylist() == [1, 3, 0, 2]
