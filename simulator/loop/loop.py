"""The closed loop: rounds of serve, log, feedback, train, publish, and what each policy was worth.

In every round each learner serves the same visits, from the same candidates and with the same uniform variates for
draws and reading, so that learners differ by what they learnt and by nothing else. Values are true values: expected
streams a displayed page, in closed form for the pages drawn. A round judges the model that it began with, on visits
that this model has not seen; the last round only judges.

    for round in run(service, LoopConfig(rounds=10, pages=5_000), np.random.default_rng(1)): ...
    simulate_loop("W1", rounds=10, pages=5_000, seed=1).final.learner("learner").share
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bart.learning.training import TrainingConfig, train
from bart.page.exploration import Exploration
from bart.page.explored import explored
from bart.reward.features import FeatureSchema
from bart.reward.identity import IDS
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, Ints, PageBatch
from recommender.features.definitions import NAMES
from simulator.loop.exposure import Exposure
from simulator.loop.records import LearnerRound, LoopResult, Round, Value
from simulator.loop.rounds import decide, gather, read
from simulator.loop.scenarios import Scenario, Steady, scenario_named
from simulator.loop.service import Service
from simulator.loop.serving import LoggedServing, serve_visits
from simulator.loop.values import Discovery, Judge
from simulator.loop.visits import Visits, simulate_visits
from simulator.reading.browsing import BrowsingParams, world_params
from simulator.reading.delivery import DeliveryParams
from simulator.world.config import WorldConfig
from simulator.world.world import World

__all__ = ["Learner", "LoopConfig", "LoopResult", "Round", "run", "serve_visits", "simulate_loop", "value_of"]

Progress = Callable[[int, int, str], None]


def loop_training() -> TrainingConfig:
    """How a loop's model learns by default: every seen card of the newest round, none held out."""
    return TrainingConfig(reward=RewardConfig(FeatureSchema(order=2, levels=NAMES, ids=IDS)), holdout=0.0)


