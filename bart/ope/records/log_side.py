"""What a batch of a log says whatever policy is judged on it: made once, shared by the records of all policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bart.ope.records.irregular import OddPages
from bart.ope.records.pages import Ranks
from bart.ope.records.pins import drawn_slots, earned_by_pins, without_pins
from bart.ranking.batch import min_rank
from bart.types import Bools, Floats, Ints, PageBatch


@dataclass(frozen=True, slots=True, eq=False)
class LogSide:
    """Usable pages of a batch as a record has them: fields named as in `LoggedPages`.

    pages: [b] of the batch. flat: [N] rows of the batch's candidate arrays. start: [S + 1] of shelves. odd: of the
    pages. common: what estimators find out about the log.
    """

    pages: Ints
    left_out: Mapping[str, int]
    odd: OddPages
    flat: Ints
    start: Ints
    offset: Ints
    shelf: Ranks
    shelf_offset: Ints
    rank: Ranks
    tie: Ranks
    shelf_rank: Ranks
    shelf_tie: Ranks
    q: Floats | None
    user: Ints
    row_shelf: Ints
    order: Ints
    card_propensity: Floats
    seen: Bools
    reward: Floats
    held: Ints | None
    column: Ints | None
    pinned_reward: Floats | None
    common: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        batch: PageBatch,
        q_logged: Floats | None = None,
        *,
        reward: Floats | None = None,
        users: Mapping[str, int] | None = None,
        odd: OddPages | None = None,
    ) -> LogSide:
        """q_logged: [N]; reward, users: as of `logged_pages`. odd: of the usable pages, found anew where None."""
        check_candidates("q_logged", q_logged, len(batch.item))
        rewards = batch.reward if reward is None else reward
        if rewards.shape != batch.card.shape:
            raise ValueError(f"reward has shape {rewards.shape}; expected {batch.card.shape}")
        pages, left_out = usable_pages(batch)
        odd = OddPages.of(batch, pages) if odd is None else odd
        slots, pinned_reward = drawn_slots(batch), None
        if slots is not None:
            pinned_reward = earned_by_pins(batch, rewards)[pages]
            batch, rewards = without_pins(batch, slots), slots.of(rewards, 0.0)
        flat, number, offset, start, shelf_offset, shelf = by_shelf(batch, pages)
        rank, tie = ranks(batch.score[flat], start)
        shelf_rank, shelf_tie = ranks(np.maximum.reduceat(batch.raw_score[flat], start[:-1]), shelf_offset)
        user_id = batch.user_id[pages]
        if users is None:
            user = np.unique(user_id.astype(str), return_inverse=True)[1].astype(np.int64)
        else:
            user = np.fromiter((users[u] for u in user_id), dtype=np.int64, count=len(user_id))
        row_shelf, order = _renumber(batch, pages, flat, number, shelf, offset)
        seen = batch.seen[pages]
        return LogSide(
            pages=pages,
            left_out=left_out,
            odd=odd,
            flat=flat,
            start=start,
            offset=offset,
            shelf=shelf,
            shelf_offset=shelf_offset,
            rank=rank,
            tie=tie,
            shelf_rank=shelf_rank,
            shelf_tie=shelf_tie,
            q=None if q_logged is None else np.asarray(q_logged, dtype=np.float64)[flat],
            user=user,
            row_shelf=row_shelf,
            order=order,
            card_propensity=batch.card_propensity[pages],
            seen=seen,
            reward=np.where(seen, rewards[pages], 0.0),
            held=None if slots is None else slots.held[pages],
            column=None if slots is None else slots.column[pages],
            pinned_reward=pinned_reward,
        )


def check_candidates(name: str, values: Floats | None, n: int) -> None:
    """Raises ValueError for values that are not one finite number a candidate."""
    if values is None:
        return
    if np.shape(values) != (n,):
        raise ValueError(f"{name} has shape {np.shape(values)}; expected ({n},), one a candidate")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}[{int(np.flatnonzero(bad)[0])}] is not finite")


def ranks(score: Floats, start: Ints) -> tuple[Ranks, Ranks]:
    """Rank and size of its tie of each action in its group."""
    rank, tie = min_rank(score, start)
    return rank.astype(np.int32), tie.astype(np.int32)


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


def by_shelf(batch: PageBatch, pages: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints, Ranks]:
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
