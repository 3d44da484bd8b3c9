"""Metrics by closed forms, baselines by what they are said to be, and the evaluation as a whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_listening import Synthetic, synthetic_listening

from bart.errors import DataError
from recommender.listener.baselines import (
    HEURISTICS,
    NETWORKS,
    BaselineConfig,
    heuristic,
    oracle_full,
    oracle_half,
    popularity,
)
from recommender.listener.batches import SequenceData
from recommender.listener.training import TrainingConfig, predict_all
from recommender.sessions.features import PATHWAYS
from recommender.sessions.sessions import Sessions, cut_sessions, unit
from recommender.study.ablations import TABLE_3, TABLE_4, ablations
from recommender.study.evaluation import METRICS, EvaluationConfig, evaluate_listener
from recommender.study.metrics import (
    TrackCandidates,
    clustered_p_value,
    cosine,
    open_candidates,
    open_rank,
    rank_of_first,
    session_rank,
    track_candidates,
    track_cosine,
    track_ranking,
)


def world(users: int = 6, days: int = 16, seed: int = 0) -> tuple[Sessions, Synthetic]:
    w = synthetic_listening(np.random.default_rng(seed), users=users, days=days)
    return cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector), w


def late(s: Sessions, after: int = 20) -> np.ndarray:  # type: ignore[type-arg]
    return np.flatnonzero((s.position >= after) & s.has_played)


def test_ties_share_the_mean_of_their_ranks() -> None:
    score = np.array([[3, 1, 2], [1, 2, 3], [2, 2, 1], [1, 1, 1]], dtype=np.float32)
    assert rank_of_first(score).tolist() == [1, 3, 1.5, 2]


def test_the_session_itself_ranks_first_and_its_opposite_last() -> None:
    s, _ = world()
    rows = late(s)
    own = s.columns.played[rows]
    assert cosine(own, s, rows) == pytest.approx(np.ones(len(rows)), abs=1e-6)
    assert np.all(session_rank(own, s, rows, 20) == 1)
    assert np.all(session_rank(-own, s, rows, 20) == 20)


def test_a_vector_that_says_nothing_has_the_mean_rank() -> None:
    s, _ = world()
    rows = late(s)
    nothing = np.zeros((len(rows), s.dimension), dtype=np.float32)
    assert np.all(session_rank(nothing, s, rows, 20) == 10.5)


def test_session_ranking_does_not_apply_to_short_histories() -> None:
    s, _ = world()
    rows = np.flatnonzero(s.has_played)
    rank = session_rank(s.columns.played[rows], s, rows, 20)
    assert np.array_equal(np.isnan(rank), s.position[rows] < 19)


def test_a_session_of_which_nothing_was_played_through_is_no_candidate() -> None:
    s, _ = world()
    skipped = np.zeros(len(s), dtype=np.bool_)
    skipped[1::3] = True
    played = s.columns.played.copy()
    played[skipped] = 0
    columns = replace(s.columns, played=played)
    silent = replace(s, columns=columns, track_skipped=np.repeat(skipped, np.diff(s.track_offset)))
    assert silent.has_played.tolist() == (~skipped).tolist()
    rows = np.flatnonzero(silent.has_played)
    away = -silent.columns.played[rows]  # points away from every candidate: zero vectors would come first
    rank = session_rank(away, silent, rows, 10)
    place = rows - silent.offset[silent.user[rows]]
    before = np.array([silent.has_played[r - p : r].sum() for r, p in zip(rows, place, strict=True)])
    assert np.array_equal(np.isnan(rank), before < 9)
    for i in np.flatnonzero(before >= 9)[::17]:
        own = [r for r in range(rows[i] - place[i], rows[i] + 1) if silent.has_played[r]][-10:]
        score = silent.columns.played[own] @ away[i]
        assert rank[i] == 1 + (score[:-1] > score[-1]).sum()
    assert np.isnan(session_rank(silent.columns.played[skipped], silent, np.flatnonzero(skipped), 10)).all()


def test_open_candidates_are_of_other_listeners_and_uniform_among_them() -> None:
    s, _ = world()
    rows = late(s, 1)
    other = open_candidates(s, rows, np.random.default_rng(0), k=400)
    assert np.all(s.user[other] != s.user[rows][:, None])
    assert np.isin(other, rows).all()
    count = np.bincount(np.searchsorted(rows, other[s.user[rows] == 2].ravel()), minlength=len(rows))
    expected = count.sum() / (s.user[rows] != 2).sum()
    assert np.abs(count[s.user[rows] != 2] - expected).max() < 5 * np.sqrt(expected)


def test_the_true_session_is_first_among_others() -> None:
    s, _ = world()
    rows = late(s)
    other = open_candidates(s, rows, np.random.default_rng(0))
    assert open_rank(s.columns.played[rows], s, rows, other).max() == 1


@pytest.mark.parametrize("literal", [False, True])
def test_track_candidates_equal_a_walk_back_in_time(literal: bool) -> None:
    s, _ = world()
    rows = np.flatnonzero(s.position > 0)[::7]
    found = track_candidates(s, rows, 12, literal=literal)
    for i, row in enumerate(rows):
        first = s.track_offset[s.offset[s.user[row]]]
        last = s.track_offset[row if literal else row + 1]
        expected = list(dict.fromkeys(s.track[first:last][::-1].tolist()))[:12]
        assert found.row[i].tolist() == expected + [-1] * (12 - len(expected))
        session = slice(s.track_offset[row], s.track_offset[row + 1])
        played = set(s.track[session][~s.track_skipped[session]].tolist())
        assert found.relevant[i].tolist() == [t in played for t in found.row[i].tolist()]
        # counted over the plays that were walked: back to the one that completed the list
        past, skips = s.track[first:last][::-1].tolist(), s.track_skipped[first:last][::-1]
        stop = past.index(expected[-1]) + 1
        for j, t in enumerate(expected):
            here = np.array(past[:stop]) == t
            assert (found.plays[i, j], found.skips[i, j]) == ((here & ~skips[:stop]).sum(), (here & skips[:stop]).sum())


def given(row: list[list[int]], relevant: list[list[bool]]) -> TrackCandidates:
    once = np.ones((len(row), len(row[0])), dtype=np.int64)
    return TrackCandidates(np.array(row), np.array(relevant), once, 0 * once)


def test_average_precision_and_recall_by_hand() -> None:
    vector = unit(np.array([[1, 0], [1, 1], [0, 1], [-1, 0]], dtype=np.float32))
    candidates = given([[3, 2, 1, 0, -1]], [[True, False, True, False, False]])
    score = track_cosine(np.array([[1, 0]], dtype=np.float32), vector, candidates)
    precision, recall = track_ranking(score, candidates)
    assert precision.tolist() == [pytest.approx((1 / 2 + 2 / 4) / 2)]  # ranked 0, 1, 2, 3: hits at 2 and 4
    assert recall.tolist() == [1]


def test_track_ranking_does_not_apply_where_nothing_is_relevant() -> None:
    candidates = given([[0, 1]], [[False, False]])
    assert np.isnan(track_ranking(np.array([[1.0, 0.0]]), candidates)).all()


def test_the_p_value_counts_listeners_and_not_sessions() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(0.1, 1, 30)
    few = clustered_p_value(mean, np.arange(30))
    copied = clustered_p_value(np.repeat(mean, 100), np.repeat(np.arange(30), 100))
    assert copied == pytest.approx(few)
    assert clustered_p_value(np.zeros(4), np.arange(4)) == 1.0
    assert math.isnan(clustered_p_value(np.ones(4), np.zeros(4, dtype=np.int64)))


def test_oracle_half_is_made_of_half_of_the_played_tracks() -> None:
    s, w = world()
    half = oracle_half(s, w.vector, np.random.default_rng(0))
    row = 5
    session = slice(s.track_offset[row], s.track_offset[row + 1])
    played = s.track[session][~s.track_skipped[session]]
    assert len(played) == 4
    halves = [unit((w.vector[a] + w.vector[b])[None])[0] for a in played for b in played if a < b]
    assert min(np.abs(half[row] - h).max() for h in halves) < 1e-6
    assert np.array_equal(oracle_full(s), s.columns.played)


def test_popularity_is_the_past_session_with_the_most_popular_tracks() -> None:
    s, w = world()
    count = np.random.default_rng(1).integers(0, 50, len(w.vector))
    found = popularity(s, count)
    for row in np.flatnonzero(s.position > 0)[::11]:
        past = range(s.offset[s.user[row]], row)
        score = [np.log1p(count)[s.track[s.track_offset[r] : s.track_offset[r + 1]]].mean() for r in past]
        assert np.array_equal(found[row], s.columns.played[past[int(np.argmax(score))]])


@pytest.mark.parametrize("name", [*HEURISTICS, "Popularity"])
def test_heuristics_read_only_the_past(name: str) -> None:
    s, w = world()
    count = np.ones(len(w.vector), dtype=np.int64)
    cut = s.before(int(np.median(s.columns.started_s)))
    whole, part = (popularity(d, count) if name == "Popularity" else heuristic(d, name) for d in (s, cut))
    kept = s.columns.started_s < np.median(s.columns.started_s)
    assert np.array_equal(whole[kept], part)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_baselines_are_causal_unit_vectors_blind_to_padding(name: str) -> None:
    import torch

    s, _ = world(days=10)
    torch.manual_seed(0)
    model = NETWORKS[name](BaselineConfig(s.n_users, s.dimension, hidden=9, n_sources=len(s.sources))).eval()
    data = SequenceData(s, PATHWAYS, ("average",))
    u = predict_all(model, data)
    assert np.linalg.norm(u, axis=1) == pytest.approx(np.ones(len(s)), abs=1e-5)
    cut = s.before(int(np.median(s.columns.started_s)))
    kept = s.columns.started_s < np.median(s.columns.started_s)
    assert predict_all(model, SequenceData(cut, PATHWAYS, ("average",))) == pytest.approx(u[kept], abs=1e-6)
    with torch.no_grad():
        short, long = model(data.batch(np.arange(3))), model(data.batch(np.arange(3), length=40))
    assert torch.equal(short, long[:, : short.shape[1]])


def config(*models: str) -> EvaluationConfig:
    training = TrainingConfig(epochs=2, listeners=4)
    return EvaluationConfig(
        models=models, hidden=8, test_d=5, validation_d=2, training=training, seeds=2, rates=(2e-3, 4e-3)
    )


def test_the_evaluation_names_models_and_metrics_as_the_paper_does() -> None:
    _, w = world(days=20)
    row_of = {k: i for i, k in enumerate(w.item_id)}
    models = ("Last, any cxt", "EMA", "LatentCross", "CoSeRNN", "Oracle half", "Oracle full")
    found = evaluate_listener(w.events, row_of, w.vector, config(*models), rng=np.random.default_rng(0))
    assert tuple(found["table2"]) == models
    assert all(tuple(values) == METRICS for values in found["table2"].values())
    full, half = found["table2"]["Oracle full"], found["table2"]["Oracle half"]
    assert full["cosine"] == pytest.approx(1, abs=1e-6)
    assert full["open_mrr"] == full["mrr@20"] == 1
    assert half["cosine"] < 1
    assert set(found["p_values"]) == set(models) - {"CoSeRNN"}
    assert found["sizes"]["test_sessions"] == found["sizes"]["test_sessions_by_metric"]["cosine"]
    assert set(found["contexts"]["EMA"]) == {"early morning", "evening", "mobile", "desktop"}
    assert all(values["repeats_map@100"] is not None for values in found["table2"].values())
    assert found["repeats_without_vector"] is not None
    assert set(found["tuning"]) == set(found["by_seed"]) == {"LatentCross", "CoSeRNN"}
    assert all(len(tried) == 2 for tried in found["tuning"].values())  # as many trials for each
    assert all(len(trainings) == 2 + 2 for trainings in found["validation"].values())
    for name, values in found["by_seed"].items():
        assert len(values["cosine"]) == 2
        assert found["table2"][name]["cosine"] == pytest.approx(np.mean(values["cosine"]))
    json.dumps(found, allow_nan=False)


def test_the_same_seed_gives_the_same_table_whatever_else_is_evaluated() -> None:
    _, w = world(days=20)
    row_of = {k: i for i, k in enumerate(w.item_id)}
    one, more = (
        evaluate_listener(w.events, row_of, w.vector, config(*models), rng=np.random.default_rng(3))["table2"]
        for models in (("CoSeRNN",), ("EMA", "CoSeRNN", "Oracle half"))
    )
    assert one["CoSeRNN"] == more["CoSeRNN"]


def test_ablations_cover_tables_3_and_4() -> None:
    s, w = world(days=20)
    found = ablations(s, w.vector, config("CoSeRNN"), rng=np.random.default_rng(0))
    assert tuple(found["table3"]) == tuple(TABLE_3)
    assert tuple(found["table4"]) == tuple(TABLE_4)
    assert found["table3"]["+ last stream source"] == found["table4"]["Plays + skips"]  # the same model twice
    tests = found["ablation_p_values"]
    assert set(tests["table3"]) == set(TABLE_3) - {"+ last stream source"}
    assert set(tests["table4"]) == set(TABLE_4) - {"Plays + skips"}
    assert 0 < tests["table3"]["Last sess. embeddings"]["cosine"] < 1


def test_an_unknown_model_and_a_test_set_of_one_listener_are_refused() -> None:
    with pytest.raises(ValueError, match="'SASRec' is unknown"):
        EvaluationConfig(models=("SASRec",))
    _, w = world(users=1, days=20)
    row_of = {k: i for i, k in enumerate(w.item_id)}
    with pytest.raises(DataError, match="fewer than two listeners"):
        evaluate_listener(w.events, row_of, w.vector, config("EMA"), rng=np.random.default_rng(0))
