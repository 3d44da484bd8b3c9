"""The listener's wall clock: offsets from UTC of many instants at once.

Offsets come from Python's `zoneinfo` (with the `tzdata` package where the system has no database), looked up once for
each quarter of an hour that occurs: every modern zone changes its clock on such a boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from bart.types import Ints

_QUARTER_S = 15 * 60
_EPOCH = datetime(1970, 1, 1)


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name; ValueError for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time zone is {name!r}; expected an IANA name such as Europe/Stockholm") from error


def offset_of_instant(at_s: Ints, tz: str) -> Ints:
    """Minutes that the clock of `tz` is ahead of UTC at each instant, [n]. at_s: [n] seconds UTC."""
    zone(tz)  # an unknown one shows also where there is no instant
    return _by_quarter(at_s, partial(_offset_at, tz))


@lru_cache(maxsize=1 << 16)  # files are read in blocks, which are of the same weeks
def _offset_at(tz: str, quarter: int) -> int:
    instant = (_EPOCH + timedelta(seconds=quarter * _QUARTER_S)).replace(tzinfo=timezone.utc)
    return _minutes(instant.astimezone(zone(tz)))


def offset_of_wall_clock(wall_s: Ints, tz: str, fold: int = 0) -> Ints:
    """Minutes to take from a naive local time to get UTC, [n].

    wall_s: [n] seconds since 1970-01-01 of the local clock. fold: with 0 an hour that occurs twice is its first
    occurrence, and one that is skipped is read with the offset before the change; with 1 its second, and the one after.
    """
    place = zone(tz)

    def minutes(quarter: int) -> int:
        return _minutes((_EPOCH + timedelta(seconds=quarter * _QUARTER_S)).replace(tzinfo=place, fold=fold))

    return _by_quarter(wall_s, minutes)


def hour_and_weekday(at_s: Ints, utc_offset_min: Ints) -> tuple[Ints, Ints]:
    """Local hour 0 to 23 and weekday 0 (Monday) to 6, both [n]."""
    local_s = at_s + 60 * utc_offset_min
    return (local_s // 3600) % 24, (local_s // 86400 + 3) % 7  # 1970-01-01 was a Thursday


def _by_quarter(at_s: Ints, minutes: Callable[[int], int]) -> Ints:
    quarter, where = np.unique(np.asarray(at_s, dtype=np.int64) // _QUARTER_S, return_inverse=True)
    table = np.fromiter((minutes(int(q)) for q in quarter), dtype=np.int64, count=len(quarter))
    return table[where.reshape(-1)] if len(quarter) else np.empty(0, dtype=np.int64)


def _minutes(moment: datetime) -> int:
    offset = moment.utcoffset()
    return 0 if offset is None else round(offset.total_seconds() / 60)
