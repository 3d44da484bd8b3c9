"""Import of DSJSON, the joined decision log of Vowpal Wabbit and Azure Personalizer: one line a decision, one slot.

A line becomes a page of one row and one column. Kept: EventId, Timestamp, the actions (`c._multi`), the pmf (`a`, `p`),
the chosen action, its probability, the reward (`-_label_cost`), `_skipLearn` (never displayed), `VWState.m` (model).
What the log has no field for is counted: features, and whole lines that say something a page cannot (several slots,
continuous actions, subsampling).

Format: the DSJSON page of the Vowpal Wabbit wiki. `bart.log.care.dsjson_export` writes it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from bart.errors import LogError
from bart.log.care.dsjson_line import CLOSE, NO_COST, Unmapped, read_line
from bart.log.care.replay import IMPORTED
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.store.imported import LeftOut
from bart.reward.rewards import STREAM_S
from bart.types import Context, Decision, Floats, ListenerTraits, Page, Shelf

POLICY = f"{IMPORTED}:dsjson"
_AT_ONCE = 1000
_KEPT = {"EventId", "Timestamp", "Version", "a", "p", "c", "VWState", "_label_cost", "_label_probability"}
_KEPT |= {"_outcomes", "_ba", "_label_Action", "_labelIndex", "_skipLearn", "pdrop", "_original_label_cost", "o"}
_SUBSAMPLED = "subsampled (pdrop): weights have no field"
NO_TIME = "no Timestamp"


@dataclass(frozen=True, slots=True, eq=False)
class DsjsonPage:
    """One line as a decision with its feedback; fields: what it had that the log does not keep.

    reward: -_label_cost, None for a decision that was never displayed (_skipLearn). pdrop: the probability with which
    such lines were dropped; the line stands for 1 / (1 - pdrop) of them.
    """

    decision: Decision
    events: tuple[FeedbackEvent, ...]
    fields: tuple[str, ...]
    reward: float | None = None
    pdrop: float = 0.0


@dataclass(frozen=True, slots=True)
class DsjsonImport:
    """What was imported. skipped: lines by reason. fields: how many imported lines had a field that is not kept."""

    lines: int
    pages: int
    skipped: Mapping[str, int]
    fields: Mapping[str, int]


def import_dsjson(
    log: DecisionLog,
    lines: Iterable[str],
    *,
    user: str | None = None,
    reward_range: tuple[float, float] = (0.0, 1.0),
    decided_at: datetime | None = None,
) -> DsjsonImport:
    """Imports DSJSON lines into a log, and counts what could not be mapped. Importing again changes nothing.

    A line without EventId is a decision of its own, whose id is a hash of its text and how often that came before.
    decided_at: the time of lines without a Timestamp.

    user: where a line names its user, as a path of keys in `c` ("GUser.id"); without it, all belong to one unknown
    user. reward_range: rewards that become 0 and 1. A reward r is kept as 30 r seconds of listening: the reward
    `streamed_30s` reads 0 and 1 from it, `share_30s` every value.
    """
    _check_range(reward_range)
    counts: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    same: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    file = hashlib.sha256()
    seen: dict[str, tuple[float | None, str]] = {}  # what the first line of an event says
    waiting: list[DsjsonPage] = []
    n_lines = pages = 0
    for line in lines:
        if not line.strip():
            continue
        n_lines += 1
        try:
            encoded = line.strip().encode(errors="replace")
            file.update(encoded)
            text = hashlib.sha256(encoded).hexdigest()[:32]
            same[text] += 1
            page = read_dsjson(
                line,
                user=user,
                reward_range=reward_range,
                request_id=f"{text}-{same[text]}",
                decided_at=decided_at,
            )
            said = page.reward, str(page.decision.item_id[page.decision.page.card[0, 0]])
            before = seen.setdefault(page.decision.request_id, said)
            if before is not said:
                other = "" if before == said else " with another outcome"
                raise Unmapped(f"EventId repeats{other}", by_design=not other)
        except Unmapped as reason:
            counts[str(reason)] += 1
            unread[str(reason)] += not reason.by_design
            continue
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:  # one line must not stop the others
            counts[why := f"cannot be read ({type(error).__name__})"] += 1
            unread[why] += 1
            continue
        waiting.append(page)
        if len(waiting) == _AT_ONCE:
            pages += _store(log, waiting, counts, fields)
            waiting = []
    pages += _store(log, waiting, counts, fields)
    told = {reason: count for reason, count in unread.items() if count}
    if told:
        log.note_left_out(file.hexdigest()[:16], LeftOut(n_lines, told))
    return DsjsonImport(n_lines, pages, dict(sorted(counts.items())), dict(sorted(fields.items())))


@dataclass(frozen=True, slots=True)
class Survey:
    """least, most: reward (-_label_cost) of all lines that have one; inf, -inf where none has. outcomes: decisions that
    a log could not hold for a reason that may depend on what they earned, by reason."""

    least: float
    most: float
    outcomes: Mapping[str, int]


def survey(lines: Iterable[str]) -> Survey:
    """What a file of lines holds that decides whether it can be imported as a sample of its log."""
    least, most = float("inf"), float("-inf")
    subsampled = number = 0
    lacking: set[str] = set()
    known: set[str] = set()
    for line in lines:
        number += 1
        try:
            found = read_line(line)
        except Unmapped as reason:
            if reason.event_id or str(reason) == NO_COST:
                lacking.add(reason.event_id or str(number))
            continue
        except (ValueError, TypeError, ArithmeticError, LookupError):
            continue
        known.add(found.event_id or str(number))
        subsampled += found.pdrop > 0
        if found.reward is not None:
            least, most = min(least, found.reward), max(most, found.reward)
    counts = {_SUBSAMPLED: subsampled, NO_COST: len(lacking - known)}  # a later line may bring what the first lacks
    return Survey(least, most, {reason: count for reason, count in counts.items() if count})


def read_dsjson(
    line: str,
    *,
    user: str | None = None,
    reward_range: tuple[float, float] | None = (0.0, 1.0),
    request_id: str | None = None,
    decided_at: datetime | None = None,
) -> DsjsonPage:
    """One line as a page. Raises Unmapped, with the reason, where it cannot be one.

    reward_range: rewards that become no and 30 seconds of listening; None for rewards as they are, without events, and
    for subsampled lines too. request_id, decided_at: of a line without EventId, without Timestamp.
    """
    found = read_line(line, user=user)
    if found.pdrop and reward_range is not None:
        raise Unmapped(_SUBSAMPLED)
    event_id, at, pmf, reward = found.event_id or request_id, found.at or decided_at, found.pmf, found.reward
    if event_id is None:
        raise Unmapped("no EventId")
    if at is None:
        raise Unmapped(NO_TIME)
    if pmf is None:
        raise Unmapped("no pmf (a, p)")
    events: tuple[FeedbackEvent, ...] = ()
    if reward is not None and reward_range is not None:
        low, high = _check_range(reward_range)
        share = (reward - low) / (high - low)
        if not 0 <= share <= 1:
            raise Unmapped("reward outside its range", event_id=event_id)
        events = (FeedbackEvent("dsjson", at, 0, 0, True, True, STREAM_S * share),)
    decision = Decision(
        request_id=event_id,
        user_id=found.user,
        context=Context(at, device=""),
        traits=ListenerTraits(),
        listener=np.empty(0, dtype=np.float32),
        batch_id="",
        policy=POLICY,
        shelf_epsilon=np.zeros(1),
        card_epsilon=np.array([_epsilon(pmf)]),
        rules_version="",
        seed=0,
        shelves=(Shelf(IMPORTED, ""),),
        item_id=found.item_id,
        shelf=np.zeros(len(found.item_id), dtype=np.int64),
        raw_score=pmf,  # the log has no scores of its own; the pmf orders the actions as they did
        score=pmf,
        page=Page(
            np.zeros(1, dtype=np.int64),
            np.array([[found.chosen]]),
            np.ones(1),
            np.array([[found.propensity]]),
            np.zeros((1, 1), dtype=np.bool_),
        ),
        model_id=found.model,
    )
    lost = tuple(_dropped(found.event, found.context, found.actions))
    return DsjsonPage(decision, events, lost, reward, found.pdrop)


def _check_range(reward_range: tuple[float, float]) -> tuple[float, float]:
    low, high = reward_range
    if not low < high:
        raise ValueError(f"reward_range is {reward_range}; expected two numbers, the lower first")
    return low, high


def _store(log: DecisionLog, pages: list[DsjsonPage], counts: Counter[str], fields: Counter[str]) -> int:
    """Appends all pages at once; one by one where the log refuses some, which are counted. How many it took."""
    kept = pages
    try:
        log.append_many(page.decision for page in pages)
    except LogError as refused:
        if isinstance(refused.__cause__, sqlite3.Error):  # the file, not a line
            raise
        kept = [page for page in pages if _taken(log, page, counts)]
    log.feedback_many((p.decision.request_id, p.events, p.decision.decided_at) for p in kept if p.events)
    for page in kept:
        fields.update(page.fields)
    return len(kept)


def _taken(log: DecisionLog, page: DsjsonPage, counts: Counter[str]) -> bool:
    try:
        log.append_many([page.decision])
    except LogError as refused:
        if isinstance(refused.__cause__, sqlite3.Error):
            raise
        known = page.decision.request_id in log
        counts["EventId is in the log with another content" if known else "refused by the log"] += 1
        return False
    return True


def _epsilon(pmf: Floats) -> float:
    """The epsilon of an epsilon-greedy pmf, NaN for a pmf of another kind: nobody shall recompute with it."""
    epsilon = float(len(pmf) * pmf.min())
    best = np.isclose(pmf, pmf.max(), rtol=0.0, atol=CLOSE)
    expected = np.where(best, epsilon / len(pmf) + (1.0 - epsilon) / best.sum(), epsilon / len(pmf))
    return min(epsilon, 1.0) if np.allclose(pmf, expected, rtol=0.0, atol=CLOSE) else float("nan")


def _dropped(event: Mapping[str, Any], context: Mapping[str, Any], actions: list[Any]) -> Iterator[str]:
    if any(not key.startswith("_") for key in context):
        yield "shared features"
    if any(not key.startswith("_") for action in actions for key in action):
        yield "action features"
    yield from (key for key in event if key not in _KEPT)
