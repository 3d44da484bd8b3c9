"""Feedback joined with its pages on reading: what is proven (`PROVEN`), or what waits as amendments too (`EVENTS`)."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from bart.errors import LogError
from bart.log.outcomes.merge import Reported, merge_columns
from bart.log.record.feedback import PageFeedback
from bart.log.record.outcomes import NEVER, Outcomes
from bart.log.store.schema import EVENTS
from bart.types import Ints

_SAID = 'row, "column", displayed, seen, listened_s, skipped, saved'
_VALUES = 2 + len(_SAID.split(","))
_SHAPE = struct.Struct("<HH")  # rows and columns, as `pack_shown` packs them
_AT_ONCE = 500


class Page(Protocol):
    """What of a stored decision feedback is joined by."""

    @property
    def seq(self) -> int: ...
    @property
    def request_id(self) -> str: ...
    @property
    def decided_us(self) -> int: ...
    @property
    def shown(self) -> bytes: ...


def joined_outcomes(
    connection: sqlite3.Connection, rows: Sequence[Page], window_us: int, table: str = EVENTS
) -> Outcomes:
    """The merged feedback of each row. Raises LogError, with the request id, where feedback names no slot."""
    found: list[list[Any]] = [[] for _ in range(_VALUES)]
    for start in range(0, len(rows), _AT_ONCE):
        chunk = [row.seq for row in rows[start : start + _AT_ONCE]]
        query = f"SELECT seq, received_us, {_SAID} FROM {table} WHERE seq IN ({','.join('?' * len(chunk))})"
        cursor = connection.execute(query, chunk)
        # Rows go as they come: where many stay, Python looks for cycles in all that there is.
        for some in iter(partial(cursor.fetchmany, _AT_ONCE), []):
            for column, values in zip(found, zip(*some, strict=True), strict=True):
                column += values
    try:
        shape = np.array([_SHAPE.unpack_from(row.shown) for row in rows], dtype=np.int64).reshape(len(rows), 2)
        return _merged(rows, shape, found, window_us)
    except (IndexError, TypeError, ValueError, OverflowError, struct.error):
        for row in rows if len(rows) > 1 else ():
            joined_outcomes(connection, [row], window_us, table)
        raise LogError(f"request {rows[0].request_id!r}: its feedback names a slot that its page lacks") from None


def _merged(rows: Sequence[Page], shape: Ints, found: Sequence[Sequence[Any]], window_us: int) -> Outcomes:
    """The outcomes of some pages by what was reported: sequence number, time of arrival and what was said of each."""
    late, joined_us = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), NEVER)
    seqs, times, *said = found
    if not seqs:
        return Outcomes.none(shape[:, 0], shape[:, 1])
    if set(map(type, times)) != {int}:
        raise TypeError("a time of arrival is no integer")
    number = {row.seq: i for i, row in enumerate(rows)}
    page = np.array([number[seq] for seq in seqs], dtype=np.int64)
    received_us = np.array(times, dtype=np.int64)
    in_time = received_us <= np.array([row.decided_us + window_us for row in rows], dtype=np.int64)[page]
    np.add.at(late, page[~in_time], 1)
    np.maximum.at(joined_us, page[in_time], received_us[in_time])
    return merge_columns((shape[:, 0], shape[:, 1]), Reported.of(page, said).keep(in_time), joined_us, late)


def joined_feedback(
    connection: sqlite3.Connection, rows: Sequence[Page], window_us: int, table: str = EVENTS
) -> list[PageFeedback]:
    """`joined_outcomes`, page by page."""
    return joined_outcomes(connection, rows, window_us, table).pages()


def times_reported(connection: sqlite3.Connection, request_id: str, event_ids: Sequence[str]) -> dict[str, int]:
    """The time (microseconds since 1970) that each of these events of a page was stored with, by event id; those known.

    A client that gives no times sends the same event again with none: with the time of its first report it is the same
    event, and not another one that conflicts.
    """
    out: dict[str, int] = {}
    for start in range(0, len(event_ids), _AT_ONCE):
        part = event_ids[start : start + _AT_ONCE]
        among = f"event_id IN ({','.join('?' * len(part))})"
        query = (
            f"SELECT event_id, occurred_us FROM {EVENTS} "
            f"WHERE seq = (SELECT seq FROM decision WHERE request_id = ?) AND {among} UNION ALL "
            f"SELECT event_id, json_extract(content, '$[0]') FROM quarantine WHERE request_id = ? AND {among}"
        )
        for event_id, occurred_us in connection.execute(query, (request_id, *part, request_id, *part)):
            out[event_id] = min(occurred_us, out.get(event_id, occurred_us))
    return out


def count_reported(connection: sqlite3.Connection, request_id: str, most: int) -> tuple[bool, int]:
    """Whether a page is known, and how many events of it are, waiting ones too; counted up to `most`."""
    row = connection.execute("SELECT seq FROM decision WHERE request_id = ?", (request_id,)).fetchone()
    where, given = (
        ("quarantine WHERE request_id = ?", request_id) if row is None else (f"{EVENTS} WHERE seq = ?", row[0])
    )
    (count,) = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {where} LIMIT ?)", (given, most)).fetchone()
    return row is not None, int(count)


def count_quarantined(connection: sqlite3.Connection, most: int) -> int:
    """How many events wait for their pages; counted up to `most`."""
    (count,) = connection.execute("SELECT count(*) FROM (SELECT 1 FROM quarantine LIMIT ?)", (most,)).fetchone()
    return int(count)
