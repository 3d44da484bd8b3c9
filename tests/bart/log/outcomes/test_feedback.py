"""Feedback: late, repeated and out of order, it still gives one outcome per card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bart.errors import FeedbackError
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.merge import check_on_page, merge
from bart.log.record.feedback import FeedbackEvent, FeedbackResult, PageFeedback
from bart.reward.rewards import REWARDS, register_reward, reward_of
from bart.types import Bools, Context, Decision, Floats, ListenerTraits, Page, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SHOWN = np.array([[True, True, True], [True, True, False]])


def event(event_id: str = "e", row: int | None = 0, column: int | None = 0, **said: Any) -> FeedbackEvent:
    return FeedbackEvent(event_id, AT, row, column, **said)


def decision(request_id: str = "request", user_id: str = "user") -> Decision:
    """A page of 2 x 3 with five cards; its propensities do not matter here."""
    card = np.array([[0, 1, 2], [3, 4, -1]])
    return Decision(
        request_id,
        user_id,
        Context(AT),
        ListenerTraits(),
        np.zeros(2, np.float32),
        "batch",
        "epsilon_greedy",
        np.full(2, 0.2),
        np.full(3, 0.2),
        "rules",
        1,
        (Shelf("a", "A"), Shelf("b", "B")),
        np.array(["p", "q", "r", "s", "t"], dtype=object),
        np.array([0, 0, 0, 1, 1]),
        np.arange(5.0),
        np.arange(5.0),
        Page(np.arange(2), card, np.full(2, 0.5), np.where(card >= 0, 0.2, np.nan), card < -1),
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log.sqlite") as opened:
        yield opened


def outcome(feedback: PageFeedback | None) -> Any:
    assert feedback is not None
    return (
        feedback.displayed,
        feedback.seen.tolist(),
        np.nan_to_num(feedback.listened_s, nan=-1.0).tolist(),
        feedback.skipped.tolist(),
        feedback.saved.tolist(),
        feedback.events,
        feedback.late,
        feedback.joined_us,
    )


# ----------------------------------------------------------------------------------------------------------- one event


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"seen": False, "listened_s": 3.0}, "seen is false, but listened_s is 3.0"),
        ({"seen": False, "saved": True}, "seen is false, but saved is true"),
        ({"listened_s": -1.0}, "listened_s is -1.0; expected 0 to 86400 seconds"),
        ({"listened_s": float("nan")}, "listened_s is nan"),
        ({"listened_s": float("inf")}, "listened_s is inf"),
        ({"listened_s": 86_401.0}, "listened_s is 86401.0; expected 0 to 86400 seconds"),
        ({"listened_s": "long"}, "listened_s is 'long'; expected seconds"),
        ({"listened_s": True}, "listened_s is True; expected seconds"),
        ({"seen": 1}, "seen is 1; expected true, false or null"),
        ({"row": None, "column": None, "seen": True}, "seen is given without row and column"),
        ({"row": None, "column": None, "listened_s": 1.0}, "listened_s is given without row and column"),
        ({"row": None}, "row and column must both be given, or neither"),
        ({"row": -1}, "row is -1; expected a number >= 0"),
        ({"column": 1.5}, "column is 1.5; expected a number >= 0"),
        ({"event_id": ""}, "event_id is ''; expected a string of 1 to 256 characters"),
        ({"occurred_at": datetime(2026, 1, 1)}, "occurred_at is not an aware datetime"),
    ],
)
def test_an_event_that_contradicts_itself_is_refused(said: dict[str, Any], text: str) -> None:
    with pytest.raises(FeedbackError, match=text):
        FeedbackEvent(**{"event_id": "e", "occurred_at": AT, "row": 0, "column": 0, **said})


def test_an_event_is_read_from_what_a_client_sends() -> None:
    sent = {"event_id": "e", "occurred_at": "2026-03-01T12:00:00Z", "row": 0, "column": 1, "listened_s": 3}
    assert FeedbackEvent.of(sent) == event("e", 0, 1, listened_s=3.0)
    with pytest.raises(FeedbackError, match="unknown field 'shown'"):
        FeedbackEvent.of({**sent, "shown": True})
    with pytest.raises(FeedbackError, match="lacks occurred_at"):
        FeedbackEvent.of({"event_id": "e"})
    with pytest.raises(FeedbackError, match="expected ISO 8601"):
        FeedbackEvent.of({**sent, "occurred_at": "yesterday"})


def test_an_event_is_kept_as_it_was() -> None:
    for one in (event(), event(seen=False, skipped=True), event(row=None, column=None, displayed=True)):
        assert FeedbackEvent.of_content(one.event_id, one.content) == one


@pytest.mark.parametrize(("row", "column"), [(1, 2), (2, 0), (0, 3)])
def test_a_card_that_was_not_on_the_page_is_refused(row: int, column: int) -> None:
    with pytest.raises(FeedbackError, match=f"no card at row {row}, column {column}; the page has 2 rows, 3 columns"):
        check_on_page(event(row=row, column=column), SHOWN)


# --------------------------------------------------------------------------------------------------------------- merge


def test_reports_are_joined_by_or_and_maximum() -> None:
    merged = merge(
        (2, 3),
        [
            event("a", 0, 0, displayed=True, seen=False),
            event("b", 0, 0, seen=True, listened_s=10.0, skipped=False),
            event("c", 0, 0, listened_s=25.0),
            event("d", 0, 0, listened_s=5.0, skipped=True, saved=True),
            event("e", 1, 1, listened_s=0.0),
            event("f", None, None, displayed=True),
        ],
    )
    assert merged.displayed
    assert merged.seen.tolist() == [[True, False, False], [False, False, False]]
    assert merged.listened_s[0, 0] == 25.0
    assert merged.listened_s[1, 1] == 0.0
    assert np.isnan(merged.listened_s).sum() == 4
    assert merged.skipped.tolist() == [[1, -1, -1], [-1, -1, -1]]
    assert merged.saved[0, 0]


@pytest.mark.parametrize("said", [{"listened_s": 1.0}, {"saved": True}, {"seen": True}])
def test_who_listened_or_saved_has_seen_the_card_and_the_page(said: dict[str, Any]) -> None:
    merged = merge((2, 3), [event("a", 1, 0, **said)])
    assert merged.seen[1, 0]
    assert merged.displayed


def test_a_page_without_reports_is_neither_displayed_nor_seen() -> None:
    merged = merge((2, 3), [event("a", 0, 0, displayed=False, listened_s=0.0)])
    assert not merged.displayed
    assert not merged.seen.any()


# --------------------------------------------------------------------------------------- any order, any number of times

maybe = st.sampled_from([None, True, False])


@st.composite
def events(draw: st.DrawFn) -> FeedbackEvent:
    """Few ids, so that one often comes with two contents; some name no card of the page."""
    event_id = draw(st.sampled_from("abcdef"))
    row, column = draw(st.sampled_from([(0, 0), (0, 2), (1, 1), (1, 2), (5, 0)]))
    at = AT + timedelta(seconds=draw(st.integers(0, 2)))
    seconds = draw(st.none() | st.sampled_from([0.0, 10.0, 31.0]))
    seen, saved = draw(maybe), draw(maybe)
    if seen is False and (saved or seconds):
        seen = None
    if draw(st.integers(0, 4)) == 0:
        return FeedbackEvent(event_id, at, displayed=draw(maybe))
    return FeedbackEvent(event_id, at, row, column, draw(maybe), seen, seconds, draw(maybe), saved)


# (request, received after so many hours, events); the window is 24 h
batches = st.lists(
    st.tuples(st.sampled_from(["one", "two", "never"]), st.integers(0, 40), st.lists(events(), max_size=4)), max_size=6
)


def deliver(log: DecisionLog, name: str, order: Sequence[Any], appended_after: int) -> Any:
    """The joined pages when batches come in this order and the decisions after some of them."""
    for i in range(len(order) + 1):
        if i == min(appended_after, len(order)):
            log.append(decision(f"{name} one"))
            log.append(decision(f"{name} two"))
        if i < len(order):
            request_id, hours, batch = order[i]
            log.feedback(f"{name} {request_id}", batch, AT + hours * HOUR)
    return [outcome(log.joined(f"{name} {request_id}")) for request_id in ("one", "two")]


@pytest.fixture(scope="module")
def shared() -> Iterator[DecisionLog]:
    """One log for all examples, each under request ids of its own: opening files is most of the time."""
    with tempfile.TemporaryDirectory() as directory, DecisionLog(Path(directory) / "log") as opened:
        yield opened


@given(batches, st.data())
@settings(max_examples=60)
def test_any_order_and_any_repetition_give_the_same_joined_log(
    shared: DecisionLog, sent: list[Any], data: st.DataObject
) -> None:
    repeated = sent + (data.draw(st.lists(st.sampled_from(sent), max_size=4)) if sent else [])
    order = data.draw(st.permutations(repeated))
    example, appended_after = f"example {len(shared)}", data.draw(st.integers(0, 8))
    assert deliver(shared, f"{example} shuffled", order, appended_after) == deliver(shared, example, sent, 0)


@given(st.lists(events(), max_size=8), st.data())
@settings(max_examples=60)
def test_merging_does_not_depend_on_order_or_repetition(sent: list[FeedbackEvent], data: st.DataObject) -> None:
    fitting = [one for one in sent if one.row is None or one.row < 2]
    order = data.draw(st.permutations(fitting + fitting[:3]))
    assert outcome(merge((2, 3), order)) == outcome(merge((2, 3), fitting))


# -------------------------------------------------------------------------------------------------------------- the log


def test_the_log_says_what_became_of_each_event(log: DecisionLog) -> None:
    log.append(decision())
    sent: list[Any] = [
        event("a", 0, 0, seen=True),
        event("b", 1, 2, seen=True),
        {"event_id": "c", "occurred_at": AT, "row": 0, "column": 1, "seen": False, "listened_s": 5.0},
        event("d", 0, 2),
        "nonsense",
    ]
    result = log.feedback("request", sent[:4], AT + HOUR)
    assert (result.accepted, result.repeated, result.late) == (2, 0, 0)
    assert [(r.index, r.event_id) for r in result.rejected] == [(1, "b"), (2, "c")]
    assert "no card at row 1, column 2" in result.rejected[0].reason
    assert "seen is false, but listened_s is 5.0" in result.rejected[1].reason
    again = log.feedback("request", [event("a", 0, 0, seen=True), event("d", 0, 2, listened_s=1.0)], AT + HOUR)
    assert (again.accepted, again.repeated, again.conflicting) == (0, 1, 1)


def test_what_comes_after_the_window_is_counted_and_not_merged(log: DecisionLog) -> None:
    log.append(decision())
    assert log.feedback("request", [event("a", seen=True)], AT + 24 * HOUR).accepted == 1
    assert log.feedback("request", [event("b", saved=True)], AT + 25 * HOUR).late == 1
    joined = log.joined("request")
    assert joined is not None
    assert (joined.events, joined.late, bool(joined.saved.any())) == (1, 1, False)


def test_an_event_that_came_late_and_in_time_counts_as_in_time(log: DecisionLog) -> None:
    log.append(decision())
    assert log.feedback("request", [event("a", seen=True)], AT + 30 * HOUR).late == 1
    assert log.feedback("request", [event("a", seen=True)], AT + HOUR).repeated == 1
    joined = log.joined("request")
    assert joined is not None
    assert (joined.events, joined.late) == (1, 0)


def test_the_window_is_configured(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log", feedback_window=HOUR) as log:
        log.append(decision())
        assert log.feedback("request", [event("a", seen=True)], AT + 2 * HOUR) == FeedbackResult(late=1)


def test_feedback_waits_for_its_decision_also_from_another_process(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log") as early:
        sent = [event("a", 0, 1, listened_s=12.0), event("b", 9, 9, seen=True)]
        assert early.feedback("request", sent, AT + HOUR).quarantined == 2
        assert early.feedback("request", sent, AT + HOUR).repeated == 2
        assert early.joined("request") is None
        with DecisionLog(tmp_path / "log") as other:  # its own connections, as another process has
            other.append(decision())
        joined = early.joined("request")
        assert joined is not None
        assert (joined.events, joined.listened_s[0, 1]) == (1, 12.0)
        stats = early.stats()
        assert (stats.quarantined, stats.rejected) == (0, 1)


def test_many_reports_at_once_are_the_same_as_one_after_another(tmp_path: Path) -> None:
    reports: list[Any] = [
        ("request", [event("a", seen=True), event("b", 7, 7)], AT + HOUR),
        ("unknown", [event("a")], AT + HOUR),
        ("request", [event("a", seen=True)], AT + 2 * HOUR),
    ]
    with DecisionLog(tmp_path / "one") as one, DecisionLog(tmp_path / "two") as two:
        one.append(decision())
        two.append(decision())
        assert one.feedback_many(reports) == [two.feedback(*report) for report in reports]
        assert outcome(one.joined("request")) == outcome(two.joined("request"))


def test_many_pages_with_fields_that_are_not_said_are_what_their_events_add_up_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def drawn(i: int) -> FeedbackEvent:
        row, column = divmod(int(rng.integers(0, 5)), 3)
        said = {name: rng.random() < 0.5 for name in ("displayed", "seen", "skipped", "saved") if rng.random() < 0.5}
        if rng.random() < 0.3:
            return event(f"e{i}", None, None, displayed=said.get("displayed"))
        if said.get("seen", True):
            said["listened_s"] = float(rng.integers(0, 9))
        else:
            said.pop("saved", None)
        return event(f"e{i}", np.int64(row), column, **{k: np.bool_(v) if v is True else v for k, v in said.items()})

    sent = {f"r{i}": [drawn(k) for k in range(int(rng.integers(0, 12)))] for i in range(70)}
    with DecisionLog(tmp_path / "log") as log:
        log.append_many([decision(request_id) for request_id in sent])
        halves = [(name, part, AT) for name, events in sent.items() for part in (events[::2], events[1::2])]
        results = log.feedback_many([*halves, *halves[::-1]])
        new = [len(part) for _, part, _ in halves]
        assert [(r.accepted, r.repeated) for r in results] == [(n, 0) for n in new] + [(0, n) for n in new[::-1]]
        for name, events in sent.items():
            found, added = outcome(log.joined(name)), outcome(merge(SHOWN.shape, events))
            assert found[:-1] == added[:-1], name


@pytest.mark.parametrize("kind", [int, np.int8, np.uint8])
def test_a_slot_of_a_large_page_is_found_by_any_integer(kind: Any, tmp_path: Path) -> None:
    card = np.arange(400).reshape(20, 20)
    card[15] = -1
    shelves = tuple(Shelf(str(i), str(i)) for i in range(20))
    page = Page(np.arange(20), card, np.full(20, 0.5), np.where(card >= 0, 0.2, np.nan), card < -1)
    large = replace(
        decision(),
        shelf_epsilon=np.full(20, 0.2),
        card_epsilon=np.full(20, 0.2),
        shelves=shelves,
        item_id=np.arange(400).astype(str).astype(object),
        shelf=np.repeat(np.arange(20), 20),
        raw_score=np.zeros(400),
        score=np.zeros(400),
        page=page,
    )
    with DecisionLog(tmp_path / "log") as log:
        log.append(large)
        result = log.feedback("request", [event("no card", kind(15), kind(3)), event("card", kind(19), kind(18))], AT)
    assert (result.accepted, [rejected.event_id for rejected in result.rejected]) == (1, ["no card"])


# ------------------------------------------------------------------------------------------------------------- rewards


def earned(name: str, listened_s: list[float], duration_s: list[float], saved: bool = False) -> list[float]:
    n = len(listened_s)
    seen = np.ones(n, dtype=np.bool_)
    return list(reward_of(name, np.array(listened_s), np.array(duration_s), np.full(n, saved), seen))


def test_a_stream_is_thirty_seconds_or_half_of_what_is_short() -> None:
    nan = float("nan")
    assert earned("streamed_30s", [29.9, 30.0, 30.0], [200.0, 200.0, nan]) == [0, 1, 1]
    assert earned("streamed_30s", [19.9, 20.0, 29.9, 30.0], [40.0, 40.0, 60.0, 60.0]) == [0, 1, 0, 1]
    assert earned("streamed_30s", [0.0, nan, 0.0], [40.0, 40.0, 0.0]) == [0, 0, 0]


def test_completed_clicked_and_shares() -> None:
    nan = float("nan")
    assert earned("completed", [89.0, 90.0, 500.0, nan], [100.0, 100.0, nan, 100.0]) == [0, 1, 0, 0]
    assert earned("clicked", [0.0, 0.1, nan], [nan, nan, nan]) == [0, 1, 0]
    assert earned("clicked", [nan], [nan], saved=True) == [1]
    assert earned("share_30s", [0.0, 15.0, 60.0, nan], [nan] * 4) == [0, 0.5, 1, 0]


@given(st.lists(st.floats(0, 86_400) | st.just(float("nan")), min_size=1), st.floats(0, 1e5), st.booleans())
def test_every_reward_lies_between_0_and_1_and_grows_with_listening(
    listened: list[float], duration_s: float, saved: bool
) -> None:
    ordered = sorted(0.0 if seconds != seconds else seconds for seconds in listened)
    for name in ("streamed_30s", "completed", "clicked", "share_30s"):
        value = earned(name, ordered, [duration_s] * len(ordered), saved)
        assert all(0 <= v <= 1 for v in value)
        assert value == sorted(value)


def test_an_unseen_card_earns_nothing() -> None:
    seen = np.array([True, False])
    ones = np.full(2, 60.0)
    assert reward_of("streamed_30s", ones, ones, np.zeros(2, np.bool_), seen).tolist() == [1, 0]


def test_a_reward_of_ones_own_is_checked() -> None:
    def minutes(listened_s: Floats, duration_s: Floats, saved: Bools) -> Floats:
        del duration_s, saved
        return listened_s / 60.0

    register_reward("test_minutes", minutes)
    try:
        assert earned("test_minutes", [30.0], [100.0]) == [0.5]
        with pytest.raises(ValueError, match=r"reward 'test_minutes' is 2\.0 at \[1\]; expected \[0, 1\]"):
            earned("test_minutes", [30.0, 120.0], [100.0, 100.0])
        with pytest.raises(ValueError, match="empty or taken"):
            register_reward("test_minutes", REWARDS["clicked"])
    finally:
        del REWARDS["test_minutes"]
    with pytest.raises(ValueError, match="reward is 'test_minutes'; expected one of"):
        earned("test_minutes", [30.0], [100.0])


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        [1],
        {"event_id": "b", "occurred_at": AT, 3: 4, "x": 1},
        {"event_id": "b", "occurred_at": AT, "row": 0, "column": 0, "listened_s": 10**400},
        {"event_id": "b", "occurred_at": AT, "row": 10**5000, "column": 0},
        {"event_id": "b", "occurred_at": "0001-01-01T00:00:00+14:00"},
        {"event_id": "\ud800", "occurred_at": AT},
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_malformed_event_is_rejected_and_the_others_are_kept(log: DecisionLog, bad: Any, known: bool) -> None:
    if known:
        log.append(decision())
    result = log.feedback("request", [event("a", seen=True), bad, event("c", 0, 1, seen=True)], AT)
    assert result.accepted + result.quarantined == 2
    assert [r.index for r in result.rejected] == [1]
    result.rejected[0].reason.encode()
    result.rejected[0].event_id.encode()
    if not known:
        log.append(decision())
    joined = log.joined("request")
    assert joined is not None
    assert joined.events == 2


@pytest.mark.parametrize("request_id", [None, 5, b"", "", "\ud800"])
def test_feedback_for_what_can_be_no_request_id_is_refused(log: DecisionLog, request_id: Any) -> None:
    with pytest.raises(FeedbackError, match="request_id is"):
        log.feedback(request_id, [event()], AT)
    with pytest.raises(FeedbackError, match="request_id is"):
        log.feedback_many([("known", [event()], AT), (request_id, [event()], AT)])


def test_a_repeated_event_id_keeps_the_most_that_was_said_in_any_order(tmp_path: Path) -> None:
    sent = [
        (event(listened_s=5.0), AT),
        (event(listened_s=50.0, skipped=False), AT + HOUR),
        (event(saved=True, skipped=True), AT + HOUR),
        (event(listened_s=500.0), AT + 30 * HOUR),  # after the window: adds nothing
        (event("e", 0, 1, listened_s=900.0), AT),  # another slot under the same id: the first slot is kept
    ]
    for i, order in enumerate(permutations(sent)):
        if i % 7:
            continue
        for appended_after in (0, 2, 5):
            with DecisionLog(tmp_path / f"log-{i}-{appended_after}") as log:
                for at, (one, received_at) in enumerate(order):
                    if at == appended_after:
                        log.append(decision())
                    log.feedback("request", [one], received_at)
                if appended_after == 5:
                    log.append(decision())
                joined = log.joined("request")
        assert joined is not None
        assert joined.listened_s[0, 0] == 50.0
        assert (joined.saved[0, 0], joined.skipped[0, 0], joined.seen[0, 0]) == (True, 1, True)
        assert np.isnan(joined.listened_s[0, 1])
