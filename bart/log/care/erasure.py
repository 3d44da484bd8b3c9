"""Forgetting: one user's pages everywhere, or everything before a day.

Erasure removes the user's decisions, their feedback, what waits in quarantine for them, and their rows in exports; what
stays is a tombstone a page (request id, when, checksum), so that a gap can be told from a loss and the id is not used
again. The file is then rebuilt and the write-ahead log emptied: the bytes are gone, not only unlinked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bart.errors import LogError
from bart.log.care.migrate import migrated
from bart.log.proof.chain import Entry
from bart.log.proof.closing import enter_tombstones, forget_records, prune_days
from bart.log.proof.ledger import begin, closed_days
from bart.log.proof.manifest import LEAVES, read_leaves, write_leaves, writing
from bart.log.proof.merkle import bucket_roots, day_root
from bart.log.record.record import CHECKSUM_BYTES, to_us
from bart.log.store.compact import DUE
from bart.log.store.erased import count_erasure
from bart.log.store.files import (
    day_directory,
    export_files,
    exported_pages,
    open_export,
    remove_unfinished,
    write_atomically,
    write_batches,
)
from bart.log.store.marks import remove_marks, remove_orphaned_marks
from bart.log.store.store import raise_meta, set_meta, transaction

if TYPE_CHECKING:
    from bart.log.decision_log import DecisionLog

_DAY_US = 86_400_000_000
_GONE = "SELECT seq FROM decision WHERE decided_us < ?"
TOMBSTONE_FILE = "_tombstones.parquet"  # beside an export's days; the underscore keeps readers of the pages off it


@dataclass(frozen=True, slots=True)
class EraseResult:
    """What was erased. exported: rows taken out of exports; files: of exports, rewritten.

    total: the same counts with what was erased of this user within the hour before, whose answer may have been lost.
    """

    pages: int
    events: int
    quarantined: int
    exported: int
    files: int
    total: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was pruned. before: the first moment that is kept, the beginning of a UTC day."""

    pages: int
    events: int
    quarantined: int
    before: datetime


def erase_user(
    log: DecisionLog,
    user_id: str,
    erased_at: datetime,
    exports: Sequence[str | Path] = (),
    *,
    compact: bool = True,
) -> EraseResult:
    """Removes every trace of a user from a log and its exports, and leaves tombstones.

    exports: the directories that this log was exported to. An unknown user is not an error: nothing is found. Pages of
    the user that were decided before and come later are refused. compact: rebuilds the file at the end; without it the
    deleted bytes stay until the caller does so. Raises LogError where the log is proven with a key that was not given,
    before anything is removed; and, when all is removed, where another process holds the file so that its bytes cannot
    be overwritten: compact the log later, or erase again.
    """
    if not user_id:
        raise LogError("user_id is empty; expected the id of the user to erase")
    for directory in exports:  # before anything is removed
        if not Path(directory).is_dir():
            raise LogError(f"{directory} is not a directory; expected an export")
    erased_us = to_us(erased_at)
    with log.maintaining() as connection, transaction(connection):
        query = "SELECT seq, decided_us, request_id FROM decision WHERE user_id = ?"
        mine = connection.execute(query, (user_id,)).fetchall()
        events = 0
        if mine:
            of_user = "(SELECT seq FROM decision WHERE user_id = ?)"
            events = connection.execute(f"SELECT count(*) FROM event WHERE seq IN {of_user}", (user_id,)).fetchone()[0]
            forget_records(connection, log.proof_key, [(seq, at) for seq, at, _ in mine], erased_us)
            connection.execute(f"DELETE FROM feedback WHERE seq IN {of_user}", (user_id,))
            connection.execute("DELETE FROM decision WHERE user_id = ?", (user_id,))
        quarantined = _bury(connection, [request_id for *_, request_id in mine], erased_us, log.proof_key)
        set_meta(connection, DUE, 1)
        done = {"pages": len(mine), "events": events, "quarantined": quarantined, "exported": 0, "files": 0}
        total = count_erasure(connection, user_id, erased_us, **done)
    for directory in exports:
        gone, files, waiting = _erase_from_export(log, Path(directory), user_id, erased_us)
        if not files:
            continue
        more = {"exported": gone, "files": files, "quarantined": waiting}
        done = {name: count + more.get(name, 0) for name, count in done.items()}
        with log.maintaining() as connection, transaction(connection):
            total = count_erasure(connection, user_id, erased_us, **more)
    if compact:
        log.compact()
    return EraseResult(**done, total=total)


