"""A reward model from parts of the log: each learnt on its own from the same base, their changes merged into one.

Vowpal Wabbit merges models of adaptive steps by itself, not those of coin betting, so both are done here on the models'
states, by one rule: a weight, and what is kept beside it, moves by the mean of the parts' moves, each part counting by
how much gradient it met at that weight. For adaptive steps this is Vowpal Wabbit's own rule, and a test compares the
two.

For coin betting (Orabona and Tommasi, "Training Deep Networks without Learning Rates", NIPS 2017) the sums that a bet
follows from are averaged in the same way. Adding them up, as if one learner had met all gradients, bets far too much:
each part's gradients are those of a learner that does not know what the others learnt. benchmarks/shards.py measures
both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bart.reward.model import RewardModel
from bart.types import Floats


def merge(base: RewardModel, parts: Sequence[RewardModel]) -> RewardModel:
    """One model from parts that each went on from `base`, which is left as it is.

    A part without examples changes nothing. Raises ValueError for no part, or parts of another configuration.
    """
    if not parts:
        raise ValueError("parts is empty; expected at least one model")
    if any(part.config != base.config for part in parts):
        raise ValueError("a part has another configuration than the base; expected parts that went on from it")
    learnt = [part for part in parts if part.n_learned > base.n_learned]
    if len(learnt) <= 1:
        return (learnt[0] if learnt else base).copy()
    before = base.state()
    touched = np.zeros(len(before), dtype=np.bool_)
    for part in learnt:
        touched |= (part.state() != before).any(axis=1)
    old = before[touched].astype(np.float64)
    new = [part.state()[touched].astype(np.float64) for part in learnt]
    # What is kept for the whole model (counts, the mean norm of examples) is that of the part that learnt most.
    out = max(learnt, key=lambda part: part.n_learned).copy()
    out.put_state(np.flatnonzero(touched), _merged(old, new, base.config.learning_rate is None).astype(np.float32))
    out.rules = set().union(*(part.rules for part in learnt))
    out.n_learned = base.n_learned + sum(part.n_learned - base.n_learned for part in learnt)
    return out


def _merged(old: Floats, new: Sequence[Floats], coin: bool) -> Floats:
    """[k, numbers], the states of k weights after the mean of the parts' moves."""
    gradient = 2 if coin else 1  # which number says how much gradient was met
    met = [np.maximum(state[:, gradient] - old[:, gradient], 0.0) for state in new]
    total = np.sum(met, axis=0)
    moved = np.sum([m[:, None] * (state - old) for m, state in zip(met, new, strict=True)], axis=0)
    out: Floats = old + np.divide(moved, total[:, None], out=np.zeros_like(moved), where=total[:, None] > 0)
    for largest in (3, 5) if coin else ():
        out[:, largest] = np.max([old[:, largest], *(state[:, largest] for state in new)], axis=0)
    return out
