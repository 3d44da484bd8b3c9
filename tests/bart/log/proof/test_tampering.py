"""Each kind of tampering with a closed day is found, and said of its day."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import proof_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bart.log.care.erasure import tombstone_checksum
from bart.log.care.export import export_log
from bart.log.care.verify import VerifyResult, verify
from bart.log.decision_log import DecisionLog
from bart.log.proof import ledger
from bart.log.proof.chain import DAY_US, following, sealed, start_of
from bart.log.proof.check import entry_line, read_kept
from bart.log.proof.closing import leaves_of, records
from bart.log.proof.manifest import FILE, LEAVES, read_manifest

DAY = "2026-03-02"
OTHER = "2026-03-04"
SQL = sqlite3.Connection
VICTIM = "(SELECT seq FROM decision WHERE request_id = 'request-006')"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a keyed log and its export, and an unkeyed log."""
    folder = tmp_path_factory.mktemp("honest")
    world.fill(folder / "keyed.sqlite", key=world.KEY)
    world.fill(folder / "unkeyed.sqlite")
    with DecisionLog(folder / "keyed.sqlite", proof_key=world.KEY) as log:
        export_log(log, folder / "export")
    return folder


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "copy"))


def found(path: Path, key: bytes | None = world.KEY) -> list[tuple[str, str]]:
    """(day, record) of each flaw."""
    return [(flaw.day, flaw.record) for flaw in proof_of(verify(path, proof_key=key))]


def proof_of(result: VerifyResult):  # type: ignore[no-untyped-def]
    assert result.proof is not None
    assert result.ok == (not result.proof.flaws and not result.problem_count)
    return result.proof.flaws


def test_an_honest_log_and_its_export_are_not_accused(folder: Path) -> None:
    for name in ("keyed.sqlite", "export"):
        result = verify(folder / name, proof_key=world.KEY)
        assert result.ok, result
        assert result.proof is not None
        assert result.proof.checked
        assert result.proof.days == 5
        assert verify(folder / name).ok
    assert verify(folder / "unkeyed.sqlite").ok


# ---------------------------------------------------------------------------------------------------------- in the log


def numbers(sql: SQL) -> tuple[int, int]:
    """Sequence numbers of two pages of the day."""
    query = "SELECT seq FROM decision WHERE request_id IN ('request-006', 'request-007') ORDER BY request_id"
    (a,), (b,) = sql.execute(query).fetchall()
    return a, b


def swap_feedback(sql: SQL) -> None:
    a, b = (
        sql.execute(f"SELECT seq FROM decision WHERE request_id = 'request-{i}'").fetchone()[0] for i in ("006", "007")
    )
    sql.execute("UPDATE feedback SET seq = -1, listened_s = 7 WHERE seq = ? AND event_id = 'e'", (a,))
    sql.execute("UPDATE feedback SET seq = ? WHERE seq = ? AND event_id = 'e'", (a, b))
    sql.execute("UPDATE feedback SET seq = ? WHERE seq = -1", (b,))


def swap_sequence(sql: SQL) -> None:
    a, b = (
        sql.execute(f"SELECT seq FROM decision WHERE request_id = 'request-{i}'").fetchone()[0] for i in ("006", "007")
    )
    for table in ("decision", "feedback"):
        for old, new in ((a, -1), (b, a), (-1, b)):
            sql.execute(f"UPDATE {table} SET seq = ? WHERE seq = ?", (new, old))


def replay(sql: SQL) -> None:
    """A decision replaced by another one that verifies by itself, under its id."""
    from dataclasses import replace

    from bart.log.record.record import encode

    other = encode(replace(world.make(90), request_id="request-006", user_id="user-0", context=world.make(6).context))
    given = (other.checksum, other.record, other.shown)
    sql.execute(f"UPDATE decision SET checksum = ?, record = ?, shown = ? WHERE seq = {VICTIM}", given)


def forge_tombstone(sql: SQL) -> None:
    """A decision removed with its feedback and leaf, and a tombstone that says that it was erased."""
    sql.execute(f"DELETE FROM feedback WHERE seq = {VICTIM}")
    sql.execute(f"DELETE FROM leaf WHERE seq = {VICTIM}")
    sql.execute("DELETE FROM decision WHERE request_id = 'request-006'")
    at = start_of(DAY) + 1
    sql.execute("INSERT INTO tombstone VALUES (?, ?, ?)", ("request-006", at, tombstone_checksum("request-006", at)))


