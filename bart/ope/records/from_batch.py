"""The record of logged pages from a batch of the log and the scores of an evaluation policy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bart.ope.records.irregular import OddPages, irregular_pages
from bart.ope.records.pages import LoggedPages, Ranks
from bart.ope.records.pins import drawn_slots, earned_by_pins, without_pins
from bart.page.final import SAME, FinalScores, batch_final_scores
from bart.ranking.batch import min_rank
from bart.types import Floats, Ints, PageBatch


def logged_pages(
    batch: PageBatch,
    target_score: Floats,
    target_shelf_epsilon: float | Floats,
    target_card_epsilon: float | Floats,
    q_logged: Floats | None = None,
    q_target: Floats | None = None,
    *,
    reward: Floats | None = None,
    users: Mapping[str, int] | None = None,
    odd: OddPages | None = None,
) -> LoggedPages:
    """The record of a batch for one evaluation policy, which keeps the rules that each page was served under.

    target_score: [N] the policy's own scores, as its model gives them. Boosts and diversity act on them as the record
    of each page says (see `bart.page.final`), for the logging policy and for any other; where they are the recorded
    scores, raw or final, the policy is the one that served. target_*_epsilon: a number, one a position, or one a page
    and position. q_logged, q_target: [N] predictions in [0, 1], at the first slot. reward: [b, rows, columns] instead
    of the batch's own. users: code of each listener (needed only where several batches are put together). odd: of
    the usable pages, found anew where None.
    Pages that were forced, not displayed or still open are left out and counted. Pinned cards count with weight 1.
    Raises ValueError for scores of another length or not finite.
    """
    n = len(batch.item)
    for name, values in (("target_score", target_score), ("q_logged", q_logged), ("q_target", q_target)):
        if values is None:
            continue
        if np.shape(values) != (n,):
            raise ValueError(f"{name} has shape {np.shape(values)}; expected ({n},), one a candidate")
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(f"{name}[{int(np.flatnonzero(bad)[0])}] is not finite")
    rewards = batch.reward if reward is None else reward
    if rewards.shape != batch.card.shape:
        raise ValueError(f"reward has shape {rewards.shape}; expected {batch.card.shape}")
    shelf_epsilon = _like(target_shelf_epsilon, batch.shelf_epsilon, "target_shelf_epsilon")
    card_epsilon = _like(target_card_epsilon, batch.card_epsilon, "target_card_epsilon")

    pages, left_out = usable_pages(batch)
    final = batch_final_scores(batch, target_score)
    irregular = irregular_pages(batch, pages, final, shelf_epsilon, card_epsilon, odd or OddPages.of(batch, pages))
    slots = drawn_slots(batch)
    pinned_reward = None
    if slots is not None:
        pinned_reward = earned_by_pins(batch, rewards)[pages]
        batch, rewards = without_pins(batch, slots), slots.of(rewards, 0.0)
    flat, number, offset, start, shelf_offset, shelf = _by_shelf(batch, pages)
    rank_logged, tie_logged = _ranks(batch.score[flat], start)
    rank_target, tie_target = _ranks(final.card[flat], start)
    value_logged = np.maximum.reduceat(batch.raw_score[flat], start[:-1])
    value_target = np.maximum.reduceat(final.shelf[flat], start[:-1])
    shelf_rank_logged, shelf_tie_logged = _ranks(value_logged, shelf_offset)
    shelf_rank_target, shelf_tie_target = _ranks(value_target, shelf_offset)
    user_id = batch.user_id[pages]
    if users is None:
        user = np.unique(user_id.astype(str), return_inverse=True)[1].astype(np.int64)
    else:
        user = np.fromiter((users[u] for u in user_id), dtype=np.int64, count=len(user_id))
    row_shelf, order = _renumber(batch, pages, flat, number, shelf, offset)
    return LoggedPages(
        offset=offset,
        shelf=shelf,
        rank_logged=rank_logged,
        tie_logged=tie_logged,
        rank_target=rank_target,
        tie_target=tie_target,
        q_logged=None if q_logged is None else np.asarray(q_logged, dtype=np.float64)[flat],
        q_target=None if q_target is None else _as_logged(batch, np.asarray(q_target, dtype=np.float64), final)[flat],
        shelf_offset=shelf_offset,
        shelf_rank_logged=shelf_rank_logged,
        shelf_tie_logged=shelf_tie_logged,
        shelf_rank_target=shelf_rank_target,
        shelf_tie_target=shelf_tie_target,
        shelf_epsilon_logged=batch.shelf_epsilon[pages],
        card_epsilon_logged=batch.card_epsilon[pages],
        shelf_epsilon_target=shelf_epsilon[pages],
        card_epsilon_target=card_epsilon[pages],
        user=user,
        row_shelf=row_shelf,
        order=order,
        shelf_propensity=batch.shelf_propensity[pages],
        card_propensity=batch.card_propensity[pages],
        seen=batch.seen[pages],
        reward=np.where(batch.seen[pages], rewards[pages], 0.0),
        left_out=left_out,
        held=None if slots is None else slots.held[pages],
        column=None if slots is None else slots.column[pages],
        pinned_reward=pinned_reward,
        shelf_target=irregular.shelf,
        card_target=irregular.card,
        cautions=(
            *_untold(final, pages),
            *irregular.cautions,
            *_without_chance(batch, pages, final, shelf_epsilon, card_epsilon),
        ),
    )


# ------------------------------------------------------------------------------------------------- making of the record


def _ranks(score: Floats, start: Ints) -> tuple[Ranks, Ranks]:
    rank, tie = min_rank(score, start)
    return rank.astype(np.int32), tie.astype(np.int32)


def _like(epsilon: float | Floats, logged: Floats, name: str) -> Floats:
    """Rates for every page and position; NaN where the logged page asked for no such position."""
    try:
        wide = np.broadcast_to(np.asarray(epsilon, dtype=np.float64), logged.shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {np.shape(epsilon)}; expected a number, [{logged.shape[1]}] or {logged.shape}"
        ) from None
    out: Floats = np.where(np.isnan(logged), np.nan, wide)
    return out


def usable_pages(batch: PageBatch) -> tuple[Ints, dict[str, int]]:
    """Which pages of a batch a record holds, ascending, and how many are left out, by their first reason."""
    left = np.ones(len(batch), dtype=bool)
    left_out = {}
    empty = (batch.row_shelf < 0).all(axis=1)
    for reason, mask in (
        ("forced", batch.forced),
        ("not displayed", ~batch.displayed),
        ("open", ~batch.closed),
        ("empty", empty),
    ):
        left_out[reason] = int((left & mask).sum())
        left &= ~mask
    return np.flatnonzero(left), left_out


def candidates_of(batch: PageBatch) -> Ints:
    """[N] rows of the batch's candidate arrays in the order of the record that `logged_pages` makes."""
    return _by_shelf(batch, usable_pages(batch)[0])[0]


