"""What the simulation page may ask for, small enough to end in tens of seconds, and what is told of each round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from api.wire.schemas import Wire

if TYPE_CHECKING:
    from simulator.loop.loop import Learner, LoopConfig
    from simulator.loop.records import Round, Value
    from simulator.world.config import WorldConfig

MOST_PAGES = 6_000  # of all learners and rounds together
ROWS, COLUMNS = 4, 4
POLICIES = {
    "exploring": "learns, explores 20 %",
    "cautious": "learns, explores 5 %",
    "greedy": "learns, never explores",
    "frozen": "the first model, never learns",
    "shuffled": "learns from shuffled rewards",
}

Policy = Literal["exploring", "cautious", "greedy", "frozen", "shuffled"]


class SimulationRequest(Wire):
    """A small closed loop to watch."""

    world: Literal["W1", "W2", "W3", "W4", "W5", "W6"] = "W1"
    scenario: Literal["steady", "drift", "cold_start"] = "steady"
    policies: Annotated[list[Policy], Field(min_length=1, max_length=4)] = Field(default_factory=lambda: _default())
    rounds: Annotated[int, Field(ge=1, le=10)] = 6
    pages: Annotated[int, Field(ge=50, le=1000, description="a round and policy")] = 400
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1

    @model_validator(mode="after")
    def _small(self) -> SimulationRequest:
        if len(set(self.policies)) != len(self.policies):
            raise ValueError("policies repeats a name; expected each once")
        if self.pages * (self.rounds + 1) * len(self.policies) > MOST_PAGES:
            raise ValueError(f"rounds x pages x policies is too much; expected {MOST_PAGES:,} pages in all, at most")
        return self


def _default() -> list[Policy]:
    return ["exploring", "frozen"]


def world_config() -> WorldConfig:
    """The world of the page: small, made in a few seconds."""
    from simulator.world.config import WorldConfig

    return WorldConfig(n_listeners=200, n_tracks=3_000, days=24)


def loop_config(asked: Mapping[str, Any]) -> LoopConfig:
    """The loop that a request asks for; pages are made in arrays, which gives the same pages and data as the log."""
    from simulator.loop.loop import LoopConfig
    from simulator.loop.scenarios import scenario_named

    return LoopConfig(
        asked["world"],
        asked["rounds"],
        asked["pages"],
        rows=ROWS,
        columns=COLUMNS,
        learners=tuple(_learner(name) for name in asked["policies"]),
        scenario=scenario_named(asked["scenario"]),
        through="arrays",
    )


def _learner(name: str) -> Learner:
    from simulator.loop.loop import Learner

    epsilon = {"cautious": 0.05, "greedy": 0.0}.get(name, 0.2)
    return Learner(
        name, epsilon=epsilon, rewards="shuffled" if name == "shuffled" else "earned", learns=name != "frozen"
    )


def round_event(one: Round) -> dict[str, Any]:
    """A round as the page draws it; values are true expected streams a displayed page."""
    return {
        "kind": "round",
        "number": one.number,
        "served": one.served,
        "visits": one.visits,
        **{name: _value(getattr(one, name)) for name in ("random", "popularity", "true_score")},
        "policies": [
            {
                "name": x.name,
                "value": _value(x.exploring),
                "greedy": _value(x.greedy),
                "regret": _value(x.regret),
                "regret_so_far": x.regret_so_far,
                "explore_share": None if x.explore_share != x.explore_share else x.explore_share,
            }
            for x in one.learners
        ],
    }


def _value(value: Value) -> dict[str, float | None]:
    each = {"value": value.value, "lower": value.lower, "upper": value.upper}
    return {name: None if number != number else number for name, number in each.items()}
