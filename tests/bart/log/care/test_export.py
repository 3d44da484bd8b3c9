"""The export: what is learnt from files is what was decided, whatever their number, version or size."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.errors import FeedbackError, LogError
from bart.log.care import export as log_export
from bart.log.care.export import export_log
from bart.log.care.migrate import migrate
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import pages_of, read_pages
from bart.log.record.columns import SCHEMA, VERSION_KEY
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.record import checksum, encode
from bart.log.store.files import SINCE
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import (
    OTHER_DEVICE,
    Candidates,
    Context,
    Decision,
    ItemTable,
    Labels,
    ListenerTraits,
    PageBatch,
    Shelf,
    device_code,
)

AT = datetime(2026, 2, 27, 22, 30, tzinfo=timezone.utc)
LATER = datetime(2026, 6, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
N_ITEMS = 40


def items() -> ItemTable:
    ids = np.array([f"item-{i}" for i in range(N_ITEMS)], dtype=object)
    no_labels = Labels.of([()] * N_ITEMS)
    return ItemTable(
        item_id=ids,
        title=ids,
        type=np.zeros(N_ITEMS, np.int8),
        artists=no_labels,
        genres=no_labels,
        released_at=np.full(N_ITEMS, "NaT", dtype="datetime64[D]"),
        countries=no_labels,
        explicit=np.zeros(N_ITEMS, np.bool_),
        popularity=np.zeros(N_ITEMS),
        duration_s=np.where(np.arange(N_ITEMS) % 2, 200.0, 40.0),
        vector=np.zeros((N_ITEMS, 4), np.float32),
    )


def make(i: int, rows: int = 2, columns: int = 3, n: int = 15, **changes: Any) -> Decision:
    """A drawn page, one every 45 minutes; some have too few cards, other scores than raw ones, unknown items."""
    rng = np.random.default_rng(i)
    shelves = tuple(Shelf(f"rule {s}", f"Shelf {s}", key="k", parameters=(("a", "b"),) * s) for s in range(3))
    n = 4 if i % 7 == 3 else n
    shelf, raw = rng.integers(0, 3, n), rng.random(n)
    score = raw if i % 3 else raw * 0.5
    shelf_epsilon, card_epsilon = np.full(rows, 0.3), np.full(columns, 0.2)
    page = PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon)).decide(
        Candidates(np.arange(n), shelf, shelves), score, rows, columns, np.random.default_rng(i), raw_score=raw
    )
    whole = Decision(
        request_id=f"request-{i}",
        user_id=f"user-{i % 3}",
        context=Context(
            AT + 0.75 * i * HOUR, (60 * i) % 720 - 300, ("mobile", "speaker", "fridge")[i % 3], "radio", "DE"
        ),
        traits=ListenerTraits(1.0 * i, None, 0.5),
        listener=rng.normal(size=4).astype(np.float32),
        batch_id="batch",
        policy="epsilon_greedy",
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version="rules",
        seed=i,
        shelves=shelves,
        item_id=np.array([f"item-{j}" for j in rng.permutation(N_ITEMS + 5)[:n]], dtype=object),
        shelf=shelf,
        raw_score=raw,
        score=score,
        page=page,
        arm="b",
        forced=i % 5 == 4,
        model_id="model",
    )
    return replace(whole, **changes)


def events(decision: Decision) -> list[FeedbackEvent]:
    """Some pages are never displayed, some displayed and silent; listening from 0 to 60 s, some not said."""
    rng = np.random.default_rng(decision.seed + 1000)
    if decision.seed % 4 == 0:
        return []
    out = [FeedbackEvent("page", decision.decided_at, displayed=True)]
    for k, (row, column) in enumerate(np.argwhere(decision.page.shown) if decision.seed % 4 > 1 else ()):
        if rng.random() < 0.6:
            seconds = None if rng.random() < 0.3 else float(rng.integers(0, 61))
            seen = None if seconds else True
            out.append(
                FeedbackEvent(f"e{k}", decision.decided_at, int(row), int(column), None, seen, seconds, saved=k == 1)
            )
    return out


def filled(path: Path, decisions: Sequence[Decision]) -> DecisionLog:
    log = DecisionLog(path / "log.sqlite")
    log.append_many(decisions)
    log.feedback_many((d.request_id, events(d), d.decided_at + HOUR) for d in decisions)
    return log


def fields(batch: PageBatch) -> dict[str, Any]:
    """What a batch holds of its pages; the table of vectors is shared by all batches."""
    found = {name: getattr(batch, name) for name in PageBatch.__dataclass_fields__ if name != "vector"}
    return {name: value for name, value in found.items() if value is not None}


def assert_same(one: PageBatch, other: PageBatch) -> None:
    assert fields(one).keys() == fields(other).keys()
    for name, value in fields(one).items():
        expected = fields(other)[name]
        assert value.dtype == expected.dtype, name
        assert value.shape == expected.shape, name
        if value.dtype.kind == "f":
            assert np.array_equal(value, expected, equal_nan=True), name
        else:
            assert (value == expected).all(), name


def concatenated(batches: Sequence[PageBatch]) -> dict[str, Any]:
    whole = {name: np.concatenate([fields(b)[name] for b in batches]) for name in fields(batches[0])}
    for name in ("offset", "shelf_offset"):
        size = np.concatenate([np.diff(fields(b)[name]) for b in batches])
        whole[name] = np.concatenate([[0], np.cumsum(size)])
    return whole


def contents(directory: Path) -> dict[str, bytes]:
    return {str(f.relative_to(directory)): f.read_bytes() for f in sorted(directory.rglob("*")) if f.is_file()}


def test_an_export_reads_back_as_what_was_decided(tmp_path: Path) -> None:
    decisions = [make(i) for i in range(60)]
    with filled(tmp_path, decisions) as log:
        result = export_log(log, tmp_path / "log", now=LATER, duration_s=items())
    assert (result.pages, result.open, result.days, result.files) == (60, 0, 3, 3)
    assert (result.undisplayed, result.forced) == (15, 12)
    days = sorted(path.name for path in (tmp_path / "log").glob("date=*"))
    assert days == ["date=2026-02-27", "date=2026-02-28", "date=2026-03-01"]
    batches = list(read_pages(tmp_path / "log", items()))
    assert [len(batch) for batch in batches] == [2, 32, 26]
    whole = PageBatch(**concatenated(batches))
    assert_same(whole, pages_of(decisions, {d.request_id: events(d) for d in decisions}, items()))


def test_each_page_of_a_batch_is_its_decision(tmp_path: Path) -> None:
    decisions = [make(i) for i in range(30)]
    table = items()
    with filled(tmp_path, decisions) as log:
        export_log(log, tmp_path / "log", now=LATER)
        joined = [log.joined(d.request_id) for d in decisions]
    batch = PageBatch(**concatenated(list(read_pages(tmp_path / "log", table))))
    for i, decision in enumerate(decisions):
        mine = slice(batch.offset[i], batch.offset[i + 1])
        page, feedback, (r, c) = decision.page, joined[i], decision.page.card.shape
        assert feedback is not None
        assert (batch.request_id[i], batch.user_id[i]) == (decision.request_id, decision.user_id)
        assert batch.at_s[i] == int(decision.decided_at.timestamp())
        assert (batch.hour[i], batch.weekday[i]) == (decision.context.hour, decision.context.weekday)
        assert batch.device[i] == device_code(decision.context.device)
        assert (batch.surface[i], batch.country[i], batch.forced[i]) == ("radio", "DE", decision.forced)
        assert batch.item[mine].tolist() == table.rows(decision.item_id).tolist()
        for name in ("shelf", "raw_score", "score"):
            assert fields(batch)[name][mine].tobytes() == getattr(decision, name).tobytes()
        rules = batch.rule[batch.shelf_offset[i] : batch.shelf_offset[i + 1]]
        assert rules.tolist() == [shelf.rule for shelf in decision.shelves]
        assert batch.listener[i].tobytes() == decision.listener.tobytes()
        assert batch.card[i, :r, :c].tolist() == page.card.tolist()
        assert batch.row_shelf[i, :r].tolist() == page.shelf.tolist()
        assert np.array_equal(batch.card_propensity[i, :r, :c], page.card_propensity, equal_nan=True)
        assert np.array_equal(batch.shelf_propensity[i, :r], page.shelf_propensity)
        assert batch.shelf_epsilon[i].tolist() == decision.shelf_epsilon.tolist()
        assert (batch.card[i, r:] == -1).all()
        assert np.isnan(batch.card_propensity[i, r:]).all()
        assert batch.displayed[i] == feedback.displayed
        assert batch.seen[i, :r, :c].tolist() == feedback.seen.tolist()
        assert (batch.listened_s[i, :r, :c] == np.where(feedback.seen, np.nan_to_num(feedback.listened_s), 0)).all()
    assert (batch.item == -1).any()
    assert OTHER_DEVICE in batch.device
    assert batch.closed.all()


def test_the_reward_follows_the_durations_of_the_items(tmp_path: Path) -> None:
    decisions = [make(i) for i in range(40)]
    table = items()
    with filled(tmp_path, decisions) as log:
        export_log(log, tmp_path / "log", now=LATER, duration_s=dict(zip(table.item_id, table.duration_s, strict=True)))
    computed = PageBatch(**concatenated(list(read_pages(tmp_path / "log", table))))
    recorded = PageBatch(**concatenated(list(read_pages(tmp_path / "log", table, reward=None))))
    assert_same(computed, recorded)
    at = np.clip(computed.offset[:-1, None, None] + computed.card, 0, None)
    row = computed.item[at]
    enough = np.where((row >= 0) & (row % 2 == 0), 20.0, 30.0)  # half of 40 s; unknown items count 30 s
    assert (computed.reward == (computed.seen & (computed.listened_s >= enough))).all()
    assert 0 < computed.reward.sum() < computed.seen.sum()
    clicked = PageBatch(**concatenated(list(read_pages(tmp_path / "log", table, reward="clicked"))))
    assert clicked.reward.sum() > computed.reward.sum()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_but_the_batches(tmp_path: Path, batch_size: int) -> None:
    with filled(tmp_path, [make(i) for i in range(25)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
    batches = list(read_pages(tmp_path / "log", items(), batch_size=batch_size))
    assert max(len(batch) for batch in batches) <= batch_size
    assert_same(
        PageBatch(**concatenated(batches)), PageBatch(**concatenated(list(read_pages(tmp_path / "log", items()))))
    )


def test_smaller_pages_are_padded_to_the_largest(tmp_path: Path) -> None:
    with filled(tmp_path, [make(0), make(1, rows=3, columns=2), make(50)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
    batches = list(read_pages(tmp_path / "log", items()))
    assert {batch.card.shape[1:] for batch in batches} == {(3, 3)}
    assert np.isnan(batches[0].shelf_epsilon[0, 2])
    assert np.isnan(batches[0].card_epsilon[1, 2])
    wider = next(read_pages(tmp_path / "log", items(), rows=5, columns=4))
    assert wider.card.shape[1:] == (5, 4)
    with pytest.raises(ValueError, match=r"rows, columns are \(2, 3\); expected at least \(3, 3\)"):
        next(read_pages(tmp_path / "log", items(), rows=2))


def test_only_the_days_asked_for_are_read(tmp_path: Path) -> None:
    with filled(tmp_path, [make(i) for i in range(60)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
    (batch,) = read_pages(tmp_path / "log", items(), since=date(2026, 2, 28), until=date(2026, 3, 1))
    assert len(batch) == 32


def test_open_pages_are_counted_and_left_out_unless_asked_for(tmp_path: Path) -> None:
    now = AT + 24 * HOUR + 9 * HOUR
    with filled(tmp_path, [make(i) for i in range(40)]) as log:
        with pytest.raises(LogError, match="no feedback window was closed yet"):
            export_log(log, tmp_path / "log")
        result = export_log(log, tmp_path / "log", now=now)
        assert (result.pages, result.open) == (13, 27)
        assert sum(len(batch) for batch in read_pages(tmp_path / "log", items())) == 13
        export_log(log, tmp_path / "log", include_open=True)
        whole = PageBatch(**concatenated(list(read_pages(tmp_path / "log", items()))))
        assert whole.closed.tolist() == [True] * 13 + [False] * 27


def test_exporting_again_changes_no_byte_and_leaves_nothing_beside(tmp_path: Path) -> None:
    with filled(tmp_path, [make(i) for i in range(40)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
        before = contents(tmp_path / "log")
        export_log(log, tmp_path / "log")
        assert contents(tmp_path / "log") == before
        assert all(name.endswith((".parquet", "_leaves", "_proof.json")) for name in before)


def test_what_came_since_is_in_the_next_export(tmp_path: Path) -> None:
    with filled(tmp_path, [make(i) for i in range(5)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
        first = make(0)
        late = FeedbackEvent("new", AT, 0, 0, seen=True, listened_s=50.0)
        log.feedback(first.request_id, [late], AT + HOUR)
        log.append(make(5))
        export_log(log, tmp_path / "log", now=LATER)
    whole = PageBatch(**concatenated(list(read_pages(tmp_path / "log", items()))))
    assert len(whole) == 6
    assert whole.listened_s[0, 0, 0] == 50.0


def test_a_day_is_split_into_files_without_losing_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = [make(i) for i in range(25)]
    with filled(tmp_path, decisions) as log:
        monkeypatch.setattr(log_export, "PAGES_A_GROUP", 2)
        monkeypatch.setattr(log_export, "PAGES_A_FILE", 6)
        assert export_log(log, tmp_path / "log", now=LATER).files == 1 + 4
        split = [batch.request_id for batch in read_pages(tmp_path / "log", items())]
        assert np.concatenate(split).tolist() == [d.request_id for d in decisions]
        monkeypatch.undo()
        assert export_log(log, tmp_path / "log").files == 2
        assert len(list((tmp_path / "log").rglob("*.parquet"))) == 2


def test_a_damaged_record_stops_the_export_by_its_name_and_leaves_no_half_file(tmp_path: Path) -> None:
    with filled(tmp_path, [make(i) for i in range(4)]) as log:
        with log.maintaining() as connection:
            connection.execute("UPDATE decision SET record = zeroblob(90) WHERE request_id = 'request-3'")
        with pytest.raises(LogError, match="request 'request-3': record"):
            export_log(log, tmp_path / "log", now=LATER)
    assert "date=2026-02-28/part-00000.parquet" not in contents(tmp_path / "log")
    assert not [name for name in contents(tmp_path / "log") if name.endswith("tmp")]


def test_other_readers_find_the_days_and_the_nested_lists(tmp_path: Path) -> None:
    with filled(tmp_path, [make(i) for i in range(40)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
    duckdb = pytest.importorskip("duckdb")
    days = duckdb.sql(
        f"SELECT date, count(*), sum(len(item_id)) FROM '{tmp_path}/log/date=*/*.parquet' GROUP BY date ORDER BY date"
    ).fetchall()
    assert [(str(day), n) for day, n, _ in days] == [("2026-02-27", 2), ("2026-02-28", 32), ("2026-03-01", 6)]


def test_no_export_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="holds no exported pages"):
        next(read_pages(tmp_path, items()))
    (tmp_path / "date=2026-01-01").mkdir()
    file = tmp_path / "date=2026-01-01" / "part-00000.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(LogError, match="its metadata names no version"):
        next(read_pages(tmp_path, items()))
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({VERSION_KEY: b"5"}), file)
    with pytest.raises(LogError, match="is of version 5; this code reads 1 to 4: update the software"):
        next(read_pages(tmp_path, items()))
    file.write_bytes(b"PAR1 nothing")
    with pytest.raises(LogError, match="cannot be read"):
        next(read_pages(tmp_path, items()))
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(read_pages(tmp_path, items(), batch_size=0))


def test_pages_in_memory_refuse_what_fits_no_card(tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(FeedbackError, match="no card at row 8"):
        pages_of([make(1)], {"request-1": [FeedbackEvent("a", AT, 8, 0)]}, items())
    with pytest.raises(ValueError, match="decisions is empty"):
        pages_of([], None, items())


# ----------------------------------------------------------------------------------------------------------- version 1


def as_version_1(log_path: Path, directory: Path) -> None:
    """Turns a log and its export into what version 1 wrote."""
    with DecisionLog(log_path) as log, log.maintaining() as connection:
        for row in connection.execute("SELECT seq, request_id FROM decision").fetchall():
            decision = log.get(row[1])
            assert decision is not None
            old = encode(decision, version=1)
            connection.execute(
                "UPDATE decision SET record = ?, checksum = ? WHERE seq = ?", (old.record, old.checksum, row[0])
            )
        connection.execute("DROP TABLE tombstone")
        connection.execute("PRAGMA user_version = 1")
    with DecisionLog(log_path) as log:
        old_sums = {decision.request_id: checksum(decision, 1) for decision in log.decisions()}
    for file in directory.rglob("part-*.parquet"):
        table = pq.read_table(file, partitioning=None)
        sums = pa.array([old_sums[request_id] for request_id in table["request_id"].to_pylist()], pa.binary())
        table = table.set_column(SCHEMA.get_field_index("checksum"), "checksum", sums).drop_columns([*SINCE])
        pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"1", b"bart.log.reward": b"clicked"}), file)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with filled(tmp_path, [make(i, arm="", forced=False, model_id="") for i in range(30)]) as log:
        export_log(log, tmp_path / "log", now=LATER)
        export_log(log, tmp_path / "new")
    as_version_1(tmp_path / "log.sqlite", tmp_path / "log")
    return tmp_path


def test_an_export_of_version_1_is_read_as_it_stands(old: Path) -> None:
    for one, other in zip(read_pages(old / "log", items()), read_pages(old / "new", items()), strict=True):
        assert_same(one, other)
    assert verify(old / "log").ok


def test_migration_makes_the_present_version_of_an_export(old: Path) -> None:
    result = migrate(old / "log")
    assert (result.from_version, result.to_version, result.records, result.files) == (1, 4, 30, 2)
    for one, other in zip(
        sorted((old / "log").rglob("*.parquet")), sorted((old / "new").rglob("*.parquet")), strict=True
    ):
        assert pq.read_table(one).equals(pq.read_table(other))
        assert pq.read_schema(one).metadata[b"bart.log.reward"] == b"clicked"
    assert verify(old / "log").ok
    again = migrate(old / "log")
    assert (again.records, again.files) == (0, 0)


def test_a_log_of_version_1_is_read_but_not_written_until_it_is_migrated(old: Path) -> None:
    path = old / "log.sqlite"
    with DecisionLog(path) as log:
        assert log.version == 1
        assert len(list(log.decisions())) == 30
        assert log.stats().erased == 0
        with pytest.raises(LogError, match="of version 1; migrate it before writing to it"):
            log.append(make(99))
        with pytest.raises(LogError, match="of version 1; migrate it"):
            log.feedback("request-1", events(make(1)), AT)
    assert verify(path).ok
    result = migrate(path)
    assert (result.from_version, result.to_version, result.records) == (1, 3, 30)
    assert migrate(path).records == 0
    assert verify(path).ok
    with DecisionLog(path) as log:
        assert log.version == 3
        log.append(make(99))
        assert checksum(make(1, arm="", forced=False, model_id="")) in {row.checksum for row in log.stored()}


def test_migration_refuses_an_altered_record_and_changes_nothing(old: Path) -> None:
    path = old / "log.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE decision SET checksum = zeroblob(16) WHERE request_id = 'request-20'")
    connection.commit()
    connection.close()
    with pytest.raises(LogError, match="request 'request-20': checksum does not fit"):
        migrate(path)
    with DecisionLog(path) as log:
        assert log.version == 1
        assert log.get("request-1") is not None
    file = sorted((old / "log").rglob("*.parquet"))[0]
    table = pq.read_table(file, partitioning=None)
    table = table.set_column(table.schema.get_field_index("surface"), "surface", pa.array(["home"] * len(table)))
    pq.write_table(table, file)
    before = contents(old / "log")
    with pytest.raises(LogError, match="request 'request-0': checksum does not fit the row; verify before migrating"):
        migrate(old / "log")
    assert contents(old / "log") == before
