"""Coverage on logs whose policy learnt from them: a closed loop of pages and bandits, one row a log, resumable.

    python -m benchmarks adaptive_logs --rows FILE [--logs 200] [--bandit-logs 1000] [--seed 1]
    python -m benchmarks adaptive_logs --rows FILE    # what was measured so far

Pages: 14 days of a simulated service with online learning on, which publishes three times a day; at the end of each day
the model is trained anew from the last retrained one and the pages of the day. Listeners of each log are drawn with
replacement from one world's, so that the truth is a policy's value over all of its visits. The same policies are
estimated on logs of the last model alone, which nothing of the log changed.

Single choices: epsilon-greedy and Thompson sampling on arms that are all alike, where what the log converges to is a
matter of luck, with a floor of exploration that stays and with one that falls.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bart.learning.training import train
from bart.ope import Estimate, LoggedChoices, estimate
from bart.ope.comparison.evaluation import evaluate_policies
from bart.ope.policies.pages import EvaluationPolicy
from bart.page.exploration import Exploration
from bart.reward.model import RewardModel
from bart.reward.scorer import Scorer
from bart.types import Floats, Ints, PageBatch
from simulator.loop.loop import loop_training
from simulator.loop.rounds import Offers, decide, gather, patience_of, read
from simulator.loop.service import Service, make_service
from simulator.loop.truth import page_values
from simulator.loop.visits import simulate_visits
from simulator.reading.browsing import BrowsingParams, world_params
from simulator.world.appeal import batch_appeal
from simulator.world.config import WorldConfig
from simulator.world.world import World

DAYS, PAGES_A_DAY, PARTS = 14, 150, 3
LISTENERS, VISITS = 400, 1_200
ROWS, COLUMNS, EPSILON, TARGET_EPSILON = 5, 5, 0.2, 0.1
ARMS, BATCH, RATE = 3, 150, 0.3
TRAINING = loop_training()


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All visits of a world: what each is offered, whose it is, what it would stream, and how it is read."""

    service: Service
    offers: Offers
    listener: Ints
    appeal: Floats
    how: BrowsingParams

    def taken(self, visit: Ints, rng: np.random.Generator) -> tuple[Offers, Floats]:
        """Some of the visits, drawn with chance of their own, and the appeal of their candidates."""
        bounds = self.offers.pages.offset
        appeal = np.concatenate([self.appeal[bounds[i] : bounds[i + 1]] for i in visit.tolist()])
        parts = [tuple(each[i] for i in visit.tolist()) for each in (self.offers.listener, self.offers.context)]
        candidates = tuple(self.offers.candidates[i] for i in visit.tolist())
        seed = rng.integers(0, 2**62, len(visit))
        return Offers(self.offers.pages.take(visit), seed, *parts, candidates), appeal  # type: ignore[arg-type]

    def value(self, score: Floats, variates: Floats) -> float:
        """The true value of a page by these scores at the target's exploration, over all visits."""
        pages = decide(self.offers, score, Exploration.fixed(TARGET_EPSILON), variates=variates)
        patience = patience_of(self.service.world, pages)
        return float(page_values(self.appeal, pages.offset, pages.card, self.how, patience=patience).mean())


@cache
def pool(world: str) -> tuple[Pool, Floats]:
    """The visits of a world, and uniform numbers for the truth."""
    made_rng, service_rng, visit_rng, rng = np.random.default_rng(17).spawn(4)
    made = World.make(WorldConfig(n_listeners=LISTENERS), made_rng)
    service = make_service(made, service_rng)
    visits = simulate_visits(made, VISITS, visit_rng)
    seed = rng.integers(0, 2**62, VISITS)
    offers = gather(service, visits, np.arange(VISITS), seed, [f"v{i}" for i in range(VISITS)], ROWS, COLUMNS)
    appeal = batch_appeal(made, offers.pages, service.items.item_id)
    return Pool(service, offers, visits.listener, appeal, world_params(world)), offers.variates()


