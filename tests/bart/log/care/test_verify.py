"""Verification: a good log passes, each kind of damage is found under its request id, and the rest is still checked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bart.errors import LogError
from bart.log.care.erasure import erase_user
from bart.log.care.export import export_log
from bart.log.care.replay import Moments, candidate_items, replay
from bart.log.care.replay_batch import replay_many
from bart.log.care.verify import VerifyResult, verify
from bart.log.decision_log import DecisionLog
from bart.log.record.feedback import FeedbackEvent
from bart.log.record.parse import block_of
from bart.log.record.record import encode
from bart.page.policy import PagePolicy, recorded_name
from bart.ranking.policies import EpsilonGreedy, PlackettLuce, Uniform
from bart.types import Candidates, Context, Decision, ListenerTraits, Page, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def make(
    i: int,
    n: int = 20,
    rows: int = 2,
    columns: int = 3,
    epsilon: float = 0.3,
    overlap: bool = False,
    tied: bool = False,
    pins: tuple[tuple[int, int], ...] = (),
    drawn_by: PagePolicy | None = None,
    **changes: Any,
) -> Decision:
    """A drawn page. pins: (row, column), taken by the last candidates."""
    rng = np.random.default_rng(i)
    shelves = tuple(Shelf(f"rule {s}", f"Shelf {s}") for s in range(4))
    shelf = rng.permutation(np.arange(n) % 4)
    ids = np.array([f"item-{j % (n // 2) if overlap else j}" for j in range(n)], dtype=object)
    raw = np.round(rng.random(n), 1) if tied else rng.random(n)
    score = raw * np.where(np.arange(n) % 2, 1.0, 0.9)
    held = n - 1 - np.arange(len(pins))
    shelf[held] = -1
    shelf_epsilon, card_epsilon = np.full(rows, epsilon), np.full(columns, epsilon)
    seed = int(rng.integers(2**60))
    whole = Decision(
        request_id=f"request-{i}",
        user_id=f"user-{i % 5}",
        context=Context(AT + timedelta(minutes=i)),
        traits=ListenerTraits(),
        listener=np.zeros(4, dtype=np.float32),
        batch_id="batch",
        policy="epsilon_greedy",
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version="rules",
        seed=seed,
        shelves=shelves,
        item_id=ids,
        shelf=shelf,
        raw_score=raw,
        score=score,
        page=Page(
            np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty(0), np.empty((0, 0)), np.zeros((0, 0), np.bool_)
        ),
    )
    used = drawn_by or PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon))
    page = used.decide(
        Candidates(candidate_items(whole), shelf, shelves),
        score,
        rows,
        columns,
        np.random.default_rng(seed),
        raw_score=raw,
        pins=[(row, column, int(h)) for (row, column), h in zip(pins, held, strict=True)],
    )
    return replace(whole, page=page, **changes)


def logged(path: Path, decisions: list[Decision]) -> Path:
    with DecisionLog(path / "log.sqlite") as log:
        log.append_many(decisions)
    return path / "log.sqlite"


def problems(result: VerifyResult) -> dict[str, str]:
    assert not result.ok
    return {problem.request_id: problem.text for problem in result.problems}


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"overlap": True},
        {"tied": True},
        {"epsilon": 1.0},
        {"epsilon": 0.0},
        {"pins": ((0, 1), (1, 0))},
        {"rows": 6, "columns": 9},
        {"n": 3},
    ],
)
def test_a_log_of_drawn_pages_verifies(tmp_path: Path, kind: dict[str, Any]) -> None:
    result = verify(logged(tmp_path, [make(i, **kind) for i in range(40)]))
    assert result.problems == ()
    assert result.ok
    assert (result.records, result.verified) == (40, 40)


def test_the_mean_weight_of_each_choice_is_1_within_its_standard_error(tmp_path: Path) -> None:
    result = verify(logged(tmp_path, [make(i, tied=i % 2 == 0, overlap=i % 3 == 0) for i in range(800)]))
    assert result.ok
    assert [mean.choice for mean in result.means] == [
        "shelf, row 0",
        "shelf, row 1",
        "card, column 0",
        "card, column 1",
        "card, column 2",
    ]
    assert all(mean.judged for mean in result.means)
    assert all(abs(mean.mean - 1) <= 4 * mean.standard_error for mean in result.means)
    assert max(mean.standard_error for mean in result.means) < 0.1


def test_seeds_that_were_picked_by_their_outcome_are_noticed(tmp_path: Path) -> None:
    chosen = [page for page in (make(i) for i in range(900)) if page.page.card_propensity[0, 0] > 0.5]
    result = verify(logged(tmp_path, chosen))
    assert result.problem_count == 0  # each record is right by itself
    assert not result.ok
    assert any(not mean.passed for mean in result.means if mean.choice == "card, column 0")


def test_few_pages_are_not_judged(tmp_path: Path) -> None:
    result = verify(logged(tmp_path, [make(i, epsilon=0.05) for i in range(20)]))
    assert result.ok
    assert not any(mean.judged for mean in result.means)


def test_pins_and_greedy_choices_are_excluded_and_counted(tmp_path: Path) -> None:
    (tmp_path / "greedy").mkdir()
    greedy = verify(logged(tmp_path / "greedy", [make(i, epsilon=0.0) for i in range(10)]))
    assert (greedy.excluded, greedy.means) == (10 * (2 + 2 * 3), ())
    pinned = verify(logged(tmp_path, [make(i, pins=((0, 0),)) for i in range(10)]))
    assert pinned.excluded == 10
    assert sum(mean.n for mean in pinned.means) == 10 * (2 + 2 * 3 - 1)


def test_pages_set_by_hand_are_replayed_but_do_not_enter_the_means(tmp_path: Path) -> None:
    result = verify(logged(tmp_path, [make(i, forced=True) for i in range(10)]))
    assert result.ok
    assert (result.forced, result.verified, result.means) == (10, 10, ())


def test_another_policy_is_replayed_when_it_is_given(tmp_path: Path) -> None:
    softmax = PagePolicy(PlackettLuce(0.3), PlackettLuce(0.5))
    path = logged(tmp_path, [make(i, drawn_by=softmax, policy="softmax") for i in range(5)])
    unknown = verify(path)
    assert unknown.ok
    assert (unknown.records, unknown.verified, unknown.unknown_policy) == (5, 0, 5)  # checksum only
    known = verify(path, {"softmax": lambda _: softmax})
    assert known.ok
    assert (known.verified, known.unknown_policy) == (5, 0)


def test_plackett_luce_pages_are_replayed_at_their_recorded_temperatures(tmp_path: Path) -> None:
    policy = PagePolicy(PlackettLuce(0.3), PlackettLuce(1 / 3))
    name = recorded_name(policy, "softmax")
    assert name == "plackett_luce(0.3, 0.3333333333333333)"
    for folder in ("right", "wrong", "bare"):
        (tmp_path / folder).mkdir()
    right = verify(logged(tmp_path / "right", [make(i, drawn_by=policy, policy=name) for i in range(20)]))
    assert right.ok
    assert (right.verified, right.unknown_policy) == (20, 0)
    wrong = verify(logged(tmp_path / "wrong", [make(1, drawn_by=policy, policy="plackett_luce(0.3, 0.34)")]))
    assert "card_propensity[0, 0] is" in problems(wrong)["request-1"]
    bare = verify(logged(tmp_path / "bare", [make(i, drawn_by=policy, policy="plackett_luce") for i in range(2)]))
    assert (bare.ok, bare.unknown_policy) == (True, 2)  # nothing says at which temperature


def test_a_uniform_page_is_replayed_by_its_recorded_name(tmp_path: Path) -> None:
    uniform = PagePolicy(Uniform(), Uniform())
    pages = [make(i, drawn_by=uniform, policy="uniform") for i in range(20)]
    result = verify(logged(tmp_path, pages))
    assert result.problems == ()
    assert result.verified == 20
    assert sum(mean.n for mean in result.means) == 20 * (2 + 2 * 3)


def unchecked(thing: Any, **changes: Any) -> Any:
    """A copy with fields that its class would refuse: what an altered file holds was never checked."""
    made = copy(thing)
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return made


def altered_page(decision: Decision, **changes: Any) -> Decision:
    return unchecked(decision, page=unchecked(decision.page, **changes))  # type: ignore[no-any-return]


def next_bit(value: Any, at: tuple[int, ...]) -> Any:
    value = value.copy()
    value[at] = np.nextafter(value[at], 2.0)
    return value


FALSE_RECORDS: dict[str, tuple[Callable[[Decision], Decision], str]] = {
    "a card propensity, by its last bit": (
        lambda d: altered_page(d, card_propensity=next_bit(d.page.card_propensity, (1, 2))),
        r"card_propensity\[1, 2\] is .*; recomputed",
    ),
    "a shelf propensity, by its last bit": (
        lambda d: altered_page(d, shelf_propensity=next_bit(d.page.shelf_propensity, (1,))),
        r"shelf_propensity\[1\] is .*; recomputed",
    ),
    "another epsilon": (lambda d: replace(d, card_epsilon=d.card_epsilon * 0.9), "recomputed"),
    "another seed": (lambda d: replace(d, seed=d.seed + 3), "draws the"),
    "a card twice": (
        lambda d: altered_page(d, card=np.where(d.page.card == d.page.card[0, 1], d.page.card[0, 0], d.page.card)),
        "could not have been drawn",
    ),
    "a shelf that is not there": (
        lambda d: altered_page(d, shelf=d.page.shelf + 40),
        "could not have been drawn|does not hold a decision",
    ),
}


@pytest.mark.parametrize("kind", FALSE_RECORDS)
def test_a_false_record_with_a_fitting_checksum_is_found_by_replay(tmp_path: Path, kind: str) -> None:
    change, text = FALSE_RECORDS[kind]
    decisions = [make(i) for i in range(6)]
    decisions[3] = change(decisions[3])
    result = verify(logged(tmp_path, decisions))
    assert list(problems(result)) == ["request-3"]
    assert re.search(text, problems(result)["request-3"])
    assert result.verified == 5


def test_altered_and_torn_records_are_found_and_the_rest_is_verified(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i) for i in range(10)])
    connection = sqlite3.connect(path)
    record = encode(make(1)).record
    flipped = record[:60] + bytes([record[60] ^ 1]) + record[61:]
    changes: list[tuple[str, Any, int]] = [
        ("record", flipped, 1),
        ("record", record[:-9], 2),
        ("record", encode(make(0)).record, 3),
        ("user_id", "someone else", 4),
        ("decided_us", 5, 5),
        ("shown", b"\x01\x00\x01\x00\x80", 6),
        ("record", "text", 7),
        ("record", b"", 8),
    ]
    for column, value, i in changes:
        connection.execute(f"UPDATE decision SET {column} = ? WHERE request_id = ?", (value, f"request-{i}"))
    connection.commit()
    connection.close()
    result = verify(path)
    found = problems(result)
    assert sorted(found) == [f"request-{i}" for i in range(1, 9)]
    assert (result.records, result.verified) == (10, 2)
    assert "altered" in found["request-1"]
    assert "column user_id is 'someone else'" in found["request-4"]


def test_a_page_of_the_file_that_is_overwritten_takes_only_its_own_records_along(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i, n=200) for i in range(60)])
    content = bytearray(path.read_bytes())
    at = 4096 * (len(content) // 4096 // 2)
    content[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(bytes(content))
    result = verify(path)
    assert not result.ok
    assert result.records == 60
    assert 0 < result.records - result.verified < 20
    assert {p.request_id for p in result.problems} <= {"", *(f"request-{i}" for i in range(60))}
    assert any("the file is damaged" in p.text for p in result.problems if p.request_id == "")


def test_feedback_that_fits_no_page_is_found(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i) for i in range(3)])
    with DecisionLog(path) as log:
        for i in (0, 1):
            log.feedback(f"request-{i}", [FeedbackEvent("a", AT, 0, 0, seen=True)], AT)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE feedback SET row = 77 WHERE seq = 1")
    connection.execute("UPDATE feedback SET seq = 99 WHERE seq = 2")
    connection.commit()
    connection.close()
    assert problems(verify(path)) == {
        "request-0": "its feedback names a slot that its page lacks",
        "": "feedback for record 99, which is not in the log",
    }


def test_tombstones_verify_and_altered_ones_do_not(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i) for i in range(10)])
    with DecisionLog(path) as log:
        erase_user(log, "user-1", AT)
    result = verify(path)
    assert result.ok
    assert (result.records, result.tombstones) == (8, 2)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE tombstone SET erased_us = erased_us + 1 WHERE request_id = 'request-6'")
    connection.commit()
    connection.close()
    assert problems(verify(path)) == {"request-6": "checksum does not fit the tombstone: it was altered"}


def test_an_export_verifies_like_its_log_and_altered_rows_are_found(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i, overlap=i % 2 == 0) for i in range(30)])
    with DecisionLog(path) as log:
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    result = verify(tmp_path / "log")
    assert result.ok
    assert (result.records, result.verified) == (30, 30)
    assert result.means == verify(path).means

    (file,) = (tmp_path / "log").glob("date=*/part-*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[4]["raw_score"][7] += 1e-12
    rows[5] = rows[6]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    assert problems(verify(tmp_path / "log")) == {
        "request-4": "checksum does not fit the row: it was altered",
        "request-6": "is in the export more than once",
    }


def test_an_export_file_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    days = [replace(make(i), context=Context(AT + timedelta(days=i))) for i in range(3)]
    with DecisionLog(logged(tmp_path, days)) as log:
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    file = sorted((tmp_path / "log").glob("date=*/part-*.parquet"))[1]
    file.write_bytes(file.read_bytes()[:-20])
    result = verify(tmp_path / "log")
    assert not result.ok
    assert result.verified == 2
    assert "cannot be read" in result.problems[0].text


def test_a_path_that_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="does not exist"):
        verify(tmp_path / "nothing")
    with pytest.raises(LogError, match="holds no exported pages"):
        verify(tmp_path)


@pytest.mark.parametrize("changes", [{"shelf": np.full(20, 99)}, {"shelf": np.full(20, -5)}, {"shelves": ()}])
def test_an_impossible_record_with_a_fitting_checksum_does_not_hide_the_others(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = logged(tmp_path, [make(i) for i in range(5)])
    with DecisionLog(path) as log:
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    false = unchecked(make(2), **changes)
    encoded = encode(false)
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE decision SET record = ?, checksum = ? WHERE request_id = 'request-2'",
        (encoded.record, encoded.checksum),
    )
    connection.commit()
    connection.close()
    (file,) = (tmp_path / "log").glob("date=*/part-*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[2].update(checksum=encoded.checksum, shelf=false.shelf.tolist())
    if not false.shelves:
        rows[2]["shelves"] = []
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    for where in (path, tmp_path / "log"):
        result = verify(where)
        assert set(problems(result)) == {"request-2"}, where
        assert (result.records, result.verified) == (5, 4), where


def test_an_export_without_a_value_or_a_column_is_reported(tmp_path: Path) -> None:
    with DecisionLog(logged(tmp_path, [make(i) for i in range(5)])) as log:
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    (file,) = (tmp_path / "log").glob("date=*/part-*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[3]["decided_at"] = None
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    result = verify(tmp_path / "log")
    assert (set(problems(result)), result.verified) == ({"request-3"}, 4)
    pq.write_table(table.drop_columns(["card"]), file)
    assert "lacks the column card" in problems(verify(tmp_path / "log"))[""]
    place = table.schema.get_field_index("user_id")
    pq.write_table(table.set_column(place, "user_id", table.column("rows")), file)
    assert "column user_id has type int32; expected string" in problems(verify(tmp_path / "log"))[""]


def test_propensities_of_a_policy_that_is_not_known_lie_between_0_and_1(tmp_path: Path) -> None:
    false = [
        altered_page(replace(make(i), policy=name), card_propensity=np.full((2, 3), p))
        for i, (name, p) in enumerate([("imported:x", 7.0), ("own", 0.0), ("imported:x", 0.5)])
    ]
    result = verify(logged(tmp_path, false))
    assert set(problems(result)) == {"request-0", "request-1"}
    assert problems(result)["request-1"] == "card_propensity[0, 0] is 0.0; expected more than 0, at most 1"
    assert (result.verified, result.imported, result.unknown_policy) == (0, 1, 0)


def test_a_damaged_page_that_no_record_lies_on_is_found(tmp_path: Path) -> None:
    path = logged(tmp_path, [make(i) for i in range(20)])
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decision_user'").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[4096 * (root - 1) : 4096 * root] = bytes(4096)
    path.write_bytes(bytes(content))
    result = verify(path)
    assert result.verified == 20
    assert "the file is damaged" in problems(result)[""]


def test_an_empty_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    empty = tmp_path / "log.sqlite"
    empty.touch()
    with pytest.raises(LogError, match="is empty; expected a decision log"):
        verify(empty)
    assert empty.stat().st_size == 0


def test_tombstones_of_an_export_verify_and_altered_ones_do_not(tmp_path: Path) -> None:
    with DecisionLog(logged(tmp_path, [make(i) for i in range(10)])) as log:
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
        erase_user(log, "user-1", AT, [tmp_path / "log"])
    result = verify(tmp_path / "log")
    assert result.ok
    assert (result.records, result.tombstones) == (8, 2)
    file = tmp_path / "log" / "_tombstones.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1]["erased_us"] += 1
    rows.append({**rows[0], "request_id": "request-2"})
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    found = [(p.request_id, p.text) for p in verify(tmp_path / "log").problems]
    altered = "checksum does not fit the tombstone: it was altered"
    assert found == [
        ("request-6", altered),
        ("request-2", altered),
        ("request-2", "is in the export although it was erased"),
    ]
    file.write_bytes(b"garbage")
    assert "cannot be read" in problems(verify(tmp_path / "log"))[""]


def test_numbers_in_messages_are_plain(tmp_path: Path) -> None:
    page = make(0)
    off = replace(page, page=replace(page.page, card_propensity=page.page.card_propensity * 0.5))
    (text,) = problems(verify(logged(tmp_path, [off]))).values()
    assert "np.float64" not in text


def test_pages_replayed_together_are_right_where_each_alone_is_and_give_the_same_moments() -> None:
    kinds: list[dict[str, Any]] = [{}, {"tied": True}, {"overlap": True}, {"epsilon": 0.0}, {"n": 3}, {"forced": True}]
    decisions = [make(i, rows=2 + i % 2, **kinds[i % len(kinds)]) for i in range(60)]
    for i in range(0, 60, 7):
        lower = decisions[i].page.shelf_propensity.copy()
        lower[0] = np.nextafter(lower[0], 0.0)
        decisions[i] = altered_page(decisions[i], shelf_propensity=lower)
    decisions += [make(100, pins=((0, 1),)), replace(make(101), policy="of one's own")]
    good, moments = replay_many(block_of(decisions))
    alone = [replay(decision) for decision in decisions[:-2]]
    assert good.tolist() == [not problems for problems, _ in alone] + [False, False]
    used = [each for (problems, each), d in zip(alone, decisions, strict=False) if not problems and not d.forced]
    assert moments.excluded == sum(each.excluded for each in used)
    expected = Moments.concat(used)
    for name in ("position", "weight", "variance", "largest"):
        assert np.array_equal(np.sort(getattr(moments, name)), np.sort(getattr(expected, name)))
