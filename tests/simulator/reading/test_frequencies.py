"""Simulated readings against their closed forms by chi-square, in every named world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from simulator.reading.browsing import WORLDS, browse, exposure, hazards
from simulator.reading.scanning import two_state

EVERY = pytest.mark.parametrize("name", list(WORLDS))
ROWS, COLUMNS = 4, 5
N = 60_000
UNLIKELY = 1e-4  # of the chi-square under the closed form; seeds are fixed


def pages() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One page of fairly attractive cards, its second row shorter, read N times by listeners of four patiences."""
    appeal = np.random.default_rng(3).uniform(0.02, 0.5, size=(1, ROWS, COLUMNS))
    present = np.ones((1, ROWS, COLUMNS), dtype=np.bool_)
    present[0, 1, 3:] = False
    patience = np.resize([-1.0, -0.2, 0.4, 1.1], N)
    return np.repeat(appeal, N, axis=0), np.repeat(present, N, axis=0), patience


def statistic(happened: np.ndarray, probability: np.ndarray) -> tuple[float, int]:
    """Chi-square over cells, each counted on pages of its own, so that cells are independent; and its degrees."""
    cell = np.random.default_rng(5).integers(0, ROWS * COLUMNS, size=N)
    event = happened.reshape(N, -1)[np.arange(N), cell]
    chance = probability.reshape(N, -1)[np.arange(N), cell]
    seen = np.bincount(cell, weights=event, minlength=ROWS * COLUMNS)
    expected = np.bincount(cell, weights=chance, minlength=ROWS * COLUMNS)
    variance = np.bincount(cell, weights=chance * (1 - chance), minlength=ROWS * COLUMNS)
    assert (seen[expected == 0] == 0).all()
    use = variance > 5
    return float(((seen - expected)[use] ** 2 / variance[use]).sum()), int(use.sum())


@EVERY
def test_each_position_is_seen_and_streamed_as_often_as_the_closed_form_says(name: str) -> None:
    appeal, present, patience = pages()
    params = replace(WORLDS[name], displayed=1.0)
    feedback = browse(appeal, present, params, np.random.default_rng(7), patience=patience)
    streamed, seen = two_state(hazards(appeal, present, params, patience), present)
    for happened, probability in ((feedback.seen, seen), (feedback.streamed, streamed)):
        found, degrees = statistic(happened, probability)
        assert degrees >= 10 if name != "KUAIRAND" else degrees >= 5
        assert chi2.sf(found, degrees) > UNLIKELY


@pytest.mark.parametrize("name", [name for name, p in WORLDS.items() if p.glance == 1.0 and p.skipped == 0])
def test_the_row_where_reading_ends_has_the_distribution_of_the_closed_form(name: str) -> None:
    # Where every reached card is looked at, a row is reached when its first card is seen.
    appeal, present, patience = pages()
    params = replace(WORLDS[name], displayed=1.0)
    feedback = browse(appeal, present, params, np.random.default_rng(8), patience=patience)
    reach = exposure(appeal, present, params, patience=patience)[:, :, 0]
    ends = reach - np.concatenate([reach[:, 1:], np.zeros((N, 1))], axis=1)  # [n, rows]: the last row reached
    last = feedback.seen[:, :, 0].sum(axis=1) - 1
    expected = ends.sum(axis=0)
    found = np.bincount(last, minlength=ROWS)
    assert found.sum() == N
    total = float(((found - expected) ** 2 / expected).sum())
    assert chi2.sf(total, ROWS - 1) > UNLIKELY


@EVERY
def test_the_share_of_pages_on_a_screen_is_the_configured_one(name: str) -> None:
    appeal, present, patience = pages()
    params = WORLDS[name]
    shown = browse(appeal, present, params, np.random.default_rng(9), patience=patience).displayed.sum()
    expected = params.displayed * N
    assert chi2.sf((shown - expected) ** 2 / (expected * (1 - params.displayed)), 1) > UNLIKELY


def test_a_wrong_closed_form_would_be_noticed() -> None:
    appeal, present, patience = pages()
    params = replace(WORLDS["W3"], displayed=1.0)
    feedback = browse(appeal, present, params, np.random.default_rng(7), patience=patience)
    wrong = two_state(hazards(appeal, present, replace(params, column_trust=0.97), patience), present)[0]
    found, degrees = statistic(feedback.streamed, wrong)
    assert chi2.sf(found, degrees) < 1e-6
