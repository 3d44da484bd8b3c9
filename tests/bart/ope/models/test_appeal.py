"""What a card would earn in the first slot: a fit that arrives, whatever the log is like."""

from __future__ import annotations

import numpy as np
import page_log_world as world
import pytest

from bart.ope.exposure.doubly_robust import fit_exposure
from bart.ope.models.appeal import damped, fit_appeal, sigmoid
from bart.ope.models.browsing import seen_cards
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages


def few(pages: int, seed: int, appeal: float, columns: int = 3) -> LoggedPages:
    """Pages of cards that a model and its copy hold to be much alike: features go together, and nearly stand still."""
    rng = np.random.default_rng(seed)
    batch = world.batch(rng, pages=pages, columns=columns)
    alike = np.full(len(batch.score), appeal) + rng.uniform(-1e-3, 1e-3, len(batch.score))
    return logged_pages(batch, batch.score, 0.1, 0.1, alike, alike)


@pytest.mark.parametrize("appeal", [0.004, 0.03, 0.4])
@pytest.mark.parametrize(("pages", "columns"), [(3, 3), (10, 1), (30, 3)])
def test_a_fit_to_few_pages_or_scores_much_alike_leaves_no_residual(pages: int, columns: int, appeal: float) -> None:
    for seed in range(5):
        data = few(pages, seed, appeal, columns)
        seen = seen_cards(data)
        found = fit_appeal(data, seen)
        trust = found.row_trust[seen.row] * found.column_trust[seen.column]
        residual = seen.reward - trust * sigmoid(found.score[seen.card])
        assert residual.sum() == pytest.approx(0.0, abs=1e-5)
        assert found.feature.T @ residual == pytest.approx(found.pull, abs=1e-4)  # as far as the prior holds a slope


@pytest.mark.parametrize("appeal", [0.004, 0.03, 0.4])
def test_the_reward_that_a_fit_to_few_pages_models_is_one_that_pages_can_have(appeal: float) -> None:
    for seed in range(5):
        data = few(30, seed, appeal)
        fit = fit_exposure(data)
        for reward in (fit.terms.logged.reward, fit.direct):
            assert 0 <= reward.min() <= reward.max() <= data.seen[0].size
        assert fit.terms.logged.reward.mean() == pytest.approx(data.drawn_reward.mean(), rel=0.5)


def test_a_damped_step_never_overshoots_and_is_nearly_the_whole_where_it_is_small() -> None:
    x = np.random.default_rng(0).normal(0, 2, (40, 3))
    hit = np.random.default_rng(1).random(40) < 0.3
    beta, loss = np.full(3, 4.0), np.inf
    for _ in range(40):
        q = sigmoid(x @ beta)
        now = float(np.logaddexp(0.0, x @ beta).sum() - hit @ (x @ beta))
        assert now <= loss + 1e-12
        step = np.linalg.solve((x * (q * (1 - q))[:, None]).T @ x, x.T @ (hit - q))
        beta, loss = beta + damped(x, step), now
    assert np.abs(step).max() < 1e-12
    assert damped(x, np.zeros(3)).tolist() == [0.0] * 3
    assert damped(x, np.full(3, 1e-6)) == pytest.approx(np.full(3, 1e-6), rel=1e-5)
