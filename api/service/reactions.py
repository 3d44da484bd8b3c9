"""What reports about cards say of a listener: what was seen again and again rests, what was saved becomes a favourite,
and what the listener is not interested in is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from api.run.runs import OpenRun
from api.wire.schemas import FeedbackItem
from bart.log.decision_log import DecisionLog
from bart.types import Decision, Wishes
from bart.types.wishes import UNNAMED
from recommender.events.worth import WEIGHTS

STREAM_S = 30.0
SAVE = "save"


def count_seen(run: OpenRun, log: DecisionLog, request_id: str, events: Sequence[FeedbackItem], at: datetime) -> str:
    """Counts the cards that new events of a page say were seen, streamed for 30 s or saved; of whom, "" where nothing
    was.

    A page of another batch, of another source of candidates, of nobody or with a forced seed counts nothing.
    """
    cells = [e for e in events if e.row is not None and e.column is not None and (e.seen or e.listened_s or e.saved)]
    decision = log.get(request_id) if cells else None
    if decision is None or decision.forced or decision.batch_id != run.bundle.batch_id or _of_nobody(decision):
        return ""
    seen, streamed, saved = [], [], []
    for event in cells:
        item = _item(decision, event)
        if item is None:
            continue
        seen.append(item)
        if (event.listened_s or 0.0) >= STREAM_S:
            streamed.append(item)
        if event.saved:
            saved.append(item)
    rows, heard, kept = (found[found >= 0] for found in map(run.items.rows, (seen, streamed, saved)))
    if not len(rows):
        return ""
    run.store.saw(decision.user_id, request_id, np.unique(rows), np.union1d(heard, kept), at)
    if len(kept):
        weight = run.settings.events.weights.get(SAVE, WEIGHTS[SAVE])
        run.store.saved(decision.user_id, np.unique(kept), round(weight))
    return decision.user_id


def keep_wishes(run: OpenRun, log: DecisionLog, request_id: str, events: Sequence[FeedbackItem]) -> str:
    """Hides the cards that the listener is not interested in, from now on, or shows them again; of whom, "" of nobody.

    Also of a page of another batch: it is kept by ids.
    """
    cells = [event for event in events if event.not_interested is not None and event.row is not None]
    decision = log.get(request_id) if cells else None
    if decision is None or run.store.preferences is None or _of_nobody(decision):
        return ""
    told = {item: bool(event.not_interested) for event in cells if (item := _item(decision, event)) is not None}

    def change(wishes: Wishes) -> Wishes:
        hidden = (wishes.not_interested | {item for item, gone in told.items() if gone}) - {
            item for item, gone in told.items() if not gone
        }
        return replace(wishes, not_interested=hidden)

    run.store.preferences.change(decision.user_id, change)
    return decision.user_id


def _item(decision: Decision, event: FeedbackItem) -> str | None:
    """Id of the card in the place of an event, None where none stands."""
    card = decision.page.card
    row, column = event.row or 0, event.column or 0
    there = row < card.shape[0] and column < card.shape[1] and card[row, column] >= 0
    return str(decision.item_id[card[row, column]]) if there else None


def _of_nobody(decision: Decision) -> bool:
    return decision.user_id.startswith(UNNAMED)
