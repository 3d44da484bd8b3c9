"""How much to explore: epsilon by the request's surface, optionally adapted to the listener, always bounded.

What is decided here is recorded with each decision, so that propensities can be recomputed whatever the configuration
was. The rates and factors follow the reference design of a music recommendation system; the factors are off by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bart.ranking import checks as check
from bart.types import Floats, ListenerTraits

SURFACES: Mapping[str, float] = {
    "made_for_you": 0.25,
    "daily_mix": 0.25,
    "discover_weekly": 0.45,
    "radio": 0.08,
    "top_mixes": 0.12,
    "release_radar": 0.10,
}

NEW_ACCOUNT_D = 30.0


@dataclass(frozen=True, slots=True)
class Exploration:
    """Configuration of the exploration rate.

    table: epsilon by surface; where people come to hear something new it is high, where they lean back it is low.
    default: epsilon of any other surface. adapt: whether traits move it (off: every listener has the same support, and
    the log is easier to read). lowest, highest: bounds of what comes out; below 0.05 evaluation needs too many pages,
    above 0.5 the page is mostly chance. greedy_rows, greedy_positions: rows, and columns within every shelf, that are
    held greedy (epsilon 0), none by default: the log then has no support for other choices there, and cannot tell how
    a policy that differs in them would have done.
    """

    table: Mapping[str, float] = field(default_factory=lambda: dict(SURFACES))
    default: float = 0.20
    adapt: bool = False
    lowest: float = 0.05
    highest: float = 0.50
    greedy_positions: tuple[int, ...] = ()
    greedy_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        table: object = self.table
        if not isinstance(table, Mapping):
            raise ValueError(f"table is {table!r}; expected an epsilon by surface")
        for surface, epsilon in self.table.items():
            _check_rate(f"table[{surface!r}]", epsilon)
        for name in ("default", "lowest", "highest"):
            _check_rate(name, getattr(self, name))
        if self.lowest > self.highest:
            raise ValueError(f"lowest is {self.lowest}; expected at most highest = {self.highest}")
        for name in ("greedy_positions", "greedy_rows"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ValueError(f"{name} is {given!r}; expected a collection of integers >= 0")
            positions = tuple(given)
            for i, position in enumerate(positions):
                if not isinstance(position, (int, np.integer)) or isinstance(position, bool) or position < 0:
                    raise ValueError(f"{name}[{i}] is {position!r}; expected an integer >= 0")
            object.__setattr__(self, name, positions)
        object.__setattr__(self, "table", dict(self.table))

    @classmethod
    def fixed(cls, epsilon: float) -> Exploration:
        """The same epsilon everywhere, without table or bounds: for demonstrations and simulations."""
        return cls(table={}, default=epsilon, lowest=0.0, highest=1.0)

    def epsilon(self, surface: str, traits: ListenerTraits) -> float:
        """The exploration rate of one request, in [lowest, highest]."""
        rate = self.table.get(surface, self.default)
        if self.adapt:
            rate *= trait_factor(traits)
        return float(min(self.highest, max(self.lowest, rate)))

    def epsilons(self, surface: str, traits: ListenerTraits, rows: int, columns: int) -> tuple[Floats, Floats]:
        """Epsilon of each row, [rows], and of each column, [columns]; 0 where held greedy."""
        rate = self.epsilon(surface, traits)
        shelf, card = np.empty(rows), np.empty(columns)
        shelf.fill(rate)
        card.fill(rate)
        for epsilon, greedy in ((shelf, self.greedy_rows), (card, self.greedy_positions)):
            for place in greedy:
                epsilon[place : place + 1] = 0.0  # nothing, beyond the end
        return shelf, card


def trait_factor(traits: ListenerTraits) -> float:
    """How much more than the surface's rate to explore; 1 where nothing is known.

    New accounts teach us more, broad taste bears more, and exploration that was streamed lately earns more.
    """
    factor = 1.0
    if traits.account_age_d is not None and traits.account_age_d < NEW_ACCOUNT_D:
        factor *= 1.3
    if traits.diversity is not None:
        if traits.diversity > 0.7:
            factor *= 1.2
        elif traits.diversity < 0.3:
            factor *= 0.7
    if traits.exploration_success is not None:
        if traits.exploration_success > 0.3:
            factor *= 1.1
        elif traits.exploration_success < 0.1:
            factor *= 0.8
    return factor


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= check.number(name, rate, "a number in [0, 1]") <= 1:
        raise ValueError(f"{name} is {rate}; expected a number in [0, 1]")
