"""What albums, playlists and shows are worth on a page: mixed types against tracks alone, and new shows found.

python -m benchmarks cards [--seeds 1 2 3] [--without habitual] [--rounds 3] [--pages 1000] [--out DIR]
A world with habits and one without, of the same seed; in each a learner serves pages of tracks alone and another one
pages of all types, at the same exploration rate, and both are judged on visits that neither has seen. New shows are
counted on the shelf of shows alone, ordered by what was learnt, against the most popular shows that the listener has
not heard, in that order. Each finished run is kept in DIR and not repeated; --report only prints. A run takes a minute
of CPU.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bart.learning.training import train
from bart.ope.report.shelves import shelf_facts
from bart.page.exploration import Exploration
from bart.reward.model import RewardModel
from bart.reward.scorer import Scorer
from bart.types import ITEM_TYPES, Bools, Candidates, CandidateSource, Context, Floats, Ints, Listener, PageBatch
from simulator.loop.loop import loop_training
from simulator.loop.records import Value
from simulator.loop.rounds import Offers, decide, gather, patience_of, read
from simulator.loop.service import Service, make_service
from simulator.loop.truth import page_appeal
from simulator.loop.values import Judge
from simulator.loop.visits import Visits, simulate_visits
from simulator.reading.browsing import hazards, world_params
from simulator.reading.scanning import two_state
from simulator.world.appeal import batch_appeal
from simulator.world.config import ContainerConfig, Effects, WorldConfig
from simulator.world.world import World

ROWS = COLUMNS = 6
EPSILON, DRAWS = 0.1, 4
SHOWS = "shows_you_may_like"
BROWSING = world_params("W1")


@dataclass(frozen=True, eq=False)
class Kept:
    """A candidate source of some rows alone."""

    source: CandidateSource
    rows: Bools

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        found = self.source.candidates(listener, context, rng)
        return found.keep(self.rows[found.item])


def service_of(seed: int, without: tuple[str, ...], given: argparse.Namespace) -> Service:
    world_rng, service_rng = np.random.default_rng(seed).spawn(2)
    config = WorldConfig(
        n_tracks=given.tracks,
        n_listeners=given.listeners,
        days=given.days,
        effects=Effects.without(without),
        containers=ContainerConfig.beside(given.tracks),
    )
    return make_service(World.make(config, world_rng), service_rng)


def learnt(service: Service, visits: Visits, page_seed: Ints, given: argparse.Namespace, seed: int) -> Scorer:
    """A model after some rounds of serving, each from what the one before had learnt."""
    model = RewardModel.prior(loop_training().reward)
    scorer = Scorer.compile(model, service.items)
    for number in range(given.rounds):
        visit = np.arange(number * given.pages, (number + 1) * given.pages)
        pages = served(offers_of(service, visits, visit, page_seed), service, scorer, [seed, number])
        model = train(lambda: [pages], service.items, loop_training(), base=model).model  # noqa: B023
        scorer = Scorer.compile(model, service.items)
    return scorer


def offers_of(service: Service, visits: Visits, visit: Ints, page_seed: Ints, rows: int = ROWS) -> Offers:
    return gather(service, visits, visit, page_seed[visit], [f"v{i:06d}" for i in visit.tolist()], rows, COLUMNS)


def served(offers: Offers, service: Service, scorer: Scorer, chance: list[int]) -> PageBatch:
    """Pages drawn and read."""
    score = scorer.score_batch(offers.pages)
    appeal = batch_appeal(service.world, offers.pages, service.items.item_id)
    drawn = decide(offers, score, Exploration.fixed(EPSILON))
    return read(drawn, service, appeal, BROWSING, np.random.default_rng(chance))[0]


def by_popularity(offers: Offers, score: Floats, service: Service) -> tuple[Offers, Floats]:
    """The same offers with the most popular shows that the listener has not heard on the shelf of shows, and scores
    that order them by popularity."""
    pages, items = offers.pages, service.items
    show = np.flatnonzero(items.type == ITEM_TYPES.index("show"))
    show = show[np.argsort(-items.popularity[show], kind="stable")]
    item, score = pages.item.copy(), score.copy()
    rule = pages.candidate_rule()
    for page, listener in enumerate(offers.listener):
        place = pages.offset[page] + np.flatnonzero(rule[pages.offset[page] : pages.offset[page + 1]] == SHOWS)
        heard = listener.history["item"] if listener.history else np.empty(0)
        item[place] = show[~np.isin(show, heard)][: len(place)]
        score[place] = np.sort(score[place])[::-1]
    return replace(offers, pages=replace(pages, item=item)), score


def found(offers: Offers, score: Floats, service: Service, variates: Floats) -> tuple[Ints, Floats]:
    """Listener and expected new shows found of each listener who came: one show counts once, however often it came."""
    pages, world = offers.pages, service.world
    appeal = batch_appeal(world, pages, service.items.item_id)
    rule = pages.candidate_rule()
    missed: dict[tuple[int, int], float] = {}
    who = world.listener_of(pages.user_id)
    total = np.zeros(len(world.population))
    for uniform in variates:
        missed.clear()
        drawn = decide(offers, score, Exploration.fixed(EPSILON), variates=uniform)
        likes, present = page_appeal(appeal, drawn.offset, drawn.card)
        stream = two_state(hazards(likes, present, BROWSING, patience_of(world, drawn)), present)[0]
        at = np.where(present, drawn.offset[:-1, None, None] + drawn.card, 0)
        for page, row, column in np.argwhere(present & (rule[at] == SHOWS)).tolist():
            key = int(who[page]), int(pages.item[at[page, row, column]])
            missed[key] = missed.get(key, 1.0) * (1.0 - BROWSING.displayed * stream[page, row, column])
        for (listener, _), none in missed.items():
            total[listener] += 1.0 - none
    came = np.unique(who)
    return came, total[came] / len(variates)


def study(seed: int, without: tuple[str, ...], given: argparse.Namespace) -> dict[str, Any]:
    """One world: the values of both pages, i2s by shelf, and new shows."""
    mixed = service_of(seed, without, given)
    items = mixed.items
    alone = replace(mixed, source=Kept(mixed.source, items.stands_alone))
    total = given.rounds * given.pages + given.judged
    visits = simulate_visits(mixed.world, total, np.random.default_rng([seed, 1]))
    page_seed = np.random.default_rng([seed, 2]).integers(0, 2**62, size=total)
    judged = np.arange(given.rounds * given.pages, total)
    variates = np.random.default_rng([seed, 3]).random((DRAWS, len(judged), ROWS, 1 + COLUMNS))
    values, out = {}, {}
    for name, service in (("tracks", alone), ("mixed", mixed)):
        scorer = learnt(service, visits, page_seed, given, seed)
        offers = offers_of(service, visits, judged, page_seed)
        judge = Judge(service, offers, BROWSING, variates)
        score = scorer.score_batch(offers.pages)
        values[name] = judge.values(score, Exploration.fixed(EPSILON))
        out[f"true_{name}"] = float(judge.values(judge.appeal, Exploration.fixed(EPSILON)).mean())
    who = judge.listener
    out |= {name: float(value.mean()) for name, value in values.items()}
    out["gain"] = _value(Value.ratio(values["mixed"] - values["tracks"], values["tracks"], who))
    out |= shelf_facts(served(offers, mixed, scorer, [seed, 99]), items)
    shelf = replace(mixed, source=Kept(mixed.source, items.type == ITEM_TYPES.index("show")))
    shows = offers_of(shelf, visits, judged, page_seed, rows=1)
    score = scorer.score_batch(shows.pages)
    first = np.ascontiguousarray(variates[:, :, :1])
    ours = found(shows, score, mixed, first)
    theirs = found(*by_popularity(shows, score, mixed), mixed, first)
    out["new_shows"] = {"ours": float(ours[1].sum()), "popularity": float(theirs[1].sum()), "listeners": len(ours[0])}
    out["more_shows"] = _value(Value.ratio(ours[1] - theirs[1], theirs[1], ours[0]))
    return out


def _value(value: Value) -> dict[str, float]:
    return {"value": value.value, "lower": value.lower, "upper": value.upper}


def report(out: Path) -> None:
    """Prints what was kept."""
    print("streams a page after learning, at the same epsilon; intervals of 95 % by listener")
    print(f"{'world':<34}{'tracks':>8}{'mixed':>8}{'gain':>8}{'interval':>18}{'new shows':>11}{'popular':>9}{'more':>8}"
          f"{'interval':>18}")  # fmt: skip
    runs = [(file.stem, json.loads(file.read_text())) for file in sorted(out.glob("*.json"))]
    for label, one in runs:
        gain, more, shows = one["gain"], one["more_shows"], one["new_shows"]
        print(
            f"{label:<34}{one['tracks']:8.3f}{one['mixed']:8.3f}{gain['value']:8.1%}"
            f"{gain['lower']:9.1%} to {gain['upper']:5.1%}{shows['ours']:11.1f}{shows['popularity']:9.1f}"
            f"{more['value']:8.1%}{more['lower']:9.1%} to {more['upper']:5.1%}"
        )
    for label, one in runs:
        print(f"\ni2s by shelf, {label}\n{'':<24}{'seen':>8}{'streams':>9}{'i2s':>8}{'interval':>18}")
        for row in [*one["shelves"], *one["types"]]:
            span = "" if row["lower"] is None else f"{row['lower']:10.3f} to {row['upper']:5.3f}"
            print(f"{row['name']:<24}{row['seen']:8,}{row['streams']:9,}{row['i2s'] or 0:8.3f}{span}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--without", nargs="*", help="effects switched off; by default a run with all, one without habits"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--judged", type=int, default=1_500)
    parser.add_argument("--tracks", type=int, default=4_000)
    parser.add_argument("--listeners", type=int, default=300)
    parser.add_argument("--days", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("runs/cards"))
    parser.add_argument("--report", action="store_true", help="only print what was kept")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    kinds = [(), ("habitual",)] if given.without is None else [tuple(given.without)]
    for seed in [] if given.report else given.seeds:
        for without in kinds:
            file = given.out / f"{'without ' + ', '.join(without) if without else 'all effects'}, seed {seed}.json"
            if not file.exists():
                file.write_text(json.dumps(study(seed, without, given)))
    report(given.out)


if __name__ == "__main__":
    main()