def rewrite_entry(sql: SQL, day: str, **fields: object) -> None:
    """One entry altered, as who has no key can."""
    for number, text in sql.execute("SELECT number, entry FROM chain").fetchall():
        entry = json.loads(text)
        if entry["day"] == day:
            entry |= fields
            sql.execute("UPDATE chain SET entry = ? WHERE number = ?", (json.dumps(entry, sort_keys=True), number))


def fitting_leaf(sql: SQL) -> None:
    """An outcome altered, with leaf, bucket and root made to fit."""
    sql.execute(f"UPDATE feedback SET listened_s = 999 WHERE seq = {VICTIM}")
    rows = [row for some in records(sql, DAY) for row in some]
    ledger.put_leaves(sql, None, DAY, leaves_of(sql, rows, DAY_US))
    count, root = ledger.count_and_root(sql, DAY, {row.seq // 1024 for row in rows})
    rewrite_entry(sql, DAY, count=count, root=root.hex())


def unkeyed_chain(sql: SQL) -> None:
    """The whole chain made anew without the key."""
    last = None
    for entry in ledger.entries_of(sql):
        last = following(
            last, None, entry.kind, day=entry.day, count=entry.count, root=bytes.fromhex(entry.root), at_us=entry.at_us,
            window_us=entry.window_us,
        )  # fmt: skip
        sql.execute("UPDATE chain SET entry = ? WHERE number = ?", (json.dumps(asdict(last)), entry.number))
    ledger.seal_head(sql, None)


def reorder_days(sql: SQL) -> None:
    a, b = sql.execute(
        "SELECT number FROM chain WHERE entry LIKE '%closed%' ORDER BY number LIMIT 2 OFFSET 1"
    ).fetchall()
    for old, new in ((a[0], -1), (b[0], a[0]), (-1, b[0])):
        sql.execute("UPDATE chain SET number = ? WHERE number = ?", (new, old))


def drop_last_entry(sql: SQL) -> None:
    sql.execute("DELETE FROM chain WHERE number = (SELECT max(number) FROM chain)")


def run(*statements: str) -> Callable[[SQL], None]:
    def tamper(sql: SQL) -> None:
        for statement in statements:
            sql.execute(statement)

    return tamper


def feedback(change: str, which: str = "") -> Callable[[SQL], None]:
    return run(f"UPDATE feedback SET {change} WHERE seq = {VICTIM} {which}")


ADDED = (
    "SELECT seq, 'g', received_us, occurred_us, row, 2, 1, 1, 50, 0, 1 FROM feedback WHERE event_id = 'e' AND seq = "
)
NO_FEEDBACK, NO_LEAF = (f"DELETE FROM {table} WHERE seq = {VICTIM}" for table in ("feedback", "leaf"))
NO_DECISION = "DELETE FROM decision WHERE request_id = 'request-006'"
OF_DAY = f"decided_us / {DAY_US} = {start_of(DAY) // DAY_US}"
NO_DAY = (
    f"DELETE FROM feedback WHERE seq IN (SELECT seq FROM decision WHERE {OF_DAY})",
    f"DELETE FROM decision WHERE {OF_DAY}",
)
MARK = "UPDATE meta SET value = value + {} WHERE name = 'closed_us'"
LOG: dict[str, tuple[Callable[[SQL], None], str, str]] = {
    # kind of tampering: what is done, the day that is named first, and the record
    "an outcome altered": (feedback("listened_s = 99"), DAY, "request-006"),
    "a card unseen": (feedback("seen = 0, listened_s = 0"), DAY, "request-006"),
    "an outcome deleted": (run(NO_FEEDBACK), DAY, "request-006"),
    "an outcome added": (run(f"INSERT INTO feedback {ADDED} {VICTIM}"), DAY, "request-006"),
    "an outcome moved to another card": (feedback('"column" = 2', "AND event_id = 'e'"), DAY, "request-006"),
    "outcomes swapped between pages": (swap_feedback, DAY, "request-006"),
    "an outcome stamped late": (feedback(f"received_us = received_us + 10 * {DAY_US}"), DAY, "request-006"),
    "an outcome stamped earlier": (feedback("received_us = received_us - 1000000"), DAY, "request-006"),
    "a decision deleted": (run(NO_DECISION), DAY, ""),
    "a decision deleted with its feedback": (run(NO_FEEDBACK, NO_DECISION), DAY, ""),
    "a decision deleted with its feedback and its leaf": (run(NO_FEEDBACK, NO_LEAF, NO_DECISION), DAY, ""),
    "a decision replaced": (replay, DAY, "request-006"),
    "a whole day deleted": (run(*NO_DAY), DAY, ""),
    "a decision moved to another day": (
        run(f"UPDATE decision SET decided_us = decided_us + {DAY_US} WHERE request_id = 'request-006'"), DAY, "",
    ),
    "sequence numbers swapped": (swap_sequence, DAY, "request-007"),
    "a leaf replaced": (run(f"UPDATE leaf SET hash = zeroblob(32) WHERE seq = {VICTIM}"), DAY, "request-006"),
    "an outcome altered with its leaf and root": (fitting_leaf, DAY, ""),
    "a root replaced": (lambda sql: rewrite_entry(sql, DAY, root="0" * 64), DAY, ""),
    "a seal replaced": (lambda sql: rewrite_entry(sql, DAY, seal=sealed(None, b"x")), DAY, ""),
    "days reordered": (reorder_days, DAY, ""),
    "the last entry dropped": (drop_last_entry, "2026-03-05", ""),
    "the chain made anew without the key": (unkeyed_chain, "", ""),
    "the watermark moved ahead": (run(MARK.format(DAY_US)), "2026-03-07", ""),
    "the watermark moved back": (run(MARK.format(-2 * DAY_US)), "2026-03-04", ""),
    "a pruning forged": (run(f"INSERT INTO meta VALUES ('pruned_us', {start_of(OTHER)})"), "2026-03-06", ""),
    "a tombstone forged": (forge_tombstone, DAY, ""),
    "a tombstone removed": (run("DELETE FROM tombstone WHERE request_id = 'request-005'"), "2026-03-11", ""),
    "a tombstone stamped anew": (
        run("UPDATE tombstone SET erased_us = erased_us + 1 WHERE request_id = 'request-005'"), "2026-03-11", "",
    ),
}  # fmt: skip
BEYOND_THE_UNKEYED = ("the chain made anew without the key",)


@pytest.mark.parametrize("kind", LOG)
def test_tampering_with_a_closed_day_is_found_with_its_day(kind: str, folder: Path) -> None:
    tamper, day, record = LOG[kind]
    path = folder / "keyed.sqlite"
    sql = sqlite3.connect(path)
    tamper(sql)
    sql.commit()
    sql.close()
    flaws = found(path)
    assert flaws, kind
    assert flaws[0][0] == day
    if record:
        assert (day, record) in flaws


@pytest.mark.parametrize(
    "kind", [kind for kind in LOG if kind not in ("the chain made anew without the key", "a leaf replaced")]
)
def test_most_tampering_is_found_without_a_key_too(kind: str, folder: Path) -> None:
    """Where who tampers does not make the chain fit: without a key anybody could."""
    path = folder / "unkeyed.sqlite"
    sql = sqlite3.connect(path)
    LOG[kind][0](sql)
    sql.commit()
    sql.close()
    assert found(path, None)


def test_an_altered_day_is_not_entered_anew_by_what_comes_later(folder: Path) -> None:
    """The next closing and an erasure go on, and the day is still found."""
    from bart.log.care.erasure import erase_user

    path = folder / "keyed.sqlite"
    sql = sqlite3.connect(path)
    LOG["an outcome altered with its leaf and root"][0](sql)
    sql.commit()
    sql.close()
    with DecisionLog(path, proof_key=world.KEY) as log:
        page = world.make(7)
        log.feedback(page.request_id, [world.event("late", page.decided_at)], page.decided_at + world.HOUR)
        log.close_windows(world.AT + 12 * world.DAY)
        erase_user(log, "user-1", world.AT + 12 * world.DAY)
    assert DAY in {day for day, _ in found(path)}


def test_a_chain_is_compared_with_the_lines_that_were_kept_elsewhere(folder: Path) -> None:
    path = folder / "unkeyed.sqlite"
    with DecisionLog(path) as log:
        lines = "\n".join(["kept on paper", *map(entry_line, log.chain())])
    assert verify(path, kept=read_kept(lines)).ok
    sql = sqlite3.connect(path)
    fitting_leaf(sql)
    unkeyed_chain(sql)  # everything fits again
    sql.commit()
    sql.close()
    assert verify(path).ok
    flaws = proof_of(verify(path, kept=read_kept(lines)))
    assert (flaws[0].day, flaws[0].text) == (DAY, "entry 2 is not the one that was printed")
    empty = folder / "never closed.sqlite"
    DecisionLog(empty).close()
    assert "was printed and is gone" in proof_of(verify(empty, kept=read_kept(lines)))[0].text


# -------------------------------------------------------------------------------------------------------- in the export


def edited(folder: Path, day: str, **columns: Callable[[list[object]], list[object]]) -> None:
    file = folder / "export" / f"date={day}" / "part-00000.parquet"
    table = pq.read_table(file, partitioning=None)
    for name, edit in columns.items():
        place = table.schema.get_field_index(name)
        values = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), values)
    pq.write_table(table, file)


