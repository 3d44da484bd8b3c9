"""What an operator watches, worked out from the latest pages of the log: over time, by arm, and against the scores.

Pages whose seed or time was set by hand, and shadows, are left out: nobody met them by the policy's own draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from api.metrics.choices import page_choices
from api.service.experiments import POPULARITY
from api.service.service import CALLER
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.earned import page_reward
from bart.log.store.store import SELECT, StoredDecision
from bart.ope.intervals.clusters import clustered_mean
from bart.types import Floats, Ints, ItemTable, Strings

PAGES = 600  # read, the latest
PERIODS = 12  # into which they are cut, of equally many pages, so that each point is about as sure as the next
SCORE_BINS = 10
LEVEL = 0.95
NO_MODEL = (POPULARITY, CALLER)  # model ids of pages whose scores are no predictions


@dataclass(frozen=True, slots=True)
class Watched:
    """The latest pages, the oldest first; [b] each unless said otherwise.

    seen, reward: cards seen, and their sum. scored, predicted: of them, on pages that a reward model decided, and the
    sum of its scores: other scores promise nothing. choices, explored: drawn among two or more, and of these not the
    best. card_score, card_reward: [k] of all scored cards. lag_s, lag_page: [e] seconds from what happened to its
    report, and which page it is about.
    """

    seq: Ints
    at_us: Ints
    user_id: Strings
    arm: Strings
    seen: Ints
    reward: Floats
    scored: Ints
    predicted: Floats
    choices: Ints
    explored: Ints
    card_score: Floats
    card_reward: Floats
    lag_s: Floats
    lag_page: Ints


def watch(log: DecisionLog, items: ItemTable, reward: str, pages: int = PAGES) -> Watched:
    """Reads the latest pages."""
    with log.reading() as connection:
        query = f"{SELECT} ORDER BY seq DESC LIMIT ?"
        rows = [StoredDecision(*row) for row in connection.execute(query, (pages,))][::-1]
        first = rows[0].seq if rows else 0
        reports = connection.execute("SELECT seq, received_us - occurred_us FROM feedback WHERE seq >= ?", (first,))
        lag = np.array(reports.fetchall(), dtype=np.int64).reshape(-1, 2)
    facts: list[tuple[Any, ...]] = []
    scores, rewards = [np.empty(0)], [np.empty(0)]
    for row, feedback in zip(rows, log.join(rows), strict=True):
        decision = row.decode()
        if decision.forced:
            continue
        card = decision.page.card
        value = page_reward(decision, feedback, items, reward)
        promises = feedback.seen & (decision.model_id not in NO_MODEL)
        scores.append(decision.raw_score[card[promises]])
        rewards.append(value[promises])
        choices = page_choices(decision)
        who = (row.seq, row.decided_us, decision.user_id, decision.arm or "")
        earned = (feedback.seen.sum(), value[feedback.seen].sum(), promises.sum(), scores[-1].sum())
        facts.append((*who, *earned, choices.n, choices.explored))
    columns = list(zip(*facts, strict=True)) if facts else [()] * 10
    seq, at_us = (np.array(columns[i], dtype=np.int64) for i in (0, 1))
    return Watched(
        seq=seq,
        at_us=at_us,
        user_id=np.array(columns[2], dtype=object),
        arm=np.array(columns[3], dtype=object),
        seen=np.array(columns[4], dtype=np.int64),
        reward=np.array(columns[5], dtype=np.float64),
        scored=np.array(columns[6], dtype=np.int64),
        predicted=np.array(columns[7], dtype=np.float64),
        choices=np.array(columns[8], dtype=np.int64),
        explored=np.array(columns[9], dtype=np.int64),
        card_score=np.concatenate(scores),
        card_reward=np.concatenate(rewards),
        lag_s=np.maximum(lag[:, 1], 0)[np.isin(lag[:, 0], seq)] / 1e6,
        lag_page=np.searchsorted(seq, lag[:, 0])[np.isin(lag[:, 0], seq)],
    )


def figures(found: Watched) -> dict[str, Any]:
    """The figures as plain values; None stands where there is nothing to divide by."""
    everything = np.ones(len(found.seq), dtype=np.bool_)
    periods = [part for part in np.array_split(np.arange(len(found.seq)), PERIODS) if len(part)]
    return {
        "pages": len(found.seq),
        "since": first_time(found.at_us[:1]),
        "until": first_time(found.at_us[-1:]),
        "total": _summary(found, everything),
        "periods": [
            {"since": first_time(found.at_us[part[:1]]), **_summary(found, np.isin(np.arange(len(found.seq)), part))}
            for part in periods
        ],
        "arms": [{"arm": arm, **_summary(found, found.arm == arm)} for arm in sorted(set(found.arm.tolist()))],
        "calibration": calibration(found.card_score, found.card_reward),
    }


def calibration(score: Floats, reward: Floats, bins: int = SCORE_BINS) -> list[dict[str, float]]:
    """Mean score and mean reward of the seen cards [k], in bins of equally many cards by score."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [{"predicted": float(score[p].mean()), "reward": float(reward[p].mean()), "cards": len(p)} for p in parts]


def _summary(found: Watched, page: Any) -> dict[str, Any]:
    seen, choices = int(found.seen[page].sum()), int(found.choices[page].sum())
    scored = int(found.scored[page].sum())
    lag_s = found.lag_s[np.asarray(page)[found.lag_page]] if len(found.lag_page) else found.lag_s
    out: dict[str, Any] = {
        "pages": int(page.sum()),
        "seen": seen,
        "reward_rate": float(found.reward[page].sum()) / seen if seen else None,
        "predicted_rate": float(found.predicted[page].sum()) / scored if scored else None,
        "explore_share": float(found.explored[page].sum()) / choices if choices else None,
        "lag_median_s": float(np.median(lag_s)) if len(lag_s) else None,
        "lag_p90_s": float(np.quantile(lag_s, 0.9)) if len(lag_s) else None,
        "value": None,
        "value_lower": None,
        "value_upper": None,
    }
    if page.any():
        mean = clustered_mean(found.reward[page], found.user_id[page].astype(str))
        lower, upper = mean.interval(LEVEL)
        out |= {"value": mean.value, "listeners": mean.listeners}
        if np.isfinite(mean.error):
            out |= {"value_lower": lower, "value_upper": upper}
    return out


def first_time(us: Ints) -> str | None:
    """The first of some moments (microseconds since 1970) as text."""
    return None if len(us) == 0 else f"{np.datetime64(int(us[0]), 'us').astype('datetime64[s]')}Z"
