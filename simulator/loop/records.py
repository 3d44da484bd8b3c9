"""What a loop hands back: the values of one round, and all rounds of a run as JSON, Parquet and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from bart.types import Floats, Ints

LEVEL = 0.95  # of all intervals


@dataclass(frozen=True, slots=True)
class Value:
    """A mean over visits with its 95 % interval; visits of one listener count as one cluster."""

    value: float
    error: float
    lower: float
    upper: float

    @classmethod
    def of(cls, page: Floats, listener: Ints) -> Value:
        """The mean of `page` [b]; listener [b]: who each page belongs to. One listener alone has no error: NaN."""
        return cls.ratio(page, np.ones(len(page)), listener)

    @classmethod
    def ratio(cls, top: Floats, bottom: Floats, listener: Ints) -> Value:
        """Sum of `top` [b] over the sum of `bottom` [b], linearised for its error; NaN where `bottom` sums to 0."""
        total = float(bottom.sum())
        if total == 0.0:
            return cls(float("nan"), float("nan"), float("nan"), float("nan"))
        value = float(top.sum()) / total
        rest = np.bincount(np.unique(listener, return_inverse=True)[1], weights=top - value * bottom)
        n = len(rest)
        error = float(np.sqrt(n / (n - 1) * (rest**2).sum()) / abs(total)) if n > 1 else float("nan")
        half = float(norm.ppf(0.5 + LEVEL / 2)) * error
        return cls(value, error, value - half, value + half)


@dataclass(frozen=True, slots=True)
class LearnerRound:
    """One learner in one round; values are expected streams a displayed page, exact given the policy's draws.

    exploring, greedy: of the model that the round began with, at its epsilon and without exploration. true_exploring:
    of the true scores at the same epsilon. share: how far the greedy page is on the way from random (0) to the
    true-score page (1) from the same candidates; share_exploring: the same for the exploring policy and true_exploring.
    over_random, over_popularity: greedy minus random, minus popularity, paired by visit. regret: streams a page that
    the true-score page earns beyond the exploring policy; regret_so_far: summed over the pages served until the end of
    the round. pages, displayed, seen, streams: what was served and happened in the round. explore_share: of the cards
    shown that were not the best left in their shelf. discovery: share of the streams of what was new to the listener, a
    track's artist, an album, a playlist or a show; new_items: from items that nobody had played when the loop began.
    learned: examples that the model had seen. groups: greedy, random and true-score values of the scenario's groups of
    visits. digest: of the round's log records, "" where nothing was logged. coverage, gini, tail, unheard: of the pages
    served, as in `simulator.loop.exposure`; NaN in results of before there were any.
    """

    name: str
    epsilon: float
    exploring: Value
    greedy: Value
    true_exploring: Value
    share: Value
    share_exploring: Value
    over_random: Value
    over_popularity: Value
    regret: Value
    regret_so_far: float
    pages: int
    displayed: int
    seen: int
    streams: int
    explore_share: float
    discovery: float
    new_items: float
    learned: int
    model_id: str
    groups: Mapping[str, Mapping[str, float]]
    digest: str
    coverage: float = float("nan")
    gini: float = float("nan")
    tail: float = float("nan")
    unheard: float = float("nan")


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its reference policies on the same visits and candidates, and every learner.

    number: rounds of learning before it. served: False for the last one, which only judges. since, until: first and
    last visit, ISO 8601. visits: that the values are means over. random, popularity, true_score: greedy pages by these
    scores (random: any page alike).
    """

    number: int
    served: bool
    since: str
    until: str
    visits: int
    random: Value
    popularity: Value
    true_score: Value
    learners: tuple[LearnerRound, ...]

    def learner(self, name: str) -> LearnerRound:
        """One learner by name; ValueError for an unknown one."""
        for learner in self.learners:
            if learner.name == name:
                return learner
        raise ValueError(f"learner is {name!r}; expected one of {', '.join(x.name for x in self.learners)}")

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them: no NaN."""
        out: dict[str, Any] = _plain(asdict(self))
        return out


@dataclass(frozen=True, slots=True)
class LoopResult:
    """A whole run: configuration, seed, and rounds, of which the last judges the model learnt from all others."""

    configuration: Mapping[str, Any]
    seed: int
    rounds: tuple[Round, ...]

    @property
    def final(self) -> Round:
        """The judgement after the last round of learning."""
        return self.rounds[-1]

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "configuration": _plain(dict(self.configuration)),
            "rounds": [r.as_dict() for r in self.rounds],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LoopResult:
        """The result that `as_dict` described."""
        return cls(fields["configuration"], int(fields["seed"]), tuple(_round(r) for r in fields["rounds"]))

    def table(self) -> Any:
        """One row a round and learner, as an Arrow table."""
        import pyarrow as pa

        rows = []
        for r in self.rounds:
            shared = {"round": r.number, "served": r.served, "visits": r.visits}
            for name in ("random", "popularity", "true_score"):
                shared[name] = getattr(r, name).value
            for x in r.learners:
                row: dict[str, Any] = {**shared, "learner": x.name}
                for name in LearnerRound.__dataclass_fields__:
                    value = getattr(x, name)
                    if isinstance(value, Value):
                        row |= {name: value.value, f"{name}_lower": value.lower, f"{name}_upper": value.upper}
                    elif name not in ("name", "groups"):
                        row[name] = value
                rows.append(row)
        return pa.Table.from_pylist(rows)


def _plain(value: Any) -> Any:
    """The same with NaN as None and tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _round(fields: Mapping[str, Any]) -> Round:
    return Round(
        **{
            **fields,
            **{name: _value(fields[name]) for name in ("random", "popularity", "true_score")},
            "learners": tuple(
                LearnerRound(**{name: _value(inner) for name, inner in learner.items()})
                for learner in fields["learners"]
            ),
        }
    )


def _value(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"value", "error", "lower", "upper"}:
        return Value(**{name: float("nan") if inner is None else inner for name, inner in value.items()})
    return float("nan") if value is None else value
