"""A small head on user vectors for labels of one's own, judged beside the same head on what the vectors compress.

Labels are of listeners, or of listeners and items. The head is linear: logistic for two values, least squares for
numbers, with a ridge that validation listeners choose. Pairs also get the products of the leading components of both
sides. The same head stands on the average vector, on all raw features and on their PCA to the vector's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.errors import DataError
from bart.types import Bools, Floats, Floats32, Ints

RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)
COMPONENTS = 16  # of each side, whose products a pair has
PARTS = (0.6, 0.8)  # up to which share of the listeners the head is fitted, and its ridge chosen; the rest tests it
FEWEST = 20  # listeners
RESAMPLES = 400
VECTOR = "user vector"


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """m labels: user [m] rows of the representations, item [m] rows of the items' side or None, label [m] numbers."""

    user: Ints
    item: Ints | None
    label: Floats

    @property
    def binary(self) -> bool:
        return len(np.unique(self.label)) == 2


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """weight [inputs], bias: of inputs about zero and of unit size on average; mean, scale: how they are made so.

    user_axes [d, c], item_axes [s, c]: of the products of pairs, empty without items. low, high: the two values of a
    binary label, None of numbers.
    """

    weight: Floats
    bias: float
    mean: Floats
    scale: float
    user_axes: Floats
    item_axes: Floats
    values: tuple[float, float] | None

    def predict(self, user: Floats32, item: Floats32 | None) -> Floats:
        """[m] logits of the higher value, or numbers; user [m, d], item [m, s]."""
        return (_joined(user, item, self.user_axes, self.item_axes) - self.mean) / self.scale @ self.weight + self.bias

    @property
    def arrays(self) -> dict[str, Any]:
        named = {name: np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64)) for name in _ARRAYS}
        return named | ({} if self.values is None else {"values": np.array(self.values)})


_ARRAYS = ("weight", "bias", "mean", "scale", "user_axes", "item_axes")


def fit_head(user: Floats32, side: Floats32 | None, told: Labelled, ridge: float) -> Head:
    """The head on these labels. user [n, d] representations; side [items, s]."""
    own = user[told.user]
    item = None if told.item is None or side is None else side[told.item]
    axes = _axes(user), np.empty((0, 0)) if side is None else _axes(side)
    x = _joined(own, item, *axes)
    mean = x.mean(axis=0)
    scale = float(np.sqrt(np.mean((x - mean) ** 2))) or 1.0
    z = (x - mean) / scale
    values = None
    if told.binary:
        values = (float(told.label.min()), float(told.label.max()))
        weight, bias = _logistic(z, told.label == values[1], ridge)
    else:
        centre = float(told.label.mean())
        gram = z.T @ z + ridge * np.eye(z.shape[1])
        weight, bias = np.linalg.solve(gram, z.T @ (told.label - centre)), centre
    return Head(weight, bias, mean, scale, *axes, values)


def judged(
    kinds: Mapping[str, Floats32], side: Floats32 | None, told: Labelled, rng: np.random.Generator
) -> tuple[Head, list[dict[str, Any]]]:
    """The head on the user vector, and what each kind of representation reaches on listeners kept from it.

    kinds: {name: [n, .]}, among them `VECTOR`. Each line: name, size, ridge, measure (auc, or r2 of numbers), value,
    and gain of the user vector with its 95 % interval over tested listeners. Raises DataError for too few listeners.
    """
    users = rng.permutation(np.unique(told.user))
    if len(users) < FEWEST:
        raise DataError(f"{len(users)} labelled listeners are known; expected at least {FEWEST}")
    fit, choose, test = np.split(users, [int(share * len(users)) for share in PARTS])
    parts = [_of(told, some) for some in (fit, choose, test)]
    for part, what in zip(parts, ("fit", "choose the ridge", "test"), strict=True):
        if told.binary and not part.binary:
            raise DataError(f"of the listeners to {what} all have one label; expected both among more listeners")
    measure = auc if told.binary else r2
    lines, scores = [], {}
    for name, user in kinds.items():
        made = [(measure(_scored(fit_head(user, side, parts[0], r), user, side, parts[1]), parts[1].label), r)
                for r in RIDGES]  # fmt: skip
        ridge = max(made)[1]
        both = _of(told, np.concatenate([fit, choose]))
        scores[name] = _scored(fit_head(user, side, both, ridge), user, side, parts[2])
        line = {"name": name, "size": user.shape[1], "ridge": ridge, "measure": measure.__name__}
        lines.append(line | {"value": measure(scores[name], parts[2].label), "listeners": len(test)})
    for line in lines:
        if line["name"] != VECTOR:
            line |= _gain(scores[VECTOR], scores[line["name"]], parts[2], measure, rng)
    ridge = next(line["ridge"] for line in lines if line["name"] == VECTOR)
    return fit_head(kinds[VECTOR], side, told, ridge), lines