class Log:
    """A log as it grows: listeners drawn with replacement, and what each serving model made of their visits."""

    def __init__(self, of: Pool, rng: np.random.Generator) -> None:
        self._pool, self._rng = of, rng
        listeners = np.unique(of.listener)
        visits, users, number = [], [], 0
        while sum(map(len, visits)) < DAYS * PAGES_A_DAY:
            theirs = np.flatnonzero(of.listener == rng.choice(listeners))
            visits.append(theirs)
            users.append(np.full(len(theirs), number))
            number += 1
        order = rng.permutation(sum(map(len, visits)))[: DAYS * PAGES_A_DAY]
        self._visit, self._user = np.concatenate(visits)[order], np.concatenate(users)[order]
        self.pages: list[PageBatch] = []

    def serve(self, score: Callable[[PageBatch], Floats], count: int) -> PageBatch:
        """The next visits, served by these scores, drawn, read and logged."""
        first = sum(map(len, self.pages))
        offers, appeal = self._pool.taken(self._visit[first : first + count], self._rng)
        drawn = decide(offers, score(offers.pages), Exploration.fixed(EPSILON))
        pages, _ = read(drawn, self._pool.service, appeal, self._pool.how, self._rng)
        who = [f"u{u}" for u in self._user[first : first + count].tolist()]
        self.pages.append(replace(pages, user_id=np.array(who, dtype=object), at_s=first + np.arange(count)))
        return pages


def learnt(model: RewardModel, pages: PageBatch, service: Service) -> tuple[RewardModel, Scorer]:
    found = train(lambda: [pages], service.items, TRAINING, base=model).model
    return found, Scorer.compile(found, service.items)


