"""One logged decision, told in full: what could have stood where, its score and probability, and what came of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bart.home import epsilon_greedy_page
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.earned import page_reward
from bart.log.record.feedback import PageFeedback
from bart.log.record.record import from_us
from bart.types import Candidates, Context, Decision, Floats, Ints, ItemTable, Page, PageScorer

_ALIKE = ("batch_id", "model_id", "policy", "rules_version", "arm", "forced")  # told as they stand


def decision_document(
    decision: Decision, log: DecisionLog, items: ItemTable, scorer: PageScorer | None, reward: str
) -> dict[str, Any]:
    """The decision as plain values. scorer: the one that decided, None where another batch or model serves now.

    `rank` counts from 0, the best; `greedy` is the page without exploration; `contributions` are logits by feature
    group, where the scorer can tell them.
    """
    rows = items.rows(decision.item_id)
    # An item that this batch does not hold keeps its place in the decision; nothing is looked up for it.
    candidates = Candidates(_places(decision), decision.shelf, decision.shelves)
    feedback = log.joined(decision.request_id)
    page = _page(decision, decision.page, rows, items)
    _add_outcome(page, decision, feedback, items, reward)
    _add_contributions(page, decision, rows, scorer)
    greedy = _greedy(decision, candidates)
    context = decision.context
    return {
        "request_id": decision.request_id,
        "user_id": decision.user_id,
        "decided_at": decision.decided_at,
        "context": {
            name: getattr(context, name)
            for name in ("local_time", "utc_offset_min", "device", "surface", "country", "explicit_allowed")
        },
        "traits": asdict(decision.traits),
        **{name: getattr(decision, name) for name in _ALIKE},
        "seed": str(decision.seed),  # beyond what JavaScript's numbers hold
        "shelf_epsilon": decision.shelf_epsilon.tolist(),
        "card_epsilon": decision.card_epsilon.tolist(),
        "page_propensity": decision.page.propensity,
        "page": page,
        "greedy": None if greedy is None else _page(decision, greedy, rows, items),
        "candidates": _candidates(decision, rows, items),
        "feedback": _feedback(feedback),
    }


def _places(decision: Decision) -> Ints:
    first: dict[str, int] = {}
    return np.array([first.setdefault(item, i) for i, item in enumerate(decision.item_id.tolist())], dtype=np.int64)


def _greedy(decision: Decision, candidates: Candidates) -> Page | None:
    """The page without exploration (ties drawn with the seed); None for a policy that is not epsilon-greedy."""
    if decision.policy != "epsilon_greedy":
        return None
    pins = [(int(r), int(c), int(decision.page.card[r, c])) for r, c in np.argwhere(decision.page.pinned)]
    policy = epsilon_greedy_page(np.zeros(decision.rows), np.zeros(decision.columns))
    rng = np.random.default_rng(decision.seed)
    return policy.decide(
        candidates, decision.score, decision.rows, decision.columns, rng, raw_score=decision.raw_score, pins=pins
    )


def _page(decision: Decision, page: Page, rows: Ints, items: ItemTable) -> list[dict[str, Any]]:
    rank = _rank_in_shelf(decision.score, decision.shelf)
    out = []
    for r, number in enumerate(page.shelf.tolist()):
        cards = [
            {
                "column": c,
                **_item(decision, candidate, rows, items),
                "raw_score": float(decision.raw_score[candidate]),
                "score": float(decision.score[candidate]),
                "rank": int(rank[candidate]),
                "propensity": float(page.card_propensity[r, c]),
                "pinned": bool(page.pinned[r, c]),
            }
            for c, candidate in enumerate(page.card[r].tolist())
            if candidate >= 0
        ]
        shelf = decision.shelves[number]
        propensity = float(page.shelf_propensity[r])
        out.append({"row": r, "rule": shelf.rule, "title": shelf.title, "propensity": propensity, "cards": cards})
    return out


def _candidates(decision: Decision, rows: Ints, items: ItemTable) -> list[dict[str, Any]]:
    """All that could have stood on the page, by shelf, the best first; pins (held out of the draw) last."""
    out = []
    for number in [*range(len(decision.shelves)), -1]:
        member = np.flatnonzero(decision.shelf == number)
        if number == -1 and len(member) == 0:
            continue
        member = member[np.argsort(-decision.score[member], kind="stable")]
        cards = [
            {
                **_item(decision, i, rows, items),
                "raw_score": float(decision.raw_score[i]),
                "score": float(decision.score[i]),
            }
            for i in member.tolist()
        ]
        shelf = decision.shelves[number] if number >= 0 else None
        words = {"rule": shelf.rule, "title": shelf.title} if shelf else {"rule": "", "title": "pinned"}
        out.append({**words, "cards": cards})
    return out


def _item(decision: Decision, candidate: int, rows: Ints, items: ItemTable) -> dict[str, Any]:
    row = int(rows[candidate])
    item_id = decision.item_id[candidate]
    return {"item_id": item_id, "title": items.title[row] if row >= 0 else item_id}


def _rank_in_shelf(score: Floats, shelf: Ints) -> Ints:
    """[n], how many candidates of the same shelf score higher."""
    out = np.zeros(len(score), dtype=np.int64)
    for number in np.unique(shelf).tolist():
        member = np.flatnonzero(shelf == number)
        out[member] = np.searchsorted(np.sort(-score[member]), -score[member], side="left")
    return out


def _add_outcome(
    page: list[dict[str, Any]],
    decision: Decision,
    feedback: PageFeedback | None,
    items: ItemTable,
    reward: str,
) -> None:
    if feedback is None:
        return
    value = page_reward(decision, feedback, items, reward)
    for shelf in page:
        for one in shelf["cards"]:
            at = (shelf["row"], one["column"])
            skipped = int(feedback.skipped[at])
            one["feedback"] = {
                "seen": bool(feedback.seen[at]),
                "listened_s": float(feedback.listened_s[at]),
                "skipped": None if skipped < 0 else bool(skipped),
                "saved": bool(feedback.saved[at]),
                "reward": float(value[at]),
            }


def _add_contributions(page: list[dict[str, Any]], decision: Decision, rows: Ints, scorer: PageScorer | None) -> None:
    contributions = getattr(scorer, "contributions", None)
    if contributions is None:
        return
    context: Context = decision.context
    known = Candidates(np.maximum(rows, 0), decision.shelf, decision.shelves, decision.features)
    for shelf in page:
        for one in shelf["cards"]:
            candidate = int(decision.page.card[shelf["row"], one["column"]])
            if rows[candidate] >= 0:
                one["contributions"] = contributions(
                    context, decision.listener, known, candidate, user_id=decision.user_id
                )


def _feedback(feedback: PageFeedback | None) -> dict[str, Any] | None:
    if feedback is None:
        return None
    joined_at = None if feedback.joined_us is None else from_us(feedback.joined_us)
    counts = {"displayed": feedback.displayed, "events": feedback.events, "late": feedback.late}
    return {**counts, "joined_at": joined_at}
