"""Visits with their candidates and the truth about them, and logs of a policy that served them, all in flat arrays.

A scene is a part of a simulated world (simulator/world/world.py) that page evaluation needs: for every visit 12 shelves
of 30 tracks around the listener's interests, how likely each would be streamed, and what a simple model thinks of it.
Logs go through the batched page policy and the world's way of reading (simulator/reading/browsing.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bart.ope.models.appeal import sigmoid
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import page_propensity
from bart.page.batch import batch_decide
from bart.ranking.batch import min_rank
from bart.types import Bools, Floats, Floats32, Ints
from simulator.loop.truth import page_appeal, value_of_pages
from simulator.loop.visits import Visits, simulate_visits
from simulator.reading.browsing import BrowsingParams, browse
from simulator.world.appeal import appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World

_CHUNK = 500  # visits whose candidates are drawn at a time
_FLOOR = 1e-30


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """Sizes of a scene. tracks: of its catalogue. pages_a_listener: mean over listeners. shelves, cards: candidates of
    a visit. rows, columns: of a page. reach: how closely candidates follow interests (a cosine's factor) and fame
    (popularity's), against Gumbel noise. model_noise: error of the logging model's log odds, one standard deviation.
    digits: that cosines are rounded to, so that nothing depends on the number of threads that worked them out."""

    tracks: int = 3_000
    pages_a_listener: float = 4.0
    shelves: int = 12
    cards: int = 30
    rows: int = 6
    columns: int = 6
    reach: tuple[float, float] = (6.0, 1.5)
    model_noise: float = 0.3
    digits: int | None = None

    def __post_init__(self) -> None:
        for name in ("tracks", "shelves", "cards", "rows", "columns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.shelves * self.cards >= self.tracks:
            raise ValueError(
                f"shelves x cards is {self.shelves * self.cards}; expected fewer than the {self.tracks} tracks"
            )
        if not self.pages_a_listener > 0:
            raise ValueError(f"pages_a_listener is {self.pages_a_listener}; expected a number > 0")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """b visits. item: [N] track. appeal: [N] P(stream | the card is examined). model: [N] log odds of it as the logging
    model sees them. listener [b] index, patience [b]: see `BrowsingParams`. N is b x shelves x cards, shelf by
    shelf."""

    config: SceneConfig
    item: Ints
    appeal: Floats
    model: Floats
    listener: Ints
    patience: Floats

    def __len__(self) -> int:
        return len(self.listener)

    @property
    def offset(self) -> Ints:
        return np.arange(len(self) + 1) * (self.config.shelves * self.config.cards)

    @property
    def shelf(self) -> Ints:
        """[N] number of the shelf within the page."""
        return np.tile(np.repeat(np.arange(self.config.shelves), self.config.cards), len(self))

    def take(self, visits: Ints) -> Scene:
        """Some of the visits."""
        cards = self.candidates(visits)
        some = self.item[cards], self.appeal[cards], self.model[cards]
        return Scene(self.config, *some, self.listener[visits], self.patience[visits])

    def candidates(self, visits: Ints) -> Ints:
        """Places of the candidates of some visits in the flat arrays."""
        n = self.config.shelves * self.config.cards
        return (visits[:, None] * n + np.arange(n)).reshape(-1)


@dataclass(frozen=True, slots=True, eq=False)
class SceneLog:
    """Displayed pages of the logging policy. pages: the record, with the logging policy also as its target. score: [N]
    that it ranked by. scene: of the displayed visits."""

    scene: Scene
    score: Floats
    pages: LoggedPages = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Exploration of an epsilon-greedy policy: shelf [rows], card [columns]."""

    shelf: Floats
    card: Floats

    @classmethod
    def even(cls, epsilon: float, config: SceneConfig) -> Rates:
        """The same rate everywhere."""
        return cls(np.full(config.rows, epsilon), np.full(config.columns, epsilon))


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Pages of b visits: row_shelf [b, rows] and card [b, rows, columns] as drawn; displayed [b], seen and streamed
    [b, rows, columns] as read."""

    row_shelf: Ints
    card: Ints
    displayed: Bools
    seen: Bools
    streamed: Bools


def listeners_of(visits: int, config: SceneConfig) -> int:
    """How many listeners make so many visits."""
    return max(round(visits / config.pages_a_listener), 1)


def make_world(listeners: int, rng: np.random.Generator, config: SceneConfig | None = None) -> World:
    """A new world with so many listeners."""
    return World.make(WorldConfig(n_tracks=(config or SceneConfig()).tracks, n_listeners=listeners), rng)


def make_scene(
    visits: int,
    rng: np.random.Generator,
    config: SceneConfig | None = None,
    world: World | None = None,
    among: Ints | None = None,
) -> Scene:
    """`visits` of listeners of the world (of `among` them), of a new one where None.

    Candidates are drawn by closeness to the listener's interests and by popularity, and put on shelves by cluster. The
    logging model knows interests and popularity, as the product's prior does: neither the moment nor the explanation's
    fit, fatigue and curved taste.
    """
    config = config or SceneConfig()
    if visits < 1:
        raise ValueError(f"visits is {visits}; expected at least 1")
    world_rng, visit_rng, candidate_rng, model_rng = rng.spawn(4)
    world = world or make_world(listeners_of(visits, config), world_rng, config)
    come = simulate_visits(world, visits, visit_rng, among=among)
    base = world.base_taste(come.listener, world.days_since_start(come.at_s))
    item, cosine = _candidates(world, base, config, candidate_rng)
    strength = world.config.appeal
    model = strength.level + strength.match * cosine + strength.popularity * world.catalogue.popularity[item]
    return Scene(
        config,
        item.reshape(-1),
        _appeal(world, come, item, config),
        (model + model_rng.normal(0, config.model_noise, model.shape)).reshape(-1),
        come.listener,
        world.population.patience[come.listener],
    )


def log_scene(scene: Scene, epsilon: float, params: BrowsingParams, rng: np.random.Generator) -> SceneLog:
    """What an epsilon-greedy policy by the logging model's score shows, and how it is read. Pages that were not
    displayed are left out."""
    rates = Rates.even(epsilon, scene.config)
    return recorded(scene, scene.model, rates, serve(scene, scene.model, rates, params, rng))


def serve(scene: Scene, score: Floats, rates: Rates, params: BrowsingParams, rng: np.random.Generator) -> Served:
    """Pages that an epsilon-greedy policy by these scores [N] draws for the visits, and how they are read."""
    c = scene.config
    row_shelf, card = batch_decide(scene.offset, scene.shelf, score, c.rows, c.columns, rates.shelf, rates.card, rng)
    appeal, present = page_appeal(scene.appeal, scene.offset, card)
    feedback = browse(appeal, present, params, rng, patience=scene.patience)
    return Served(row_shelf, card, feedback.displayed, feedback.seen, feedback.streamed)


def recorded(scene: Scene, score: Floats, rates: Rates, served: Served) -> SceneLog:
    """The log of what was served by these scores [N], without the pages that were not displayed."""
    shown = np.flatnonzero(served.displayed)
    scene, score = scene.take(shown), score[scene.candidates(shown)]
    ranks = ranks_of(scene, score)
    q, b, c = sigmoid(score), len(scene), scene.config
    row_shelf, card = served.row_shelf[shown], served.card[shown]
    shelf_rate, card_rate = np.tile(rates.shelf, (b, 1)), np.tile(rates.card, (b, 1))
    pages = LoggedPages(
        offset=scene.offset,
        shelf=scene.shelf.astype(np.int32),
        **{f"{name}_{who}": value for name, value in ranks.items() for who in ("logged", "target")},
        q_logged=q,
        q_target=q,
        shelf_offset=np.arange(b + 1) * c.shelves,
        shelf_epsilon_logged=shelf_rate,
        card_epsilon_logged=card_rate,
        shelf_epsilon_target=shelf_rate,
        card_epsilon_target=card_rate,
        user=scene.listener,
        row_shelf=row_shelf,
        order=card,
        # Estimators compute propensities from ranks and rates; what was recorded is only compared with them.
        shelf_propensity=np.where(row_shelf >= 0, 1.0, np.nan),
        card_propensity=np.where(card >= 0, 1.0, np.nan),
        seen=served.seen[shown],
        reward=served.streamed[shown].astype(np.float64),
    )
    shelf_propensity, card_propensity = page_propensity(pages, "logged")
    pages = replace(pages, shelf_propensity=shelf_propensity, card_propensity=card_propensity)
    return SceneLog(scene, score, pages)


def with_target(log: SceneLog, score: Floats, epsilon: float) -> LoggedPages:
    """The same log with another evaluation policy: epsilon-greedy by these scores [N], which are log odds."""
    pages = log.pages
    return replace(
        pages,
        **{f"{name}_target": value for name, value in ranks_of(log.scene, score).items()},
        q_target=sigmoid(score),
        shelf_epsilon_target=np.full_like(pages.shelf_epsilon_target, epsilon),
        card_epsilon_target=np.full_like(pages.card_epsilon_target, epsilon),
        fits={},
    )


def scene_value(
    scene: Scene, score: Floats, epsilon: float, params: BrowsingParams, rng: np.random.Generator, draws: int = 4
) -> tuple[float, float]:
    """True value of an epsilon-greedy policy on these visits, expected streams a displayed page, and its error."""
    pages, size = (scene.offset, scene.shelf, scene.appeal, score), (scene.config.rows, scene.config.columns)
    return value_of_pages(*pages, size, epsilon, epsilon, params, rng, draws=draws, patience=scene.patience)


def ranks_of(scene: Scene, score: Floats) -> dict[str, Any]:
    """rank, tie [N] of cards in their shelf and shelf_rank, shelf_tie [S] of shelves by their best card, int32."""
    c, b = scene.config, len(scene)
    best = score.reshape(b * c.shelves, c.cards).max(axis=1)
    rank, tie = min_rank(score, np.arange(b * c.shelves + 1) * c.cards)
    shelf_rank, shelf_tie = min_rank(best, np.arange(b + 1) * c.shelves)
    named = {"rank": rank, "tie": tie, "shelf_rank": shelf_rank, "shelf_tie": shelf_tie}
    return {name: value.astype(np.int32) for name, value in named.items()}


def _candidates(
    world: World, base: Floats | Floats32, config: SceneConfig, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """Tracks [b, shelves x cards] in order of their clusters, and their cosines with the interests."""
    music, n = world.catalogue, config.shelves * config.cards
    vector: Floats | Floats32 = music.vector.astype(np.float64)
    if config.digits is None:
        base, vector = base.astype(np.float32), vector.astype(np.float32)
    fame = (config.reach[1] * music.popularity).astype(np.float32)
    items, cosines = [], []
    for first in range(0, len(base), _CHUNK):
        cosine = base[first : first + _CHUNK] @ vector.T
        if config.digits is not None:
            cosine = np.round(cosine, config.digits).astype(np.float32)
        # The largest of utility + Gumbel noise are a draw without replacement by exp(utility).
        noise = rng.standard_exponential(cosine.shape, dtype=np.float32)
        utility = config.reach[0] * cosine + fame - np.log(np.maximum(noise, np.float32(_FLOOR)))
        item = np.argpartition(-utility, n, axis=1)[:, :n]
        item.sort(axis=1)
        item = np.take_along_axis(item, np.argsort(music.cluster[item], axis=1, kind="stable"), axis=1)
        items.append(item)
        cosines.append(np.take_along_axis(cosine, item, axis=1))
    return np.concatenate(items), np.concatenate(cosines).astype(np.float64)


def _appeal(world: World, come: Visits, item: Ints, config: SceneConfig) -> Floats:
    """[N] true appeal of every candidate."""
    b, n = item.shape
    names = np.array([f"shelf {s}" for s in range(config.shelves)], dtype=object)
    rule = np.tile(np.repeat(names, config.cards), min(b, _CHUNK))
    out = []
    for first in range(0, b, _CHUNK):
        part = slice(first, min(first + _CHUNK, b))
        who, hour, weekday, device, at_s = (
            np.repeat(a[part], n) for a in (come.listener, come.hour, come.weekday, come.device, come.at_s)
        )
        some = item[part].reshape(-1)
        out.append(appeal(world, who, hour, weekday, device, some, rule[: len(some)], at_s))
    return np.concatenate(out)
