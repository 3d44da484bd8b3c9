"""Whether the closed loop learns: true values over rounds in every named world, and what limits them. Takes an hour.

python -m benchmarks closed_loop [--seeds 1 2 3] [--worlds W1 W2 ...] [--rounds 10] [--pages 5000] [--out DIR]
Each finished run is kept in DIR and not repeated; the report reads what is there. --report only prints it; --limits
only says how far parts of the truth come as scores (a minute); --page only what the simulation page shows by default.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bart.learning.training import TrainingConfig
from bart.page.exploration import Exploration
from bart.reward.features import FeatureSchema, ItemFeatures, build_examples
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.scorer import Scorer
from bart.types import Candidates, CandidateSource, Context, Floats, Ints, Listener, PageBatch
from simulator.loop.loop import Learner, LoopConfig, loop_training, run, simulate_loop
from simulator.loop.records import LoopResult, Value
from simulator.loop.rounds import gather
from simulator.loop.scenarios import SCENARIOS, scenario_named
from simulator.loop.service import Service, make_service
from simulator.loop.values import Judge
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import WORLDS, world_params
from simulator.world.appeal import batch_appeal
from simulator.world.config import WorldConfig, with_hidden
from simulator.world.world import World

EPSILON = 0.2
# The learner of version 0.1: coin betting in two passes, by vectors alone.
BEFORE = TrainingConfig(RewardConfig(FeatureSchema(order=2), learning_rate=None), passes=2, holdout=0.0)
LEARNERS = (Learner(epsilon=EPSILON), Learner("before", epsilon=EPSILON, training=BEFORE))
SHUFFLED = (Learner("shuffled", epsilon=EPSILON, start="blank", rewards="shuffled"),)
PLAIN = "learnt vectors"


@dataclass(frozen=True)
class Kind:
    """What the service knows of the world: its item vectors, its listeners' taste of the moment; how strong what no
    feature expresses is."""

    items: bool = False
    taste: bool = False
    hidden: float = 1.0


KINDS: dict[str, Kind] = {
    PLAIN: Kind(),
    "learnt vectors, no hidden terms": Kind(hidden=0.0),
    "true item vectors": Kind(items=True),
    "true item vectors, no hidden terms": Kind(items=True, hidden=0.0),
    "true vectors": Kind(items=True, taste=True),
    "true vectors, hidden terms halved": Kind(items=True, taste=True, hidden=0.5),
    "true vectors, no hidden terms": Kind(items=True, taste=True, hidden=0.0),
}


@dataclass(eq=False)
class Remembered:
    """A candidate source that answers from memory: all worlds of browsing meet the same visits."""

    source: CandidateSource
    known: dict[tuple[str, int], Candidates] = field(default_factory=dict)

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        key = (listener.user_id, rng.bit_generator.state["state"]["state"])
        if key not in self.known:
            found = self.source.candidates(listener, context, rng)
            self.known[key] = Candidates(found.item.astype(np.int32), found.shelf.astype(np.int16), found.shelves)
        small = self.known[key]
        return Candidates(small.item.astype(np.int64), small.shelf.astype(np.int64), small.shelves)


def service_of(kind: str, seed: int, listeners: int, scenario: str = "steady") -> Service:
    what = KINDS[kind]
    world_rng, service_rng = np.random.default_rng(seed).spawn(2)
    world = World.make(with_hidden(WorldConfig(n_listeners=listeners), what.hidden), world_rng)
    if scenario != "steady":
        return scenario_named(scenario).service(world, service_rng)
    service = make_service(world, service_rng, knowing=what.items)
    if what.items and not what.taste:  # listeners as their sessions show them, in the world's own vectors
        service = replace(service, store=service.store.store)  # type: ignore[attr-defined]
    return replace(service, source=Remembered(service.source))


def attainable(service: Service, worlds: list[str], seed: int, visits: int) -> dict[str, dict[str, float]]:
    """By world: the way that the same features come where the truth is the label and the learner bends.

    The reward model is taught by the appeal of a tenth of the candidates of some visits, boosted trees by those of
    others, from what it says of them beside levels, context and facts. No log can teach more than this: no noise of
    streams, no choice of what was shown, no card unseen.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    come = simulate_visits(service.world, 3 * visits, np.random.default_rng([seed, 5]))
    page_seed = np.random.default_rng([seed, 6]).integers(0, 2**62, size=3 * visits)
    judges = []
    for first in range(0, 3 * visits, visits):
        number = np.arange(first, first + visits)
        names = [f"a{i}" for i in number.tolist()]
        offers = gather(service, come, number, page_seed[number], names, 6, 6)
        variates = np.random.default_rng([seed, 7]).random((2, visits, 6, 7))
        judges.append(Judge(service, offers, world_params("W1"), variates))
    training = loop_training()
    model = RewardModel.prior(training.reward)
    for taught in range(training.passes):
        if taught:
            model.end_pass()
        _learn_truth(model, service, judges[0], np.random.default_rng([seed, 8]))
    scorer = Scorer.compile(model, service.items)
    kept = np.random.default_rng([seed, 9]).random(len(judges[1].appeal)) < 0.1
    trees = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.06, random_state=seed)
    trees.fit(_columns(service, scorer, judges[1].offers.pages)[kept], _logit(judges[1].appeal[kept]))
    score: Floats = trees.predict(_columns(service, scorer, judges[2].offers.pages))
    out = {}
    for name in worlds:
        judge = replace(judges[2], browsing=world_params(name))
        greedy = judge.values(score, Exploration.fixed(0.0))
        value = Value.ratio(greedy - judge.random, judge.true_score - judge.random, judge.listener)
        out[name] = {"value": value.value, "lower": value.lower, "upper": value.upper}
    return out