def prune(log: DecisionLog, before: datetime, *, compact: bool = True) -> PruneResult:
    """Removes the decisions of whole UTC days before a moment, with their feedback, and older events in quarantine.

    Exports are left alone: they are the archive. Whole days, so that a day's export never loses pages to the next one.
    compact: gives the file's room back at the end; raises LogError then where another process holds the file.
    """
    before_us = to_us(before) // _DAY_US * _DAY_US
    with log.maintaining() as connection, transaction(connection):
        begin(connection, log.proof_key)
        events = connection.execute(f"DELETE FROM feedback WHERE seq IN ({_GONE})", (before_us,)).rowcount
        connection.execute(f"DELETE FROM amendment WHERE seq IN ({_GONE})", (before_us,))
        quarantined = connection.execute("DELETE FROM quarantine WHERE received_us < ?", (before_us,)).rowcount
        pages = connection.execute("DELETE FROM decision WHERE decided_us < ?", (before_us,)).rowcount
        remove_orphaned_marks(connection)
        raise_meta(connection, "pruned_us", before_us)
        prune_days(connection, log.proof_key, before_us)
    if compact:
        log.compact()
    start = datetime.fromtimestamp(before_us // 1_000_000, tz=timezone.utc)
    return PruneResult(pages, events, quarantined, start)


def tombstone_checksum(request_id: str, erased_us: int) -> bytes:
    """[16 bytes] that a tombstone must bear."""
    text = f"bart tombstone\0{request_id}\0{erased_us}"
    return blake2b(text.encode(), digest_size=CHECKSUM_BYTES).digest()


def _bury(connection: Any, request_ids: Sequence[str], erased_us: int, key: bytes | None) -> int:
    """Leaves tombstones, sealed by an entry; how many events waited in quarantine for these pages, and are gone too."""
    gone = connection.executemany(
        "DELETE FROM quarantine WHERE request_id = ?", [(request_id,) for request_id in request_ids]
    ).rowcount
    remove_marks(connection, request_ids)
    known = "SELECT 1 FROM tombstone WHERE request_id = ?"
    fresh = sorted(name for name in set(request_ids) if connection.execute(known, (name,)).fetchone() is None)
    if fresh:
        connection.executemany(
            "INSERT INTO tombstone VALUES (?, ?, ?)",
            [(name, erased_us, tombstone_checksum(name, erased_us)) for name in fresh],
        )
        enter_tombstones(connection, key, erased_us)
    return max(int(gone), 0)


def _erase_from_export(log: DecisionLog, directory: Path, user_id: str, erased_us: int) -> tuple[int, int, int]:
    """Rewrites the files that hold the user; (rows removed, files rewritten, events out of quarantine).

    Pages that are pruned from the log get their tombstones too; feedback that came after the pruning is in quarantine.
    """
    remove_unfinished(directory)
    holding = {file: mine for file in export_files(directory) if (mine := _rows_of(file, user_id))}
    if not holding:
        return 0, 0, 0
    buried = [request_id for names in holding.values() for request_id in names]
    days = sorted({date.fromisoformat(file.parent.name.removeprefix("date=")) for file in holding})
    with writing(directory, days, log.chain(), log.proof_key) as manifest:
        for day in days:
            _erase_from_day(directory, day, set(holding), user_id, set(buried))
        with log.maintaining() as connection, transaction(connection):
            quarantined = _bury(connection, buried, erased_us, log.proof_key)
        _add_tombstones(directory, buried, erased_us)
        manifest.note(TOMBSTONE_FILE)
        manifest.entries = tuple(log.chain())
        entries = closed_days(manifest.entries)
        for day in days:
            entry = entries.get(day.isoformat())
            manifest.done(day, _entry_of(directory, day, entry), exported_pages(directory, day))
    return len(buried), len(holding), quarantined


def _rows_of(file: Path, user_id: str) -> list[str]:
    """Request ids of a user's pages in a file of an export."""
    mine: list[str] = []
    parquet, _ = open_export(file)
    with parquet:
        for batch in parquet.iter_batches(columns=["request_id", "user_id"]):
            mine += batch.column("request_id").filter(pc.equal(batch.column("user_id"), user_id)).to_pylist()
    return mine


def _erase_from_day(directory: Path, day: date, holding: set[Path], user_id: str, buried: set[str]) -> None:
    """Rewrites the files of a day that hold the user, and the leaves beside them."""
    folder = day_directory(directory, day)
    names = [name for file in export_files(directory, day, day + timedelta(days=1)) for name in _names_of(file)]
    if (folder / LEAVES).exists():
        leaves = read_leaves(folder)
        if len(leaves) == len(names):  # else the day was altered, or half-written
            write_leaves(folder, [one for one, name in zip(leaves, names, strict=True) if name not in buried])
    for file in export_files(directory, day, day + timedelta(days=1)):
        if file in holding:
            parquet, version = open_export(file)
            with parquet:
                metadata = {k: v for k, v in parquet.schema_arrow.metadata.items() if k.startswith(b"bart.log.")}
                write_batches(file, _without(parquet, version, user_id), metadata)


def _names_of(file: Path) -> list[str]:
    parquet, _ = open_export(file)
    with parquet:
        return [name for b in parquet.iter_batches(columns=["request_id"]) for name in b.column(0).to_pylist()]


def _entry_of(directory: Path, day: date, entry: Entry | None) -> int | None:
    """Number of the entry that the pages of an exported day give the root of; None for one that is pruned or older."""
    folder = day_directory(directory, day)
    if entry is None or not (folder / LEAVES).exists():
        return None
    return entry.number if day_root(bucket_roots(read_leaves(folder))).hex() == entry.root else None


def _without(parquet: Any, version: int, user_id: str) -> Iterator[Any]:
    for batch in parquet.iter_batches(1000):
        kept = np.flatnonzero(np.asarray(pc.not_equal(batch.column("user_id"), user_id)))
        if len(kept):
            yield migrated(batch.take(pa.array(kept)), version)


def _add_tombstones(directory: Path, request_ids: Sequence[str], erased_us: int) -> None:
    file = directory / TOMBSTONE_FILE
    kept = {row["request_id"]: row for row in (pq.read_table(file).to_pylist() if file.exists() else [])}
    for request_id in request_ids:
        row = {"request_id": request_id, "erased_us": erased_us, "checksum": tombstone_checksum(request_id, erased_us)}
        kept.setdefault(request_id, row)
    schema = pa.schema([("request_id", pa.string()), ("erased_us", pa.int64()), ("checksum", pa.binary())])
    table = pa.Table.from_pylist([kept[request_id] for request_id in sorted(kept)], schema=schema)
    write_atomically(file, lambda beside: pq.write_table(table, beside))
