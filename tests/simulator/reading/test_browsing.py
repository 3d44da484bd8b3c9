"""How pages are read: frequencies against closed forms, and closed forms against enumeration."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from bart.log.outcomes.merge import merge
from bart.log.record.feedback import FeedbackEvent
from simulator.reading.browsing import (
    WORLDS,
    BrowsingParams,
    Feedback,
    browse,
    exposure,
    hazards,
    page_value,
    world_params,
)
from simulator.reading.delivery import Delivery, DeliveryParams, deliver, feedback_events

EVERY = pytest.mark.parametrize("name", list(WORLDS))
AT_S = 1_741_305_600


def page(rows: int = 3, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A page of fairly attractive cards, its last row shorter; [1, rows, columns]."""
    appeal = np.random.default_rng(seed).uniform(0.05, 0.5, size=(1, rows, columns))
    present = np.ones((1, rows, columns), dtype=np.bool_)
    present[0, -1, columns // 2 :] = False
    return appeal, present


def enumerate_page(appeal: np.ndarray, present: np.ndarray, p: BrowsingParams, patience: float) -> float:
    """Expected streams by walking through every outcome, card by card, and again for those who return."""
    h = hazards(appeal, present, p, np.array([patience]))
    rows, columns = appeal.shape[1:]
    ends: Counter[tuple[tuple[int, ...], tuple[bool, ...]]] = Counter()
    total = 0.0

    def with_row(state: tuple[Any, ...], r: int, value: Any) -> tuple[Any, ...]:
        return (*state[:r], value, *state[r + 1 :])

    def down(r: int, chance: float, done: tuple[int, ...], success: tuple[bool, ...]) -> None:
        go = (h.row_1 if success[r] else h.row_0)[0, r]
        row(r + 1, chance * go, done, success)
        ends[done, success] += chance * (1 - go)

    def row(r: int, chance: float, done: tuple[int, ...], success: tuple[bool, ...]) -> None:
        if r == rows or not present[0, r, 0]:
            ends[done, success] += chance
            return
        if p.skipped:
            down(r, chance * p.skipped, done, success)
        card(r, done[r], chance * (1 - p.skipped), done, success)

    def card(r: int, c: int, chance: float, done: tuple[int, ...], success: tuple[bool, ...]) -> None:
        nonlocal total
        if chance == 0:
            return
        if c == columns or not present[0, r, c]:
            down(r, chance, done, success)
            return
        stream = h.look[0, r, c] * h.stream[0, r, c]
        total += chance * stream
        for streamed, share in ((True, stream), (False, 1 - stream)):
            on = (h.column_1 if streamed else h.column_0)[0, r, c]
            now = with_row(done, r, c + 1), with_row(success, r, success[r] or streamed)
            card(r, c + 1, chance * share * on, *now)
            down(r, chance * share * (1 - on), *now)

    row(0, 1.0, (0,) * rows, (False,) * rows)
    left, ends = ends, Counter()
    assert sum(left.values()) == pytest.approx(1)
    if p.returns:
        for state, chance in left.items():
            row(0, chance * p.returns, *state)
    return total


@EVERY
def test_the_value_of_a_page_is_the_sum_over_every_way_of_reading_it(name: str) -> None:
    appeal, present = page(3, 3) if WORLDS[name].returns else page()
    for patience in (-1.0, 0.0, 0.7):
        expected = enumerate_page(appeal, present, WORLDS[name], patience)
        value = page_value(appeal, present, WORLDS[name], patience=np.array([patience]))
        assert value[0] == pytest.approx(expected, rel=1e-12)


def test_who_returns_goes_on_behind_what_was_come_to() -> None:
    appeal, present = np.full((2_000, 3, 6), 0.1), np.ones((2_000, 3, 6), dtype=np.bool_)
    always = replace(WORLDS["RETURN"], hc0=0.5, hc1=0.5, hr0=0.0, hr1=0.0, displayed=1.0, returns=1.0)
    seen = browse(appeal, present, always, np.random.default_rng(1)).seen
    # Two geometric lengths one after the other, cut at the end of the row; nothing below it.
    assert not seen[:, 1:].any()
    length = seen[:, 0].sum(axis=1)
    assert (seen[:, 0].argmin(axis=1)[length < 6] == length[length < 6]).all()
    wanted = 2_000 * 0.5 ** np.arange(2, 6) * np.arange(1, 5)
    observed = np.bincount(length, minlength=7)
    assert observed[:2].sum() == 0
    assert ((observed[2:6] - wanted) ** 2 / wanted).sum() < chi2.ppf(0.999, df=4)


def test_a_row_that_is_passed_over_is_not_seen_and_does_not_end_the_page() -> None:
    appeal, present = np.full((4_000, 3, 2), 0.1), np.ones((4_000, 3, 2), dtype=np.bool_)
    seen = browse(appeal, present, replace(WORLDS["GRID"], displayed=1.0), np.random.default_rng(1)).seen.any(axis=2)
    assert (seen[:, 2] & ~seen[:, 1] & seen[:, 0]).mean() > 0.05
    with pytest.raises(ValueError, match="skipped and returns are both more than 0"):
        BrowsingParams(skipped=0.1, returns=0.1)


@EVERY
def test_cards_are_seen_and_streamed_as_often_as_the_closed_form_says(name: str) -> None:
    n = 60_000
    appeal, present = page()
    params = replace(WORLDS[name], displayed=1.0)
    own = {"patience": np.full(n, 0.5)}
    many = np.repeat(appeal, n, axis=0), np.repeat(present, n, axis=0)
    feedback = browse(*many, params, np.random.default_rng(11), **own)
    seen = exposure(appeal, present, params, patience=np.array([0.5]))[0]
    error = np.sqrt(seen * (1 - seen) / n) + 1e-12
    assert (np.abs(feedback.seen.mean(axis=0) - seen) < 4.5 * error).all()
    value = page_value(appeal, present, params, patience=np.array([0.5]))[0]
    streams = feedback.streamed.sum(axis=(1, 2))
    assert abs(streams.mean() - value) < 4 * streams.std() / np.sqrt(n)


def test_the_place_of_the_only_stream_has_the_distribution_of_the_closed_form() -> None:
    # In W2 a page has at most one stream, so that cells and "none" are the classes of a multinomial.
    n = 40_000
    appeal, present = page(4, 5)
    params = replace(WORLDS["W2"], displayed=1.0)
    feedback = browse(np.repeat(appeal, n, axis=0), np.repeat(present, n, axis=0), params, np.random.default_rng(3))
    assert feedback.streamed.sum(axis=(1, 2)).max() == 1
    h = hazards(appeal, present, params)
    expected = (exposure(appeal, present, params) * h.stream)[0][present[0]]
    counts = feedback.streamed.sum(axis=0)[present[0]]
    observed = np.append(counts, n - counts.sum())
    wanted = n * np.append(expected, 1 - expected.sum())
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    assert statistic < chi2.ppf(0.999, df=len(wanted) - 1)


def test_the_length_of_reading_is_geometric_where_position_alone_counts() -> None:
    n, columns = 40_000, 6
    params = replace(WORLDS["W1"], displayed=1.0)
    appeal = np.full((n, 1, columns), 0.3)
    feedback = browse(appeal, np.ones_like(appeal, dtype=np.bool_), params, np.random.default_rng(4))
    observed = np.bincount(feedback.seen[:, 0].sum(axis=1), minlength=columns + 1)[1:]
    on = params.hc0
    wanted = n * np.append(on ** np.arange(columns - 1) * (1 - on), on ** (columns - 1))
    assert ((observed - wanted) ** 2 / wanted).sum() < chi2.ppf(0.999, df=columns - 1)


@EVERY
def test_a_stream_is_seen_and_lasts_thirty_seconds_and_nothing_else_does(name: str) -> None:
    rng = np.random.default_rng(5)
    appeal, present = rng.uniform(0, 0.6, size=(3_000, 6, 6)), np.ones((3_000, 6, 6), dtype=np.bool_)
    f = browse(appeal, present, WORLDS[name], rng, patience=rng.standard_normal(3_000))
    np.testing.assert_array_equal(f.streamed, f.listened_s >= 30)
    assert not (f.streamed & ~f.seen).any()
    assert not (f.saved & ~f.streamed).any()
    assert not ((f.listened_s > 0) & ~f.seen).any()
    assert ((f.listened_s > 0) & ~f.streamed).any()
    assert not f.seen[~f.displayed].any()
    assert f.displayed.mean() == pytest.approx(0.97, abs=0.02)


def test_what_is_listened_is_no_longer_than_the_track() -> None:
    appeal, present = np.full((2_000, 1, 3), 0.9), np.ones((2_000, 1, 3), dtype=np.bool_)
    f = browse(appeal, present, WORLDS["W1"], np.random.default_rng(0), duration_s=np.full((2_000, 1, 3), 45.0))
    assert f.listened_s.max() == 45.0


def test_a_listener_sees_from_the_left_and_from_the_top() -> None:
    appeal, present = np.full((2_000, 5, 5), 0.2), np.ones((2_000, 5, 5), dtype=np.bool_)
    seen = browse(appeal, present, WORLDS["W3"], np.random.default_rng(0)).seen
    assert not (seen[:, :, 1:] & ~seen[:, :, :-1]).any()
    assert not (seen[:, 1:, 0] & ~seen[:, :-1, 0]).any()


def test_nothing_depends_on_cards_that_are_not_there() -> None:
    appeal, present = page()
    other = np.where(present, appeal, 0.99)
    for params in WORLDS.values():
        own = np.zeros(1)
        assert page_value(appeal, present, params, patience=own) == page_value(other, present, params, patience=own)


def test_patient_listeners_stream_more() -> None:
    appeal, present = page(6, 6)
    low, high = (page_value(appeal, present, WORLDS["W4"], patience=np.array([p]))[0] for p in (-1.0, 1.0))
    assert high > 1.3 * low


def test_a_patience_of_zero_is_the_world_without_patience() -> None:
    appeal, present = page(6, 6)
    for own, plain in (("W4", "W1"), ("W5", "W3")):
        assert page_value(appeal, present, WORLDS[own], patience=np.zeros(1)) == pytest.approx(
            page_value(appeal, present, WORLDS[plain]), rel=1e-12
        )


def test_where_content_counts_a_better_card_before_it_raises_the_exposure_of_a_card() -> None:
    appeal, present = page(1, 4)
    present[:] = True
    better = appeal.copy()
    better[0, 0, 0] = 0.9
    before, after = (exposure(a, present, replace(WORLDS["W6"], hc1=0.8))[0, 0, 2] for a in (appeal, better))
    assert after > before
    one, two = (exposure(a, present, WORLDS["W1"])[0, 0, 2] for a in (appeal, better))
    assert one == two


def test_two_policies_can_be_compared_on_shared_randomness() -> None:
    appeal, present = np.full((500, 3, 3), 0.2), np.ones((500, 3, 3), dtype=np.bool_)
    other = appeal.copy()
    other[:250] = 0.4
    one = browse(appeal, present, WORLDS["W1"], np.random.default_rng(9))
    two = browse(other, present, WORLDS["W1"], np.random.default_rng(9))
    np.testing.assert_array_equal(one.streamed[250:], two.streamed[250:])
    np.testing.assert_array_equal(one.seen, two.seen)  # in W1 the eye does not follow the streams
    assert (two.streamed >= one.streamed).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"appeal": np.full((1, 2, 2), 1.2)}, r"appeal\[0, 0, 0\] is 1.2; expected a probability"),
        ({"present": np.array([[[False, True], [True, True]]])}, "present has a gap"),
        ({"present": np.ones((1, 2, 3), dtype=np.bool_)}, r"must both be \[b, rows, columns\]"),
        ({"params": WORLDS["W5"]}, "patience is missing"),
    ],
)
def test_impossible_pages_are_refused(change: dict[str, object], text: str) -> None:
    given = {"appeal": np.full((1, 2, 2), 0.1), "present": np.ones((1, 2, 2), dtype=np.bool_), "params": WORLDS["W1"]}
    with pytest.raises(ValueError, match=text):
        page_value(**{**given, **change})  # type: ignore[arg-type]


