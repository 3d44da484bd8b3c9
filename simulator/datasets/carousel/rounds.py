"""The carousel benchmark: twelve of 862 playlists for each listener, and what bandits learn of them round by round.

Carousel Personalization in Music Streaming Apps with Contextual Bandits (Bendada, Salha and Bontempelli, RecSys 2020).
The policy sees what was streamed: the cards up to the first stream then count as seen, or without one the three that
were on screen. The published code departs from that in two places, which `Defects` brings back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bart.types import Bools, Floats, Ints
from simulator.datasets.carousel.environment import CarouselEnvironment
from simulator.datasets.carousel.policies import POLICIES, CarouselPolicy

ATTRIBUTION = "deezer/carousel_bandits; Bendada, Salha and Bontempelli (RecSys 2020)"


@dataclass(frozen=True, slots=True)
class Defects:
    """The two departures of the published code, each on its own; both off is the benchmark as it is described.

    all_cards: listeners without a stream update all twelve cards instead of the first three (their streams were counted
    by the number of dimensions of an array). whole_listeners: what should put the first three slots of each listener in
    random order gives the first three listeners each other's pages instead (an array was cut in the wrong dimension).
    """

    all_cards: bool = False
    whole_listeners: bool = False


@dataclass(frozen=True, eq=False)
class CarouselResult:
    """Rounds of several policies on the same listeners and the same chance.

    regret: {policy: [repetitions, rounds]}, expected streams missed to the best pages, summed over a round's listeners.
    streams: {policy: [repetitions, rounds]} that happened.
    """

    regret: Mapping[str, Floats]
    streams: Mapping[str, Floats]
    listeners_per_round: int
    seed: int

    def cumulative(self, policy: str, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
        """Cumulative regret by round: mean over repetitions, lower and upper bound, each [rounds].

        Student's interval over repetitions; without a second repetition there is none and the bounds are NaN.
        """
        curve = np.cumsum(self.regret[policy], axis=1)
        return _student(curve, level)

    def difference(self, policy: str, other: str, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
        """The same of one policy's cumulative regret less another's, repetition by repetition."""
        return _student(np.cumsum(self.regret[policy] - self.regret[other], axis=1), level)


def run_carousel(
    environment: CarouselEnvironment,
    policies: Sequence[str],
    rounds: int,
    listeners_per_round: int,
    seed: int,
    *,
    repetitions: int = 3,
    defects: Defects | None = None,
) -> CarouselResult:
    """Each policy from the start, over `rounds` of `listeners_per_round` drawn with replacement; repeated.

    policies: of `POLICIES`, by default with the cascade (unseen cards are no datum); NAME-no-cascade counts all twelve
    cards as seen. A repetition has listeners and chance of its own, shared by its policies. Feedback comes after the
    round, as on the service. Raises ValueError for an unknown policy.
    """
    defects = defects or Defects()
    for name in policies:
        _split(name)
    for what, number in (
        ("rounds", rounds),
        ("listeners_per_round", listeners_per_round),
        ("repetitions", repetitions),
    ):
        if number < 1:
            raise ValueError(f"{what} is {number}; expected at least 1")
    regret = {name: np.empty((repetitions, rounds)) for name in policies}
    streams = {name: np.empty((repetitions, rounds)) for name in policies}
    for r, stream in enumerate(np.random.SeedSequence(seed).spawn(repetitions)):
        shared, own = stream.spawn(2)
        for name in policies:
            chance = np.random.default_rng(shared)  # the same for every policy
            rng = np.random.default_rng(own)
            base, cascade = _split(name)
            policy = POLICIES[base](environment)
            for t in range(rounds):
                listener = chance.integers(0, len(environment.listener), size=listeners_per_round)
                u = chance.random((listeners_per_round, environment.slots))
                streamed, value = one_round(environment, policy, listener, u, rng, cascade=cascade, defects=defects)
                regret[name][r, t] = (environment.best_value[listener] - value).sum()
                streams[name][r, t] = streamed.sum()
    return CarouselResult(regret, streams, listeners_per_round, seed)


def one_round(
    environment: CarouselEnvironment,
    policy: CarouselPolicy,
    listener: Ints,
    u: Floats,
    rng: np.random.Generator,
    *,
    cascade: bool = True,
    defects: Defects | None = None,
) -> tuple[Bools, Floats]:
    """Pages for the listeners [m], what they stream, and the policy's lesson; streamed [m, slots], value [m]."""
    defects = defects or Defects()
    shown = policy.rank(listener, environment.slots, rng)
    shown = shuffled(shown, environment.initial, rng, whole_listeners=defects.whole_listeners)
    streamed, value = environment.respond(listener, shown, u)
    policy.update(listener, shown, streamed, seen_cards(streamed, environment.initial, cascade, defects.all_cards))
    return streamed, value


def shuffled(shown: Ints, initial: int, rng: np.random.Generator, *, whole_listeners: bool = False) -> Ints:
    """The pages with their first `initial` slots in random order: they are on screen together.

    whole_listeners: the pages of the first `initial` listeners in random order instead.
    """
    out = shown.copy()
    if whole_listeners:
        out[:initial] = out[rng.permutation(min(initial, len(out)))]
    else:
        out[:, :initial] = rng.permuted(out[:, :initial], axis=1)
    return out


def seen_cards(streamed: Bools, initial: int, cascade: bool = True, all_cards: bool = False) -> Ints:
    """[m] how many cards from the left a policy learns from.

    With the cascade those up to the first stream, and the `initial` ones where nothing was streamed (all of them with
    `all_cards`); without it all.
    """
    m, slots = streamed.shape
    if not cascade:
        return np.full(m, slots)
    any_stream = streamed.any(axis=1)
    return np.where(any_stream, streamed.argmax(axis=1) + 1, slots if all_cards else initial)


def _split(name: str) -> tuple[str, bool]:
    base = name.removesuffix("-no-cascade")
    if base not in POLICIES:
        raise ValueError(f"policy is {name!r}; expected one of {', '.join(POLICIES)}, each also as NAME-no-cascade")
    return base, base == name


def _student(curve: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    n = len(curve)
    mean = curve.mean(axis=0)
    if n < 2:
        none = np.full(len(mean), np.nan)
        return mean, none, none
    half = stdtrit(n - 1, 0.5 + level / 2) * curve.std(axis=0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half
