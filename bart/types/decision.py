"""One decision, whole, and the protocol of whoever records it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from bart.types.arrays import Floats, Floats32, Ints, Strings, check_probabilities, check_range
from bart.types.candidates import Shelf
from bart.types.context import Context, ListenerTraits
from bart.types.levels import CardFeatures
from bart.types.page import Page


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One page as decided: all that is needed to check its propensities and to learn from it.

    request_id: unique. batch_id: the items and vectors that served; model_id: the reward model. policy: its name.
    shelf_epsilon: [rows], card_epsilon: [columns], for each position of the page asked for. seed: of the policy's own
    random stream. item_id: [n] str and shelf [n] as in Candidates. raw_score: [n] of the reward model; score: [n] what
    was drawn from (the same array where nothing came between). forced: seed or time were set by an administrator, never
    used for training or evaluation. arm: experiment arm.
    boost_factor, boost_add: [n] by which rules moved the raw scores (raw x factor + add), None where they moved none;
    relevance: weight of the score against diversity after that, None without diversity. With them the same page can be
    drawn by another model's scores. features: of the n candidates, as the scorer was given them; None without.
    """

    request_id: str
    user_id: str
    context: Context
    traits: ListenerTraits
    listener: Floats32
    batch_id: str
    policy: str
    shelf_epsilon: Floats
    card_epsilon: Floats
    rules_version: str
    seed: int
    shelves: tuple[Shelf, ...]
    item_id: Strings
    shelf: Ints
    raw_score: Floats
    score: Floats
    page: Page
    arm: str = ""
    forced: bool = False
    model_id: str = ""
    boost_factor: Floats | None = None
    boost_add: Floats | None = None
    relevance: float | None = None
    features: CardFeatures | None = None

    def __post_init__(self) -> None:
        n = len(self.item_id)
        for name in ("shelf", "raw_score", "score"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected ({n},), one a candidate")
        for name in ("raw_score", "score")[: 1 if self.score is self.raw_score else 2]:
            good = np.isfinite(getattr(self, name))
            if not good.all():
                raise ValueError(f"{name}[{int(np.argmin(good))}] is not finite")
        self._check_final()
        if self.features is not None and len(self.features) != n:
            raise ValueError(f"features are of {len(self.features)} candidates; expected {n}")
        self._check_draw()
        for name in ("shelf_epsilon", "card_epsilon"):
            epsilon = getattr(self, name)
            if epsilon.ndim != 1:
                raise ValueError(f"{name} has shape {epsilon.shape}; expected one number a position")
            check_probabilities(name, epsilon)
        # Only a page drawn elsewhere may come of a policy that has no epsilon.
        if not self.policy.startswith("imported") and np.isnan(self.shelf_epsilon.sum() + self.card_epsilon.sum()):
            raise ValueError(f"shelf_epsilon or card_epsilon is NaN; expected numbers in [0, 1] for {self.policy!r}")
        check_range("shelf", self.shelf, -1, len(self.shelves))
        check_range("page.shelf", self.page.shelf, 0, len(self.shelves))
        check_range("page.card", self.page.card, -1, n)

    @classmethod
    def drawn(cls, **parts: Any) -> Decision:
        """Of all parts by name, as `HomeRanker` has checked and drawn them one by one: what a caller gave is checked
        here, the rest not again."""
        out = object.__new__(cls)
        for name, value in parts.items():
            object.__setattr__(out, name, value)
        out._check_draw()
        return out

    def _check_draw(self) -> None:
        if not isinstance(self.request_id, str) or not self.request_id:
            raise ValueError(f"request_id is {self.request_id!r}; expected a non-empty string")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected an integer >= 0")

    def _check_final(self) -> None:
        if (self.boost_factor is None) != (self.boost_add is None):
            raise ValueError("boost_factor and boost_add: one is None; expected both or none")
        for name in ("boost_factor", "boost_add"):
            value = getattr(self, name)
            if value is not None and (value.shape != self.item_id.shape or not np.isfinite(value).all()):
                raise ValueError(f"{name} has shape {value.shape}; expected {self.item_id.shape}, finite numbers")
        if self.relevance is not None and not 0 <= self.relevance <= 1:
            raise ValueError(f"relevance is {self.relevance}; expected a number in [0, 1], or None")

    @property
    def decided_at(self) -> datetime:
        return self.context.at

    @property
    def rows(self) -> int:
        """Rows asked for."""
        return len(self.shelf_epsilon)

    @property
    def columns(self) -> int:
        """Columns asked for."""
        return len(self.card_epsilon)


class DecisionSink(Protocol):
    """Where decisions go: the decision log, or nothing in a dry run."""

    def append(self, decision: Decision) -> None:
        """Takes one decision; durable according to the sink's own setting when it returns."""
        ...
