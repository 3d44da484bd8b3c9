"""Cards that rest because a listener saw them again and again: counted from what clients report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from api.run.runs import OpenRun
from api.wire.schemas import FeedbackItem
from bart.log.decision_log import DecisionLog

STREAM_S = 30.0


def count_seen(run: OpenRun, log: DecisionLog, request_id: str, events: Sequence[FeedbackItem], at: datetime) -> str:
    """Counts the cards that new events of a page say were seen, or streamed for 30 s; of whom, "" where nothing was.

    A page of another batch, of another source of candidates or with a forced seed counts nothing.
    """
    cells = [e for e in events if e.row is not None and e.column is not None and (e.seen or e.listened_s)]
    decision = log.get(request_id) if cells else None
    if decision is None or decision.forced or decision.batch_id != run.bundle.batch_id:
        return ""
    card = decision.page.card
    seen, streamed = [], []
    for event in cells:
        row, column = event.row or 0, event.column or 0
        if row < card.shape[0] and column < card.shape[1] and card[row, column] >= 0:
            item = decision.item_id[card[row, column]]
            seen.append(item)
            if (event.listened_s or 0.0) >= STREAM_S:
                streamed.append(item)
    rows, heard = (found[found >= 0] for found in (run.items.rows(seen), run.items.rows(streamed)))
    if not len(rows):
        return ""
    run.store.saw(decision.user_id, request_id, np.unique(rows), heard, at)
    return decision.user_id
