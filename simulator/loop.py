"""Visits through the one serving path: decide, log, read the page, report back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import numpy as np

from bart.decision_log import DecisionLog
from bart.home import HomeRanker
from bart.types import Bools, Decision, Floats, Ints, ListenerStore
from simulator.appeal import appeal
from simulator.browsing import BrowsingParams, browse
from simulator.delivery import DeliveryParams, deliver
from simulator.visits import Visits
from simulator.world import World

PAGES_AT_ONCE = 500  # pages decided, read and reported together: one commit each


@dataclass(frozen=True, slots=True)
class Served:
    """What happened over some visits, counted over all cards shown."""

    pages: int
    displayed: int
    seen: int
    streams: int
    last_at: datetime


class _Held:
    """A sink that keeps decisions until their batch is written in one commit."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def append(self, decision: Decision) -> None:
        self.decisions.append(decision)


def serve_visits(
    ranker: HomeRanker,
    store: ListenerStore,
    world: World,
    visits: Visits,
    browsing: BrowsingParams,
    log: DecisionLog,
    rows: int,
    columns: int,
    rng: np.random.Generator,
    *,
    delivery: DeliveryParams | None = None,
    prefix: str = "visit",
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Served:
    """Serves all visits in order of time; their listeners read the pages and report what they did.

    Every visit goes through `ranker.rank`, and the log gets a decision before its feedback. prefix: of request ids,
    which number the visits. Seeds and behaviour have random streams of their own, so that two rankers served with the
    same rng meet the same chance.
    """
    seeds, behaviour, network = rng.spawn(3)
    seed: Ints = seeds.integers(0, 2**62, size=len(visits))
    delivery = delivery or DeliveryParams()
    held = _Held()
    served = replace(ranker, log=held)
    displayed = seen = streams = 0
    for start in range(0, len(visits), PAGES_AT_ONCE):
        span = range(start, min(start + PAGES_AT_ONCE, len(visits)))
        for i in span:
            context = visits.context(i)
            listener = store.listener(visits.user_id(i), context)
            served.rank(f"{prefix}-{i:07d}", listener, context, rows, columns, int(seed[i]))
        decisions, held.decisions = held.decisions, []
        log.append_many(decisions)
        likes, present = appeal_of_pages(world, decisions, visits, np.array(span), rows, columns)
        patience = world.population.patience[visits.listener[span.start : span.stop]]
        feedback = browse(likes, present, browsing, behaviour, patience=patience)
        log.feedback_many(
            (decision.request_id, parcel.events, parcel.received_at)
            for page, decision in enumerate(decisions)
            for parcel in deliver(feedback, page, int(visits.at_s[start + page]), delivery, network)
        )
        displayed += int(feedback.displayed.sum())
        seen += int(feedback.seen.sum())
        streams += int(feedback.streamed.sum())
        if on_progress is not None:
            on_progress(span.stop, len(visits), f"{streams / max(displayed, 1):.2f} streams a page")
    last_at = datetime.fromtimestamp(int(visits.at_s[-1]), tz=timezone.utc)
    return Served(len(visits), displayed, seen, streams, last_at)


def appeal_of_pages(
    world: World, decisions: Sequence[Decision], visits: Visits, visit: Ints, rows: int, columns: int
) -> tuple[Floats, Bools]:
    """True P(stream | examined) of the cards shown, [b, rows, columns], and where a card stands.

    decisions: of the visits numbered `visit` [b], in that order.
    """
    present = np.zeros((len(decisions), rows, columns), dtype=np.bool_)
    item: list[str] = []
    rule: list[str] = []
    for page, decision in enumerate(decisions):
        card = decision.page.card
        present[page, : card.shape[0], : card.shape[1]] = card >= 0
        for row, cards in enumerate(card):
            shown = cards[cards >= 0]
            item.extend(decision.item_id[shown])
            rule.extend([decision.shelves[decision.page.shelf[row]].rule] * len(shown))
    who = np.repeat(visit, present.sum(axis=(1, 2)))
    likes = np.zeros(present.shape)
    likes[present] = appeal(
        world,
        visits.listener[who],
        visits.hour[who],
        visits.weekday[who],
        visits.device[who],
        world.row_of(item),
        rule,
        visits.at_s[who],
    )
    return likes, present
