"""How far an off-policy value, that of the next page, is from the value after the policy has served for two weeks.

Listeners see a page a day out of cards of their own. With carry-over, each showing that was seen makes a card less
appealing for some days, and a card seen three times without a stream rests for a week; without it, nothing does. The
logging policy serves two weeks, of which the second is the log; then the target serves for two weeks. By world of
reading:

    estimate    exposure_dr of the target from the log, with its interval
    next page   the target's true value in the states in which the logging policy left the listeners
    after       its true value in the second week of its own

    python -m benchmarks carry_over --worlds W1 W3 W4 --seeds 3
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from bart.ope.estimate import estimate
from bart.ope.records.from_batch import logged_pages
from bart.page.batch import batch_decide
from bart.types import Bools, Floats, Ints, PageBatch
from benchmarks._pages import logged
from simulator.reading.browsing import BrowsingParams, browse, page_value, world_params

LISTENERS, SHELVES, CARDS, ROWS, COLUMNS = 1_500, 6, 8, 3, 4
N = SHELVES * CARDS
WEEK = 7
TIRED, FORGOTTEN, REST_AFTER = 0.3, 0.85, 3  # logits a showing, share that is left a day, showings without a stream


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """score: [listeners, N]. epsilon: of shelves and cards."""

    score: Floats
    epsilon: float


class Listeners:
    """Who reads, and what pages leave behind.

    patience: [listeners]. tired: [listeners, N] showings not yet forgotten. ignored: in a row without a stream. rest:
    days that a card still rests.
    """

    def __init__(self, carry: bool, patience: Floats) -> None:
        self.carry, self.patience = carry, patience
        self.tired = np.zeros((LISTENERS, N))
        self.ignored = np.zeros((LISTENERS, N), dtype=np.int64)
        self.rest = np.zeros((LISTENERS, N), dtype=np.int64)

    def shelf(self) -> Ints:
        """[listeners, N], -1 for a card that rests; a shelf's first card never does."""
        every = np.broadcast_to(np.repeat(np.arange(SHELVES), CARDS), (LISTENERS, N))
        stays = np.arange(N) % CARDS < COLUMNS  # so that rows can be filled
        return np.where((self.rest > 0) & ~stays, -1, every)

    def appeal(self, logit: Floats) -> Floats:
        out: Floats = 1 / (1 + np.exp(-(logit - TIRED * self.tired)))
        return out

    def saw(self, card: Ints, seen: Bools, streamed: Bools) -> None:
        """A day of pages: [listeners, rows, columns]."""
        self.tired *= FORGOTTEN
        self.rest = np.maximum(self.rest - 1, 0)
        if not self.carry:
            return
        who, row, column = np.nonzero(seen)
        at = card[who, row, column]
        np.add.at(self.tired, (who, at), 1.0)
        np.add.at(self.ignored, (who, at), 1)
        heard = streamed[who, row, column]
        self.ignored[who[heard], at[heard]] = 0
        tiring = self.ignored >= REST_AFTER
        self.rest[tiring], self.ignored[tiring] = WEEK, 0


def drawn(policy: Policy, state: Listeners, rng: np.random.Generator) -> tuple[Ints, Ints]:
    offset = np.arange(LISTENERS + 1) * N
    return batch_decide(
        offset, state.shelf().reshape(-1), policy.score.reshape(-1), ROWS, COLUMNS, policy.epsilon, policy.epsilon, rng
    )


def worth(policy: Policy, state: Listeners, logit: Floats, how: BrowsingParams, rng: np.random.Generator) -> float:
    """The true value of a page by this policy in these states, over all listeners."""
    _, card = drawn(policy, state, rng)
    appeal = np.take_along_axis(state.appeal(logit), np.maximum(card, 0).reshape(LISTENERS, -1), axis=1)
    return float(page_value(appeal.reshape(card.shape), card >= 0, how, patience=state.patience).mean())


def serve(policy: Policy, state: Listeners, logit: Floats, how: BrowsingParams, rng: np.random.Generator) -> PageBatch:
    """A day: a page for every listener, and what it leaves behind."""
    shelf = state.shelf()
    row_shelf, card = drawn(policy, state, rng)
    appeal = np.take_along_axis(state.appeal(logit), np.maximum(card, 0).reshape(LISTENERS, -1), axis=1)
    found = browse(appeal.reshape(card.shape), card >= 0, how, rng, patience=state.patience)
    state.saw(card, found.seen, found.streamed)
    item = np.arange(LISTENERS * N).reshape(LISTENERS, N)
    user = np.arange(LISTENERS)
    return logged(
        user, item, shelf, policy.score, row_shelf, card, policy.epsilon, found.seen, found.streamed, found.displayed
    )


def measured(world: str, carry: bool, seed: int) -> dict[str, float]:
    rng = np.random.default_rng([seed, 7])
    logit = rng.normal(-1.5, 1.0, (LISTENERS, N))
    how = world_params(world)
    logging = Policy(1 / (1 + np.exp(-(logit + rng.normal(0, 1.5, logit.shape)))), 0.3)
    target = Policy(1 / (1 + np.exp(-(logit + rng.normal(0, 0.5, logit.shape)))), 0.1)
    state = Listeners(carry, rng.normal(size=LISTENERS))
    log, score, next_page = [], [], []
    for day in range(2 * WEEK):
        if day >= WEEK:
            next_page.append(worth(target, state, logit, how, rng))
        pages = serve(logging, state, logit, how, rng)
        if day >= WEEK:
            log.append(pages)
            score.append(target.score.reshape(-1))
    whole, by = PageBatch.concat(log), np.concatenate(score)
    data = logged_pages(whole, by, target.epsilon, target.epsilon, q_logged=whole.raw_score, q_target=by)
    found = estimate("exposure_dr", data, rng=rng)
    after = []
    for day in range(2 * WEEK):
        if day >= WEEK:
            after.append(worth(target, state, logit, how, rng))
        serve(target, state, logit, how, rng)
    return {
        "estimate": found.value,
        "half": (found.upper - found.lower) / 2,
        "logging": float(data.page_reward.mean()),
        "next page": float(np.mean(next_page)),
        "after": float(np.mean(after)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=["W1", "W2", "W3", "W4", "W5", "KUAIRAND"])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    print("world      carry-over  logging  estimate        next page  after two weeks  gap      beyond the interval")
    for world in asked.worlds:
        for carry in (False, True):
            rows = [measured(world, carry, seed) for seed in range(asked.seeds)]
            mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            gap = mean["after"] / mean["next page"] - 1
            beyond = np.mean([abs(row["after"] - row["estimate"]) > row["half"] for row in rows])
            told = f"{mean['estimate']:.3f} +- {mean['half']:.3f}"
            print(
                f"{world:<10} {'on' if carry else 'off':<11} {mean['logging']:.3f}    {told}  {mean['next page']:.3f}"
                f"      {mean['after']:.3f}            {gap:+.1%}    {beyond:.0%} of {asked.seeds}",
                flush=True,
            )


if __name__ == "__main__":
    main()
