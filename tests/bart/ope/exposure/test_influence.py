"""Derivatives of the estimating equations against differences of the equations themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import page_log_world as world
import pytest

from bart.ope.exposure.doubly_robust import ExposureFit, Parameters, fit_exposure, terms, with_slopes
from bart.ope.exposure.exposure import exposure
from bart.ope.exposure.influence import MEANS, derivatives, equations
from bart.ope.models.browsing import Browsing
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.types import Floats

STEP = 1e-5


def log(hazards: tuple[float, float, float, float]) -> LoggedPages:
    """Pages for a policy that ranks otherwise and predicts otherwise; some scores are tied."""
    rng, pages = np.random.default_rng(31), 250
    score = rng.normal(-0.5, 1.0, pages * 35).round(1)
    other = score + rng.normal(0.0, 1.0, len(score)).round(1)
    appeal = 1 / (1 + np.exp(-score))
    batch = world.batch(rng, pages=pages, score=other, appeal=appeal, hazards=hazards)
    return logged_pages(batch, score, 0.1, 0.2, q_logged=1 / (1 + np.exp(-other)), q_target=appeal)


def moved(fit: ExposureFit, change: Floats) -> ExposureFit:
    """The fit at other parameters, in the order of `influence`."""
    at, how = fit.parameters, fit.parameters.browsing
    rows, columns = len(how.row_trust), len(how.column_trust)
    h = np.array([how.start, *how.column_hazard, *how.row_hazard]) + change[:5]
    row, column, slope = np.split(change[7:], [rows - 1, rows + columns - 2])
    column_trust, row_trust = how.column_trust + np.append(0.0, column), how.row_trust + np.append(0.0, row)
    browsing = Browsing(h[0], (h[1], h[2]), (h[3], h[4]), column_trust, row_trust)
    there = Parameters(browsing, at.logged_level + change[5], at.target_level + change[6], at.cap, slope)
    direct = exposure(fit.summary, browsing, there.logged_level, 1, slope).reward
    return replace(fit, parameters=there, terms=terms(fit.summary, there), direct=direct)


def check(data: LoggedPages, fit: ExposureFit) -> None:
    found = np.concatenate(derivatives(data, fit))
    fit = replace(fit, summary=with_slopes(data, fit, None))
    n = found.shape[1]
    expected = np.empty_like(found)
    for k, change in enumerate(STEP * np.eye(n)):
        there, here = (np.concatenate([m.mean(axis=0) for m in equations(moved(fit, c))]) for c in (change, -change))
        expected[:, k] = (there - here) / (2 * STEP)
    assert found.shape == (n + len(MEANS), n)
    assert np.abs(found - expected).max() < 1e-7 * np.abs(expected).max()
    still = [MEANS[i] for i in np.flatnonzero(~found[n:].any(axis=1))]
    assert still == (["reward"] if np.isfinite(fit.parameters.cap) else ["reward", "beyond"])


@pytest.mark.parametrize("cap", [2.0, np.inf])
@pytest.mark.parametrize("hazards", [(0.9, 0.6, 0.5, 0.8), (0.7, 0.95, 0.9, 0.4)])
def test_derivatives_are_those_of_the_equations(cap: float, hazards: tuple[float, float, float, float]) -> None:
    data = log(hazards)
    check(data, fit_exposure(data, cap=cap))


def test_derivatives_of_a_fit_without_slopes_are_those_of_its_equations() -> None:
    data = log((0.9, 0.6, 0.5, 0.8))
    check(data, fit_exposure(data, "target"))


def test_trust_that_makes_streams_certain_moves_reading_no_further() -> None:
    data = log((0.9, 0.6, 0.5, 0.8))
    fit = fit_exposure(data)
    how = replace(fit.parameters.browsing, column_trust=np.array([1.0, 6.0, 1.2]))
    parameters = replace(fit.parameters, browsing=how)
    fit = replace(fit, parameters=parameters, terms=terms(fit.summary, parameters))
    assert (how.column_trust[1] * fit.summary.appeal[0][:, :, 1] > 1).any()
    check(data, fit)


def test_few_pages_stand_for_all_in_derivatives() -> None:
    data = log((0.9, 0.6, 0.5, 0.8))
    every, some = (derivatives(data, fit_exposure(data), most)[0] for most in (250, 125))
    assert np.abs(some - every).max() < 0.2 * np.abs(every).max()
    assert (some != every).any()
