"""What may happen while a loop runs: nothing, a change of taste, or listeners and items that nobody knows yet.

A scenario builds the service that the loop starts with and gives the service (and with it the truth) of each round.
To add one, write a class with the same four methods and a line in `SCENARIOS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bart.types import Bools, Candidates, CandidateSource, Context, Listener, PageBatch
from simulator.loop.service import Service, make_service
from simulator.world.catalogue import unit
from simulator.world.world import World


class Scenario(Protocol):
    """What happens over the rounds of a loop. All methods are pure: the same arguments give the same answer."""

    @property
    def name(self) -> str: ...

    def service(self, world: World, rng: np.random.Generator) -> Service:
        """The service that the loop starts with."""
        ...

    def at(self, service: Service, number: int) -> Service:
        """The service and its world in round `number`."""
        ...

    def groups(self, service: Service, pages: PageBatch) -> Mapping[str, Bools]:
        """[b] each: groups of visits whose values are reported apart."""
        ...


@dataclass(frozen=True, slots=True)
class Steady:
    """Nothing happens but the slow drift that the world has by itself."""

    name: str = "steady"

    def service(self, world: World, rng: np.random.Generator) -> Service:
        return make_service(world, rng)

    def at(self, service: Service, number: int) -> Service:  # noqa: ARG002
        return service

    def groups(self, service: Service, pages: PageBatch) -> Mapping[str, Bools]:  # noqa: ARG002
        return {}


@dataclass(frozen=True, slots=True)
class TasteChange:
    """From round `at_round` on all listeners turn to the same corner of the catalogue, and take other explanations.

    strength: length of the common shift beside interests of length 1. What the service knows of the listeners is from
    before; what is common to all can be learnt from the pages, the rest of the change cannot.
    """

    at_round: int = 5
    strength: float = 1.2
    name: str = "drift"

    def __post_init__(self) -> None:
        if self.at_round < 1 or not self.strength > 0:
            raise ValueError(f"at_round {self.at_round}, strength {self.strength}; expected at least 1, more than 0")

    def service(self, world: World, rng: np.random.Generator) -> Service:
        return make_service(world, rng)

    def at(self, service: Service, number: int) -> Service:
        return service if number < self.at_round else replace(service, world=self.changed(service.world))

    def changed(self, world: World) -> World:
        """The world after the change; its catalogue, listeners and their history stay the same."""
        clusters = world.catalogue.cluster_vector
        towards = unit(clusters[world.salt % len(clusters)] + clusters[world.salt // 7 % len(clusters)])
        interest = unit(world.population.interest.astype(np.float64) + self.strength * towards).astype(np.float32)
        return replace(world, population=replace(world.population, interest=interest), salt=world.salt + 1)

    def groups(self, service: Service, pages: PageBatch) -> Mapping[str, Bools]:  # noqa: ARG002
        return {}


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Some listeners are strangers, and some items come out in round `at_round`.

    listeners: share of whom the service has heard nothing, so that they start from the vector of nobody in particular.
    items: share of the tracks that stand in no playlist and no listener's past; their vectors come from artist and
    genre, their popularity is 0, and until `at_round` they are not among the candidates.
    """

    at_round: int = 3
    listeners: float = 0.2
    items: float = 0.1
    name: str = "cold_start"

    def __post_init__(self) -> None:
        if not (0 <= self.listeners < 1 and 0 <= self.items < 1):
            raise ValueError(f"listeners {self.listeners}, items {self.items}; expected shares in [0, 1)")

    def service(self, world: World, rng: np.random.Generator) -> Service:
        which, build = rng.spawn(2)
        strangers = np.flatnonzero(which.random(len(world.population)) < self.listeners)
        unheard = np.flatnonzero(which.random(len(world.catalogue)) < self.items)
        return make_service(world, build, strangers=strangers, unheard=unheard)

    def at(self, service: Service, number: int) -> Service:
        if number >= self.at_round:
            return service
        return replace(service, source=_Held(service.source, service.unheard))

    def groups(self, service: Service, pages: PageBatch) -> Mapping[str, Bools]:
        new = np.isin(service.world.listener_of(pages.user_id), service.strangers)
        return {"new listeners": new, "known listeners": ~new}


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A candidate source without some rows."""

    source: CandidateSource
    unheard: Bools

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        found = self.source.candidates(listener, context, rng)
        return found.keep(~self.unheard[found.item])


SCENARIOS: dict[str, Callable[[], Scenario]] = {"steady": Steady, "drift": TasteChange, "cold_start": ColdStart}


def scenario_named(name: str) -> Scenario:
    """The scenario called `name` at its defaults; ValueError for an unknown one."""
    if name not in SCENARIOS:
        raise ValueError(f"scenario is {name!r}; expected one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]()
