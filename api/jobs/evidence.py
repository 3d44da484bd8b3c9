"""Which logged pages a run can still learn from, and whether they are enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from api.run.settings import Settings
    from bart.types import ItemTable, PageBatch


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to learn from: pages closed since the serving model learnt, of the serving batch.

    until_s: the newest one's time. other_batch: pages left out since their listener vectors are of another batch.
    """

    pages: int
    until_s: int
    other_batch: int


def new_pages(log: Path, items: ItemTable, batch_id: str | None, since_s: int | None) -> Iterator[PageBatch]:
    """Exported pages decided from `since_s` on with the vectors of this batch (None: of any), batch by batch."""
    from bart.log.outcomes.pages import read_pages, recorded_reward
    from bart.log.store.files import export_files

    since = None if since_s is None else datetime.fromtimestamp(since_s, tz=timezone.utc).date()
    if not log.is_dir() or not export_files(log, since):
        return
    foreign = np.array(sorted(_foreign(log, batch_id, since)) if batch_id is not None else [], dtype=object)
    for batch in read_pages(log, items, reward=recorded_reward(log), since=since):
        keep = np.ones(len(batch), dtype=np.bool_) if since_s is None else batch.at_s >= since_s
        if len(foreign):
            keep &= ~np.isin(batch.request_id.astype(str), foreign.astype(str))
        if keep.any():
            yield batch if keep.all() else batch.take(np.flatnonzero(keep))


def gather(log: Path, items: ItemTable, batch_id: str, since_s: int | None) -> Evidence:
    """What there is to learn from. Pages count that were displayed and neither forced nor still open."""
    from bart.learning.training import usable_pages

    pages, until_s = 0, 0
    for batch in new_pages(log, items, batch_id, since_s):
        use = usable_pages(batch)
        pages += int(use.sum())
        until_s = max(until_s, int(batch.at_s[use].max())) if use.any() else until_s
    since = None if since_s is None else datetime.fromtimestamp(since_s, tz=timezone.utc).date()
    return Evidence(pages, until_s, len(_foreign(log, batch_id, since)))


def _foreign(log: Path, batch_id: str, since: date | None) -> set[str]:
    """Request ids of pages that were decided with the vectors of another batch."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from bart.log.store.files import export_files

    out: set[str] = set()
    for file in export_files(log, since) if log.is_dir() else ():
        table = pq.read_table(file, columns=["request_id", "batch_id"], partitioning=None)
        out |= set(table.filter(pc.not_equal(table["batch_id"], batch_id))["request_id"].to_pylist())
    return out


def too_few(evidence: Evidence, settings: Settings) -> str:
    """Why there are not enough pages; "" where there are."""
    asked = settings.retrain
    held_out = int(np.ceil(asked.holdout * evidence.pages))
    if held_out >= asked.min_pages and evidence.pages > held_out:
        return ""
    return f"{evidence.pages:,} new pages, of which {held_out:,} would be held out; expected {asked.min_pages:,} there"


def holdout_share(usable: int, evidence: Evidence, settings: Settings) -> float:
    """The holdout as a share of all usable pages where older ones are learnt from too: as many pages as of the new."""
    return float((np.ceil(settings.retrain.holdout * evidence.pages) - 0.5) / usable)
