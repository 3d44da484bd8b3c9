"""Why one card stands where it stands, and what else could have stood there, from the record of its decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from api.wire.covers import NO_COVERS, Covers
from bart.log.care.replay import candidate_items
from bart.page.policy import SWAPS
from bart.ranking.swaps import Swaps
from bart.types import Bools, Decision, Floats, ItemTable

ALTERNATIVES = 8  # told by name; the others are summed
NEIGHBOURS = 5


def why_document(
    decision: Decision,
    document: dict[str, Any],
    row: int,
    column: int,
    items: ItemTable,
    covers: Covers = NO_COVERS,
) -> dict[str, Any] | None:
    """One card in full; None where no card stands in that place.

    document: of the decision, from `decision_document`. `alternatives` are the cards that were left for this place, the
    likeliest first, with the probability that each had; with `others_propensity` they sum to 1. They are missing for
    pins, and for policies whose pmf a record does not tell. `explored` says that the model alone would have chosen
    another.
    """
    page = decision.page
    rows, columns = page.card.shape
    if not (0 <= row < rows and 0 <= column < columns) or page.card[row, column] < 0:
        return None
    shelf = document["page"][row]
    card = next(one for one in shelf["cards"] if one["column"] == column)
    candidate = int(page.card[row, column])
    number = int(page.shelf[row])
    told = decision.shelves[number]
    found: dict[str, Any] = {
        "request_id": decision.request_id,
        "row": row,
        **card,
        "shelf": {
            "title": told.title,
            "explanation": told.explanation,
            "rule": told.rule,
            "propensity": shelf["propensity"],
        },
        "rank_on_page": int(np.count_nonzero(decision.score > decision.score[candidate])),
        "candidates_on_shelf": int(np.count_nonzero(decision.shelf == number)),
        "candidates_on_page": len(decision.item_id),
        "epsilon": float(decision.card_epsilon[column]),
        "policy": decision.policy,
        "model_id": decision.model_id,
        "arm": decision.arm,
        "forced": decision.forced,
        "neighbours": neighbours(items, decision.item_id[candidate], covers=covers),
        **held(items, decision.item_id[candidate]),
    }
    if decision.policy in ("epsilon_greedy", SWAPS) and not page.pinned[row, column]:
        left = left_for(decision, row, column)
        best = left & (decision.score == decision.score[left].max())
        if decision.policy == SWAPS:
            pmf = swaps_pmf(decision, left, row, column)
            best &= np.arange(len(best)) == np.argmax(best)  # of equal ones the first
        else:
            pmf = place_pmf(decision, left, column)
        found["left"] = int(left.sum())
        found["explored"] = not bool(best[candidate])
        order = np.lexsort((-decision.score, -pmf))
        order = order[left[order]]
        known = items.rows(decision.item_id)
        found["alternatives"] = [
            {
                "item_id": decision.item_id[i],
                "title": items.title[known[i]] if known[i] >= 0 else decision.item_id[i],
                "raw_score": float(decision.raw_score[i]),
                "propensity": float(pmf[i]),
                "stands_here": i == candidate,
            }
            for i in order[:ALTERNATIVES].tolist()
        ]
        found["others"] = max(0, len(order) - ALTERNATIVES)
        found["others_propensity"] = float(pmf[order[ALTERNATIVES:]].sum())
    return found


def left_for(decision: Decision, row: int, column: int) -> Bools:
    """[n] which candidates could still be drawn when this place was filled: of its shelf, and on no place before it."""
    item = candidate_items(decision)
    page = decision.page
    before = np.concatenate([page.card[:row].reshape(-1), page.card[row, :column], page.card[page.pinned]])
    taken = np.isin(item, item[before[before >= 0]])
    left: Bools = (decision.shelf == page.shelf[row]) & ~taken
    return left


def place_pmf(decision: Decision, left: Bools, column: int) -> Floats:
    """[n] probability of each candidate for a place of this column, given what is left: epsilon spread evenly, the rest
    on the best, ties sharing it."""
    epsilon = float(decision.card_epsilon[column])
    best = left & (decision.score == decision.score[left].max())
    out: Floats = left * (epsilon / left.sum()) + best * ((1.0 - epsilon) / best.sum())
    return out


def held(items: ItemTable, item_id: str, n: int = NEIGHBOURS) -> dict[str, Any]:
    """`holds`: how many items a container holds, and the titles of the first; `stands_in`: titles of the containers of
    an item. Missing where there are none."""
    row = items.row_of.get(item_id, -1)
    member, holder = items.members[row], items.held_by[row]
    out: dict[str, Any] = {}
    if len(member):
        out["holds"] = {"members": len(member), "titles": items.title[member[:n]].tolist()}
    if len(holder):
        out["stands_in"] = items.title[holder[:n]].tolist()
    return out


def swaps_pmf(decision: Decision, left: Bools, row: int, column: int) -> Floats:
    """[n] the same for search results, where the best left is exchanged with the next now and then."""
    own = np.flatnonzero(decision.shelf == decision.page.shelf[row])
    out: Floats = np.zeros(len(left))
    out[own] = Swaps(tuple(decision.card_epsilon.tolist())).pmf(decision.score[own], left[own], column)
    return out


def neighbours(items: ItemTable, item_id: str, n: int = NEIGHBOURS, covers: Covers = NO_COVERS) -> list[dict[str, Any]]:
    """The items whose vectors are closest by cosine, itself left out; none for an item without a vector."""
    row = items.row_of.get(item_id, -1)
    if row < 0 or not items.vector[row].any():
        return []
    cosine = items.vector @ items.vector[row]
    cosine[row] = -np.inf
    nearest = np.argsort(-cosine, kind="stable")[:n] if len(cosine) <= n else _largest(cosine, n)
    return [
        {
            "item_id": items.item_id[i],
            "title": items.title[i],
            "artists": list(items.artists[i]),
            "cosine": float(cosine[i]),
            **covers.fact(items, i),
        }
        for i in nearest.tolist()
        if np.isfinite(cosine[i])
    ]


def _largest(value: Any, n: int) -> Any:
    some = np.argpartition(-value, n)[:n]
    return some[np.argsort(-value[some], kind="stable")]
