"""Import of DSJSON, the joined decision log of Vowpal Wabbit and Azure Personalizer: one line a decision, one slot.

A line becomes a page of one row and one column. Kept: EventId, Timestamp, the actions (`c._multi`), the pmf (`a`, `p`),
the chosen action, its probability, the reward (`-_label_cost`), `_skipLearn` (never displayed), `VWState.m` (model).
What the log has no field for is counted: features, and whole lines that say something a page cannot (several slots,
continuous actions, subsampling).

Format: the DSJSON page of the Vowpal Wabbit wiki. `bart.log.care.dsjson_export` writes it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite
from typing import Any

import numpy as np

from bart.errors import LogError
from bart.log.care.replay import IMPORTED
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent, encodable
from bart.reward.rewards import STREAM_S
from bart.types import Context, Decision, Floats, ListenerTraits, Page, Shelf

POLICY = f"{IMPORTED}:dsjson"
UNKNOWN_USER = "unknown"
_AT_ONCE = 1000
_CLOSE = 1e-4  # probabilities are written as float32, and services round them
_KEPT = {"EventId", "Timestamp", "Version", "a", "p", "c", "VWState", "_label_cost", "_label_probability"}
_KEPT |= {"_label_Action", "_labelIndex", "_skipLearn", "pdrop", "_original_label_cost", "o"}
_TIME = re.compile(r"([^.Z]*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.DOTALL)
_NO_COST = "no _label_cost"
_SUBSAMPLED = "subsampled (pdrop): weights have no field"
OUTCOMES = (_NO_COST, _SUBSAMPLED)  # reasons to skip a line that may depend on what it earned
_SEVERAL_SLOTS = "several slots (CCB or slates)"


class Unmapped(ValueError):
    """A line that cannot become a page; the text is the reason under which it is counted.

    by_design: the reason cannot depend on what the decision earned. event_id: of the line, where it was read.
    """

    def __init__(self, reason: str, *, by_design: bool = False, event_id: str = "") -> None:
        super().__init__(reason)
        self.by_design, self.event_id = by_design, event_id


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
) -> DsjsonImport:
    """Imports DSJSON lines into a log, and counts what could not be mapped. Importing again changes nothing.

    user: where a line names its user, as a path of keys in `c` ("GUser.id"); without it, all belong to one unknown
    user. reward_range: rewards that become 0 and 1. A reward r is kept as 30 r seconds of listening: the reward
    `streamed_30s` reads 0 and 1 from it, `share_30s` every value.
    """
    _check_range(reward_range)
    counts: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    seen: set[str] = set()
    waiting: list[DsjsonPage] = []
    n_lines = pages = 0
    for line in lines:
        if not line.strip():
            continue
        n_lines += 1
        try:
            page = read_dsjson(line, user=user, reward_range=reward_range)
            if page.decision.request_id in seen:
                raise Unmapped("EventId repeats")
        except Unmapped as reason:
            counts[str(reason)] += 1
            continue
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:  # one line must not stop the others
            counts[f"cannot be read ({type(error).__name__})"] += 1
            continue
        seen.add(page.decision.request_id)
        waiting.append(page)
        if len(waiting) == _AT_ONCE:
            pages += _store(log, waiting, counts, fields)
            waiting = []
    pages += _store(log, waiting, counts, fields)
    return DsjsonImport(n_lines, pages, dict(sorted(counts.items())), dict(sorted(fields.items())))


def reward_limits(lines: Iterable[str]) -> tuple[float, float]:
    """The least and the largest reward (-_label_cost) of all lines that have one; inf, -inf where none has."""
    least, most = float("inf"), float("-inf")
    for line in lines:
        try:
            event = _json(line)
            if not event.get("_skipLearn", False):
                reward = -_number(event, "_label_cost")
                least, most = min(least, reward), max(most, reward)
        except Unmapped:
            continue
    return least, most


def read_dsjson(
    line: str, *, user: str | None = None, reward_range: tuple[float, float] | None = (0.0, 1.0)
) -> DsjsonPage:
    """One line as a page. Raises Unmapped, with the reason, where it cannot be one.

    reward_range: rewards that become no and 30 seconds of listening; None for rewards as they are, without events, and
    for subsampled lines too.
    """
    event = _json(line)
    context = event.get("c")
    if not isinstance(context, dict):
        raise Unmapped("no context (c)")
    if "_slots" in context or "_outcomes" in event:
        raise Unmapped(_SEVERAL_SLOTS, by_design=True)
    if "_label_ca" in event:
        raise Unmapped("continuous action", by_design=True)
    actions = context.get("_multi")
    if not isinstance(actions, list) or not actions:
        raise Unmapped("no actions (c._multi)")
    pdrop = _pdrop(event)
    if pdrop and reward_range is not None:
        raise Unmapped(_SUBSAMPLED)
    event_id = event.get("EventId")
    if not isinstance(event_id, str) or not event_id:
        raise Unmapped("no EventId")
    if not encodable(event_id):
        raise Unmapped("EventId is not valid Unicode")
    at = _timestamp(event.get("Timestamp"))
    pmf = _pmf(event, len(actions))
    chosen = _chosen(event, pmf)
    ids = _ids(actions)
    reward = None if event.get("_skipLearn", False) else _reward(event, event_id)
    events: tuple[FeedbackEvent, ...] = ()
    if reward is not None and reward_range is not None:
        low, high = _check_range(reward_range)
        share = (reward - low) / (high - low)
        if not 0 <= share <= 1:
            raise Unmapped("reward outside its range", event_id=event_id)
        events = (FeedbackEvent("dsjson", at, 0, 0, True, True, STREAM_S * share),)
    state = event.get("VWState")
    decision = Decision(
        request_id=event_id,
        user_id=_user(context, user),
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
        item_id=ids,
        shelf=np.zeros(len(ids), dtype=np.int64),
        raw_score=pmf,  # the log has no scores of its own; the pmf orders the actions as they did
        score=pmf,
        page=Page(
            np.zeros(1, dtype=np.int64),
            np.array([[chosen]]),
            np.ones(1),
            np.array([[_number(event, "_label_probability")]]),
            np.zeros((1, 1), dtype=np.bool_),
        ),
        model_id=str(state.get("m", "")) if isinstance(state, dict) else "",
    )
    return DsjsonPage(decision, events, tuple(_dropped(event, context, actions)), reward, pdrop)


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


def _json(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise Unmapped("not JSON") from None
    if not isinstance(event, dict):
        raise Unmapped("not a JSON object")
    return event


def _number(event: Mapping[str, Any], name: str) -> float:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unmapped(f"no {name}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise Unmapped(f"no {name}")
    return number


def _reward(event: Mapping[str, Any], event_id: str) -> float:
    try:
        return 0.0 - _number(event, "_label_cost")  # never -0.0
    except Unmapped as reason:
        raise Unmapped(str(reason), event_id=event_id) from None


def _pdrop(event: Mapping[str, Any]) -> float:
    if event.get("pdrop") is None:
        return 0.0
    pdrop = _number(event, "pdrop")
    if not 0 <= pdrop < 1:
        raise Unmapped("pdrop outside [0, 1)")
    return pdrop


def _timestamp(text: Any) -> datetime:
    """In UTC, which a time without an offset is. Services write seven digits of a second; the log keeps six."""
    if not isinstance(text, str):
        raise Unmapped("no Timestamp")
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise Unmapped("Timestamp is not ISO 8601")
    whole, fraction, offset = parts.groups()
    try:
        at = datetime.fromisoformat(whole + ("" if offset in (None, "Z") else offset))
        if at.tzinfo is None:
            at = at.replace(tzinfo=timezone.utc)
        if fraction:
            at = at.replace(microsecond=int(fraction[:6].ljust(6, "0")))
        return at.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise Unmapped("Timestamp is not ISO 8601") from None


def _pmf(event: Mapping[str, Any], n: int) -> Floats:
    """Probability of each action, in the order of `_multi`."""
    order, probability = event.get("a"), event.get("p")
    if not isinstance(order, list) or not isinstance(probability, list):
        raise Unmapped("no pmf (a, p)")
    if sorted(order, key=str) != sorted(range(1, n + 1), key=str) or len(probability) != n:
        raise Unmapped("a and p do not name each action once")
    pmf = np.zeros(n)
    try:
        pmf[np.array(order) - 1] = np.array(probability, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, IndexError):
        raise Unmapped("p holds something else than numbers") from None
    if not (np.isfinite(pmf).all() and (pmf >= 0).all() and abs(pmf.sum() - 1.0) <= _CLOSE):
        raise Unmapped("p is not a pmf: it must be >= 0 and sum to 1")
    return pmf


def _chosen(event: Mapping[str, Any], pmf: Floats) -> int:
    """Place of the chosen action, from 0."""
    action, index = event.get("_label_Action"), event.get("_labelIndex")
    if action is None and isinstance(index, int):
        action = index + 1
    if isinstance(action, bool) or not isinstance(action, int) or not 1 <= action <= len(pmf):
        raise Unmapped("no chosen action (_label_Action)")
    if index is not None and index != action - 1:
        raise Unmapped("_label_Action and _labelIndex disagree")
    propensity = _number(event, "_label_probability")
    if not 0 < propensity <= 1:
        raise Unmapped("_label_probability outside (0, 1]")
    if abs(propensity - pmf[action - 1]) > _CLOSE:
        raise Unmapped("_label_probability and p disagree")
    return action - 1


def _ids(actions: list[Any]) -> Any:
    """An id of each action: its tag, or a feature "id" in one of its namespaces, or its number."""
    ids = np.empty(len(actions), dtype=object)
    for i, action in enumerate(actions):
        if not isinstance(action, dict):
            raise Unmapped("an action is not an object")
        named = [v["id"] for v in action.values() if isinstance(v, dict) and isinstance(v.get("id"), (str, int))]
        ids[i] = str(action.get("_tag") or (named[0] if named else f"action {i + 1}"))
    if len(set(ids.tolist())) != len(ids):
        ids[:] = [f"action {i + 1}" for i in range(len(ids))]
    return ids


def _epsilon(pmf: Floats) -> float:
    """The epsilon of an epsilon-greedy pmf, NaN for a pmf of another kind: nobody shall recompute with it."""
    epsilon = float(len(pmf) * pmf.min())
    best = np.isclose(pmf, pmf.max(), rtol=0.0, atol=_CLOSE)
    expected = np.where(best, epsilon / len(pmf) + (1.0 - epsilon) / best.sum(), epsilon / len(pmf))
    return min(epsilon, 1.0) if np.allclose(pmf, expected, rtol=0.0, atol=_CLOSE) else float("nan")


def _user(context: Mapping[str, Any], path: str | None) -> str:
    value: Any = context
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if path and isinstance(value, (str, int)) and str(value) else UNKNOWN_USER


def _dropped(event: Mapping[str, Any], context: Mapping[str, Any], actions: list[Any]) -> Iterator[str]:
    if any(not key.startswith("_") for key in context):
        yield "shared features"
    if any(not key.startswith("_") for action in actions for key in action):
        yield "action features"
    yield from (key for key in event if key not in _KEPT)
