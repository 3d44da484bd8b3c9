"""The gate of `bart retrain` with candidates whose true worth is known: what passes, and what small losses add up to.

A world of pages read from the top left; a model's score is a card's true appeal with noise. Candidates are the serving
model with more noise (worse) or with less (better), so that their value is a known share of the serving one's, measured
on fresh listeners. Each row is one retraining, judged by `api.jobs.gates` on its own log; rows are saved as they come
and counted when the benchmark is run again.

    python -m benchmarks retrain_gate --retrains 200 --pages 10000
    python -m benchmarks retrain_gate --days 30 --runs 20
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from api.jobs import gates
from api.run.settings import load_settings
from bart.page.batch import batch_decide
from bart.types import Floats, Ints, PageBatch
from benchmarks._pages import logged

SHELVES, CARDS, ROWS, COLUMNS, EPSILON, VISITS = 8, 12, 4, 4, 0.2, 4
N = SHELVES * CARDS
GO_ON = (0.9, 0.8)  # to the next card, to the next row
SERVING = 0.7  # noise of the serving model, in logits
MODELS = 40  # noise terms a card has: one a day
TRUTH_PAGES = 40_000
WORLDS = 5


class World:
    """appeal: [items] true logit at the first slot. noise: [MODELS, items] what a model learnt on a day gets wrong."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.items = 2_003  # a prime: any stride goes through all of them
        self.appeal = rng.normal(-1.6, 1.0, self.items)
        self.noise = rng.normal(0, 1, (MODELS, self.items))

    def model(self, *scale: float) -> Floats:
        """[items] scores of a model that is off by so much of each day's noise."""
        out: Floats = 1 / (1 + np.exp(-(self.appeal + np.array(scale) @ self.noise[: len(scale)])))
        return out

    def shown(self, rng: np.random.Generator, n: int, score: Floats) -> tuple[Ints, Ints, Ints]:
        """Candidates [n, N] of n pages and what epsilon-greedy by these scores shows: row_shelf, card."""
        first, stride = rng.integers(0, self.items, (n, 1)), rng.integers(1, self.items, (n, 1))
        item = (first + stride * np.arange(N)) % self.items
        offset, shelf = np.arange(n + 1) * N, np.tile(np.repeat(np.arange(SHELVES), CARDS), n)
        row_shelf, card = batch_decide(offset, shelf, score[item.reshape(-1)], ROWS, COLUMNS, EPSILON, EPSILON, rng)
        return item, row_shelf, card

    def chance(self, item: Ints, card: Ints) -> Floats:
        """[n, rows, columns] P(stream | seen) of the cards shown."""
        there = np.take_along_axis(item, card.reshape(len(card), -1), axis=1)
        out: Floats = (1 / (1 + np.exp(-self.appeal)))[there].reshape(card.shape)
        return out

    def pages(self, rng: np.random.Generator, n: int, score: Floats) -> PageBatch:
        """A log of n pages under epsilon-greedy by these scores, four a listener."""
        item, row_shelf, card = self.shown(rng, n, score)
        stream = rng.random(card.shape) < self.chance(item, card)
        on = np.cumprod(rng.random(card.shape) < GO_ON[0], axis=2)
        in_row = np.concatenate([np.ones((n, ROWS, 1), dtype=bool), on[:, :, :-1].astype(bool)], axis=2)
        down = np.cumprod(rng.random((n, ROWS)) < GO_ON[1], axis=1).astype(bool)
        reached = np.concatenate([np.ones((n, 1), dtype=bool), down[:, :-1]], axis=1)
        seen = in_row & reached[:, :, None]
        every = np.broadcast_to(np.repeat(np.arange(SHELVES), CARDS), (n, N))
        user = np.arange(n) // VISITS
        return logged(user, item, every, score[item], row_shelf, card, EPSILON, seen, stream)

    def value(self, score: Floats, seed: int = 99) -> float:
        """Expected reward of a page under these scores: over fresh listeners, the same for all models."""
        item, _, card = self.shown(np.random.default_rng(seed), TRUTH_PAGES, score)
        # what is seen does not depend on the cards: the expected reward of a slot is its appeal times P(seen)
        seen = (GO_ON[1] ** np.arange(ROWS))[:, None] * (GO_ON[0] ** np.arange(COLUMNS))
        return float((self.chance(item, card) * seen).sum(axis=(1, 2)).mean())


@lru_cache(maxsize=64)
def scale_for(seed: int, base: tuple[float, ...], ratio: float) -> float:
    """How much of the next day's noise makes a model worth `ratio` of the one with these scales."""
    world = World(seed)
    wanted, low, high = ratio * world.value(world.model(*base)), 0.0, 3.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if world.value(world.model(*base, middle)) > wanted else (low, middle)
    return (low + high) / 2


