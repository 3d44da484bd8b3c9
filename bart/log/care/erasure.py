"""Forgetting: one user's pages everywhere, or everything before a day.

Erasure removes the user's decisions, their feedback, what waits in quarantine for them, and their rows in exports; what
stays is a tombstone a page (request id, when, checksum), so that a gap can be told from a loss and the id is not used
again. The file is then rebuilt and the write-ahead log emptied: the bytes are gone, not only unlinked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bart.errors import LogError
from bart.log.care.migrate import migrated
from bart.log.record.record import CHECKSUM_BYTES, to_us
from bart.log.store.files import export_files, open_export, remove_unfinished, write_atomically, write_batches
from bart.log.store.marks import remove_marks, remove_orphaned_marks
from bart.log.store.store import raise_meta, transaction

if TYPE_CHECKING:
    from bart.log.decision_log import DecisionLog

_DAY_US = 86_400_000_000
_GONE = "SELECT seq FROM decision WHERE decided_us < ?"
TOMBSTONE_FILE = "_tombstones.parquet"  # beside an export's days; the underscore keeps readers of the pages off it


@dataclass(frozen=True, slots=True)
class EraseResult:
    """What was erased. exported: rows taken out of exports; files: of exports, rewritten."""

    pages: int
    events: int
    quarantined: int
    exported: int
    files: int


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was pruned. before: the first moment that is kept, the beginning of a UTC day."""

    pages: int
    events: int
    quarantined: int
    before: datetime


def erase_user(log: DecisionLog, user_id: str, erased_at: datetime, exports: Sequence[str | Path] = ()) -> EraseResult:
    """Removes every trace of a user from a log and its exports, and leaves tombstones.

    exports: the directories that this log was exported to. An unknown user is not an error: nothing is found. Raises
    LogError where another process holds the file so that its bytes cannot be overwritten; erase again then.
    """
    if not user_id:
        raise LogError("user_id is empty; expected the id of the user to erase")
    for directory in exports:  # before anything is removed
        if not Path(directory).is_dir():
            raise LogError(f"{directory} is not a directory; expected an export")
    erased_us = to_us(erased_at)
    with log.maintaining() as connection, transaction(connection):
        mine = [
            request_id
            for (request_id,) in connection.execute("SELECT request_id FROM decision WHERE user_id = ?", (user_id,))
        ]
        of_user = "(SELECT seq FROM decision WHERE user_id = ?)"
        events = connection.execute(f"DELETE FROM feedback WHERE seq IN {of_user}", (user_id,)).rowcount
        pages = connection.execute("DELETE FROM decision WHERE user_id = ?", (user_id,)).rowcount
        quarantined = _bury(connection, mine, erased_us)
    exported = files = 0
    for directory in exports:
        gone, rewritten, waiting = _erase_from_export(log, Path(directory), user_id, erased_us)
        exported += gone
        files += rewritten
        quarantined += waiting
    log.compact()
    return EraseResult(pages, events, quarantined, exported, files)


def prune(log: DecisionLog, before: datetime) -> PruneResult:
    """Removes the decisions of whole UTC days before a moment, with their feedback, and older events in quarantine.

    Exports are left alone: they are the archive. Whole days, so that a day's export never loses pages to the next one.
    """
    before_us = to_us(before) // _DAY_US * _DAY_US
    with log.maintaining() as connection, transaction(connection):
        events = connection.execute(f"DELETE FROM feedback WHERE seq IN ({_GONE})", (before_us,)).rowcount
        quarantined = connection.execute("DELETE FROM quarantine WHERE received_us < ?", (before_us,)).rowcount
        pages = connection.execute("DELETE FROM decision WHERE decided_us < ?", (before_us,)).rowcount
        remove_orphaned_marks(connection)
        raise_meta(connection, "pruned_us", before_us)
    log.compact()
    start = datetime.fromtimestamp(before_us // 1_000_000, tz=timezone.utc)
    return PruneResult(pages, events, quarantined, start)


def tombstone_checksum(request_id: str, erased_us: int) -> bytes:
    """[16 bytes] that a tombstone must bear."""
    text = f"bart tombstone\0{request_id}\0{erased_us}"
    return blake2b(text.encode(), digest_size=CHECKSUM_BYTES).digest()


def _bury(connection: Any, request_ids: Sequence[str], erased_us: int) -> int:
    """Leaves tombstones; how many events waited in quarantine for these pages, and are gone too."""
    gone = connection.executemany(
        "DELETE FROM quarantine WHERE request_id = ?", [(request_id,) for request_id in request_ids]
    ).rowcount
    remove_marks(connection, request_ids)
    connection.executemany(
        "INSERT OR IGNORE INTO tombstone VALUES (?, ?, ?)",
        [(request_id, erased_us, tombstone_checksum(request_id, erased_us)) for request_id in request_ids],
    )
    return max(int(gone), 0)


def _erase_from_export(log: DecisionLog, directory: Path, user_id: str, erased_us: int) -> tuple[int, int, int]:
    """Rewrites the files that hold the user; (rows removed, files rewritten, events out of quarantine).

    Pages that are pruned from the log get their tombstones too; feedback that came after the pruning is in quarantine.
    """
    remove_unfinished(directory)
    quarantined = 0
    buried: list[str] = []
    files = 0
    for file in export_files(directory):
        mine: list[str] = []
        parquet, version = open_export(file)
        with parquet:
            for batch in parquet.iter_batches(columns=["request_id", "user_id"]):
                mine += batch.column("request_id").filter(pc.equal(batch.column("user_id"), user_id)).to_pylist()
        if not mine:
            continue
        parquet, version = open_export(file)
        with parquet:
            metadata = {k: v for k, v in parquet.schema_arrow.metadata.items() if k.startswith(b"bart.log.")}
            write_batches(file, _without(parquet, version, user_id), metadata)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
        buried += mine
        files += 1
    if buried:
        with log.maintaining() as connection, transaction(connection):
            quarantined = _bury(connection, buried, erased_us)
        _add_tombstones(directory, buried, erased_us)
    return len(buried), files, quarantined


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