def _columns(service: Service, scorer: Scorer, pages: PageBatch) -> Floats:
    """[N, columns] what trees may split candidates by."""
    page = np.repeat(np.arange(len(pages)), np.diff(pages.offset))
    items, known = ItemFeatures(scorer.schema, service.items), pages.features
    _, rule = np.unique(pages.candidate_rule().astype(str), return_inverse=True)
    moment = [np.asarray(getattr(pages, name))[page] for name in ("hour", "weekday", "device")]
    facts = [items.genre_code[pages.item], items.popularity[pages.item], _logit(scorer.score_batch(pages)), rule]
    levels = [] if known is None else list(known.level.T)
    out: Floats = np.stack([np.asarray(one, dtype=np.float64) for one in (*moment, *facts, *levels)], axis=1)
    return out


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-12, 1.0 - 1e-12)
    out: Floats = np.log(p) - np.log1p(-p)
    return out


def _learn_truth(model: RewardModel, service: Service, judge: Judge, rng: np.random.Generator) -> None:
    """Teaches the appeal of a tenth of the candidates, each at the first slot."""
    pages, appeal = judge.offers.pages, judge.appeal
    features = ItemFeatures(model.schema, service.items)
    page = np.repeat(np.arange(len(pages)), np.diff(pages.offset))
    kept: Ints = np.flatnonzero(rng.random(len(page)) < 0.1)
    rule = pages.candidate_rule()
    for start in range(0, len(kept), 20_000):
        k = kept[start : start + 20_000]
        low, high = int(page[k[0]]), int(page[k[-1]]) + 1
        part = slice(low, high)
        first = np.zeros(len(k), dtype=np.int64)
        examples = build_examples(
            features, at_s=pages.at_s[part], hour=pages.hour[part], weekday=pages.weekday[part],
            device=pages.device[part], listener=pages.listener[part], page=page[k] - low, item=pages.item[k],
            rule=rule[k], row=first, column=first, user_id=pages.user_id[part],
            features=None if pages.features is None else pages.features.take(k),
        )  # fmt: skip
        label: Floats = appeal[k]
        model.learn(examples, label)


