"""The export of a decision log: closed pages with their feedback, as Parquet by the UTC day of the decision.

Each file is written beside and renamed. The same log gives the same files, so exporting again changes nothing; days
that are gone from the log (pruned) keep the files that they have. Beside them stands what the export proves, see
`bart.log.proof.manifest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bart.errors import LogError
from bart.log.proof.chain import Entry
from bart.log.proof.closing import FORGOTTEN
from bart.log.proof.ledger import closed_days, leaves_of
from bart.log.proof.manifest import Writing, write_leaves, writing
from bart.log.record.batch import joined_batch
from bart.log.record.columns import REWARD_KEY
from bart.log.record.record import from_us, to_us
from bart.log.store.files import day_directory, export_files, remove_unfinished, write_batches
from bart.log.store.imported import FILE as LEFT_OUT_FILE
from bart.log.store.imported import write_left_out
from bart.log.store.schema import SCHEMA_VERSION
from bart.log.store.store import StoredDecision, get_meta, read_rows
from bart.reward.rewards import DEFAULT_REWARD
from bart.types import ItemTable

if TYPE_CHECKING:
    from bart.log.decision_log import DecisionLog

PAGES_A_FILE = 20_000
PAGES_A_GROUP = 1_000  # what a reader holds at once, a few megabytes
_DAY = timedelta(days=1)
_DAY_US = 86_400_000_000
_COUNTS = ("open", "undisplayed", "forced", "late_events")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote. open: pages left out because their window was not over (or marked, where included).

    undisplayed: among those exported, never on a screen. forced: exported, not for learning. late_events: counted, not
    merged. pruned_days: left as they are, because the log no longer holds all of their pages. closed: entries that the
    chain of closed days gained.
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
    closed: tuple[Entry, ...] = ()


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
    gained: list[Entry] = []
    if now is not None or log.version == SCHEMA_VERSION:
        gained = log.close_days(now)  # also what came late for closed days is in the export
    closed_us = log.closed_us()
    if closed_us is None and len(log):
        raise LogError("no feedback window was closed yet; pass now, or call close_windows first")
    job = _Job(log, directory, closed_us or 0, include_open, reward, duration_s)
    remove_unfinished(directory)
    pruned_us = log.pruned_us()
    counts = dict.fromkeys(_COUNTS, 0)
    pages = days = files = pruned_days = 0
    wanted = []
    for day in _days(log, since, until):
        if pruned_us is not None and _start_us(day) < pruned_us and export_files(directory, day, day + _DAY):
            pruned_days += 1
        else:
            wanted.append(day)
    directory.mkdir(parents=True, exist_ok=True)
    with writing(directory, wanted, log.chain(), log.proof_key) as manifest:
        if write_left_out(directory, log.left_out()):
            manifest.note(LEFT_OUT_FILE)
        for day in wanted:
            written, counted = job.day(day, manifest)
            pages += sum(written)
            files += len(written)
            days += bool(written)
            counts = {name: count + counted[name] for name, count in counts.items()}
    return ExportResult(
        pages=pages,
        days=days,
        files=files,
        pruned_days=pruned_days,
        directory=directory,
        closed=tuple(gained),
        **counts,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """One export: what of a day is written, and how."""

    log: DecisionLog
    directory: Path
    closed_us: int
    include_open: bool
    reward: str
    duration_s: dict[str, float] | ItemTable | None

    def day(self, day: date, manifest: Writing) -> tuple[list[int], Counter[str]]:
        """Writes a day, once more where something was erased or entered meanwhile; pages in each file, and counts."""
        while True:
            before = self._state(day)
            entry = before[0]
            counts: Counter[str] = Counter()
            leaves: list[tuple[int, bytes]] = []
            folder = day_directory(self.directory, day)
            written = _write_day(folder, self._batches(day, entry, counts, leaves), self._metadata())
            if self._state(day) == before:
                break
        if entry is not None and written:
            write_leaves(folder, leaves)
        manifest.entries = tuple(self.log.chain())
        manifest.done(day, None if entry is None else entry.number, sum(written))
        return written, counts

    def _state(self, day: date) -> tuple[Entry | None, int | None]:
        """The entry of the day, and how often something was erased or pruned."""
        entry = closed_days(self.log.chain()).get(day.isoformat())
        with self.log.reading() as connection:
            return entry, get_meta(connection, FORGOTTEN)

    def _metadata(self) -> dict[bytes, bytes]:
        return {
            REWARD_KEY: self.reward.encode(),
            b"bart.log.durations": b"known" if self.duration_s is not None else b"unknown",
            b"bart.log.window_s": str(self.log.window_us // 1_000_000).encode(),
        }

    def _batches(
        self, day: date, entry: Entry | None, counts: Counter[str], leaves: list[tuple[int, bytes]]
    ) -> Iterator[Any]:
        """Record batches of the pages of one day, full ones but the last, in the order of appending.

        entry: of a closed day, whose pages are exported with the outcomes that it proves; `leaves` gets theirs. Pages
        that came after it was closed wait for the next closing.
        """
        waiting: list[Any] = []
        proven = entry is not None
        for rows in self.log.stored_pages(_start_us(day), _start_us(day + _DAY), PAGES_A_GROUP):
            kept = rows
            if entry is not None:
                known = self._leaves(day, rows)
                kept = [row for row in rows if row.seq in known]
                leaves += [(row.seq, known[row.seq]) for row in kept]
            elif not self.include_open:
                kept = [row for row in rows if row.decided_us <= self.closed_us]
            counts["open"] += len([row for row in rows if not proven and row.decided_us > self.closed_us])
            window_us = self.log.window_us if entry is None else entry.window_us
            if not kept:
                continue
            block, outcomes = read_rows(kept), self.log.outcomes(kept, proven, window_us)
            counts["undisplayed"] += int((~outcomes.displayed).sum())
            counts["forced"] += int(block.forced.sum())
            counts["late_events"] += int(outcomes.late.sum())
            closed = np.array([proven or row.decided_us <= self.closed_us for row in kept], dtype=np.bool_)
            checksum = [row.checksum for row in kept]
            waiting.append(joined_batch(block, outcomes, closed, checksum, self.reward, self.duration_s))
            yield from _groups(waiting, PAGES_A_GROUP)
        yield from _groups(waiting, 1)

    def _leaves(self, day: date, rows: Sequence[StoredDecision]) -> dict[int, bytes]:
        with self.log.reading() as connection:
            found = leaves_of(connection, day.isoformat(), rows[0].seq, rows[-1].seq)
        return {seq: one for seq, one, _ in found}


def _groups(waiting: list[Any], least: int) -> Iterator[Any]:
    """Batches of as many pages as a group has, out of those that wait, as long as at least so many do."""
    if len(waiting) == 1 and waiting[0].num_rows == PAGES_A_GROUP:
        yield waiting.pop()
    while sum(batch.num_rows for batch in waiting) >= least:
        whole = pa.Table.from_batches(waiting).slice(0, PAGES_A_GROUP).combine_chunks().to_batches()
        left = pa.Table.from_batches(waiting).slice(PAGES_A_GROUP).to_batches()
        yield from whole
        waiting[:] = left


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


def _start_us(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=timezone.utc))


def _days(log: DecisionLog, since: date | None, until: date | None) -> list[date]:
    """UTC days that have a decision in the log."""
    with log.reading() as connection:
        query = f"SELECT DISTINCT decided_us / {_DAY_US} - (decided_us % {_DAY_US} < 0) FROM decision ORDER BY 1"
        days = [from_us(number * _DAY_US).date() for (number,) in connection.execute(query)]
    return [day for day in days if (since is None or day >= since) and (until is None or day < until)]