def auc(score: Floats, label: Floats) -> float:
    """The chance that one of the higher label is scored above one of the lower; ties count half."""
    from scipy.stats import rankdata

    high = label == label.max()
    n = int(high.sum())
    if n in (0, len(label)):
        return float("nan")
    return float((rankdata(score)[high].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def r2(score: Floats, label: Floats) -> float:
    """The share of the labels' variance that the scores explain."""
    left = float(((label - score) ** 2).sum())
    return 1.0 - left / max(float(((label - label.mean()) ** 2).sum()), 1e-300)


def _gain(
    ours: Floats, theirs: Floats, part: Labelled, measure: Callable[[Floats, Floats], float], rng: np.random.Generator
) -> dict[str, Any]:
    """By drawing the tested listeners again and again."""
    users, place = np.unique(part.user, return_inverse=True)
    rows = [np.flatnonzero(place == k) for k in range(len(users))]
    found = []
    for _ in range(RESAMPLES):
        some = np.concatenate([rows[k] for k in rng.integers(0, len(users), len(users))])
        found.append(measure(ours[some], part.label[some]) - measure(theirs[some], part.label[some]))
    low, high = np.nanquantile(found, [0.025, 0.975])
    value = measure(ours, part.label) - measure(theirs, part.label)
    return {"gain": value, "interval": (float(low), float(high))}


def _scored(head: Head, user: Floats32, side: Floats32 | None, part: Labelled) -> Floats:
    return head.predict(user[part.user], None if part.item is None or side is None else side[part.item])


def _of(told: Labelled, users: Ints) -> Labelled:
    kept: Bools = np.isin(told.user, users)
    return Labelled(told.user[kept], None if told.item is None else told.item[kept], told.label[kept])


def _axes(x: Floats32) -> Floats:
    """[d, c] leading components of rows, each of unit deviation."""
    _, size, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    size = size / np.sqrt(max(len(x), 1))
    kept = min(COMPONENTS, int((size > 1e-9).sum()))
    return np.asarray((right[:kept] / size[:kept, None]).T, dtype=np.float64)


def _joined(user: Floats32, item: Floats32 | None, user_axes: Floats, item_axes: Floats) -> Floats:
    """[m, inputs]; of pairs both sides, and the products of their components."""
    if item is None:
        return np.asarray(user, dtype=np.float64)
    products = ((user @ user_axes)[:, :, None] * (item @ item_axes)[:, None, :]).reshape(len(user), -1)
    return np.concatenate([user, item, products], axis=1).astype(np.float64)


def _logistic(z: Floats, high: Bools, ridge: float) -> tuple[Floats, float]:
    from scipy.optimize import minimize

    y = high.astype(np.float64)

    def loss(w: Floats) -> tuple[float, Floats]:
        logit = z @ w[:-1] + w[-1]
        value = np.logaddexp(0, logit).sum() - logit @ y + ridge / 2 * w[:-1] @ w[:-1]
        wrong = 1 / (1 + np.exp(-np.clip(logit, -500, 500))) - y
        return float(value), np.append(z.T @ wrong + ridge * w[:-1], wrong.sum())

    found = minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B")
    return found.x[:-1], float(found.x[-1])