@dataclass(frozen=True, slots=True)
class Learner:
    """One policy of the loop.

    epsilon: of its exploration. training: how its model learns from each round. start: "prior" (what is believed before
    any page was shown) or "blank" (all cards alike). rewards: "earned", or "shuffled" among the seen cards of a round,
    which leaves nothing to learn. learns: False keeps the first model.
    """

    name: str = "learner"
    epsilon: float = 0.2
    training: TrainingConfig = field(default_factory=loop_training)
    start: str = "prior"
    rewards: str = "earned"
    learns: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon}; expected a share in [0, 1]")
        if self.start not in ("prior", "blank"):
            raise ValueError(f"start is {self.start!r}; expected prior or blank")
        if self.rewards not in ("earned", "shuffled"):
            raise ValueError(f"rewards is {self.rewards!r}; expected earned or shuffled")


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """A run of the loop.

    browsing: how pages are read, a world's name or parameters. rounds: of learning, with `pages` visits each.
    judged: visits of the last round, which only judges; None for as many as `pages`. rows, columns: of a page. draws:
    pages drawn a visit for the value of an exploring policy. through: "log" serves every page through HomeRanker, logs
    it, and learns from what the log says was reported; "arrays" makes the same pages and the same data in arrays, three
    times as fast. delivery: how feedback reaches the log ("log" only).
    """

    browsing: str | BrowsingParams = "W1"
    rounds: int = 10
    pages: int = 5_000
    judged: int | None = None
    rows: int = 6
    columns: int = 6
    learners: tuple[Learner, ...] = (Learner(),)
    scenario: Scenario = field(default_factory=Steady)
    draws: int = 4
    through: str = "log"
    delivery: DeliveryParams | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "pages", "rows", "columns", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.judged is not None and self.judged < 1:
            raise ValueError(f"judged is {self.judged}; expected at least 1")
        if self.through not in ("log", "arrays"):
            raise ValueError(f"through is {self.through!r}; expected log or arrays")
        if self.through == "arrays" and self.delivery is not None:
            raise ValueError("delivery is given; pages in arrays have no client between, expected through='log'")
        names = [learner.name for learner in self.learners]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"learners are called {names}; expected one or more, each with a name of its own")

    @property
    def params(self) -> BrowsingParams:
        return world_params(self.browsing) if isinstance(self.browsing, str) else self.browsing

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON can hold them."""
        return {
            **{name: getattr(self, name) for name in ("rounds", "pages", "judged", "rows", "columns", "draws")},
            "browsing": asdict(self.params),
            "through": self.through,
            "scenario": asdict(self.scenario),  # type: ignore[call-overload]  # scenarios are dataclasses
            "learners": [{**asdict(x), "training": x.training.as_dict()} for x in self.learners],
            "delivery": None if self.delivery is None else asdict(self.delivery),
        }


def simulate_loop(
    world: str | BrowsingParams = "W1",
    rounds: int = 10,
    pages: int = 5_000,
    seed: int = 1,
    *,
    listeners: int = 1_000,
    scenario: str | Scenario = "steady",
    learners: tuple[Learner, ...] = (Learner(),),
    through: str = "log",
    world_config: WorldConfig | None = None,
    config: LoopConfig | None = None,
    on_round: Callable[[Round], None] | None = None,
    on_progress: Progress | None = None,
) -> LoopResult:
    """A whole run from a seed: a new world, its service, and the loop.

    world: how pages are read, W1 to W6 or parameters. world_config, config: in full, instead of `listeners`, and
    instead of all that stands before it but the seed. The same arguments give the same result, bit by bit.
    """
    if config is None:
        chosen = scenario_named(scenario) if isinstance(scenario, str) else scenario
        config = LoopConfig(world, rounds, pages, learners=learners, scenario=chosen, through=through)
    world_rng, service_rng, loop_rng = np.random.default_rng(seed).spawn(3)
    made = World.make(world_config or WorldConfig(n_listeners=listeners), world_rng)
    service = config.scenario.service(made, service_rng)
    done = []
    for one in run(service, config, loop_rng, on_progress=on_progress):
        done.append(one)
        if on_round is not None:
            on_round(one)
    settings = {**config.as_dict(), "listeners": len(made.population), "tracks": len(made.catalogue)}
    return LoopResult(settings, seed, tuple(done))


def run(
    service: Service,
    config: LoopConfig,
    rng: np.random.Generator,
    *,
    log_directory: Path | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Round]:
    """Yields each round as it is done: `config.rounds` that serve and learn, then one that only judges.

    log_directory: where each learner's decision log stays; by default logs are temporary. on_progress: called with
    pages done, pages to do, and what is being done.
    """
    visit_rng, seed_rng = rng.spawn(2)
    judged = config.pages if config.judged is None else config.judged
    total = config.rounds * config.pages + judged
    visits = simulate_visits(service.world, total, visit_rng)
    page_seed: Ints = seed_rng.integers(0, 2**62, size=total)
    chance: Ints = seed_rng.integers(
        0, 2**62, size=(config.rounds + 1, 3)
    )  # of each round: reading, shuffling, judging
    states = [_State.of(learner, service) for learner in config.learners]
    with TemporaryDirectory() as scratch:
        directory = Path(scratch) if log_directory is None else Path(log_directory)
        serving = LoggedServing(directory, config.delivery) if config.through == "log" else None
        try:
            for number in range(config.rounds + 1):
                serves = number < config.rounds
                first = number * config.pages
                visit = np.arange(first, first + (config.pages if serves else judged))
                yield _round(service, config, states, visits, visit, page_seed, chance[number], number, serving,
                             _counted(on_progress, first, total))  # fmt: skip
        finally:
            if serving is not None:
                serving.close()


def value_of(
    score: Callable[[PageBatch], Floats],
    service: Service,
    rng: np.random.Generator,
    *,
    epsilon: float = 0.0,
    browsing: str | BrowsingParams = "W1",
    visits: int = 2_000,
    rows: int = 6,
    columns: int = 6,
    draws: int = 8,
) -> Value:
    """True value of any policy: expected streams a displayed page, with its interval over the listeners.

    score: gives every candidate of a `PageBatch` a finite number [N], such as a scorer's `score_batch` or a function of
    one's own; the policy is epsilon-greedy by it. draws: pages a visit where the policy is random. The same rng gives
    every policy the same visits, candidates and variates, so that differences between policies are paired.
    """
    config = LoopConfig(browsing, rows=rows, columns=columns, draws=draws)
    visit_rng, seed_rng, judge_rng = rng.spawn(3)
    come = simulate_visits(service.world, visits, visit_rng)
    names = [f"visit-{i:07d}" for i in range(visits)]
    seed = seed_rng.integers(0, 2**62, size=visits)
    offers = gather(service, come, np.arange(visits), seed, names, rows, columns)
    judge = Judge(service, offers, config.params, judge_rng.random((draws, visits, rows, 1 + columns)))
    return Value.of(judge.values(score(offers.pages), Exploration.fixed(epsilon)), judge.listener)


@dataclass(eq=False)
class _State:
    """A learner and what it has learnt so far."""

    learner: Learner
    model: RewardModel
    scorer: Scorer
    discovery: Discovery
    regret: float = 0.0

    @classmethod
    def of(cls, learner: Learner, service: Service) -> _State:
        config = learner.training.reward
        model = RewardModel.prior(config) if learner.start == "prior" else _blank(config, 0.05)
        return cls(learner, model, Scorer.compile(model, service.items), Discovery(service, service.heard))

    @property
    def model_id(self) -> str:
        return hashlib.sha256(self.model.weights().tobytes()).hexdigest()[:16]


def _round(
    service: Service,
    config: LoopConfig,
    states: list[_State],
    visits: Visits,
    visit: Ints,
    page_seed: Ints,
    chance: Ints,
    number: int,
    serving: LoggedServing | None,
    tick: Progress,
) -> Round:
    served = number < config.rounds
    now = config.scenario.at(service, number)
    request_id = [f"visit-{i:07d}" for i in visit.tolist()]
    tick(0, len(visit), f"round {number}: candidates")
    offers = gather(now, visits, visit, page_seed[visit], request_id, config.rows, config.columns)
    judge = Judge(now, offers, config.params, _variates(int(chance[2]), config, len(visit)))
    groups = config.scenario.groups(now, offers.pages)
    learners = []
    for place, state in enumerate(states):
        tick(place * len(visit) // len(states), len(visit), f"round {number}: {state.learner.name}")
        pages, digest = None, ""
        exploration = Exploration.fixed(state.learner.epsilon)
        score = state.scorer.score_batch(offers.pages)
        greedy = judge.values(score, Exploration.fixed(0.0))
        exploring = judge.values(score, exploration)
        model_id, learned = state.model_id, state.model.n_learned
        if served:
            if serving is None:
                pages, _ = read(
                    decide(offers, score, exploration), now, judge.appeal, config.params,
                    np.random.default_rng(int(chance[0])),
                )  # fmt: skip
            else:
                pages, digest = serving.serve(
                    state.learner.name, now, state.scorer, exploration, model_id, visits, visit, offers, config.params,
                    np.random.default_rng(int(chance[0])),
                )  # fmt: skip
            state.regret += float((judge.true_score - exploring).sum())
        learners.append(_learner_round(state, judge, greedy, exploring, pages, groups, digest, model_id, learned))
        if pages is not None and state.learner.learns:
            _learn(state, now, pages, int(chance[1]))
    tick(len(visit), len(visit), f"round {number}")
    times = [datetime.fromtimestamp(int(visits.at_s[i]), tz=timezone.utc).isoformat() for i in (visit[0], visit[-1])]
    return Round(
        number=number,
        served=served,
        since=times[0],
        until=times[1],
        visits=len(visit),
        random=Value.of(judge.random, judge.listener),
        popularity=Value.of(judge.popularity, judge.listener),
        true_score=Value.of(judge.true_score, judge.listener),
        learners=tuple(learners),
    )


def _learner_round(
    state: _State,
    judge: Judge,
    greedy: Any,
    exploring: Any,
    pages: PageBatch | None,
    groups: Any,
    digest: str,
    model_id: str,
    learned: int,
) -> LearnerRound:
    who, random, best = judge.listener, judge.random, judge.true_score
    best_exploring = judge.values(judge.appeal, Exploration.fixed(state.learner.epsilon))
    nothing = float("nan")
    discovery, new_items = (nothing, nothing) if pages is None else state.discovery.share(pages)
    exposure = {} if pages is None else asdict(Exposure.of(pages, judge.service))
    return LearnerRound(
        name=state.learner.name,
        epsilon=state.learner.epsilon,
        exploring=Value.of(exploring, who),
        greedy=Value.of(greedy, who),
        true_exploring=Value.of(best_exploring, who),
        share=Value.ratio(greedy - random, best - random, who),
        share_exploring=Value.ratio(exploring - random, best_exploring - random, who),
        over_random=Value.of(greedy - random, who),
        over_popularity=Value.of(greedy - judge.popularity, who),
        regret=Value.of(best - exploring, who),
        regret_so_far=state.regret,
        pages=0 if pages is None else len(pages),
        displayed=0 if pages is None else int(pages.displayed.sum()),
        seen=0 if pages is None else int(pages.seen.sum()),
        streams=0 if pages is None else int((pages.reward > 0).sum()),
        explore_share=nothing if pages is None else float(explored(pages).sum() / max((pages.card >= 0).sum(), 1)),
        discovery=discovery,
        new_items=new_items,
        learned=learned,
        model_id=model_id,
        groups=judge.groups(groups, greedy),
        digest=digest,
        **exposure,
    )


def _learn(state: _State, service: Service, pages: PageBatch, seed: int) -> None:
    """Goes on learning from one round of pages and publishes the new model."""
    if state.learner.rewards == "shuffled":
        reward = pages.reward.copy()
        reward[pages.seen] = np.random.default_rng(seed).permutation(reward[pages.seen])
        pages = replace(pages, reward=reward)
    if state.learner.start == "blank" and state.model.n_learned == 0:
        state.model = _blank(state.learner.training.reward, float(pages.reward[pages.seen].mean()))
    state.model = train(lambda: [pages], service.items, state.learner.training, base=state.model).model
    state.scorer = Scorer.compile(state.model, service.items)


def _blank(config: RewardConfig, rate: float) -> RewardModel:
    """All cards alike, at the rate of streams that was seen: another one would first be learnt by every feature."""
    rate = min(max(rate, 1e-3), 0.5)
    return RewardModel.prior(config, intercept=float(np.log(rate / (1.0 - rate))), taste=0.0, popularity=0.0)


def _variates(seed: int, config: LoopConfig, b: int) -> Any:
    return np.random.default_rng(seed).random((config.draws, b, config.rows, 1 + config.columns))


def _counted(on_progress: Progress | None, first: int, total: int) -> Progress:
    def tick(done: int, of: int, note: str) -> None:  # noqa: ARG001
        if on_progress is not None:
            on_progress(first + done, total, note)

    return tick