def test_worlds_have_names() -> None:
    assert list(WORLDS) == ["W1", "W2", "W3", "W4", "W5", "W6", "KUAIRAND", "GRID", "RETURN"]
    assert world_params("W3").column_trust == 0.93
    with pytest.raises(ValueError, match="world is 'W9'; expected one of W1, W2"):
        world_params("W9")
    with pytest.raises(ValueError, match=r"hc0 is 1.5; expected a share"):
        BrowsingParams(hc0=1.5)


def read_pages(n: int = 200) -> tuple[np.ndarray, Feedback]:
    appeal, present = np.full((n, 4, 5), 0.2), np.ones((n, 4, 5), dtype=np.bool_)
    return present, browse(appeal, present, WORLDS["W1"], np.random.default_rng(1))


def test_reported_events_merge_to_what_happened() -> None:
    _, feedback = read_pages()
    for i in range(200):
        merged = merge((4, 5), [FeedbackEvent.of(e) for e in feedback_events(feedback, i, AT_S)])
        assert merged.displayed == feedback.displayed[i]
        np.testing.assert_array_equal(merged.seen, feedback.seen[i])
        np.testing.assert_array_equal(np.nan_to_num(merged.listened_s), feedback.listened_s[i])
        np.testing.assert_array_equal(merged.saved, feedback.saved[i])


def test_feedback_can_be_lost_late_or_repeated() -> None:
    _, feedback = read_pages()
    shown = int(np.flatnonzero(feedback.displayed)[0])

    def send(params: DeliveryParams) -> list[Delivery]:
        return deliver(feedback, shown, AT_S, params, np.random.default_rng(2))

    assert send(DeliveryParams(lost=1.0)) == []
    (usual,) = send(DeliveryParams())
    (late,) = send(DeliveryParams(late=1.0))
    assert late.received_at > usual.received_at + dt.timedelta(minutes=1)
    first, second = send(DeliveryParams(repeated=1.0))
    assert first.events == second.events
    assert second.received_at > first.received_at
    assert all(e["occurred_at"] <= usual.received_at for e in usual.events)


def test_a_page_that_never_got_to_a_screen_reports_nothing() -> None:
    _, feedback = read_pages()
    hidden = int(np.flatnonzero(~feedback.displayed)[0])
    assert feedback_events(feedback, hidden, AT_S) == []
    with pytest.raises(ValueError, match="lost is 2; expected a share"):
        DeliveryParams(lost=2)
