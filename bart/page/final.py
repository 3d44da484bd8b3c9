"""Final scores, by which cards are drawn, from a model's raw ones: the one place where boosts and diversity act.

Serving, replay and the evaluation of any other policy come here, so that another model's scores are changed exactly as
those were that a page was drawn from. What a page needs for it stands in its record: a factor and an addend for each
candidate (`Rules.boosts`) and the weight of relevance against diversity. Shelves are chosen by raw scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.page.diversity import diversify
from bart.types import Bools, Floats, Floats32, Ints, PageBatch

SAME = 1e-9  # between a score computed page by page and one computed for a whole batch


def final_score(
    raw_score: Floats,
    shelf: Ints,
    factor: Floats | None,
    add: Floats | None,
    relevance: float | None,
    vectors: Floats32 | None,
) -> Floats:
    """raw_score x factor + add, then Maximal Marginal Relevance, [n]; the very array where neither is asked for.

    factor, add: [n], None for no boost. relevance: in (0, 1], None for no diversity; vectors: [n, d], needed with it.
    Raises ValueError where a boosted score is beyond the largest number.
    """
    score = raw_score
    if factor is not None and add is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # told below, by place
            score = raw_score * factor + add
        if not np.isfinite(score).all():
            i = int(np.argmin(np.isfinite(score)))
            raise ValueError(f"score[{i}] of {raw_score[i]} is {score[i]} after boosts; expected a finite number")
    if relevance is None:
        return score
    if vectors is None:
        raise ValueError("vectors is None; expected those of the candidates, diversity needs them")
    return diversify(score, shelf, vectors, relevance)


@dataclass(frozen=True, slots=True, eq=False)
class FinalScores:
    """How a policy would have drawn logged pages. card: [N] what it draws cards by; shelf: [N] whose best in a shelf
    ranks the shelves. logging: [b] pages where these are the scores that the page was drawn from. untold: [b] pages
    that were drawn from other scores than the model's and whose record does not say how they came about."""

    card: Floats
    shelf: Floats
    logging: Bools
    untold: Bools


def batch_final_scores(batch: PageBatch, raw_score: Floats) -> FinalScores:
    """The final scores of a policy with these raw ones, [N], on the pages of a log, each under its own recorded rules.

    On pages where they are the recorded ones (raw or final, but for rounding) the recorded ones stand: whatever made
    them, the policy that served is then itself to the last bit.
    """
    own = _agrees(batch, raw_score, batch.score)
    if batch.score is not batch.raw_score and not own.all():
        own |= _agrees(batch, raw_score, batch.raw_score)
    if own.all():
        return FinalScores(batch.score, batch.raw_score, own, np.zeros(len(batch), dtype=np.bool_))
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    card = raw_score
    if batch.boost_factor is not None and batch.boost_add is not None:
        card = raw_score * batch.boost_factor + batch.boost_add
    told = np.zeros(len(batch), dtype=np.bool_)
    if batch.boost_factor is not None and batch.boost_add is not None:
        told |= _any(batch, (batch.boost_factor != 1) | (batch.boost_add != 0))
    if batch.relevance is not None:
        diverse = ~np.isnan(batch.relevance)
        told = np.where(diverse, batch.vector is not None, told)
        if batch.vector is not None:
            card = _diverse(batch, card, diverse & ~own, page)
    untold = ~own & ~told & _any(batch, batch.score != batch.raw_score)
    mine = own[page]
    return FinalScores(
        card=np.where(mine, batch.score, card),
        shelf=np.where(mine, batch.raw_score, raw_score),
        logging=own,
        untold=untold,
    )


def _diverse(batch: PageBatch, score: Floats, pages: Bools, page: Ints) -> Floats:
    """Scores after diversity on the given pages, others as they are."""
    out = np.array(score)
    if batch.relevance is None or batch.vector is None:
        return out
    width = int(batch.shelf.max(initial=0)) + 1
    blank = np.zeros((1, batch.vector.shape[1]), dtype=np.float32)
    for relevance in np.unique(batch.relevance[pages]):
        chosen = np.flatnonzero((pages & (batch.relevance == relevance))[page])
        item, shelf = batch.item[chosen], batch.shelf[chosen]
        vectors = np.where((item >= 0)[:, None], batch.vector[np.maximum(item, 0)], blank)
        key = np.where(shelf >= 0, page[chosen] * width + shelf, -1)
        out[chosen] = diversify(score[chosen], key, vectors, float(relevance))
    return out


def _agrees(batch: PageBatch, one: Floats, other: Floats) -> Bools:
    """[b], pages on which two scores are the same but for rounding."""
    if one is other:
        return np.ones(len(batch), dtype=np.bool_)
    off = np.abs(one - other) > SAME * np.maximum(1.0, np.abs(other))
    return ~_any(batch, off)


def _any(batch: PageBatch, flag: Bools) -> Bools:
    """[b], pages with a candidate for which it holds."""
    total = np.concatenate([[0], np.cumsum(flag)])
    out: Bools = total[batch.offset[1:]] > total[batch.offset[:-1]]
    return out
