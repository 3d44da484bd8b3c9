"""Differences over listeners and over trainings: what another seed would have given is chance, too."""

from __future__ import annotations

import numpy as np
import pytest

from recommender.study.metrics import clustered_p_value
from recommender.study.seeds import seeded_difference


def test_of_models_without_seeds_it_is_the_paired_t_test_by_listener() -> None:
    rng = np.random.default_rng(1)
    each, user = rng.normal(0.1, 1, 90), np.repeat(np.arange(30), 3)
    one = seeded_difference(each[None], user)
    same = seeded_difference(np.stack([each] * 5), user)
    assert one.p_value == pytest.approx(same.p_value)
    assert one.p_value == pytest.approx(clustered_p_value(each, user))
    assert np.isnan(one.seed_deviation)


def test_where_only_the_seeds_differ_listeners_prove_nothing() -> None:
    rng = np.random.default_rng(2)
    user = np.arange(2_000)
    luck = np.array([0.05, -0.03, 0.04, 0.01, -0.02])
    found = seeded_difference(luck[:, None] + 0.001 * rng.normal(size=(5, 2_000)), user)
    assert found.seed_deviation == pytest.approx(luck.std(ddof=1), rel=0.02)
    assert found.freedom == pytest.approx(4, rel=0.02)
    assert found.p_value is not None
    assert found.p_value > 0.3
    lucky = seeded_difference(0.05 + 0.001 * rng.normal(size=(1, 2_000)), user)
    assert lucky.p_value == pytest.approx(0)  # what one training alone would have claimed


def test_the_interval_covers_where_listeners_and_seeds_both_vary() -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(400):
        drawn = 0.2 + rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.5, 40) + rng.normal(0, 0.3, (5, 40))
        interval = seeded_difference(drawn, np.arange(40)).interval()
        assert interval is not None
        held.append(interval[0] <= 0.2 <= interval[1])
    assert np.mean(held) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


def test_sessions_to_which_a_metric_does_not_apply_are_left_out() -> None:
    difference = np.array([[0.1, np.nan, 0.3], [0.1, np.nan, 0.3]])
    found = seeded_difference(difference, np.array([0, 1, 2]))
    assert (found.value, found.listeners) == (pytest.approx(0.2), 2)
    assert seeded_difference(difference, np.zeros(3, dtype=np.int64)).p_value is None
    assert seeded_difference(np.full((2, 3), np.nan), np.arange(3)).interval() is None