def limits(seed: int, listeners: int, worlds: list[str], visits: int) -> None:
    """Prints how far pages come whose score is the truth without some of its terms, or only a part of it."""
    service = service_of(PLAIN, seed, listeners)
    world = service.world
    come = simulate_visits(world, visits, np.random.default_rng([seed, 5]))
    page_seed = np.random.default_rng([seed, 6]).integers(0, 2**62, size=visits)
    offers = gather(service, come, np.arange(visits), page_seed, [f"a{i}" for i in range(visits)], 6, 6)
    judge = Judge(service, offers, world_params("W1"), np.random.default_rng([seed, 7]).random((4, visits, 6, 7)))
    pages = offers.pages
    page = np.repeat(np.arange(visits), np.diff(pages.offset))
    row = world.row_of(service.items.item_id[pages.item])
    base = world.base_taste(judge.listener, world.days_since_start(pages.at_s))

    def without(effects: tuple[str, ...] = (), terms: tuple[str, ...] = ()) -> Floats:
        appeal = replace(world.config.appeal, **dict.fromkeys(terms, 0.0))
        off = replace(world.effects, **dict.fromkeys(effects, False))
        other = replace(world, config=replace(world.config, appeal=appeal, effects=off))
        return batch_appeal(other, pages, service.items.item_id)

    hidden = ("explanation", "fatigue", "curved_taste")
    near = np.einsum("nd,nd->n", service.items.vector[pages.item], pages.listener[page])
    scores = {
        "the truth": judge.appeal,
        "without hidden quality": without((), ("quality",)),
        "without fatigue": without(("fatigue",)),
        "without explanation": without(("explanation",)),
        "without curved taste": without(("curved_taste",)),
        "true cosine, popularity, quality": without(hidden),
        "true cosine and popularity": without(hidden, ("quality",)),
        "true cosine with the interests alone": np.einsum("nd,nd->n", world.catalogue.vector[row], base[page]),
        "cosine of the service's vectors": near.astype(np.float64),
        # What a model of nothing but noise is worth: not zero, as its page is one of cards that are alike.
        "noise, by card": np.random.default_rng([seed, 9]).standard_normal(len(page)),
        "noise, a direction of the item vectors": service.items.vector[pages.item]
        @ np.random.default_rng([seed, 9]).standard_normal(service.items.dimension),
    }
    print(f"\nway from random to true scores by what the score knows, {visits} visits, seed {seed}")
    print(f"{'':<40}" + "".join(f"{name:>8}" for name in worlds))
    for label, score in scores.items():
        line = ""
        for name in worlds:
            own = replace(judge, browsing=world_params(name))
            greedy = own.values(score, Exploration.fixed(0.0))
            line += f"{(greedy - own.random).mean() / (own.true_score - own.random).mean():8.3f}"
        print(f"{label:<40}{line}")


def study(out: Path, kind: str, seed: int, worlds: list[str], given: argparse.Namespace) -> None:
    """Runs what is missing of one seed."""
    scenario = given.scenario
    ending = "" if scenario == "steady" else f", {scenario}"
    todo = {f"{kind}, {name}, seed {seed}{ending}": name for name in worlds}
    if kind == PLAIN and not ending:
        todo |= {f"{kind}, {name}, seed {seed}, shuffled": name for name in worlds[:1]}
    todo = {label: name for label, name in todo.items() if not _file(out, label).exists()}
    ceiling = _file(out, f"{kind}, seed {seed}, attainable")
    if not todo and (ceiling.exists() or ending):
        return
    service = service_of(kind, seed, given.listeners, scenario)
    for label, name in todo.items():
        start = time.process_time()
        learners = SHUFFLED if label.endswith("shuffled") else LEARNERS
        config = LoopConfig(
            name, given.rounds, given.pages, judged=min(5_000, 2 * given.pages), learners=learners,
            scenario=scenario_named(scenario), through="arrays",
        )  # fmt: skip
        result = LoopResult(config.as_dict(), seed, tuple(run(service, config, np.random.default_rng([seed, 3]))))
        _file(out, label).write_text(json.dumps(result.as_dict()))
        print(f"{label}: {time.process_time() - start:.0f} s CPU", flush=True)
    if not ceiling.exists() and not ending:
        start = time.process_time()
        ceiling.write_text(json.dumps(attainable(service, worlds, seed, min(3_000, given.pages))))
        print(f"{kind}, seed {seed}, attainable: {time.process_time() - start:.0f} s CPU", flush=True)


