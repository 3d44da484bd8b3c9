"""Sums over the rows of a log that say whether propensities, actions and an evaluation policy fit each other.

They add up over parts of a log, so that a log whose pmfs are not kept, or never were in memory at once, is checked like
one in memory (`bart.ope.verdict.balance`). w is the weight of a row, p a probability of the evaluation policy; the
group of a row is the action that the policy prefers there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bart.types import Floats, Ints

BY_ACTION = ("taken", "mass", "own", "preferred", "cells")
MOST_CELLS = 1_000_000  # groups x actions: more are not counted


@dataclass(frozen=True, slots=True, eq=False)
class BalanceSums:
    """n: rows. least: propensity. most: p of any action. taken: [k] rows that took each action. mass: [3, k] sums of p,
    p^2 and p^3. own: [4, k], over the rows that took it, of w, w^2, (w - p)^2 - p^2 and (w - p)^3 + p^3. preferred: [4,
    k], by group, rows and sums of w, w^2, w^3. cells: [5, groups x k] by group and taken action: rows, rows that
    offered it (p > 0), rows of both, and of these the sums of 1 / propensity and of its square; [5, k] where only a
    group's own action is ever offered; [5, 0] where they are not counted. unsupported: mass on actions that the logging
    policy could not take, where the log tells that."""

    n: int
    least: float
    most: float
    taken: Floats
    mass: Floats
    own: Floats
    preferred: Floats
    cells: Floats
    unsupported: float = 0.0

    def plus(self, other: BalanceSums | None) -> BalanceSums:
        """Of both parts of a log; the actions of one may be the first of those of the other."""
        if other is None:
            return self
        long, short = (self, other) if len(self.taken) >= len(other.taken) else (other, self)
        sums = {name: _plus(getattr(long, name), getattr(short, name)) for name in BY_ACTION}
        return BalanceSums(
            self.n + other.n,
            min(self.least, other.least),
            max(self.most, other.most),
            **sums,
            unsupported=self.unsupported + other.unsupported,
        )

    def arrays(self) -> dict[str, Floats]:
        """The sums by action, by name."""
        return {name: getattr(self, name) for name in BY_ACTION}


def of_pmf(action: Ints, propensity: Floats, pmf: Floats, most_cells: int = MOST_CELLS) -> BalanceSums:
    """action: [n] taken; propensity: [n] of it; pmf: [n, k] of the evaluation policy."""
    n, k = pmf.shape
    own = pmf[np.arange(n), action].astype(np.float64)
    group = pmf.argmax(axis=1)
    mass = np.stack(
        [pmf.sum(axis=0, dtype=np.float64), *(np.einsum(s, *[pmf] * s.count("ij"), dtype=np.float64) for s in _POWERS)]
    )
    cells = np.zeros((5, 0))
    if n and k * k <= most_cells:
        cell, both, inverse = group * k + action, own > 0, 1 / propensity
        offered = np.zeros((k, k))
        order = np.argsort(group, kind="stable")
        there, first = np.unique(group[order], return_index=True)
        offered[there] = np.add.reduceat((pmf > 0)[order], first, axis=0, dtype=np.float64)
        one = np.stack([_total(cell, v, k * k) for v in (None, both, np.where(both, inverse, 0), both * inverse**2)])
        cells = np.concatenate([one[:1], offered.reshape(1, -1), one[1:]])
    return _sums(action, propensity, own, float(pmf.max(initial=0.0)), group, mass, cells)


_POWERS = ("ij,ij->j", "ij,ij,ij->j")


def of_chosen(action: Ints, propensity: Floats, chosen: Ints, k: int) -> BalanceSums:
    """The same of a policy that takes the action `chosen` [n] of k in each row."""
    own = (action == chosen).astype(np.float64)
    rows = np.bincount(chosen, minlength=k).astype(np.float64)
    same, inverse = _total(chosen, own, k), own / propensity
    cells = np.stack([same, rows, same, _total(chosen, inverse, k), _total(chosen, inverse**2, k)])
    return _sums(action, propensity, own, 1.0, chosen, np.stack([rows] * 3), cells)


def of_sets(
    action: Ints, propensity: Floats, row: Ints, offered: Ints, p: Floats, logged: Floats | None = None
) -> BalanceSums:
    """The same where each row has its own set of actions, [m] entries by row: the action offered, its p, and the
    logging policy's probability where it is known. Each row's entries stand together."""
    n, k = len(action), int(max(offered.max(), action.max())) + 1
    mass = np.stack([_total(offered, p**power, k) for power in (1, 2, 3)])
    own = _total(row, np.where(offered == action[row], p, 0.0), n)
    best = np.lexsort((np.arange(len(row)), -p, row))
    group = offered[best[np.searchsorted(row, np.arange(n))]]
    found = _sums(action, propensity, own, float(p.max()), group, mass, np.zeros((5, 0)))
    return found if logged is None else replace(found, unsupported=float(p[logged <= 0].sum()))


def _sums(
    action: Ints, propensity: Floats, p: Floats, most: float, group: Ints, mass: Floats, cells: Floats
) -> BalanceSums:
    """p: [n], of the action taken."""
    k, w = mass.shape[1], p / propensity
    own = np.stack([_total(action, v, k) for v in (w, w**2, (w - p) ** 2 - p**2, (w - p) ** 3 + p**3)])
    preferred = np.stack([_total(group, v, k) for v in (None, w, w**2, w**3)])
    taken = np.bincount(action, minlength=k).astype(np.float64)
    return BalanceSums(len(action), float(propensity.min(initial=np.inf)), most, taken, mass, own, preferred, cells)


def _total(key: Ints, value: Any, size: int) -> Floats:
    """[size] sums of `value` by key; how often each comes where None."""
    return np.bincount(key, value, size).astype(np.float64)


def _plus(long: Floats, short: Floats) -> Floats:
    out = long.astype(np.float64)
    out[..., : short.shape[-1]] += short
    return out
