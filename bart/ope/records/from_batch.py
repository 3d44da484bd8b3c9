"""The record of logged pages from a batch of the log and the scores of an evaluation policy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bart.ope.records.irregular import irregular_pages
from bart.ope.records.log_side import LogSide, check_candidates, ranks
from bart.ope.records.pages import LoggedPages, Ranks
from bart.page.final import SAME, FinalScores, batch_final_scores
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
    side: LogSide | None = None,
) -> LoggedPages:
    """The record of a batch for one evaluation policy, which keeps the rules that each page was served under.

    target_score: [N] the policy's own scores, as its model gives them. Boosts and diversity act on them as the record
    of each page says (see `bart.page.final`), for the logging policy and for any other; where they are the recorded
    scores, raw or final, the policy is the one that served. target_*_epsilon: a number, one a position, or one a page
    and position. q_logged, q_target: [N] predictions in [0, 1], at the first slot. reward: [b, rows, columns] instead
    of the batch's own. users: code of each listener (needed only where several batches are put together). side: of the
    batch, with these of q_logged, reward and users; made anew where None.
    Pages that were forced, not displayed or still open are left out and counted. Pinned cards count with weight 1.
    Raises ValueError for scores of another length or not finite.
    """
    for name, values in (("target_score", target_score), ("q_logged", q_logged), ("q_target", q_target)):
        check_candidates(name, values, len(batch.item))
    shelf_epsilon = _like(target_shelf_epsilon, batch.shelf_epsilon, "target_shelf_epsilon")
    card_epsilon = _like(target_card_epsilon, batch.card_epsilon, "target_card_epsilon")
    side = LogSide.of(batch, q_logged, reward=reward, users=users) if side is None else side
    pages = side.pages
    final = batch_final_scores(batch, target_score)
    irregular = irregular_pages(batch, pages, final, shelf_epsilon, card_epsilon, side.odd)
    rank, tie, shelf_rank, shelf_tie = _ranks(side, final)
    return LoggedPages(
        offset=side.offset,
        shelf=side.shelf,
        rank_logged=side.rank,
        tie_logged=side.tie,
        rank_target=rank,
        tie_target=tie,
        q_logged=side.q,
        q_target=_predicted(batch, side, q_logged, q_target, final),
        shelf_offset=side.shelf_offset,
        shelf_rank_logged=side.shelf_rank,
        shelf_tie_logged=side.shelf_tie,
        shelf_rank_target=shelf_rank,
        shelf_tie_target=shelf_tie,
        shelf_epsilon_logged=batch.shelf_epsilon[pages],
        card_epsilon_logged=batch.card_epsilon[pages],
        shelf_epsilon_target=shelf_epsilon[pages],
        card_epsilon_target=card_epsilon[pages],
        user=side.user,
        row_shelf=side.row_shelf,
        order=side.order,
        shelf_propensity=batch.shelf_propensity[pages],
        card_propensity=side.card_propensity,
        seen=side.seen,
        reward=side.reward,
        left_out=side.left_out,
        held=side.held,
        column=side.column,
        pinned_reward=side.pinned_reward,
        shelf_target=irregular.shelf,
        card_target=irregular.card,
        cautions=(
            *_untold(final, pages),
            *irregular.cautions,
            *_without_chance(batch, pages, final, shelf_epsilon, card_epsilon),
        ),
        log=side.common,
    )


# ------------------------------------------------------------------------------------------------- making of the record


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


def _ranks(side: LogSide, final: FinalScores) -> tuple[Ranks, Ranks, Ranks, Ranks]:
    """Ranks and sizes of ties of cards [N] and of shelves [S]: those of the log where its scores are the policy's."""
    if final.logging[side.pages].all():
        return side.rank, side.tie, side.shelf_rank, side.shelf_tie
    value = np.maximum.reduceat(final.shelf[side.flat], side.start[:-1])
    return *ranks(final.card[side.flat], side.start), *ranks(value, side.shelf_offset)


def _predicted(
    batch: PageBatch, side: LogSide, q_logged: Floats | None, q_target: Floats | None, final: FinalScores
) -> Floats | None:
    """[N] of the record; predictions of the policy that served as they were recorded: but for rounding they are the
    same."""
    if q_target is None:
        return None
    if q_target is batch.raw_score and q_target is q_logged:
        return side.q
    page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
    same = final.logging[page] & (np.abs(q_target - batch.raw_score) <= SAME * np.maximum(1.0, np.abs(batch.raw_score)))
    return np.where(same, batch.raw_score, q_target).astype(np.float64)[side.flat]


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
