"""Several rewards from one set of weights: streams, minutes, saves and skips of one policy on one log.

The weights say how often a policy would have had a card seen; they do not depend on what happened then. For pages they
are those that `exposure_dr` fitted to streams, since reading depends on streams. With omega the weight of a seen card,
y its streams and z another outcome,

    value(z) = value(y) x sum omega z / sum omega y

which has the two properties that matter: the reward itself gives the main estimate, and a policy equal to the logging
one gives the log's mean of z. Single choices: the estimator with another reward, weights unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bart.ope.estimators.conclude import estimate_choices
from bart.ope.exposure.doubly_robust import ExposureFit
from bart.ope.intervals.pages import Spread, no_refit
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.estimate import Estimate
from bart.ope.records.pins import drawn_slots, earned_by_pins
from bart.types import Floats, Ints, PageBatch


def page_outcomes(batch: PageBatch) -> dict[str, Floats]:
    """What each card of a page earned by name, [b, rows, columns]: minutes, and saves and skips where the log has them.

    A skip is what the client reported as one; cards of which it said nothing count as not skipped.
    """
    out = {"minutes": np.where(batch.seen, batch.listened_s, 0.0) / 60.0}
    if batch.saved is not None:
        out["saves"] = (batch.saved & batch.seen).astype(np.float64)
    if batch.skipped is not None and (batch.skipped >= 0).any():
        out["skips"] = ((batch.skipped == 1) & batch.seen).astype(np.float64)
    return out


def drawn_outcomes(batch: PageBatch, pages: Ints) -> dict[str, tuple[Floats, Floats | None]]:
    """Outcomes of the given pages by name: of the drawn cards by draw [b, rows, columns], and what the pinned ones add
    to each page [b], None where no page holds a pin."""
    slots = drawn_slots(batch)
    out: dict[str, tuple[Floats, Floats | None]] = {}
    for name, values in page_outcomes(batch).items():
        if slots is None:
            out[name] = values[pages], None
        else:
            out[name] = slots.of(values, 0.0)[pages], earned_by_pins(batch, values)[pages]
    return out


def outcome_terms(fit: ExposureFit, outcomes: Sequence[Floats]) -> Floats:
    """[b, outcomes + 1]: weighted streams of each page, and each weighted outcome [b, rows, columns] of seen cards."""
    seen, weight, b = fit.summary.seen, fit.terms.weight, len(fit.summary)
    every = [seen.reward, *(outcome[seen.page, seen.row, seen.column] for outcome in outcomes)]
    return np.stack([np.bincount(seen.page, weight * each, b) for each in every], axis=1).astype(np.float64)


def outcome_spread(main: Spread, y: Floats, z: Floats) -> Spread:
    """The value of another outcome under the fitted policy, expected sum a page, and its influence.

    main: the spread of the main estimate. y, z: weighted streams and weighted outcome, by its entries.
    """
    n = len(main)
    pages = np.ones(n) if main.pages is None else main.pages
    if not y.sum() > 0 or not main.value > 0:
        # No stream at all: nothing to scale by, so weights alone.
        mean = float(z.sum() / n)
        return replace(main, value=mean, influence=z - pages * mean, refit=no_refit)
    ratio = float(z.sum() / y.sum())
    influence = ratio * main.influence + main.value / (y.sum() / n) * (z - ratio * y)
    return replace(main, value=main.value * ratio, influence=influence, refit=no_refit)


def reward_choices(
    name: str,
    data: LoggedChoices,
    rewards: Mapping[str, Floats],
    interval: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | None = None,
    **parameters: Any,
) -> dict[str, Estimate]:
    """The named estimator for each reward [n], weights unchanged; an estimate for every name.

    An estimator that needs q_hat is refused: a prediction is one of a single reward. Raises ValueError then.
    """
    if data.q_hat is not None:
        data = replace(data, q_hat=None)
    return {
        label: estimate_choices(
            name, replace(data, reward=np.asarray(reward, dtype=np.float64)), interval, level, rng, **parameters
        )
        for label, reward in rewards.items()
    }
