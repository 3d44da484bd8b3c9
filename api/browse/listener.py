"""What is known of one listener: history, taste, vectors, wishes, and the latest pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from api.browse.item import in_short
from api.run.clock import text_of, utc_now
from api.upkeep.preferences import preferences_document
from bart.log.outcomes.earned import page_reward
from bart.log.store.store import SELECT, StoredDecision
from bart.types import Context, Decision, Floats, Floats32, Ints, ItemTable, Labels
from bart.types.wishes import NO_WISHES
from recommender.features.history import HALF_LIVES_D, History, faded
from recommender.shelves.candidates import ShelfCandidates

if TYPE_CHECKING:
    from api.service.service import HomeService
    from bart.log.record.feedback import PageFeedback

HALF_LIFE = HALF_LIVES_D.index(30.0)  # after which a play counts half for the taste
LABELS = 12  # genres and artists that are told
PAGES = 20  # of the log, the latest
NEAR, NEAR_INTEREST = 12, 4  # items told that are closest to a vector
HISTORY = 50  # items of a history that are told at once


def listener_profile(service: HomeService, user_id: str, after: int = 0) -> dict[str, Any] | None:
    """Everything of one listener; None for who has no state, no page and no wishes.

    after: how many items of the history, the latest first, have been told before. Hours are those in which each item
    was played last, by the clock of the listener's latest page (UTC without one): no earlier time is kept.
    """
    row, items = service.run.store.get(user_id), service.run.items
    pages = _pages(service, user_id)
    if row is None and not pages and service.run.store.wishes(user_id) == NO_WISHES:
        return None
    taken_down = service.control.read().taken_down
    offset_min = pages[0][0].context.utc_offset_min if pages else 0
    history = None if row is None else row.history
    listener = service.listening.listener(user_id, Context(utc_now(), offset_min))
    told = _history(items, history, () if row is None else row.recent)
    shown = told[after : after + HISTORY]
    rows = np.array([one["row"] for one in shown], dtype=np.int64)
    facts = in_short(items, rows, taken_down, service.writer.covers)
    return {
        "user_id": user_id,
        "batch_id": service.run.bundle.batch_id,
        "known": listener.known,
        "made_at": None if row is None or row.made_at_s is None else text_of(row.made_at_s),
        "diversity": None if row is None else row.diversity,
        "exploration_success": None if row is None else row.exploration_success,
        "history": [
            {**fact, **{name: one[name] for name in ("plays", "skips", "last_at")}}
            for fact, one in zip(facts, shown, strict=True)
        ],
        "history_count": len(told),
        "taste": taste(items, history, offset_min),
        "vector": listener.vector.astype(float).round(4).tolist(),
        "near": _near(service, listener.vector, NEAR),
        "interests": [] if history is None else [
            {"share": float(weight), "near": _near(service, centre, NEAR_INTEREST)}
            for centre, weight in zip(history.interest, history.weight, strict=True)
        ],
        "preferences": preferences_document(service, user_id),
        "pages": [_page(service, *page) for page in pages],
    }  # fmt: skip


def taste(items: ItemTable, history: History | None, offset_min: int = 0) -> dict[str, Any]:
    """Genres and artists by plays that fade, the hours, and how far the taste spreads.

    genres, artists: shares of the whole. hours: [24] items by the local hour of their last play. spread: 1 - |mean unit
    vector| by plays, in [0, 1]; None without a vector.
    """
    if history is None:
        history = History.empty(items.dimension, 0)
    heard = np.flatnonzero((history.plays > 0) & (history.item < len(items)))
    heard = heard[~items.is_container[history.item[heard]]]  # a play of a member is counted with the member
    item, plays, last_s = history.item[heard], history.plays[heard].astype(np.float64), history.last_s[heard]
    weight = (history.decayed[heard] * faded(last_s.max(initial=0) - last_s))[:, HALF_LIFE].astype(np.float64)
    unit = items.vector[item].astype(np.float64)
    able = unit.any(axis=1)
    mean = np.linalg.norm(plays[able] @ unit[able]) / plays[able].sum() if able.any() else None
    return {
        "plays": int(plays.sum()),
        "items": len(item),
        "latest_at": None if not len(last_s) else text_of(int(last_s.max())),
        "half_life_d": HALF_LIVES_D[HALF_LIFE],
        "genres": _labels(items.genres, item, weight),
        "artists": _labels(items.artists, item, weight),
        "hours": np.bincount((last_s + 60 * offset_min) // 3600 % 24, minlength=24).tolist(),
        "spread": None if mean is None else max(0.0, 1 - float(mean)),
    }


def _labels(labels: Labels, item: Ints, weight: Floats) -> list[dict[str, Any]]:
    """The strongest labels of items with weights [k], with their shares."""
    total: dict[int, float] = {}
    for i, one in zip(item.tolist(), weight.tolist(), strict=True):
        for code in labels.code[labels.offset[i] : labels.offset[i + 1]].tolist():
            total[code] = total.get(code, 0.0) + one
    whole = sum(total.values())
    best = sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))[:LABELS]
    return [{"name": labels.vocabulary[code], "share": one / whole} for code, one in best if one > 0]


def _history(items: ItemTable, history: History | None, recent: Any) -> list[dict[str, Any]]:
    """Items of the batch, the last played first; where no history is kept, those that were played lately."""
    if history is None:
        rows = [row for row in np.asarray(recent, dtype=np.int64).tolist() if row < len(items)]
        return [{"row": row, "plays": None, "skips": None, "last_at": None} for row in rows]
    order = np.lexsort((history.item, -history.last_s))
    order = order[history.item[order] < len(items)]
    told = zip(*(getattr(history, name)[order].tolist() for name in ("item", "plays", "skips", "last_s")), strict=True)
    return [{"row": row, "plays": plays, "skips": skips, "last_at": text_of(last_s) if plays else None}
            for row, plays, skips, last_s in told]  # fmt: skip


def _near(service: HomeService, vector: Floats32, n: int) -> list[dict[str, Any]]:
    """The items closest to a vector by cosine."""
    source, items = service.run.ranker.source, service.run.items
    if not vector.any() or not isinstance(source, ShelfCandidates):
        return []
    row, cosine = source.index.search(vector.astype(np.float32), n)
    length = float(np.linalg.norm(vector))
    told = in_short(items, row, (), service.writer.covers)
    return [{**fact, "cosine": float(near) / length} for fact, near in zip(told, cosine, strict=True)]


def _pages(service: HomeService, user_id: str) -> list[tuple[Decision, PageFeedback]]:
    """The latest pages, the newest first."""
    with service.log.reading() as connection:
        query = f"{SELECT} WHERE user_id = ? ORDER BY seq DESC LIMIT ?"
        rows = [StoredDecision(*row) for row in connection.execute(query, (user_id, PAGES))]
    return [(row.decode(), outcome) for row, outcome in zip(rows, service.log.join(rows), strict=True)]


def _page(service: HomeService, decision: Decision, outcome: PageFeedback) -> dict[str, Any]:
    page = decision.page
    value = page_reward(decision, outcome, service.run.items, service.settings.reward.name)
    return {
        "request_id": decision.request_id,
        "decided_at": decision.decided_at.isoformat(timespec="seconds"),
        "device": decision.context.device,
        "surface": decision.context.surface,
        "arm": decision.arm,
        "forced": decision.forced,
        "model_id": decision.model_id,
        "shelves": [decision.shelves[number].title for number in page.shelf.tolist()],
        "cards": int(page.shown.sum()),
        "seen": int(outcome.seen.sum()),
        "reward": float(value.sum()),
    }
