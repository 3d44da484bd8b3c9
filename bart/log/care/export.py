"""The export of a decision log: closed pages with their feedback, as Parquet by the UTC day of the decision.

Each file is written beside and renamed. The same log gives the same files, so exporting again changes nothing; days
that are gone from the log (pruned) keep the files that they have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart.errors import LogError
from bart.log.record.columns import REWARD_KEY, JoinedPage, record_batch
from bart.log.record.record import from_us, to_us
from bart.log.store.files import day_directory, export_files, remove_unfinished, write_batches
from bart.reward.rewards import DEFAULT_REWARD
from bart.types import ItemTable

if TYPE_CHECKING:
    from bart.log.decision_log import DecisionLog

PAGES_A_FILE = 20_000
PAGES_A_GROUP = 1_000  # what a reader holds at once, a few megabytes
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote. open: pages left out because their window was not over (or marked, where included).

    undisplayed: among those exported, never on a screen. forced: exported, not for learning. late_events: counted, not
    merged. pruned_days: left as they are, because the log no longer holds all of their pages.
    """

    pages: int
    open: int
    undisplayed: int
    forced: int
    late_events: int
    days: int
    files: int
    pruned_days: int
    directory: Path


def export_log(
    log: DecisionLog,
    directory: str | Path,
    *,
    now: datetime | None = None,
    duration_s: dict[str, float] | ItemTable | None = None,
    reward: str = DEFAULT_REWARD,
    include_open: bool = False,
    since: date | None = None,
    until: date | None = None,
) -> ExportResult:
    """Writes the log's pages to directory/date=YYYY-MM-DD/part-*.parquet.

    now: closes windows up to this moment first; without it the last `close_windows` counts. duration_s: seconds by item
    id (or the item table) for the recorded reward. include_open: exports pages whose window is not over too, marked.
    since, until: first day, and the day after the last. Raises LogError at a damaged record: verify the log then.
    """
    directory = Path(directory)
    if now is not None:
        log.close_windows(now)
    closed_us = log.closed_us()
    if closed_us is None:
        raise LogError("no feedback window was closed yet; pass now, or call close_windows first")
    metadata = {
        REWARD_KEY: reward.encode(),
        b"bart.log.durations": b"known" if duration_s is not None else b"unknown",
        b"bart.log.window_s": str(log.window_us // 1_000_000).encode(),
    }
    remove_unfinished(directory)
    pruned_us = log.pruned_us()
    counts = dict.fromkeys(("open", "undisplayed", "forced", "late_events"), 0)
    pages = days = files = pruned_days = 0
    for day in _days(log, since, until):
        start_us = to_us(datetime(day.year, day.month, day.day, tzinfo=timezone.utc))
        if pruned_us is not None and start_us < pruned_us and export_files(directory, day, day + timedelta(days=1)):
            pruned_days += 1
            continue
        batches = _batches(log, start_us, closed_us, include_open, reward, duration_s, counts)
        written = _write_day(day_directory(directory, day), batches, metadata)
        pages += sum(written)
        files += len(written)
        days += bool(written)
    return ExportResult(pages=pages, days=days, files=files, pruned_days=pruned_days, directory=directory, **counts)


def _write_day(directory: Path, batches: Iterator[Any], metadata: dict[bytes, bytes]) -> list[int]:
    """The files of one day; pages in each. Files of an earlier export that are no longer needed go last."""
    written: list[int] = []
    while (first := next(batches, None)) is not None:
        part = chain([first], islice(batches, PAGES_A_FILE // PAGES_A_GROUP - 1))
        written.append(write_batches(directory / f"part-{len(written):05d}.parquet", part, metadata))
    if directory.exists():
        wanted = {f"part-{i:05d}.parquet" for i in range(len(written))}
        for file in directory.glob("part-*.parquet"):
            if file.name not in wanted:
                file.unlink()
        if not written and not any(directory.iterdir()):
            directory.rmdir()
    return written


def _batches(
    log: DecisionLog,
    start_us: int,
    closed_us: int,
    include_open: bool,
    reward: str,
    duration_s: dict[str, float] | ItemTable | None,
    counts: dict[str, int],
) -> Iterator[Any]:
    """Record batches of the pages of one day, full ones but the last, in the order of appending."""
    waiting: list[JoinedPage] = []
    for rows in log.stored_pages(start_us, start_us + _DAY_US):
        open_pages = [row for row in rows if row.decided_us > closed_us]
        counts["open"] += len(open_pages)
        kept = rows if include_open else [row for row in rows if row.decided_us <= closed_us]
        for row, feedback in zip(kept, log.join(kept), strict=True):
            decision = row.decode()
            counts["undisplayed"] += not feedback.displayed
            counts["forced"] += decision.forced
            counts["late_events"] += feedback.late
            waiting.append(JoinedPage(decision, feedback, row.decided_us <= closed_us, row.checksum))
            if len(waiting) == PAGES_A_GROUP:
                yield record_batch(waiting, reward, duration_s)
                waiting = []
    if waiting:
        yield record_batch(waiting, reward, duration_s)


def _days(log: DecisionLog, since: date | None, until: date | None) -> list[date]:
    """UTC days that have a decision in the log."""
    with log.reading() as connection:
        query = f"SELECT DISTINCT decided_us / {_DAY_US} - (decided_us % {_DAY_US} < 0) FROM decision ORDER BY 1"
        days = [from_us(number * _DAY_US).date() for (number,) in connection.execute(query)]
    return [day for day in days if (since is None or day >= since) and (until is None or day < until)]
