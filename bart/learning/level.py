"""The level of a model: how far all its predictions stand above or below what is earned, kept apart from their order.

A model whose predictions are all too high first has to unlearn that, with every feature of every example pushed down
alike, which spoils the order that it began with. So the level is found first, as one number: a shift of all logits by
Newton's step on the logistic likelihood, with as much trust in what is there as examples stand behind it.
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats

SPREAD = 1.5  # logits: standard deviation of the level of a model that has learnt nothing
INFORMATION = 0.08  # p (1 - p) of a card, about: rewards are earned by one in ten
MEMORY = 20_000  # cards after which an old level counts no more than a new one: about 1,200 pages
_MOST = 4.0  # logits of one shift


class Level:
    """The trust in a model's level, which grows with the cards seen up to `MEMORY`, so that it goes on following."""

    def __init__(self, n_learned: int) -> None:
        self._precision = SPREAD**-2 + INFORMATION * min(n_learned, MEMORY)

    def shift(self, prediction: Floats, reward: Floats) -> float:
        """Logits by which the predictions [m] are to be moved, now that the rewards [m] in [0, 1] are known."""
        if not len(reward):
            return 0.0
        shift, information = _most_likely(prediction, reward, self._precision)
        self._precision = min(self._precision + information, SPREAD**-2 + INFORMATION * MEMORY)
        return shift


def _most_likely(prediction: Floats, reward: Floats, precision: float) -> tuple[float, float]:
    """The shift of highest posterior density around 0, and the information of the cards there."""
    p = np.clip(prediction, 1e-7, 1.0 - 1e-7)
    logit = np.log(p) - np.log1p(-p)
    shift = 0.0
    for _ in range(20):
        q = 1.0 / (1.0 + np.exp(-(logit + shift)))
        information = float((q * (1.0 - q)).sum())
        step = (float((reward - q).sum()) - precision * shift) / (information + precision)
        shift = float(np.clip(shift + np.clip(step, -1.0, 1.0), -_MOST, _MOST))
        if abs(step) < 1e-6:
            break
    return shift, information
