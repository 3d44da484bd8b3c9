"""Cards that rest: shown to a listener again and again without a stream, so not shown for a while.

Counts stand beside the listeners in the same SQLite file, by batch, because rows of items belong to a batch. They are
written when feedback comes; a visit reads only the resulting list.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bart.types import Ints

SCHEMA = """
CREATE TABLE IF NOT EXISTS exposures (
    batch_id TEXT NOT NULL, user_id TEXT NOT NULL, item INTEGER NOT NULL, times INTEGER NOT NULL,
    last_s INTEGER NOT NULL, page TEXT NOT NULL, PRIMARY KEY (batch_id, user_id, item)
) WITHOUT ROWID
"""
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class RestConfig:
    """times: showings without a stream after which a card rests. days: since its last showing until it may come again.

    Six showings: by then a card that would be streamed with a chance of one in three mostly has been.
    """

    times: int = 6
    days: float = 14.0

    def __post_init__(self) -> None:
        if self.times < 1 or not self.days > 0:
            raise ValueError(f"times is {self.times}, days is {self.days:g}; expected at least 1 and more than 0")


def count_exposures(
    connection: sqlite3.Connection,
    key: tuple[str, str],
    seen: Ints,
    streamed: Ints,
    page: str,
    at_s: int,
    config: RestConfig,
) -> Ints:
    """Counts what a listener saw on a page and returns the rows that rest from then on, ascending.

    key: batch id and user id. seen, streamed: rows of the batch's item table; a stream sets its count to nothing. page:
    what is told of the same page again is counted once, as long as no other page was told of in between. Counts older
    than `config.days` are dropped. The caller holds the transaction.
    """
    streamed = np.unique(streamed)
    passed = np.setdiff1d(seen, streamed)
    connection.execute(
        "DELETE FROM exposures WHERE batch_id = ? AND user_id = ? AND last_s <= ?",
        (*key, at_s - int(config.days * _DAY_S)),
    )
    connection.executemany(
        "DELETE FROM exposures WHERE batch_id = ? AND user_id = ? AND item = ?",
        [(*key, item) for item in streamed.tolist()],
    )
    connection.executemany(
        "INSERT INTO exposures (batch_id, user_id, item, times, last_s, page) VALUES (?, ?, ?, 1, ?, ?) "
        "ON CONFLICT DO UPDATE SET times = times + (page <> excluded.page), "
        "last_s = max(last_s, excluded.last_s), page = excluded.page",
        [(*key, item, at_s, page) for item in passed.tolist()],
    )
    query = "SELECT item FROM exposures WHERE batch_id = ? AND user_id = ? AND times >= ? ORDER BY item"
    return np.array([item for (item,) in connection.execute(query, (*key, config.times))], dtype=np.int64)


def counted_exposures(
    known: Mapping[int, tuple[int, int, str]],
    seen: Ints,
    streamed: Ints,
    page: str,
    at_s: int,
    config: RestConfig,
) -> tuple[dict[int, tuple[int, int, str]], Ints]:
    """`count_exposures` for a store without SQL: the counts afterwards and the rows that rest.

    known: (times, last_s, page) by row.
    """
    heard = set(streamed.tolist())
    oldest_s = at_s - int(config.days * _DAY_S)
    after = {row: kept for row, kept in known.items() if kept[1] > oldest_s and row not in heard}
    for row in set(seen.tolist()) - heard:
        times, last_s, before = after.get(row, (0, at_s, ""))
        after[row] = (times + (before != page or not times), max(last_s, at_s), page)
    rested = sorted(row for row, kept in after.items() if kept[0] >= config.times)
    return after, np.array(rested, dtype=np.int64)
