"""The reward model as a regression out of fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import reward_world

from bart.learning.regression import cross_fit_pages


def test_the_projects_own_model_predicts_pages_of_listeners_that_it_has_not_seen() -> None:
    world = reward_world
    rng = np.random.default_rng(6)
    items = world.item_table(rng)
    batch = world.logged_pages(rng, items, 500)
    q_hat = cross_fit_pages(batch, items, rng)
    truth = 1 / (1 + np.exp(-world.planted_logit(items, batch)))
    assert np.corrcoef(q_hat, truth)[0, 1] > 0.7
    # A listener whose rewards are all turned round changes nothing of the predictions for that listener's own pages.
    mine = batch.user_id == batch.user_id[0]
    turned = replace(batch, reward=np.where(mine[:, None, None] & batch.seen, 1 - batch.reward, batch.reward))
    same = cross_fit_pages(batch, items, np.random.default_rng(7))
    other = cross_fit_pages(turned, items, np.random.default_rng(7))
    page = np.repeat(mine, np.diff(batch.offset))
    np.testing.assert_array_equal(same[page], other[page])
    assert np.abs(same[~page] - other[~page]).max() > 1e-6
