"""A line of DSJSON, the joined decision log of Vowpal Wabbit and Azure Personalizer, as Vowpal Wabbit reads it.

Vowpal Wabbit needs neither an EventId nor a Timestamp nor the pmf (`a`, `p`): it learns from the label's own
probability. `a` counts actions from 1, in files that scripts write also from 0. Probabilities are float32: 1.0000001
is 1. A line of one slot (CCB: `c._slots` and `_outcomes` of one) is a single choice, whose `_a` counts from 0 and
begins with the action taken.

Format: the DSJSON page of the Vowpal Wabbit wiki.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from bart.log.record.feedback import encodable
from bart.types import Floats

UNKNOWN_USER = "unknown"
NO_COST = "no _label_cost"
CLOSE = 1e-4  # probabilities are written as float32, and services round them
_FLOAT32 = 1e-6  # how far above 1 a sum of float32 may come
_TIME = re.compile(r"([^.Z]*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.DOTALL)
_SEVERAL_SLOTS = "several slots (CCB or slates)"


class Unmapped(ValueError):
    """A line that cannot become a page; the text is the reason under which it is counted.

    by_design: the reason cannot depend on what the decision earned. event_id: of the line, where it was read.
    """

    def __init__(self, reason: str, *, by_design: bool = False, event_id: str = "") -> None:
        super().__init__(reason)
        self.by_design, self.event_id = by_design, event_id


@dataclass(frozen=True, slots=True, eq=False)
class DsjsonLine:
    """What a line says of one choice.

    event_id, at: None where the line has none. item_id: [n] ids of the actions. pmf: [n], None where the line has no
    `a` and `p`. chosen: place of the action taken, from 0; propensity: its probability, in (0, 1]. reward:
    -_label_cost, None for a decision that was never displayed (_skipLearn). pdrop: the probability with which such
    lines were dropped; the line stands for 1 / (1 - pdrop) of them.
    """

    event: Mapping[str, Any]
    context: Mapping[str, Any]
    actions: list[Any]
    event_id: str | None
    at: datetime | None
    item_id: Any
    pmf: Floats | None
    chosen: int
    propensity: float
    reward: float | None
    pdrop: float
    user: str

    @property
    def model(self) -> str:
        """The id of the model that served (VWState.m); "" where the line names none."""
        state = self.event.get("VWState")
        return str(state.get("m") or "") if isinstance(state, dict) else ""


def open_lines(path: Path) -> BinaryIO:
    """The bytes of a file of lines, unpacked where they are gzip or bzip2."""
    with path.open("rb") as stream:
        head = stream.read(3)
    if head[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path))
    return cast(BinaryIO, bz2.open(path)) if head == b"BZh" else path.open("rb")


def read_line(text: str, *, user: str | None = None) -> DsjsonLine:
    """One line. Raises Unmapped, with the reason, where it holds no single choice.

    user: where a line names its user, as a path of keys in `c` ("GUser.id").
    """
    event = json_of(text)
    context = event.get("c")
    if not isinstance(context, dict):
        raise Unmapped("no context (c)")
    if "_slots" in context or "_outcomes" in event:
        event = _of_one_slot(event, context)
    if "_label_ca" in event:
        raise Unmapped("continuous action", by_design=True)
    actions = context.get("_multi")
    if not isinstance(actions, list) or not actions:
        raise Unmapped("no actions (c._multi)")
    pdrop = _pdrop(event)
    event_id = _event_id(event)
    at = _timestamp(event.get("Timestamp"))
    pmf = _pmf(event, len(actions))
    chosen, propensity = _chosen(event, len(actions), pmf)
    reward = None if event.get("_skipLearn", False) else _reward(event, event_id or "")
    who = _user(context, user)
    return DsjsonLine(event, context, actions, event_id, at, _ids(actions), pmf, chosen, propensity, reward, pdrop, who)


def _of_one_slot(event: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """The line as one of a single choice. Raises Unmapped where it holds several slots."""
    slots, outcomes = context.get("_slots", [{}]), event.get("_outcomes")
    if not (isinstance(slots, list) and isinstance(outcomes, list) and len(slots) == len(outcomes) == 1):
        raise Unmapped(_SEVERAL_SLOTS, by_design=True)
    (slot,) = outcomes
    if not isinstance(slot, dict):
        raise Unmapped("an outcome is not an object")
    order, probability = slot.get("_a"), slot.get("_p")
    if not (isinstance(order, list) and isinstance(probability, list) and order and probability):
        raise Unmapped("no pmf (_a, _p)")
    first = order[0]
    if isinstance(first, bool) or not isinstance(first, int):
        raise Unmapped("no chosen action (_a)")
    actions = context.get("_multi")
    if not isinstance(actions, list) or not _names_each(order, 0, len(actions)):
        raise Unmapped("_a does not name each action once")  # VW counts the actions of slots from 0
    said = {"_label_Action": first + 1, "_label_probability": probability[0], "_label_cost": slot.get("_label_cost")}
    return {**event, **said, "a": order, "p": probability}


def json_of(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise Unmapped("not JSON") from None
    if not isinstance(event, dict):
        raise Unmapped("not a JSON object")
    return event


def number_of(event: Mapping[str, Any], name: str) -> float:
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
        return 0.0 - number_of(event, "_label_cost")  # never -0.0
    except Unmapped as reason:
        raise Unmapped(str(reason), event_id=event_id) from None


def _pdrop(event: Mapping[str, Any]) -> float:
    if event.get("pdrop") is None:
        return 0.0
    pdrop = number_of(event, "pdrop")
    if not 0 <= pdrop < 1:
        raise Unmapped("pdrop outside [0, 1)")
    return pdrop


def _event_id(event: Mapping[str, Any]) -> str | None:
    event_id = event.get("EventId")
    if event_id is None or event_id == "":
        return None
    if not isinstance(event_id, str):
        raise Unmapped("EventId is no text")
    if not encodable(event_id):
        raise Unmapped("EventId is not valid Unicode")
    return event_id


def _timestamp(text: Any) -> datetime | None:
    """In UTC, which a time without an offset is. Services write seven digits of a second; the log keeps six."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise Unmapped("Timestamp is not ISO 8601")
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


