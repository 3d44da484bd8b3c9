"""Scorers that need no log: what serves on the first day, and the baselines every learnt model has to beat.

`PriorScorer` knows the listener's taste, `PopularityScorer` knows nobody. Neither uses context, shelf or position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bart.errors import BundleError, SchemaMismatch
from bart.types import Candidates, Context, Floats, Floats32, Ints, ItemTable, PageBatch

SCORER_FILE = "scorer.json"
FORMAT = 1
_CHUNK = 65_536  # candidates at a time in a batch: 10 MB of vectors


class PriorScorer:
    """P = sigmoid(intercept + taste * cosine(listener, item) + popularity * the item's popularity).

    The defaults lie between 0.01 and 0.5: 0.08 for an unpopular card that has nothing to do with the listener, 0.5 for
    the most popular one in the listener's very direction. An item that the table does not hold counts as unpopular and
    without a direction. `score` and `score_batch` give the same bits.
    """

    name = "prior"

    def __init__(self, items: ItemTable, intercept: float = -2.4, taste: float = 1.8, popularity: float = 0.6) -> None:
        for label, value in (("intercept", intercept), ("taste", taste), ("popularity", popularity)):
            if not np.isfinite(value):
                raise ValueError(f"{label} is {value}; expected a finite number")
        if taste < 0 or popularity < 0:
            raise ValueError("taste and popularity must be 0 or more: the prior is monotone in both")
        self._vector = items.vector
        self._popularity = items.popularity
        self._length = np.maximum(np.linalg.norm(items.vector, axis=1), np.finfo(np.float32).tiny)
        self._intercept, self._taste, self._weight = intercept, taste, popularity

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:  # noqa: ARG002
        """[n] probabilities for the candidates of one visit."""
        self._check(listener)
        _check_rows(candidates.item, len(self._popularity))
        return self._score(candidates.item, listener[None, :], np.zeros(len(candidates), dtype=np.int64))

    def score_batch(self, batch: PageBatch) -> Floats:
        """[N] probabilities for all candidates of many pages."""
        self._check(batch.listener)
        _check_rows(batch.item, len(self._popularity))
        page = np.repeat(np.arange(len(batch)), np.diff(batch.offset))
        out = np.empty(len(batch.item), dtype=np.float64)
        for start in range(0, len(out), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = self._score(batch.item[part], batch.listener, page[part])
        return out

    def save(self, folder: Path) -> None:
        """Writes scorer.json."""
        parameters = {"intercept": self._intercept, "taste": self._taste, "popularity": self._weight}
        write_description(folder, self.name, parameters)

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> PriorScorer:
        """The scorer saved in `folder`, for the given items."""
        return cls(items, **_parameters(folder))

    def _check(self, listener: Floats32) -> None:
        if listener.shape[-1] != self._vector.shape[1]:
            raise SchemaMismatch(f"listener has shape {listener.shape}; expected [..., {self._vector.shape[1]}]")
        if not np.isfinite(listener).all():
            raise ValueError(f"listener{list(map(int, np.argwhere(~np.isfinite(listener))[0]))} is not finite")

    def _score(self, item: Ints, listener: Floats32, page: Ints) -> Floats:
        if not len(self._popularity):  # nothing to look up: every candidate is unknown
            return np.full(len(item), 1.0 / (1.0 + np.exp(-self._intercept)))
        # The sum of products instead of a matrix product, whose bits depend on how many rows there are.
        length = np.maximum(np.sqrt((listener * listener).sum(axis=1)), np.finfo(np.float32).tiny)  # [b]
        row = np.maximum(item, 0)
        product = self._vector[row]  # [n, d]
        product *= listener[page]
        cosine = product.sum(axis=1) / (self._length[row] * length[page])
        logit = self._intercept + self._taste * cosine + self._weight * self._popularity[row]
        logit = np.where(item < 0, self._intercept, logit)
        out: Floats = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
        return out


class PopularityScorer:
    """P rises in a straight line with popularity, from `lowest` to `highest`: the same order for every listener."""

    name = "popularity"

    def __init__(self, items: ItemTable, lowest: float = 0.05, highest: float = 0.5) -> None:
        if not 0 <= lowest < highest <= 1:
            raise ValueError(f"lowest and highest are {lowest} and {highest}; expected 0 <= lowest < highest <= 1")
        self._lowest, self._highest = lowest, highest
        self._score = np.append(lowest + (highest - lowest) * items.popularity, lowest)  # row -1: not in the table

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:  # noqa: ARG002
        """[n] probabilities for the candidates of one visit."""
        _check_rows(candidates.item, len(self._score) - 1)
        out: Floats = self._score[candidates.item]
        return out

    def score_batch(self, batch: PageBatch) -> Floats:
        """[N] probabilities for all candidates of many pages."""
        _check_rows(batch.item, len(self._score) - 1)
        out: Floats = self._score[batch.item]
        return out

    def save(self, folder: Path) -> None:
        """Writes scorer.json."""
        write_description(folder, self.name, {"lowest": self._lowest, "highest": self._highest})

    @classmethod
    def load(cls, folder: Path, items: ItemTable) -> PopularityScorer:
        """The scorer saved in `folder`, for the given items."""
        return cls(items, **_parameters(folder))


def write_description(folder: Path, kind: str, parameters: Mapping[str, Any]) -> None:
    """Writes what `read_description` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {"format": FORMAT, "kind": kind, "parameters": parameters}
    (folder / SCORER_FILE).write_text(json.dumps(description, indent=1, sort_keys=True) + "\n")


def read_description(folder: Path) -> dict[str, Any]:
    """The contents of scorer.json: kind and parameters. Raises BundleError where it is missing or not understood."""
    try:
        description = json.loads((folder / SCORER_FILE).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"no scorer in {folder}: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise BundleError(f"{folder / SCORER_FILE} is not of format {FORMAT}")
    if not isinstance(description.get("kind"), str) or not isinstance(description.get("parameters"), dict):
        raise BundleError(f"{folder / SCORER_FILE} names no kind or no parameters")
    return description


def _parameters(folder: Path) -> dict[str, float]:
    parameters = read_description(folder)["parameters"]
    try:
        return {name: float(value) for name, value in parameters.items()}
    except (TypeError, ValueError):
        raise BundleError(f"{folder / SCORER_FILE}: parameters must be numbers") from None


def _check_rows(item: Ints, n_items: int) -> None:
    if len(item) and (item.max() >= n_items or item.min() < -1):
        bad = int(np.flatnonzero((item >= n_items) | (item < -1))[0])
        raise ValueError(f"item[{bad}] is {item[bad]}; expected a row below {n_items} (or -1 where unknown)")
