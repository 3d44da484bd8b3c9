"""Visits through the one serving path: decide, log, read the page, report back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa

from bart.home import HomeRanker
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import page_batch
from bart.log.record.batch import joined_batch
from bart.log.store.store import read_rows
from bart.page.exploration import Exploration
from bart.reward.rewards import DEFAULT_REWARD
from bart.types import (
    Bools,
    Candidates,
    Context,
    Decision,
    Floats,
    Ints,
    Listener,
    ListenerStore,
    PageBatch,
    PageScorer,
)
from simulator.loop.rounds import PAGES_AT_ONCE, Offers
from simulator.loop.service import Service
from simulator.loop.visits import Visits
from simulator.reading.browsing import BrowsingParams, browse
from simulator.reading.delivery import DeliveryParams, deliver
from simulator.world.appeal import appeal
from simulator.world.world import World


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
    return _serve(
        ranker, store, world, visits, np.arange(len(visits)), seed, [f"{prefix}-{i:07d}" for i in range(len(visits))],
        browsing, log, rows, columns, behaviour, network, delivery or DeliveryParams(), on_progress,
    )  # fmt: skip


def _serve(
    ranker: HomeRanker,
    store: ListenerStore,
    world: World,
    visits: Visits,
    visit: Ints,
    seed: Ints,
    request_id: Sequence[str],
    browsing: BrowsingParams,
    log: DecisionLog,
    rows: int,
    columns: int,
    behaviour: np.random.Generator,
    network: np.random.Generator,
    delivery: DeliveryParams,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Served:
    """Serves the visits numbered `visit` [b], each with its seed [b] and request id [b]."""
    held = _Held()
    served = replace(ranker, log=held)
    displayed = seen = streams = 0
    for start in range(0, len(visit), PAGES_AT_ONCE):
        span = slice(start, min(start + PAGES_AT_ONCE, len(visit)))
        number = visit[span]
        for i, name, own in zip(number.tolist(), request_id[span], seed[span].tolist(), strict=True):
            context = visits.context(i)
            listener = store.listener(visits.user_id(i), context)
            served.rank(name, listener, context, rows, columns, own)
        decisions, held.decisions = held.decisions, []
        log.append_many(decisions)
        likes, present = appeal_of_pages(world, decisions, visits, number, rows, columns)
        patience = world.population.patience[visits.listener[number]]
        feedback = browse(likes, present, browsing, behaviour, patience=patience)
        log.feedback_many(
            (decision.request_id, parcel.events, parcel.received_at)
            for page, decision in enumerate(decisions)
            for parcel in deliver(feedback, page, int(visits.at_s[number[page]]), delivery, network)
        )
        displayed += int(feedback.displayed.sum())
        seen += int(feedback.seen.sum())
        streams += int(feedback.streamed.sum())
        if on_progress is not None:
            on_progress(span.stop, len(visit), f"{streams / max(displayed, 1):.2f} streams a page")
    last_at = datetime.fromtimestamp(int(visits.at_s[visit[-1]]), tz=timezone.utc)
    return Served(len(visit), displayed, seen, streams, last_at)


class LoggedServing:
    """Serves offers through `HomeRanker` into a decision log of each policy's own, and reads them back from it."""

    def __init__(self, directory: Path, delivery: DeliveryParams | None = None) -> None:
        self._directory = directory
        self._delivery = delivery or DeliveryParams()
        self._logs: dict[str, DecisionLog] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def log(self, name: str) -> DecisionLog:
        """The log of the policy called `name`."""
        if name not in self._logs:
            self._logs[name] = DecisionLog(self._directory / f"{name}.sqlite")
        return self._logs[name]

    def serve(
        self,
        name: str,
        service: Service,
        scorer: PageScorer,
        exploration: Exploration,
        model_id: str,
        visits: Visits,
        visit: Ints,
        offers: Offers,
        browsing: BrowsingParams,
        behaviour: np.random.Generator,
    ) -> tuple[PageBatch, str]:
        """The pages as the closed log tells them, and a digest of their records.

        visit [b]: numbers of the visits of the offers. behaviour: of the listeners, shared by the policies.
        """
        log, known = self.log(name), _Gathered(offers)
        ranker = HomeRanker(
            known,
            service.items,
            scorer,
            exploration,
            service.rules,
            batch_id=service.batch_id,
            model_id=model_id,
            features=service.features,
        )
        _, rows, columns = offers.pages.card.shape
        request_id = offers.pages.request_id.tolist()
        served = _serve(
            ranker, known, service.world, visits, visit, offers.seed, request_id, browsing, log, rows, columns,
            behaviour, behaviour.spawn(1)[0], self._delivery,
        )  # fmt: skip
        log.close_windows(served.last_at + log.feedback_window + timedelta(seconds=1))
        return logged_pages(log, service, request_id, int(visits.at_s[visit[0]]), rows, columns)

    def close(self) -> None:
        """Closes all logs."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()


def logged_pages(
    log: DecisionLog, service: Service, request_id: Sequence[str], since_s: int, rows: int, columns: int
) -> tuple[PageBatch, str]:
    """Logged pages of some requests, decided at or after `since_s`, and a digest of their decisions and feedback."""
    wanted, ids = set(request_id), pa.array(service.items.item_id, pa.string())
    closed_us = log.closed_us()
    digest = hashlib.sha256()
    parts = []
    for stored in log.stored_pages(since_us=since_s * 1_000_000):
        kept = [row for row in stored if row.request_id in wanted]
        if not kept:
            continue
        outcomes, checksum = log.outcomes(kept), [row.checksum for row in kept]
        for row, feedback in zip(kept, outcomes.pages(), strict=True):
            digest.update(row.checksum + feedback.seen.tobytes() + feedback.listened_s.tobytes())
        closed = np.array([closed_us is not None and row.decided_us <= closed_us for row in kept], dtype=np.bool_)
        batch = joined_batch(read_rows(kept), outcomes, closed, checksum, DEFAULT_REWARD, service.items)
        parts.append(page_batch(batch, service.items, ids, (rows, columns), DEFAULT_REWARD))
    return PageBatch.concat(parts), digest.hexdigest()[:32]


class _Gathered:
    """Listeners and candidates of offers, in their order: store and source of a ranker that serves those visits."""

    def __init__(self, offers: Offers) -> None:
        self._next = iter(zip(offers.listener, offers.candidates, strict=True))
        self._found: Candidates | None = None

    def listener(self, user_id: str, context: Context) -> Listener:  # noqa: ARG002
        listener, self._found = next(self._next)
        return listener

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
        if self._found is None:
            raise ValueError("candidates were asked for before the listener; expected a visit at a time")
        return replace(self._found, features=None)  # the ranker works out what is known of them


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
