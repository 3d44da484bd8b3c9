"""DSJSON: what has a place in the log is kept, what has none is counted, and what is written can be read."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bart.log.care.dsjson import POLICY, Unmapped, import_dsjson, read_dsjson
from bart.log.care.dsjson_export import export_dsjson
from bart.log.care.export import export_log
from bart.log.care.verify import verify
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import pages_of, read_pages
from bart.log.record.feedback import FeedbackEvent
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ItemTable, Labels, ListenerTraits, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
LATER = AT + timedelta(days=2000)


def event(**changes: Any) -> dict[str, Any]:
    """A line as a decision service writes it; a change to None leaves the field out."""
    whole = {
        "_label_cost": -1.0,
        "_label_probability": 0.85,
        "_label_Action": 4,
        "_labelIndex": 3,
        "o": [{"v": 1.0, "EventId": "13118d", "ActionTaken": False}],
        "Timestamp": "2026-02-04T16:31:29.2461237Z",
        "Version": "1",
        "EventId": "13118d",
        "a": [4, 2, 1, 3],
        "c": {
            "User": {"id": "Cathy", "time": "morning"},
            "_multi": [{"_tag": f"song {i}", "i": {"id": f"s{i}", "genre": "folk"}} for i in range(4)],
        },
        "p": [0.85, 0.05, 0.05, 0.05],
        "VWState": {"m": "model-1"},
        "_original_label_cost": -1.0,
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


def line(**changes: Any) -> str:
    return json.dumps(event(**changes))


def reason(text: str) -> str:
    with pytest.raises(Unmapped) as error:
        read_dsjson(text)
    return str(error.value)


def test_a_line_becomes_a_page_of_one_slot() -> None:
    page = read_dsjson(line(), user="User.id")
    decision = page.decision
    assert (decision.request_id, decision.user_id, decision.model_id) == ("13118d", "Cathy", "model-1")
    assert decision.decided_at == datetime(2026, 2, 4, 16, 31, 29, 246123, tzinfo=timezone.utc)
    assert decision.item_id.tolist() == ["song 0", "song 1", "song 2", "song 3"]
    assert decision.raw_score.tolist() == [0.05, 0.05, 0.05, 0.85]
    assert decision.page.card.tolist() == [[3]]
    assert decision.page.card_propensity.tolist() == [[0.85]]
    assert decision.page.propensity == 0.85
    assert decision.card_epsilon[0] == pytest.approx(0.2)
    assert decision.policy == POLICY
    assert page.events == (FeedbackEvent("dsjson", decision.decided_at, 0, 0, True, True, 30.0),)
    assert page.fields == ("shared features", "action features")


def test_an_event_that_was_never_activated_was_never_displayed() -> None:
    assert read_dsjson(line(_skipLearn=True)).events == ()


def test_actions_are_named_by_tag_then_by_id_then_by_number() -> None:
    def ids(actions: list[dict[str, Any]]) -> Any:
        text = line(c={"_multi": actions}, a=[1, 2], p=[0.85, 0.15], _label_Action=1, _labelIndex=0)
        return read_dsjson(text).decision.item_id.tolist()

    assert ids([{"_tag": "x"}, {"f": {"id": "y"}}]) == ["x", "y"]
    assert ids([{"f": {"g": 1}}, {"_tag": "y"}]) == ["action 1", "y"]
    assert ids([{"_tag": "x"}, {"_tag": "x"}]) == ["action 1", "action 2"]


def test_a_pmf_that_is_not_epsilon_greedy_has_no_epsilon() -> None:
    page = read_dsjson(line(p=[0.85, 0.1, 0.03, 0.02]))
    assert np.isnan(page.decision.card_epsilon[0])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"c": None}, "no context (c)"),
        ({"c": {"_multi": []}}, "no actions (c._multi)"),
        ({"c": {"_multi": [{}] * 4, "_slots": [{}]}}, "several slots (CCB or slates)"),
        ({"_outcomes": []}, "several slots (CCB or slates)"),
        ({"_label_ca": {}}, "continuous action"),
        ({"pdrop": 0.5}, "subsampled (pdrop): weights have no field"),
        ({"EventId": None}, "no EventId"),
        ({"Timestamp": None}, "no Timestamp"),
        ({"Timestamp": "Tuesday"}, "Timestamp is not ISO 8601"),
        ({"p": None}, "no pmf (a, p)"),
        ({"a": [1, 2, 3, 3]}, "a and p do not name each action once"),
        ({"p": [0.85, 0.05]}, "a and p do not name each action once"),
        ({"p": [0.85, 0.05, 0.05, 0.5]}, "p is not a pmf: it must be >= 0 and sum to 1"),
        ({"p": [0.85, 0.05, 0.05, "x"]}, "p holds something else than numbers"),
        ({"_label_Action": 9, "_labelIndex": 8}, "no chosen action (_label_Action)"),
        ({"_label_Action": None, "_labelIndex": None}, "no chosen action (_label_Action)"),
        ({"_labelIndex": 0}, "_label_Action and _labelIndex disagree"),
        ({"_label_probability": 0.0}, "_label_probability outside (0, 1]"),
        ({"_label_probability": 0.5}, "_label_probability and p disagree"),
        ({"_label_cost": None}, "no _label_cost"),
        ({"_label_cost": -3.0}, "reward outside its range"),
    ],
)
def test_what_cannot_be_a_page_is_named_by_its_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(line(**changes)) == why


def one_slot(**changes: Any) -> str:
    """As Vowpal Wabbit writes a decision of one slot."""
    outcome = {"_id": "slot_0", "_label_cost": -0.42, "_a": [2, 1, 0, 3], "_p": [0.4, 0.3, 0.2, 0.1], **changes}
    whole = {
        "EventId": "e",
        "Timestamp": "2021-04-26T17:23:28.1726275",
        "c": {"_multi": [{"_tag": name} for name in "abcd"], "_slots": [{"_id": "slot_0"}]},
        "_outcomes": [outcome],
        "_ba": [0],
    }
    return json.dumps(whole)


def test_a_line_of_one_slot_is_a_single_choice_whose_actions_count_from_nought() -> None:
    page = read_dsjson(one_slot())
    assert read_dsjson(one_slot(), reward_range=None).reward == 0.42
    assert page.decision.item_id[page.decision.page.card[0, 0]] == "c"
    assert page.decision.page.card_propensity[0, 0] == 0.4
    assert page.decision.score.tolist() == [0.2, 0.3, 0.4, 0.1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"_a": [2, 1]}, "_a does not name each action once"),
        ({"_a": [1, 2, 3, 4]}, "_a does not name each action once"),
        ({"_a": ["c"]}, "no chosen action (_a)"),
        ({"_a": None}, "no pmf (_a, _p)"),
        ({"_p": [1.0]}, "a and p do not name each action once"),
        ({"_label_cost": None}, "no _label_cost"),
    ],
)
def test_a_slot_that_is_no_choice_is_named_by_its_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(one_slot(**changes)) == why


scalars = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
@settings(max_examples=60)
def test_any_json_is_a_page_or_has_a_reason(value: Any) -> None:
    for text in (json.dumps(value), line(c=value), line(a=value), line(p=value), line(_label_Action=value), str(value)):
        with suppress(Unmapped):  # any other error fails
            read_dsjson(text)


def test_an_import_counts_lines_reasons_and_lost_fields(tmp_path: Path) -> None:
    lines = [
        line(),
        line(EventId="two", _label_cost=0.0, Extra=1),
        line(EventId="three", _label_cost=-0.5),
        line(EventId="four", _skipLearn=True),
        line(),
        "",
        "{",
        "[]",
        line(pdrop=0.1),
    ]
    with DecisionLog(tmp_path / "log") as log:
        result = import_dsjson(log, lines)
        assert (result.lines, result.pages) == (8, 4)
        assert result.skipped == {
            "EventId repeats": 1,
            "not JSON": 1,
            "not a JSON object": 1,
            "subsampled (pdrop): weights have no field": 1,
        }
        assert result.fields == {"Extra": 1, "action features": 4, "shared features": 4}
        import_dsjson(log, lines)
        stats = log.stats()
        assert (stats.decisions, stats.events, stats.conflicting) == (4, 3, 0)
        export_log(log, tmp_path / "export", now=LATER)
    assert verify(tmp_path / "log").imported == 4
    assert verify(tmp_path / "export").ok
    for name, expected in (("streamed_30s", [1, 0, 0, 0]), ("share_30s", [1, 0, 0.5, 0])):
        (batch,) = read_pages(tmp_path / "export", items(), reward=name)
        assert batch.reward[:, 0, 0].tolist() == expected
        assert batch.displayed.tolist() == [True, True, True, False]


def test_rewards_of_another_range_are_moved_to_0_and_1(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log") as log:
        import_dsjson(log, [line(_label_cost=1.0), line(EventId="b", _label_cost=-1.0)], reward_range=(-1.0, 1.0))
        seconds = [log.joined(request_id) for request_id in ("13118d", "b")]
    assert [joined.listened_s[0, 0] for joined in seconds if joined is not None] == [0.0, 30.0]
    with pytest.raises(ValueError, match="reward_range"):
        read_dsjson(line(), reward_range=(1.0, 0.0))


# -------------------------------------------------------------------------------------------------------------- export


def items(n: int = 12) -> ItemTable:
    ids = np.array([f"item-{i}" for i in range(n)], dtype=object)
    none = Labels.of([()] * n)
    return ItemTable(
        ids,
        ids,
        np.zeros(n, np.int8),
        none,
        none,
        np.full(n, "NaT", dtype="datetime64[D]"),
        none,
        np.zeros(n, np.bool_),
        np.zeros(n),
        np.full(n, 200.0),
        np.zeros((n, 0), np.float32),
    )


def make(i: int, pinned: bool = False, **changes: Any) -> Decision:
    shelves = (Shelf("one", "One"), Shelf("two", "Two"))
    rng = np.random.default_rng(i)
    score, shelf = rng.random(12), np.arange(12) % 2
    shelf[11] = -1 if pinned else 1
    page = PagePolicy(EpsilonGreedy(0.3), EpsilonGreedy([0.2, 0.4, 0.6])).decide(
        Candidates(np.arange(12), shelf, shelves),
        score,
        2,
        3,
        np.random.default_rng(i),
        pins=[(1, 0, 11)] if pinned else [],
    )
    whole = Decision(
        f"request-{i}",
        "user",
        Context(AT + timedelta(minutes=i), country="DE"),
        ListenerTraits(),
        np.zeros(0, np.float32),
        "batch",
        "epsilon_greedy",
        np.full(2, 0.3),
        np.array([0.2, 0.4, 0.6]),
        "rules",
        i,
        shelves,
        items().item_id,
        shelf,
        score,
        score,
        page,
        model_id="model",
    )
    return replace(whole, **changes)


def reports(decision: Decision, rows: int = 2) -> list[FeedbackEvent]:
    return [
        FeedbackEvent(f"{row}/{column}", decision.decided_at, row, column, True, True, 15.0 * column)
        for row in range(rows)
        for column in range(3)
    ]


@pytest.fixture
def exported(tmp_path: Path) -> tuple[list[Decision], list[dict[str, Any]]]:
    decisions = [make(i) for i in range(20)]
    with DecisionLog(tmp_path / "log") as log:
        log.append_many(decisions)
        log.feedback_many((d.request_id, reports(d), d.decided_at) for d in decisions)
        log.close_windows(LATER)
        result = export_dsjson(log, tmp_path / "out.dsjson")
    assert (result.pages, result.lines, dict(result.skipped)) == (20, 120, {})
    return decisions, [json.loads(text) for text in (tmp_path / "out.dsjson").read_text().splitlines()]


def test_each_seen_slot_is_a_line_with_the_pmf_over_what_was_left(
    exported: tuple[list[Decision], list[dict[str, Any]]],
) -> None:
    decisions, lines = exported
    at = iter(lines)
    for decision in decisions:
        for row in range(2):
            for column in range(3):
                found, card = next(at), decision.page.card[row, column]
                assert found["EventId"] == f"{decision.request_id}/{row}/{column}"
                assert found["_label_probability"] == decision.page.card_propensity[row, column]
                assert found["_label_cost"] == (-1.0 if column == 2 else 0.0)
                assert len(found["a"]) == len(found["p"]) == 6 - column
                assert sum(found["p"]) == pytest.approx(1.0, abs=1e-12)
                assert sorted(found["a"]) == list(range(1, 7 - column))
                assert found["a"][0] == found["_label_Action"] == found["_labelIndex"] + 1
                chosen = found["c"]["_multi"][found["_labelIndex"]]
                assert chosen["_tag"] == decision.item_id[card]
                assert found["c"]["Slot"]["rule"] == decision.shelves[decision.page.shelf[row]].rule
                before = decision.page.card[row, :column]
                assert not {a["_tag"] for a in found["c"]["_multi"]} & set(decision.item_id[before])


def test_exported_lines_are_imported_as_single_choices_with_the_same_numbers(
    exported: tuple[list[Decision], list[dict[str, Any]]], tmp_path: Path
) -> None:
    decisions, lines = exported
    with DecisionLog(tmp_path / "back") as log:
        result = import_dsjson(log, [json.dumps(one) for one in lines])
        assert (result.pages, dict(result.skipped)) == (120, {})
        for decision in decisions:
            back = log.get(f"{decision.request_id}/1/2")
            assert back is not None
            assert back.page.propensity == decision.page.card_propensity[1, 2]
            assert back.decided_at == decision.decided_at
            assert back.item_id[back.page.card[0, 0]] == decision.item_id[decision.page.card[1, 2]]
            assert back.card_epsilon[0] == pytest.approx(0.6)


def test_vowpal_wabbit_reads_the_exported_lines(exported: tuple[list[Decision], list[dict[str, Any]]]) -> None:
    vw = pytest.importorskip("vowpal_wabbit_next")
    workspace = vw.Workspace(["--cb_explore_adf", "--quiet"])
    parser = vw.DSJsonFormatParser(workspace)
    for found in exported[1]:
        examples = parser.parse_json(json.dumps(found, separators=(",", ":")))
        assert len(examples) == 1 + len(found["a"])
        label = examples[1 + found["_labelIndex"]].get_label()
        _, cost, probability = label.label
        assert cost == found["_label_cost"]
        assert probability == pytest.approx(found["_label_probability"], rel=1e-6)
        workspace.learn_one(examples)


def test_what_has_no_line_is_counted(tmp_path: Path) -> None:
    decisions = [make(0, pinned=True), make(1, forced=True), make(2), make(3), make(60 * 24 * 9)]
    with DecisionLog(tmp_path / "log") as log:
        log.append_many(decisions)
        for decision in decisions[:2]:
            log.feedback(decision.request_id, reports(decision), decision.decided_at)
        log.feedback("request-2", reports(decisions[2], rows=1), AT)
        log.close_windows(AT + timedelta(days=5))
        result = export_dsjson(log, tmp_path / "out")
    assert (result.pages, result.lines) == (4, 5 + 3)
    assert result.skipped == {
        "page: never displayed": 1,
        "page: set by hand": 1,
        "page: window still open": 1,
        "pinned": 1,
        "unseen": 3,
    }


def test_pages_in_memory_and_lines_have_the_same_reward() -> None:
    decision = make(5)
    batch = pages_of([decision], {decision.request_id: reports(decision)}, items())
    assert batch.reward[0].tolist() == [[0, 0, 1], [0, 0, 1]]


def test_one_line_does_not_stop_an_import(tmp_path: Path) -> None:
    lines = [
        line(EventId="good 1"),
        line(EventId="cost", _label_cost=10**400),
        line(EventId="p", p=[10**400, 0.05, 0.05, 0.05]),
        line(EventId="float actions", a=[4.0, 2.0, 1.0, 3.0]),
        line(EventId="year", Timestamp="0001-01-01T00:00:00+14:00"),
        line(EventId="\ud800"),
        line(EventId="known", Timestamp="2026-02-05T00:00:00Z"),
        line(EventId="\udc00 user", c={**event()["c"], "User": {"id": "\ud800"}}),
        line(EventId="user", c={**event()["c"], "User": {"id": "\ud800"}}),
        line(EventId="good 2"),
    ]
    with DecisionLog(tmp_path / "log") as log:
        import_dsjson(log, [line(EventId="known")])
        result = import_dsjson(log, lines, user="User.id")
        assert {d.request_id for d in log.decisions()} == {"good 1", "known", "good 2"}
    assert (result.lines, result.pages, sum(result.skipped.values())) == (10, 2, 8)
    assert result.skipped["EventId is in the log with another content"] == 1
    assert result.skipped["EventId is not valid Unicode"] == 2


def test_a_fraction_of_a_second_may_stand_before_an_offset() -> None:
    at = read_dsjson(line(Timestamp="2020-01-01T00:00:00.123+02:00")).decision.decided_at
    assert at == datetime(2019, 12, 31, 22, 0, 0, 123000, tzinfo=timezone.utc)


def test_pages_of_a_policy_that_is_not_known_have_no_line(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log") as log:
        for i, policy in enumerate(["softmax", "uniform"]):
            page = make(i, policy=policy)
            log.append(page)
            log.feedback(page.request_id, reports(page), page.decided_at)
        log.close_windows(LATER)
        result = export_dsjson(log, tmp_path / "lines")
    assert result.skipped["page: policy unknown"] == 1
    for text in (tmp_path / "lines").read_text().splitlines():
        assert len(set(json.loads(text)["p"][1:])) == 1  # all that were not drawn are equally likely
