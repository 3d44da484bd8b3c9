"""Many decisions of one shape replayed at once: what `replay` finds right of each, at a part of its cost.

Nothing is said of a page that does not fit in every bit, nor of one with pins or of a policy that is not
epsilon-greedy or uniform: those are left to `replay`, which says what is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bart.log.care.choices import N_LEFT, PMF_SUM, PROPENSITY, facts_of_pages
from bart.log.care.replay import CLOSE, NO_MOMENTS, Moments, candidate_items, moments
from bart.page.batch import walk
from bart.page.choices import Choices
from bart.types import Bools, Decision


def replay_many(decisions: Sequence[Decision]) -> tuple[Bools, Moments]:
    """[n], which decisions were replayed without a problem; and the moments of those that were drawn, not forced."""
    good = np.zeros(len(decisions), dtype=np.bool_)
    groups: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)
    for i, decision in enumerate(decisions):
        if decision.policy in ("epsilon_greedy", "uniform") and not decision.page.pinned.any():
            groups[decision.policy, decision.rows, decision.columns].append(i)
    found = [NO_MOMENTS]
    for (policy, *_), members in groups.items():
        try:
            fine, drawn = _replay([decisions[i] for i in members], policy == "uniform")
        except (ValueError, IndexError):  # by one of them; which one, and why, is seen when each is looked at alone
            continue
        good[members] = fine
        found.append(drawn)
    return good, Moments.concat(found)


def _replay(decisions: Sequence[Decision], uniform: bool) -> tuple[Bools, Moments]:
    """Those of one policy and size."""
    b, rows, columns = len(decisions), decisions[0].rows, decisions[0].columns
    item = np.concatenate([candidate_items(d) for d in decisions])
    shelf = np.concatenate([d.shelf for d in decisions])
    offset = np.concatenate([[0], np.cumsum([len(d.shelf) for d in decisions])])
    score, value = (np.concatenate([getattr(d, name) for d in decisions]) for name in ("score", "raw_score"))
    epsilon = np.ones((b, rows)), np.ones((b, columns))
    if not uniform:
        epsilon = np.stack([d.shelf_epsilon for d in decisions]), np.stack([d.card_epsilon for d in decisions])
    recorded = _recorded(decisions, rows, columns)

    again = Choices.to_recompute(recorded.row_shelf, recorded.card, recorded.pinned)
    asked = np.array([d.page.card.shape[1] for d in decisions])
    walk(True, (offset, shelf, item), (score, value), epsilon, again, asked=asked)
    drawn = Choices.none(b, rows, columns)
    variates = np.stack([np.random.default_rng(d.seed).random((rows, 1 + columns)) for d in decisions])
    walk(False, (offset, shelf, item), (score, value), epsilon, drawn, uniform=variates)
    n_shelves = np.array([len(d.shelves) for d in decisions])
    facts = facts_of_pages((offset, shelf, item, n_shelves), (score, value), recorded, epsilon)

    good = np.ones(b, dtype=np.bool_)
    for ours, theirs in (
        (again.shelf_propensity, recorded.shelf_propensity),
        (again.card_propensity, recorded.card_propensity),
    ):
        good &= _every((ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs)))
    good &= _every(drawn.row_shelf == recorded.row_shelf) & _every(drawn.card == recorded.card)
    for fact, theirs in zip(facts, (recorded.shelf_propensity, recorded.card_propensity), strict=True):
        off = np.abs(fact[..., PMF_SUM] - 1.0) > CLOSE
        off |= ~(np.abs(fact[..., PROPENSITY] - theirs) <= CLOSE)
        good &= _every(~off | np.isnan(fact[..., N_LEFT]))
    used = good & ~np.array([d.forced for d in decisions])
    return good, moments(*(fact[used] for fact in facts), *(rate[used] for rate in epsilon))


def _recorded(decisions: Sequence[Decision], rows: int, columns: int) -> Choices:
    """The pages as recorded, filled up to the size that was asked for; ValueError for one that is larger."""
    recorded = Choices.none(len(decisions), rows, columns)
    for i, page in enumerate(decision.page for decision in decisions):
        if page.card.shape[0] > rows or page.card.shape[1] > columns:
            raise ValueError(f"the page has shape {page.card.shape}; expected at most {(rows, columns)}")
        r, c = page.card.shape
        recorded.row_shelf[i, :r], recorded.card[i, :r, :c] = page.shelf, page.card
        recorded.shelf_propensity[i, :r], recorded.card_propensity[i, :r, :c] = (
            page.shelf_propensity,
            page.card_propensity,
        )
    return recorded


def _every(each: Bools) -> Bools:
    return np.asarray(each.reshape(len(each), -1).all(axis=1))