def _by_shelf(batch: PageBatch, pages: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints, Ranks]:
    """Candidates of the pages ordered by page and shelf.

    Returns flat [N] (rows of the batch's arrays), number [N] (candidate number within the page), offset [b + 1],
    start [S + 1], shelf_offset [b + 1], shelf [N] renumbered without gaps. Candidates held out of the draw are dropped.
    """
    size = np.diff(batch.offset)[pages]
    page = np.repeat(np.arange(len(pages)), size)
    number = np.arange(len(page)) - np.repeat(np.cumsum(size) - size, size)
    flat = np.repeat(batch.offset[:-1][pages], size) + number
    shelf = batch.shelf[flat]
    if len(shelf) and shelf.min() < 0:
        keep = shelf >= 0
        page, number, flat, shelf = page[keep], number[keep], flat[keep], shelf[keep]
    key = page * (int(shelf.max(initial=0)) + 1) + shelf
    if np.any(key[1:] < key[:-1]):
        by = np.argsort(key, kind="stable")
        page, number, flat, key = page[by], number[by], flat[by], key[by]
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    start = np.concatenate([np.flatnonzero(first), [len(key)]]).astype(np.int64)
    shelf_page = page[start[:-1]]
    shelf_offset = np.searchsorted(shelf_page, np.arange(len(pages) + 1)).astype(np.int64)
    within = np.arange(len(shelf_page)) - shelf_offset[shelf_page]
    offset = np.searchsorted(page, np.arange(len(pages) + 1)).astype(np.int64)
    return flat, number, offset, start, shelf_offset, np.repeat(within, np.diff(start)).astype(np.int32)


def _as_logged(batch: PageBatch, predicted: Floats, final: FinalScores) -> Floats:
    """Predictions of the policy that served as they were recorded: but for rounding they are the same."""
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    same = final.logging[page] & (
        np.abs(predicted - batch.raw_score) <= SAME * np.maximum(1.0, np.abs(batch.raw_score))
    )
    return np.where(same, batch.raw_score, predicted)


def _untold(final: FinalScores, pages: Ints) -> tuple[str, ...]:
    """A sentence on pages whose scores were moved in a way that nobody knows."""
    count = int(final.untold[pages].sum())
    if not count:
        return ()
    return (
        f"{count:,} pages were drawn from boosted or diversified scores and do not say how: another model's scores are"
        " taken as they are there",
    )


def _without_chance(
    batch: PageBatch, pages: Ints, final: FinalScores, shelf_epsilon: Floats, card_epsilon: Floats
) -> tuple[str, ...]:
    """A sentence on pages in which nothing was left to chance, for a policy that would have drawn them otherwise."""
    fixed = ~((batch.shelf_epsilon > 0).any(axis=1) | (batch.card_epsilon > 0).any(axis=1))
    alike = final.logging & ~((shelf_epsilon > 0).any(axis=1) | (card_epsilon > 0).any(axis=1))
    count = int((fixed & ~alike)[pages].sum())
    if not count:
        return ()
    return (
        f"{count:,} of {len(pages):,} pages were drawn without any exploration: what reordering the cards on a page"
        " would earn, click_ips tells where slots do not move appeal; of other cards only a model (dm) tells, and no"
        " verdict on that is conclusive without a randomised part",
    )


def _renumber(batch: PageBatch, pages: Ints, flat: Ints, number: Ints, shelf: Ranks, offset: Ints) -> tuple[Ints, Ints]:
    """Choices in the numbering of the record: row_shelf [b, rows], order [b, rows, columns]."""
    card, row_shelf = batch.card[pages], batch.row_shelf[pages]
    width = int(max(card.max(initial=0), number.max(initial=0))) + 1
    position = np.full((len(pages), width), -1, dtype=np.int64)
    page = np.repeat(np.arange(len(pages)), np.diff(offset))
    position[page, number] = np.arange(len(number)) - offset[page]
    order = np.where(card >= 0, position[np.arange(len(pages))[:, None, None], np.maximum(card, 0)], -1)
    named = int(max(row_shelf.max(initial=0), batch.shelf[flat].max(initial=0))) + 1
    new = np.full((len(pages), named), -1, dtype=np.int64)
    new[page, batch.shelf[flat]] = shelf
    numbered: Ints = np.where(row_shelf >= 0, new[np.arange(len(pages))[:, None], np.maximum(row_shelf, 0)], -1)
    return numbered, order
