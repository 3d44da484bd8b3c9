"""Listening sessions, cut from an event table: the features of Table 1 and the vectors of section 3.3 of the CoSeRNN
paper, as flat arrays.

A session ends after 20 minutes of inactivity; only its first ten tracks are kept. Nothing here loops over events:
cutting is a comparison of neighbours, and session vectors are one sparse matrix product.

Departure from the paper: `n_tracks` counts the whole session, tracks beyond the tenth included, because the length of
the last session is a feature while its tail is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bart.errors import DataError
from bart.types import OTHER_DEVICE, Bools, Floats, Floats32, Ints, Strings, device_code
from recommender.sessions.lengths import GAP_S, begins_session, ends_us, parts_by_listener
from recommender.sessions.plays import only_plays
from recommender.sessions.table import DAY_S, SessionColumns, Sessions, TimeSplit, time_split, unit

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GAP_S", "SessionColumns", "Sessions", "TimeSplit", "cut_sessions", "time_split", "unit"]

FIRST_TRACKS = 10  # tracks of a session that are modelled
MAX_SOURCES = 31  # stream sources told apart; the rest count as unknown


def cut_sessions(
    events: pa.Table,
    row_of: Mapping[str, int],
    vector: Floats32,
    *,
    sources: Sequence[str] | None = None,
    account_age_d: Mapping[str, float] | None = None,
    default_utc_offset_min: int = 0,
    gap_s: float = GAP_S,
    first_tracks: int = FIRST_TRACKS,
) -> Sessions:
    """The sessions of an event table: of its plays alone; none where there are none.

    events: columns user_id, item_id, started_at; utc_offset_min, listened_s, skipped, device, source and duration_s may
    be missing or null. A null `skipped` counts as played, a null `listened_s` as the whole duration (no time at all
    where that is unknown too); lengths are bounded by the listener's next start (recommender.sessions.lengths). Events
    of unknown items keep a session going but have no vector. Events at the same instant stay in the order of the table.
    row_of: row of `vector` [items, d] of each item id. sources: vocabulary of a trained model; by default the most
    frequent ones. account_age_d: days since the account was made, at the first event, by user id.
    Raises DataError where the table lacks a column or has no row.
    """
    import pyarrow as pa

    _check(events)
    events = only_plays(events)
    vocabulary = _vocabulary(*_encode(events, "source")) if sources is None else tuple(sources)
    user_name, user = _encode(events, "user_id")
    by_name = np.argsort(user_name)
    user_name, user = user_name[by_name], np.argsort(by_name)[user]
    started_us = _int64(events, "started_at")
    if not _sorted(user, started_us):
        order = np.lexsort((started_us, user))
        events, user, started_us = events.take(pa.array(order)), user[order], started_us[order]
    source_code = {name: i for i, name in enumerate(vocabulary)}
    parts = [
        _cut(
            events[part], user[part], started_us[part], row_of, source_code, vector, default_utc_offset_min, gap_s,
            first_tracks,
        )
        for part in (parts_by_listener(user) if len(user) else (slice(0, 0),))
    ]  # fmt: skip
    by_user, columns, n_tracks, track, track_skipped = zip(*parts, strict=True)
    count = np.bincount(np.concatenate(by_user), minlength=len(user_name))
    age = np.array([(account_age_d or {}).get(name, np.nan) for name in user_name], dtype=np.float64)
    return Sessions(
        user_name, _offset(count), SessionColumns.concat(columns), _offset(np.concatenate(n_tracks)),
        np.concatenate(track), np.concatenate(track_skipped), vocabulary, age,
    )  # fmt: skip


def _cut(
    events: pa.Table,
    user: Ints,
    started_us: Ints,
    row_of: Mapping[str, int],
    source_code: Mapping[str, int],
    vector: Floats32,
    default_utc_offset_min: int,
    gap_s: float,
    first_tracks: int,
) -> tuple[Ints, SessionColumns, Ints, Ints, Bools]:
    """Listener and columns of each session of some listeners, how many tracks it keeps, and of each of these its row
    and whether it was skipped. events, user, started_us: [m], sorted by listener and time."""
    ended_us = ends_us(user, started_us, _float(events, "listened_s"), _float(events, "duration_s"))
    first = np.flatnonzero(begins_session(user, started_us, ended_us, gap_s))  # [n], the first event of each session
    length = np.diff(np.append(first, len(user)))
    position = np.arange(len(user)) - np.repeat(first, length)

    started_s = started_us[first] // 1_000_000
    local_s = started_s + _offset_min(events, default_utc_offset_min)[first] * 60
    device_name, device = _encode(events, "device")
    device = np.array([device_code(name) for name in device_name] + [OTHER_DEVICE], dtype=np.int64)[device[first]]
    source_name, source = _encode(events, "source")
    source = np.array([source_code.get(name, 0) for name in source_name] + [0], dtype=np.int64)[source[first]]

    item_name, item = _encode(events, "item_id")
    item = np.array([row_of.get(name, -1) for name in item_name] + [-1], dtype=np.int64)[item]
    kept = np.flatnonzero((position < first_tracks) & (item >= 0))
    track, track_skipped = item[kept], _skipped(events)[kept]
    n_tracks = np.bincount(np.repeat(np.arange(len(first)), length)[kept], minlength=len(first))

    offset = _offset(n_tracks)
    columns = SessionColumns(
        started_s=started_s,
        ended_s=np.maximum.reduceat(ended_us, first) // 1_000_000 if len(first) else started_s,
        weekday=(local_s // DAY_S + 3) % 7,  # 1 January 1970 was a Thursday
        hour=local_s // 3600 % 24,
        device=device,
        source=source,
        n_tracks=length,
        all=_unit_sums(offset, track, np.ones(len(track), dtype=np.float32), vector),
        played=_unit_sums(offset, track, (~track_skipped).astype(np.float32), vector),
        skipped=_unit_sums(offset, track, track_skipped.astype(np.float32), vector),
    )
    return user[first], columns, n_tracks, track, track_skipped


def _offset(size: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(size)]).astype(np.int64)


def _unit_sums(offset: Ints, track: Ints, weight: NDArray[np.float32], vector: Floats32) -> Floats32:
    """Unit weighted sum of each session's track vectors, [n, d] float32."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((weight, track, offset), shape=(len(offset) - 1, len(vector)))
    return unit(np.asarray(matrix @ np.ascontiguousarray(vector, dtype=np.float32), dtype=np.float32))