def heard_more(values: list[object]) -> list[object]:
    return [values[0], [[99.0, *line[1:]] for line in values[1]], *values[2:]]  # type: ignore[attr-defined]


def rows(folder: Path, keep: Callable[[pa.Table], pa.Table]) -> None:
    file = folder / "export" / f"date={DAY}" / "part-00000.parquet"
    pq.write_table(keep(pq.read_table(file, partitioning=None)), file)


def forged_manifest(folder: Path) -> None:
    """An outcome altered, and the manifest made to fit without the key."""
    edited(folder, DAY, listened_s=heard_more)
    manifest = read_manifest(folder / "export")
    assert manifest is not None
    from bart.log.proof.manifest import file_hash

    text = json.loads((folder / "export" / FILE).read_text())
    text["days"][DAY]["files"]["part-00000.parquet"] = file_hash(
        folder / "export" / f"date={DAY}" / "part-00000.parquet"
    )
    (folder / "export" / FILE).write_text(json.dumps(text))


def day_of(folder: Path, day: str = DAY) -> Path:
    return folder / "export" / f"date={day}"


NO, PART = [[False] * 3] * 2, "part-00000.parquet"
EXPORT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "an outcome edited": (lambda f: edited(f, DAY, listened_s=heard_more), DAY, "request-006"),
    "a page said to be unseen": (lambda f: edited(f, DAY, seen=lambda v: [NO, *v[1:]]), DAY, "request-004"),
    "a reward edited": (lambda f: edited(f, DAY, reward=lambda v: [[[1.0] * 3] * 2, *v[1:]]), DAY, ""),
    "a page removed": (lambda f: rows(f, lambda t: t.slice(1)), DAY, "request-006"),
    "a page twice": (lambda f: rows(f, lambda t: pa.concat_tables([t, t.slice(0, 1)])), DAY, ""),
    "pages in another order": (lambda f: rows(f, lambda t: t.take([1, 0, 2])), DAY, "request-006"),
    "a file removed": (lambda f: (day_of(f) / PART).unlink(), DAY, ""),
    "a day removed": (lambda f: shutil.rmtree(day_of(f)), DAY, ""),
    "a file added": (lambda f: shutil.copy(day_of(f) / PART, day_of(f) / "part-00001.parquet"), DAY, ""),
    "a day in the place of another": (
        lambda f: (shutil.rmtree(day_of(f)), shutil.copytree(day_of(f, OTHER), day_of(f))), DAY, "",
    ),
    "leaves removed": (lambda f: (day_of(f) / LEAVES).unlink(), DAY, ""),
    "leaves edited": (lambda f: (day_of(f) / LEAVES).write_bytes(b"\0" * 120), DAY, "request-004"),
    "the manifest made to fit": (forged_manifest, DAY, "request-006"),
    "the manifest removed": (lambda f: (f / "export" / FILE).unlink(), "", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPORT)
def test_an_edited_export_is_found_with_its_day(kind: str, folder: Path) -> None:
    tamper, day, record = EXPORT[kind]
    tamper(folder)
    flaws = found(folder / "export")
    assert flaws[0][0] == day
    if record:
        assert (day, record) in flaws