def report(out: Path) -> None:
    """Reads the kept runs and prints a line for each learner, and the rounds of each."""
    for kind in KINDS:
        rows = [(file.stem, json.loads(file.read_text())) for file in sorted(out.glob(f"{kind}, W*.json"))]
        results = [(label.removeprefix(f"{kind}, "), LoopResult.from_dict(fields)) for label, fields in rows]
        if not rows:
            continue
        print(f"\n{kind}: streams a page after the last round, 95 % intervals over listeners")
        print(f"{'':<34}{'random':>8}{'popular':>8}{'true':>8}{'greedy':>8}{'expl.':>8}{'true e.':>8}"
              f"{'way':>7}{'interval':>16}{'start':>7}{'attainable':>11}")  # fmt: skip
        for label, result in results:
            ceiling = _file(out, f"{kind}, seed {result.seed}, attainable")
            world = result.configuration["browsing"]["name"]
            top = json.loads(ceiling.read_text()).get(world, {}).get("value") if ceiling.exists() else None
            last = result.final
            for x in last.learners:
                print(
                    f"{label + ', ' + x.name:<34}{last.random.value:8.3f}{last.popularity.value:8.3f}"
                    f"{last.true_score.value:8.3f}{x.greedy.value:8.3f}{x.exploring.value:8.3f}"
                    f"{x.true_exploring.value:8.3f}{x.share.value:7.3f}{x.share.lower:9.3f}-{x.share.upper:.3f}"
                    f"{result.rounds[0].learner(x.name).share.value:8.3f}" + (f"{top:11.3f}" if top is not None else "")
                )
        print("\nby round: way; of the pages served coverage, Gini, streams a page of the tail and of new items")
        for label, result in results:
            for x in result.final.learners:
                mine = [one.learner(x.name) for one in result.rounds]
                print(f"{label}, {x.name}")
                print("  way       " + " ".join(f"{y.share.value:.3f}" for y in mine))
                for name in ("coverage", "gini", "tail", "unheard"):
                    print(f"  {name:<10}" + " ".join(f"{getattr(y, name):.3f}" for y in mine if y.pages))


def page(seeds: list[int]) -> None:
    """Prints what the simulation page shows at its defaults: streams a page by round, of each policy."""
    from api.background.simulation import SimulationRequest, loop_config, world_config

    for seed in seeds:
        asked = loop_config(SimulationRequest(seed=seed).model_dump())
        result = simulate_loop(seed=seed, config=asked, world_config=world_config())
        for x in result.final.learners:
            values = " ".join(f"{one.learner(x.name).exploring.value:.3f}" for one in result.rounds)
            print(f"seed {seed}, {x.name:<10} {values}", flush=True)


def _file(out: Path, label: str) -> Path:
    return out / f"{label}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--worlds", nargs="+", default=["W1"])
    parser.add_argument("--kinds", nargs="+", default=[PLAIN], choices=list(KINDS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pages", type=int, default=5_000)
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady")
    parser.add_argument("--out", type=Path, default=Path("runs/closed_loop"))
    parser.add_argument("--report", action="store_true", help="only print what was kept")
    parser.add_argument("--limits", action="store_true", help="only print what parts of the truth are worth")
    parser.add_argument("--page", action="store_true", help="only print what the simulation page shows by default")
    given = parser.parse_args()
    if given.page:
        page(given.seeds)
        return
    if given.limits:
        limits(given.seeds[0], given.listeners, given.worlds, min(2_000, given.pages))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.report:
        for name in given.worlds:
            if name not in WORLDS:
                parser.error(f"world is {name!r}; expected one of {', '.join(WORLDS)}")
        for kind in given.kinds:
            for seed in given.seeds:
                study(given.out, kind, seed, given.worlds, given)
    report(given.out)


if __name__ == "__main__":
    main()
