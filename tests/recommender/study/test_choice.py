"""Truths of the choice of a listener model: an oracle ranks first, one vector for all by chance, ties go simple."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_listening import synthetic_listening

from bart.types import Floats
from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import DAY_S, Sessions
from recommender.study.choice import Ranked, choice_split, chosen, judged_sessions, ranked


def listening() -> tuple[Sessions, np.ndarray]:
    made = synthetic_listening(np.random.default_rng(1), users=60, days=20)
    row_of = {item: row for row, item in enumerate(made.item_id)}
    return cut_sessions(made.events, row_of, made.vector), made.vector


def of(ndcg: Floats) -> Ranked:
    return Ranked(ndcg, 0.0, 0.0, 0.0)


def test_the_session_itself_ranks_first_the_past_behind_it_and_one_vector_for_all_by_chance() -> None:
    sessions, vector = listening()
    split = choice_split(sessions)
    rows = judged_sessions(sessions, split.test_s, np.random.default_rng(0))
    played = sessions.columns.played
    models = {"oracle": played[rows], "last": played[rows - 1], "one": np.tile(vector.mean(axis=0), (len(rows), 1))}
    found = ranked(sessions, rows, vector, models, np.random.default_rng(2))
    assert found["oracle"].mean > 0.6
    assert found["oracle"].mean > found["last"].mean > found["one"].mean
    # ten places of a hundred and six tracks, six of them right: the discounted gain of chance is about a twelfth
    assert found["one"].mean == pytest.approx(0.06, abs=0.04)
    assert found["one"].likeness == pytest.approx(float(vector.mean(axis=0) @ vector.mean(axis=0)), rel=1e-3)


def test_a_constant_score_earns_nothing_by_the_order_of_candidates() -> None:
    sessions, vector = listening()
    rows = judged_sessions(sessions, choice_split(sessions).test_s, np.random.default_rng(0))
    found = ranked(sessions, rows, vector, {"none": np.zeros((len(rows), 8), np.float32)}, np.random.default_rng(2))
    assert found["none"].mean == 0


def test_judged_are_later_sessions_of_listeners_with_a_history() -> None:
    sessions, _ = listening()
    split = choice_split(sessions)
    rows = judged_sessions(sessions, split.test_s, np.random.default_rng(0))
    assert (sessions.columns.started_s[rows] >= split.test_s).all()
    assert (sessions.position[rows] > 0).all()
    assert (np.diff(rows) > 0).all()


def test_a_tenth_to_a_fifth_of_the_sessions_is_held_out_and_five_days_where_these_lie_between() -> None:
    for days, share in ((10, 0.2), (33, 5 / 33), (100, 0.1)):
        sessions, _ = listening()
        span = sessions.columns.started_s
        scaled = span.min() + (span - span.min()) * days // 20
        sessions.columns.started_s[:] = scaled
        split = choice_split(sessions)
        held = scaled >= split.validation_s
        assert held.mean() == pytest.approx(share, abs=0.04)
        assert (scaled >= split.test_s).sum() == pytest.approx(held.sum() / 2, rel=0.2)
        if days == 33:
            assert scaled.max() + 1 - split.validation_s == 5 * DAY_S


def test_the_best_is_chosen_and_of_equal_ones_the_first() -> None:
    low, high = np.array([0.1, 0.3]), np.array([0.2, 0.3])
    assert chosen({"popularity": of(low), "average": of(high), "cosernn": of(high)}) == "average"
    assert chosen({"popularity": of(low), "average": of(low), "cosernn": of(high)}) == "cosernn"
    assert of(high).error == pytest.approx(1.96 * 0.05)