def _check(events: pa.Table) -> None:
    missing = [name for name in ("user_id", "item_id", "started_at") if name not in events.column_names]
    if missing:
        raise DataError(f"events lack the column {missing[0]}; expected user_id, item_id and started_at")
    if events.num_rows == 0:
        raise DataError("events have no row; expected at least one")


def _encode(events: pa.Table, name: str) -> tuple[Any, Any]:
    """Distinct values of a string column [k] and the code of each row [m]; k where null or without the column."""
    from recommender.sessions.codes import coded

    if name not in events.column_names:
        return np.empty(0, dtype=object), np.zeros(events.num_rows, dtype=np.int64)
    words, code = coded(events.column(name))
    values = np.array(words.to_pylist(), dtype=object)
    code = np.where(code < 0, len(values), code)
    return values, code


def _int64(events: pa.Table, name: str) -> Ints:
    import pyarrow as pa

    column = events.column(name)
    if column.null_count:
        raise DataError(f"{name} is null in {column.null_count} rows; expected a time in each")
    values: Ints = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
    return values


def _float(events: pa.Table, name: str) -> Floats:
    """A numeric column, [m]; NaN where null or without the column."""
    import pyarrow as pa

    if name not in events.column_names:
        return np.full(events.num_rows, np.nan)
    return np.asarray(events.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _skipped(events: pa.Table) -> Bools:
    return np.asarray(_float(events, "skipped") == 1)  # NaN compares false: unknown counts as played


def _offset_min(events: pa.Table, default: int) -> Ints:
    return np.nan_to_num(_float(events, "utc_offset_min"), nan=float(default)).astype(np.int64)


def _vocabulary(name: Strings, code: Ints) -> tuple[str, ...]:
    """ "" and the most frequent sources by name."""
    count = np.bincount(code, minlength=len(name) + 1)[: len(name)]
    frequent = np.argsort(-count, kind="stable")[:MAX_SOURCES]
    return ("", *sorted(str(name[i]) for i in frequent if name[i]))


def _sorted(user: Ints, started_us: Ints) -> bool:
    step = np.diff(user)
    return bool(np.all((step > 0) | ((step == 0) & (np.diff(started_us) >= 0))))
