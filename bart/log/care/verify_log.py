"""The check of a decision log: its records by their columns, its tombstones, its file as a whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bart.errors import LogError
from bart.log.care.erasure import tombstone_checksum
from bart.log.care.findings import Findings, said
from bart.log.decision_log import DecisionLog
from bart.log.proof.check import Kept, check_log
from bart.log.record.block import Block
from bart.log.record.parse import read_block
from bart.log.store.schema import SCHEMA_VERSION
from bart.log.store.store import SELECT, StoredDecision
from bart.types import Bools

AT_ONCE = 200  # records read and joined together


def verify_log(path: Path, check: Findings, key: bytes | None, kept: Sequence[Kept]) -> None:
    """Checks an SQLite file; the arguments as in `verify`."""
    with DecisionLog(path, create=False) as log:
        if log.version == SCHEMA_VERSION:
            check.proof = check_log(log.reading, key, kept)
        for rows in _rows(log, check):
            _check_records(log, rows, check)
        _check_rest(log, check)
        _check_file(log, check)


def _check_records(log: DecisionLog, rows: Sequence[StoredDecision], check: Findings) -> None:
    check.counts["records"] += len(rows)
    block, position = read_block([row.record for row in rows], [row.checksum for row in rows])
    read = [rows[i] for i in position.tolist()]
    good = _are_joined(log, rows, check)[position] & _check_columns(read, block, check)
    for i in np.setdiff1d(np.arange(len(rows)), position).tolist():
        _check_unread(rows[i], check)
    check.block(block, good, lambda i: read[i].decode())


def _check_unread(row: StoredDecision, check: Findings) -> None:
    """Says what is wrong with a record that holds no decision."""
    try:
        row.decode()
    except LogError as error:
        check.problem(row.request_id, str(error).removeprefix(f"request {row.request_id!r}: "))
    except Exception as error:  # whatever an altered record provokes
        check.problem(row.request_id, f"does not hold a decision ({said(error)}): it was altered")
    else:
        check.problem(row.request_id, "cannot be read with others: it was altered")


def _are_joined(log: DecisionLog, rows: Sequence[StoredDecision], check: Findings) -> Bools:
    """[n], whether the feedback of each is as it should be; where that of all is not, each is looked at alone."""
    out = np.ones(len(rows), dtype=np.bool_)
    try:
        log.outcomes(rows)
    except Exception:  # whatever an altered row provokes
        for i, row in enumerate(rows):
            try:
                log.outcomes([row])
            except LogError as error:
                out[i] = False
                check.problem(row.request_id, str(error).removeprefix(f"request {row.request_id!r}: "))
            except Exception as error:
                out[i] = False
                check.problem(row.request_id, f"its feedback cannot be read ({said(error)}): it was altered")
    return out


def _check_file(log: DecisionLog, check: Findings) -> None:
    """Pages of the file that no query above has read, and indexes that miss a record."""
    try:
        with log.reading() as connection:
            found = [str(text) for (text,) in connection.execute("PRAGMA integrity_check(5)").fetchall()]
    except LogError as error:
        found = [str(error)]
    for text in found if found != ["ok"] else ():
        check.problem("", f"the file is damaged: {text}")


def _rows(log: DecisionLog, check: Findings) -> Iterator[list[StoredDecision]]:
    """All rows in the order of their request ids, some at once; where some cannot be read, each by its number, so that
    a page of the file that is damaged takes only its own rows along."""
    try:
        with log.reading() as connection:  # the index of request ids holds both, apart from the records
            known = sorted(connection.execute("SELECT seq, request_id FROM decision ORDER BY request_id").fetchall())
    except LogError as error:
        check.problem("", str(error))
        return
    for first in range(0, len(known), AT_ONCE):
        some = known[first : first + AT_ONCE]
        try:
            found = _read(log, [seq for seq, _ in some])
        except LogError:
            found = {}
            for seq, request_id in some:
                try:
                    found |= _read(log, [seq])
                except LogError as error:
                    found[seq] = None
                    check.problem(str(request_id), str(error))
        yield [row for seq, request_id in some if (row := _row(found, seq, request_id, check)) is not None]


def _read(log: DecisionLog, seqs: Sequence[int]) -> dict[int, tuple[object, ...] | None]:
    """Rows by their numbers."""
    query = f"{SELECT} WHERE seq IN ({','.join('?' * len(seqs))})"
    with log.reading() as connection:
        return {row[0]: row for row in connection.execute(query, seqs)}


def _row(
    found: Mapping[int, tuple[object, ...] | None], seq: int, request_id: str, check: Findings
) -> StoredDecision | None:
    """The row of a request; None, counted as a record with its problem, where it is not what it should be."""
    row = found.get(seq, ())
    if row is not None and (not row or row[1] != request_id):
        check.problem(str(request_id), "its record is missing or bears another request id")
    elif row is not None and not all(isinstance(value, kind) for value, kind in zip(row, _KINDS, strict=True)):
        check.problem(str(request_id), "a column holds a value of another type: it was altered")
    elif row is not None:
        return StoredDecision(*row)  # type: ignore[arg-type]
    check.counts["records"] += 1
    return None


_KINDS = (int, str, str, int, bytes, bytes, bytes)


def _check_columns(rows: Sequence[StoredDecision], block: Block, check: Findings) -> Bools:
    """[b], whether the columns that are searched say the same as the record."""
    names = ("request_id", "user_id", "decided_us", "shown")
    request_id, user_id = (block.named(name).to_pylist() for name in names[:2])
    kept = zip(request_id, user_id, block.head["decided_us"].tolist(), block.shown(), strict=True)
    out = np.ones(len(rows), dtype=np.bool_)
    for i, (row, values) in enumerate(zip(rows, kept, strict=True)):
        found = (row.request_id, row.user_id, row.decided_us, row.shown)
        if found != values:
            name, column, value = next(each for each in zip(names, found, values, strict=True) if each[1] != each[2])
            check.problem(row.request_id, f"column {name} is {column!r}; the record has {value!r}")
            out[i] = False
    return out


def _check_rest(log: DecisionLog, check: Findings) -> None:
    """Tombstones, and feedback whose decision is gone."""
    try:
        with log.reading() as connection:
            orphans = "SELECT DISTINCT seq FROM feedback WHERE seq NOT IN (SELECT seq FROM decision)"
            for (seq,) in connection.execute(orphans).fetchall():
                check.problem("", f"feedback for record {seq}, which is not in the log")
            for request_id, erased_us, stored in _tombstones(connection):
                check.counts["tombstones"] += 1
                if stored != tombstone_checksum(request_id, erased_us):
                    check.problem(request_id, "checksum does not fit the tombstone: it was altered")
            both = "SELECT request_id FROM tombstone JOIN decision USING (request_id)"
            for (request_id,) in connection.execute(both).fetchall() if log.version > 1 else ():
                check.problem(request_id, "is in the log although it was erased")
    except LogError as error:
        check.problem("", str(error))


def _tombstones(connection: sqlite3.Connection) -> list[tuple[str, int, bytes]]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tombstone'").fetchone() is None:
        return []
    return connection.execute("SELECT request_id, erased_us, checksum FROM tombstone").fetchall()