def page_log(world: str, seed: int, number: int) -> Iterator[dict[str, Any]]:
    """Estimates of fixed and of learnt policies on one adaptive log and on one that a fixed model served."""
    of, variates = pool(world)
    items = of.service.items
    rng = np.random.default_rng([seed, number])
    prior = Scorer.compile(anchor := RewardModel.prior(TRAINING.reward), items)
    log, scorer, halfway = Log(of, rng), prior, prior
    for day in range(DAYS):
        model, whole = anchor, []
        for _ in range(PARTS):
            whole.append(log.serve(scorer.score_batch, PAGES_A_DAY // PARTS))
            model, scorer = learnt(model, whole[-1], of.service)  # what online learning publishes
        anchor, scorer = learnt(anchor, PageBatch.concat(whole), of.service)  # the retrain of the day
        halfway = scorer if day == DAYS // 2 - 1 else halfway
    pages = PageBatch.concat(log.pages)
    steady = Log(of, rng)
    steady.serve(scorer.score_batch, DAYS * PAGES_A_DAY)
    later = pages.take(np.flatnonzero(pages.at_s >= DAYS // 2 * PAGES_A_DAY))
    last = of.value(scorer.score_batch(of.offers.pages), variates)
    middle = of.value(halfway.score_batch(of.offers.pages), variates)
    for kind, batch, score, truth in (
        ("adaptive log, fixed target", pages, prior, prior_value(world)),
        ("adaptive log, target trained on it", pages, scorer, last),
        ("adaptive log, target trained on the half before", later, halfway, middle),
        ("log of one model, fixed target", steady.pages[0], prior, prior_value(world)),
        ("log of one model, target trained before", steady.pages[0], scorer, last),
    ):
        target = EvaluationPolicy("target", score.score_batch(batch), TARGET_EPSILON, TARGET_EPSILON)
        (found,) = evaluate_policies(
            batch, [target], rng=rng, q_logged=batch.raw_score, estimators={"dr": "exposure_dr"}
        )
        yield row(f"pages, {world}: {kind}", found.estimates["dr"], truth)


@cache
def prior_value(world: str) -> float:
    of, variates = pool(world)
    score = Scorer.compile(RewardModel.prior(TRAINING.reward), of.service.items).score_batch(of.offers.pages)
    return of.value(score, variates)


def bandit_log(rule: str, falls: bool, seed: int, number: int) -> Iterator[dict[str, Any]]:
    """The same for three arms that are alike, in 14 batches: a fixed arm, and the one that looks best in the end."""
    rng = np.random.default_rng([seed, number, len(rule), falls])
    hits, shown, rate = np.ones(ARMS), np.full(ARMS, 1 / RATE), np.full(ARMS, RATE)
    action, propensity, reward, policy = [], [], [], []
    for batch in range(DAYS):
        drawn = (
            rng.beta(hits, shown - hits, (400, ARMS)).argmax(axis=1)
            if rule == "Thompson"
            else [(hits / shown).argmax()]
        )
        floor = ((batch + 1) * BATCH) ** -0.7 if falls else 0.2
        pmf = (1 - floor) * np.bincount(drawn, minlength=ARMS) / len(drawn) + floor / ARMS
        chosen = rng.choice(ARMS, BATCH, p=pmf / pmf.sum())
        earned = (rng.random(BATCH) < rate[chosen]).astype(float)
        action.append(chosen)
        propensity.append(pmf[chosen])
        policy.append(pmf)
        reward.append(earned)
        hits, shown = hits + np.bincount(chosen, earned, ARMS), shown + np.bincount(chosen, minlength=ARMS)
    for kind, arm in (("fixed target", 1), ("target that looks best in it", int((hits / shown).argmax()))):
        pmf = np.full(ARMS, 0.02)
        pmf[arm] += 1 - pmf.sum()
        every = np.broadcast_to(pmf, (DAYS * BATCH, ARMS))
        data = LoggedChoices(np.concatenate(reward), np.concatenate(action), np.concatenate(propensity), every)
        floor_name = "exploration falls" if falls else "exploration stays"
        for name, interval in (("snips", None), ("ips", "normal"), ("ips", "anytime")):
            told = f"choices, {rule}, {floor_name}: {kind}, {name} {interval or 'default'}"
            yield row(told, estimate(name, data, interval), RATE)
        value, error = stable_variance(data, np.repeat(policy, BATCH, axis=0), pmf)
        found = {"covers": bool(abs(value - RATE) < 1.96 * error), "off": value / RATE - 1, "half": 1.96 * error / RATE}
        yield {"cell": f"choices, {rule}, {floor_name}: {kind}, StableVar", **found, "conclusive": False}


def stable_variance(data: LoggedChoices, logged: Floats, target: Floats) -> tuple[float, float]:
    """Value and error of the adaptively weighted doubly robust estimate (Zhan et al., 2021, StableVar).

    The prediction is the mean of each arm before the batch. logged: [n, arms]. target: [arms]."""
    n = len(data)
    hits, shown = np.full(ARMS, RATE), np.ones(ARMS)
    score = np.empty(n)
    for first in range(0, n, BATCH):
        some = slice(first, first + BATCH)
        mean, chosen, reward = hits / shown, data.action[some], data.reward[some]
        score[some] = target @ mean + target[chosen] / data.propensity[some] * (reward - mean[chosen])
        hits, shown = hits + np.bincount(chosen, reward, ARMS), shown + np.bincount(chosen, minlength=ARMS)
    h = (target**2 / logged).sum(axis=1) ** -0.5
    value = float(h @ score / h.sum())
    return value, float(np.sqrt((h**2) @ (score - value) ** 2) / h.sum())


def row(cell: str, found: Estimate, truth: float) -> dict[str, Any]:
    return {
        "cell": cell, "covers": bool(found.lower <= truth <= found.upper), "off": found.value / truth - 1,
        "half": (found.upper - found.lower) / 2 / truth, "conclusive": found.verdict == "conclusive",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--logs", type=int, default=0, help="of pages")
    parser.add_argument("--worlds", nargs="+", default=["W1"])
    parser.add_argument("--bandit-logs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no other log is begun")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.rows.read_text().splitlines()] if asked.rows.is_file() else []
    done = {(r["job"], r["seed"], r["log"]) for r in rows}
    jobs: dict[str, tuple[int, Callable[[int], Iterator[dict[str, Any]]]]] = {
        **{world: (asked.logs, partial(page_log, world, asked.seed)) for world in asked.worlds},
        **{f"{rule} {falls}": (asked.bandit_logs, partial(bandit_log, rule, falls, asked.seed))
           for rule in ("greedy", "Thompson") for falls in (False, True)},
    }  # fmt: skip
    until = time.monotonic() + 60 * asked.minutes
    with asked.rows.open("a") as out:
        for number in range(max(asked.logs, asked.bandit_logs)):
            for job, (logs, drawn) in jobs.items():
                if number < logs and (job, asked.seed, number) not in done and time.monotonic() < until:
                    found = [{**each, "job": job, "seed": asked.seed, "log": number} for each in drawn(number)]
                    out.write("".join(json.dumps(each) + "\n" for each in found))
                    out.flush()
                    rows += found
    print("| log and target | logs | covers | ± | off by | half width | conclusive |\n|---|---|---|---|---|---|---|")
    for cell in dict.fromkeys(r["cell"] for r in rows):
        some = [r for r in rows if r["cell"] == cell]
        mean = {name: float(np.mean([r[name] for r in some])) for name in ("covers", "off", "half", "conclusive")}
        error = np.sqrt(mean["covers"] * (1 - mean["covers"]) / len(some))
        print(
            f"| {cell} | {len(some)} | {mean['covers']:.3f} | {error:.3f} | {mean['off']:+.1%} | {mean['half']:.1%} |"
            f" {mean['conclusive']:.2f} |"
        )


if __name__ == "__main__":
    main()