def judged(
    world: World, seed: int, pages: int, serving: Floats, candidate: Floats, kept: dict[str, Floats] | None = None
) -> tuple[bool, gates.Comparison]:
    """Whether the candidate passes on a log of the serving model, and the comparison."""
    settings = load_settings({"retrain": {"max_ece": 1.0, "max_bias": 100.0}})
    log = world.pages(np.random.default_rng(seed), pages, serving)
    found = gates.compare(
        log,
        candidate[log.item],
        serving[log.item],
        settings.evaluation.level,
        np.random.default_rng(seed),
        kept={name: score[log.item] for name, score in (kept or {}).items()},
    )
    return not gates.reason(gates.value(found, settings)), found


def retraining(number: int, change: float, pages: int) -> dict[str, Any]:
    """One retraining with a candidate that is truly worth 1 + change of the serving model."""
    seed = number % WORLDS
    world = World(seed)
    if change < 0:
        serving, candidate = (SERVING,), (SERVING, scale_for(seed, (SERVING,), 1 + change))
    else:
        candidate, serving = (SERVING,), (SERVING, scale_for(seed, (SERVING,), 1 / (1 + change)))
    passed, found = judged(world, 1_000 + number, pages, world.model(*serving), world.model(*candidate))
    base = found.serving.value
    return {
        "kind": "retrain",
        "number": number,
        "change": change,
        "pages": pages,
        "passed": passed,
        "gain": found.gain / base,
        "lower": found.lower / base,
        "upper": found.upper / base,
    }


def month(number: int, change: float, pages: int, days: int) -> dict[str, Any]:
    """Days on each of which a candidate that is worth 1 + change of the serving model comes; what serves at the end."""
    world = World(number)
    serving: tuple[float, ...] = (SERVING,)
    first = world.value(world.model(*serving))
    kept: dict[str, Floats] = {}
    taken = 0
    for day in range(days):
        # Noise of every day has the same law, so the scale of the next one does for all.
        more = scale_for(number, serving, 1 + change)
        candidate = (*serving, *[0.0] * (day + 1 - len(serving)), more)
        passed, _ = judged(
            world, 50_000 + 100 * number + day, pages, world.model(*serving), world.model(*candidate), kept
        )
        if passed:
            kept[f"day {day}"] = world.model(*serving)
            serving, taken = candidate, taken + 1
    left = world.value(world.model(*serving)) / first
    return {
        "kind": "month",
        "number": number,
        "change": change,
        "pages": pages,
        "days": days,
        "taken": taken,
        "left": left,
    }


def share(passed: int, n: int) -> str:
    """A rate with its exact 95 % interval."""
    low = stats.beta.ppf(0.025, passed, n - passed + 1) if passed else 0.0
    high = stats.beta.ppf(0.975, passed + 1, n - passed) if passed < n else 1.0
    return f"{passed / n:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--retrains", type=int, default=0, help="with a candidate 3 %% worse and one 5 %% better, each")
    parser.add_argument("--pages", type=int, default=10_000, help="that judge a candidate")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=0, help="months of candidates 3 %% worse a day")
    parser.add_argument("--rows", type=Path, default=Path("retrain_gate.jsonl"), help="where rows are saved")
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.rows.read_text().splitlines()] if asked.rows.is_file() else []
    done = {(r["kind"], r["number"], r["change"], r["pages"], r.get("days")) for r in rows}
    todo = [("retrain", i, c, asked.pages, None) for i in range(asked.retrains) for c in (-0.03, 0.05)]
    todo += [("month", i, -0.03, asked.pages, asked.days) for i in range(asked.runs)]
    with asked.rows.open("a") as out:
        for kind, number, change, pages, days in todo:
            if (kind, number, change, pages, days) in done:
                continue
            row = retraining(number, change, pages) if days is None else month(number, change, pages, days)
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
    for pages in sorted({r["pages"] for r in rows}):
        report(pages, [r for r in rows if r["pages"] == pages])


def report(pages: int, rows: list[dict[str, Any]]) -> None:
    """What passed, from saved rows of one number of pages."""
    for change in (-0.03, 0.05):
        some = [r for r in rows if r["kind"] == "retrain" and r["change"] == change]
        if some:
            gain = np.array([r["gain"] for r in some])
            held = np.mean([r["lower"] <= change <= r["upper"] for r in some])
            print(
                f"{pages:,} pages, truly {change:+.0%}: passes {share(sum(r['passed'] for r in some), len(some))} of"
                f" {len(some)}; estimated {gain.mean():+.4f} +- {gain.std():.4f}, the interval holds it in {held:.3f}"
            )
    months = [r for r in rows if r["kind"] == "month"]
    if months:
        left, taken = np.array([r["left"] for r in months]), np.mean([r["taken"] for r in months])
        print(
            f"{pages:,} pages a day, {months[0]['days']} days of candidates 3 % worse: {len(months)} runs,"
            f" {taken:.2f} taken a run, value left {left.mean():.4f}, in the worst {left.min():.4f}"
        )


if __name__ == "__main__":
    main()
