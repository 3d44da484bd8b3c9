"""The project's own reward model as the regression inside doubly robust estimators of pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bart.learning.training import TrainingConfig, seen_cards, train
from bart.ope.models.reward_regression import cross_fit_candidates
from bart.reward.features import FeatureSchema
from bart.reward.model import RewardConfig, RewardModel
from bart.types import Floats, ItemTable, PageBatch


def cross_fit_pages(
    batch: PageBatch,
    items: ItemTable,
    rng: np.random.Generator,
    *,
    folds: int = 3,
    config: TrainingConfig | None = None,
    base: RewardModel | None = None,
) -> Floats:
    """[N] reward predicted for every candidate in the first slot by the project's own reward model, out of fold.

    Each page's candidates are scored by a model trained on the pages of other listeners: the q_logged or q_target of
    `logged_pages` for policies that predict no rewards. config: how it is trained (its holdout is not used: all pages
    of the other folds are learnt from). base: a model to go on from, which must not have seen these pages; the prior
    where None. A candidate that is not in the item table has the mean reward of a seen card. Raises ValueError for
    fewer listeners than folds.
    """
    from bart.reward.scorer import Scorer  # numba loads only where something is scored

    if config is None:
        own = base.config if base is not None else RewardConfig(FeatureSchema(dimension=items.dimension))
        config = TrainingConfig(own)
    asked = replace(config, holdout=0.0)
    start = base or RewardModel.prior(asked.reward)
    cards = seen_cards(batch)
    mean = float(batch.reward[cards.page, cards.row, cards.column].mean()) if len(cards) else 0.0

    def fit(pages: PageBatch) -> Callable[[PageBatch], Floats]:
        scorer = Scorer.compile(train(lambda: [pages], items, asked, base=start).model, items)

        def predict(held: PageBatch) -> Floats:
            score = scorer.score_batch(replace(held, item=np.maximum(held.item, 0)))
            return np.where(held.item >= 0, score, mean)

        return predict

    return cross_fit_candidates(batch, fit, rng, folds)
