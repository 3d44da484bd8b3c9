"""The service behind the routes: one run, its log, and the page as plain values."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from api.runs import OpenRun
from api.schemas import FeedbackRequest, HomeRequest
from api.settings import Settings
from bart.decision_log import DecisionLog
from bart.feedback import FeedbackResult
from bart.types import ITEM_TYPES, Context, Decision


@dataclass(frozen=True)
class HomeService:
    """Decides pages of one run and takes their feedback. The clock and the seeds live here, and nowhere below."""

    run: OpenRun
    log: DecisionLog
    settings: Settings

    def home(self, request: HomeRequest) -> dict[str, Any]:
        """The page for one visit, recorded before it is returned."""
        at = datetime.now(timezone.utc)
        context = Context(
            at=at,
            utc_offset_min=request.utc_offset_min(at),
            device=request.device,
            surface=request.surface,
            country=request.country,
            explicit_allowed=request.explicit_allowed,
        )
        listener = self.run.store.listener(request.user_id, context)
        decision = self.run.ranker.rank(
            secrets.token_hex(16),
            listener,
            context,
            request.rows or self.settings.page.rows,
            request.columns or self.settings.page.columns,
            secrets.randbits(62),
        )
        return self.page(decision)

    def page(self, decision: Decision) -> dict[str, Any]:
        """A decision as a client sees it: no scores, no propensities."""
        items = self.run.items
        shelves = []
        for row, number in enumerate(decision.page.shelf.tolist()):
            shelf = decision.shelves[number]
            cards = []
            for candidate in decision.page.card[row].tolist():
                if candidate < 0:
                    continue
                item_id = decision.item_id[candidate]
                place = items.row_of[item_id]
                cards.append(
                    {
                        "item_id": item_id,
                        "title": items.title[place],
                        "type": ITEM_TYPES[items.type[place]],
                        "artists": items.artists[place],
                    }
                )
            shelves.append(
                {
                    "title": shelf.title,
                    "key": shelf.key,
                    "parameters": dict(shelf.parameters),
                    "explanation": shelf.explanation,
                    "cards": cards,
                }
            )
        return {"request_id": decision.request_id, "batch_id": decision.batch_id, "shelves": shelves}

    def feedback(self, request: FeedbackRequest) -> FeedbackResult:
        """Keeps what a client reported; what cannot be taken is in `.rejected`."""
        received_at = datetime.now(timezone.utc)
        events = [{**event.model_dump(), "occurred_at": event.occurred_at or received_at} for event in request.events]
        return self.log.feedback(request.request_id, events, received_at)

    def listeners(self, limit: int = 200) -> list[str]:
        """Ids of known listeners, for the page's switcher."""
        return self.run.store.user_ids()[:limit]