def _pmf(event: Mapping[str, Any], n: int) -> Floats | None:
    """Probability of each action, in the order of `_multi`; None where the line does not say it."""
    order, probability = event.get("a"), event.get("p")
    if order is None and probability is None:
        return None
    if not isinstance(order, list) or not isinstance(probability, list):
        raise Unmapped("no pmf (a, p)")
    first = next((first for first in (1, 0) if _names_each(order, first, n)), None)
    if first is None or len(probability) != n:
        raise Unmapped("a and p do not name each action once")
    pmf = np.zeros(n)
    try:
        pmf[np.array(order) - first] = np.array(probability, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, IndexError):
        raise Unmapped("p holds something else than numbers") from None
    if not (np.isfinite(pmf).all() and (pmf >= 0).all() and abs(pmf.sum() - 1.0) <= CLOSE):
        raise Unmapped("p is not a pmf: it must be >= 0 and sum to 1")
    return pmf


def _names_each(order: list[Any], first: int, n: int) -> bool:
    return sorted(order, key=str) == sorted(range(first, first + n), key=str)


def _chosen(event: Mapping[str, Any], n: int, pmf: Floats | None) -> tuple[int, float]:
    """Place of the chosen action, from 0, and its probability."""
    action, index = event.get("_label_Action"), event.get("_labelIndex")
    if action is None and isinstance(index, int):
        action = index + 1
    if isinstance(action, bool) or not isinstance(action, int) or not 1 <= action <= n:
        raise Unmapped("no chosen action (_label_Action)")
    if index is not None and index != action - 1:
        raise Unmapped("_label_Action and _labelIndex disagree")
    propensity = number_of(event, "_label_probability")
    if not 0 < propensity <= 1 + _FLOAT32:
        raise Unmapped("_label_probability outside (0, 1]")
    if pmf is not None and abs(propensity - pmf[action - 1]) > CLOSE:
        raise Unmapped("_label_probability and p disagree")
    return action - 1, min(propensity, 1.0)


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


def _user(context: Mapping[str, Any], path: str | None) -> str:
    value: Any = context
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if path and isinstance(value, (str, int)) and str(value) else UNKNOWN_USER
