"""Export of pages as DSJSON, one line a drawn and seen slot: a contextual bandit over the cards that were left.

The pmf of a line is the conditional one, over the cards of the shelf that were not taken by the slots before it; its
`_label_probability` is the recorded propensity. What has no such line is counted by reason: pinned cards were not
drawn, unseen ones have no reward, and a page set by hand or never displayed is no datum. Nor is one by a policy whose
name is not known: its pmf cannot be worked out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.errors import LogError
from bart.log.care.replay import IMPORTED, candidate_items, rebuilder
from bart.log.record.feedback import PageFeedback
from bart.log.store.files import write_atomically
from bart.reward.rewards import DEFAULT_REWARD, reward_of
from bart.types import Decision, Floats, Ints

if TYPE_CHECKING:
    from bart.log.decision_log import DecisionLog


@dataclass(frozen=True, slots=True)
class DsjsonExport:
    """What was written. skipped: slots (or pages, where it says so) by reason."""

    pages: int
    lines: int
    skipped: Mapping[str, int]


def export_dsjson(
    log: DecisionLog,
    path: str | Path,
    *,
    reward: str = DEFAULT_REWARD,
    duration_s: Mapping[str, float] | None = None,
) -> DsjsonExport:
    """Writes the closed pages of a log to one file, and counts what has no line. duration_s: seconds by item id."""
    closed_us = log.closed_us()
    if closed_us is None:
        raise LogError("no feedback window was closed yet; call close_windows first")
    skipped: Counter[str] = Counter()
    counts = {"pages": 0, "lines": 0}

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8") as out:
            for rows in log.stored_pages():
                kept = [row for row in rows if row.decided_us <= closed_us]
                skipped["page: window still open"] += len(rows) - len(kept)
                for row, feedback in zip(kept, log.join(kept), strict=True):
                    counts["pages"] += 1
                    for line in page_lines(row.decode(), feedback, skipped, reward, duration_s):
                        out.write(line + "\n")
                        counts["lines"] += 1

    write_atomically(Path(path), write)
    return DsjsonExport(counts["pages"], counts["lines"], {k: n for k, n in sorted(skipped.items()) if n})


def page_lines(
    decision: Decision,
    feedback: PageFeedback,
    skipped: Counter[str],
    reward: str = DEFAULT_REWARD,
    duration_s: Mapping[str, float] | None = None,
) -> Iterator[str]:
    """The lines of one page, from the top left. Adds to `skipped` what has none."""
    if decision.forced or not feedback.displayed:
        skipped["page: set by hand" if decision.forced else "page: never displayed"] += 1
        return
    if not decision.policy.startswith(IMPORTED) and rebuilder(decision.policy) is None:
        skipped["page: policy unknown"] += 1
        return
    earned = _reward(decision, feedback, reward, duration_s)
    for row, column, left, pmf in _choices(decision):
        chosen = int(decision.page.card[row, column])
        if decision.page.pinned[row, column]:
            skipped["pinned"] += 1
        elif not feedback.seen[row, column]:
            skipped["unseen"] += 1
        else:
            yield _line(decision, row, column, left, pmf, int(np.flatnonzero(left == chosen)[0]), earned[row, column])


def _choices(decision: Decision) -> Iterator[tuple[int, int, Ints, Floats]]:
    """Each card with the candidates that it was drawn from, and their pmf."""
    page, item = decision.page, candidate_items(decision)
    available = (decision.shelf >= 0) & ~np.isin(item, item[decision.shelf < 0])
    imported = decision.policy.startswith(IMPORTED)
    rebuild = None if imported else rebuilder(decision.policy)
    policy = None if rebuild is None else rebuild(decision).card_policy
    for row, column in np.argwhere(page.shown):
        left = np.flatnonzero(available & (decision.shelf == page.shelf[row]))
        if page.pinned[row, column]:
            yield int(row), int(column), left, np.empty(0)
            continue
        score = decision.score[left]
        pmf = score if policy is None else policy.pmf(score, np.ones(len(left), dtype=np.bool_), int(column))
        yield int(row), int(column), left, pmf
        available &= item != item[page.card[row, column]]


def _line(decision: Decision, row: int, column: int, left: Ints, pmf: Floats, place: int, reward: float) -> str:
    context, page = decision.context, decision.page
    others = np.delete(np.arange(len(left)), place)
    order = np.concatenate([[place], others[np.argsort(-pmf[others], kind="stable")]])
    probability = pmf[order]
    probability[0] = page.card_propensity[row, column]  # the recorded number itself
    event: dict[str, Any] = {
        "_label_cost": -float(reward) if reward else 0.0,
        "_label_probability": float(probability[0]),
        "_label_Action": place + 1,
        "_labelIndex": place,
        "Timestamp": context.at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z",
        "Version": "1",
        "EventId": f"{decision.request_id}/{row}/{column}",
        "a": (order + 1).tolist(),
        "c": {
            "Context": {
                "device": context.device,
                "surface": context.surface,
                "country": context.country,
                "hour": f"{context.hour}",
                "weekday": f"{context.weekday}",
            },
            "Slot": {"rule": decision.shelves[page.shelf[row]].rule, "row": f"{row}", "column": f"{column}"},
            "_multi": [
                {
                    "_tag": decision.item_id[i],
                    "Item": {"id": decision.item_id[i], "score": float(decision.raw_score[i])},
                }
                for i in left
            ],
        },
        "p": probability.tolist(),
        "VWState": {"m": decision.model_id},
    }
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _reward(decision: Decision, feedback: PageFeedback, reward: str, duration_s: Mapping[str, float] | None) -> Floats:
    card = decision.page.card
    seconds = np.full(card.shape, np.nan)
    for row, column in np.argwhere(card >= 0) if duration_s is not None else ():
        seconds[row, column] = (duration_s or {}).get(decision.item_id[card[row, column]], np.nan)
    return reward_of(reward, feedback.listened_s, seconds, feedback.saved, feedback.seen)
