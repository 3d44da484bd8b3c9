"""Worlds that the logs of a study share, and what policies are worth over listeners who are in none of the logs.

A world's listeners are dealt into parts of equal size. Each log of the world takes one part, and the true value of a
policy is its mean over further parts, as many visits each: fresh listeners of the same world. So a world and its true
values are made once for several logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bart.page.batch import batch_decide
from bart.types import Floats, Ints
from simulator.loop.truth import page_values
from simulator.reading.browsing import world_params
from simulator.study.scene import Scene, SceneConfig, listeners_of, make_scene, make_world
from simulator.study.selection import SCORERS, Scorer, score_of
from simulator.world.world import World

_WORLD, _FRESH = 0, 1  # streams of a world's seed


@dataclass(frozen=True, slots=True)
class Worlds:
    """seed: of all. visits: of a part. logs: parts of a world that logs are made of. fresh: parts behind its true
    values. reading: names of `simulator.reading.browsing.WORLDS`, each a way of reading the same pages."""

    seed: int = 1
    visits: int = 2_000
    logs: int = 10
    fresh: int = 10
    reading: tuple[str, ...] = ("W1",)
    scorers: tuple[Scorer, ...] = SCORERS
    scene: SceneConfig = field(default_factory=SceneConfig)

    def __post_init__(self) -> None:
        for name in self.reading:
            world_params(name)
        for name, least in (("visits", 20), ("logs", 1), ("fresh", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")


@lru_cache(maxsize=1)
def world_of(worlds: Worlds, number: int) -> World:
    """One of the worlds, with listeners for its logs and its true values."""
    listeners = (worlds.logs + worlds.fresh) * listeners_of(worlds.visits, worlds.scene)
    return make_world(listeners, np.random.default_rng([worlds.seed, number, _WORLD]), worlds.scene)


@lru_cache(maxsize=1)
def log_visits(worlds: Worlds, log: int) -> Scene:
    """The visits of log 0, 1, ...: of listeners whom no other log and no true value has."""
    number, part = divmod(log, worlds.logs)
    rng = np.random.default_rng([worlds.seed, log])
    return make_scene(worlds.visits, rng, worlds.scene, world_of(worlds, number), _part(worlds, part))


@lru_cache(maxsize=2)
def fresh_values(worlds: Worlds, number: int) -> tuple[Floats, Floats]:
    """True values [reading, policies] over fresh listeners, expected streams a displayed page, and their errors."""
    rng = np.random.default_rng([worlds.seed, number, _FRESH])
    c = worlds.scene
    value = np.empty((worlds.fresh, len(worlds.reading), len(worlds.scorers)))
    for part in range(worlds.fresh):
        scene = make_scene(worlds.visits, rng, c, world_of(worlds, number), _part(worlds, worlds.logs + part))
        for k, scorer in enumerate(worlds.scorers):
            score = score_of(scorer, scene, scene.model, rng)
            rates = scorer.epsilon, scorer.epsilon
            _, card = batch_decide(scene.offset, scene.shelf, score, c.rows, c.columns, *rates, rng)
            for i, name in enumerate(worlds.reading):
                each = page_values(scene.appeal, scene.offset, card, world_params(name), patience=scene.patience)
                value[part, i, k] = each.mean()
    return value.mean(axis=0), value.std(axis=0, ddof=1) / np.sqrt(worlds.fresh)


def _part(worlds: Worlds, part: int) -> Ints:
    size = listeners_of(worlds.visits, worlds.scene)
    return np.arange(part * size, (part + 1) * size)
