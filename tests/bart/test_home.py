"""The serving path: what it decides follows from the request and the seed, and all of it is recorded."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime, timezone

import numpy as np
import pytest

from bart.home import HomeRanker
from bart.log.care.replay import replay
from bart.page.exploration import Exploration
from bart.page.policy import PagePolicy
from bart.page.rules import Boost, Pin, Rules
from bart.ranking.policies import EpsilonGreedy, PlackettLuce
from bart.types import (
    Candidates,
    Context,
    Decision,
    Floats,
    Floats32,
    ItemTable,
    Labels,
    Listener,
    PageBatch,
    Shelf,
    Wishes,
)

N = 24
CONTEXT = Context(datetime(2026, 3, 2, 8, tzinfo=timezone.utc), device="mobile", surface="daily_mix")


def items() -> ItemTable:
    return ItemTable(
        item_id=np.array([f"i{n:02d}" for n in range(N)], dtype=object),
        title=np.array([f"Title {n}" for n in range(N)], dtype=object),
        type=np.zeros(N, dtype=np.int8),
        artists=Labels.of([[f"artist {n % 5}"] for n in range(N)]),
        genres=Labels.of([["rock"]] * N),
        released_at=np.full(N, np.datetime64("2020-01-01"), dtype="datetime64[D]"),
        countries=Labels.of([["SE"] if n == 3 else [] for n in range(N)]),
        explicit=np.arange(N) == 4,
        popularity=np.linspace(0, 1, N),
        duration_s=np.full(N, 200.0),
        vector=np.eye(N, 8, dtype=np.float32),
    )


class Shuffled:
    """Four shelves of items dealt out by the candidate step's own stream."""

    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
        shelves = tuple(Shelf(f"rule {s}", f"Shelf {s}") for s in range(4))
        return Candidates(rng.permutation(N), np.repeat(np.arange(4), N // 4), shelves)


class ByPopularity:
    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:  # noqa: ARG002
        return candidates.item / N

    def score_batch(self, batch: PageBatch) -> Floats:
        return batch.item / N


class Kept:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def append(self, decision: Decision) -> None:
        self.decisions.append(decision)


def ranker(**changes: object) -> HomeRanker:
    parts = {
        "source": Shuffled(),
        "items": items(),
        "scorer": ByPopularity(),
        "exploration": Exploration.fixed(0.3),
        "rules": Rules(),
        "batch_id": "batch",
        "model_id": "model",
    }
    return HomeRanker(**{**parts, **changes})  # type: ignore[arg-type]


LISTENER = Listener("u1", np.ones(8, dtype=np.float32))


def same(a: Decision, b: Decision) -> bool:
    return (
        np.array_equal(a.page.card, b.page.card)
        and np.array_equal(a.page.shelf, b.page.shelf)
        and np.array_equal(a.page.card_propensity, b.page.card_propensity, equal_nan=True)
        and np.array_equal(a.item_id, b.item_id)
    )


def test_the_same_request_and_seed_give_the_same_page() -> None:
    a, b = (ranker().rank("r", LISTENER, CONTEXT, 3, 4, seed=11) for _ in range(2))
    assert same(a, b)
    assert not same(a, ranker().rank("r", LISTENER, CONTEXT, 3, 4, seed=12))


def test_the_candidates_of_a_visit_are_the_same_under_every_policy() -> None:
    greedy = ranker(exploration=Exploration.fixed(0.0)).rank("r", LISTENER, CONTEXT, 3, 4, seed=11)
    uniform = ranker(exploration=Exploration.fixed(1.0)).rank("r", LISTENER, CONTEXT, 3, 4, seed=11)
    assert np.array_equal(greedy.item_id, uniform.item_id)
    assert not np.array_equal(greedy.page.card, uniform.page.card)


def test_the_recorded_propensities_are_those_of_the_recorded_scores_and_epsilons() -> None:
    decision = ranker().rank("r", LISTENER, CONTEXT, 3, 4, seed=5)
    policy = PagePolicy(EpsilonGreedy(decision.shelf_epsilon), EpsilonGreedy(decision.card_epsilon))
    candidates = Candidates(np.arange(len(decision.item_id)), decision.shelf, decision.shelves)
    shelf, card = policy.propensity(candidates, decision.score, decision.page, raw_score=decision.raw_score)
    assert np.array_equal(shelf, decision.page.shelf_propensity)
    assert np.array_equal(card, decision.page.card_propensity, equal_nan=True)


def test_every_decision_reaches_the_log_before_it_is_returned_and_a_dry_run_none() -> None:
    log = Kept()
    served = ranker(log=log)
    decision = served.rank("r1", LISTENER, CONTEXT, 3, 4, seed=5)
    assert log.decisions == [decision]
    assert same(decision, served.dry().rank("r1", LISTENER, CONTEXT, 3, 4, seed=5))
    assert len(log.decisions) == 1
    assert (decision.batch_id, decision.model_id, decision.seed) == ("batch", "model", 5)


def test_a_log_that_fails_stops_the_page() -> None:
    class Full:
        def append(self, decision: Decision) -> None:  # noqa: ARG002
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        ranker(log=Full()).rank("r", LISTENER, CONTEXT, 3, 4, seed=5)


def test_exploration_follows_the_surface() -> None:
    served = ranker(exploration=Exploration())
    assert set(served.rank("r", LISTENER, CONTEXT, 2, 3, seed=1).card_epsilon) == {0.25}
    radio = replace(CONTEXT, surface="radio")
    assert set(served.rank("r", LISTENER, radio, 2, 3, seed=1).card_epsilon) == {0.08}


def test_rules_act_before_the_draw() -> None:
    german = replace(CONTEXT, country="DE", explicit_allowed=False)
    decision = ranker().rank("r", LISTENER, german, 4, 6, seed=1)
    assert not {"i03", "i04"} & set(decision.item_id)
    assert decision.rules_version == Rules().version


def test_a_pinned_card_stands_in_its_slot_with_propensity_one() -> None:
    decision = ranker(rules=Rules(pins=(Pin(1, 2, "i07"),))).rank("r", LISTENER, CONTEXT, 3, 4, seed=1)
    assert decision.item_id[decision.page.card[1, 2]] == "i07"
    assert decision.page.pinned[1, 2]
    assert decision.page.card_propensity[1, 2] == 1


def test_diversity_keeps_the_raw_score_beside_the_final_one() -> None:
    decision = ranker(relevance=0.5).rank("r", LISTENER, CONTEXT, 3, 4, seed=1)
    plain = ranker().rank("r", LISTENER, CONTEXT, 3, 4, seed=1)
    assert np.array_equal(decision.raw_score, plain.raw_score)
    assert not np.array_equal(decision.score, decision.raw_score)


def test_fewer_candidates_than_asked_for_give_a_smaller_page() -> None:
    decision = ranker().rank("r", LISTENER, replace(CONTEXT, country="SE"), 50, 100, seed=1)
    assert decision.page.card.shape[0] == 4
    assert (decision.page.card >= 0).sum() == N
    assert (decision.rows, decision.columns) == (50, 100)


def test_no_candidates_give_an_empty_page_that_is_still_recorded() -> None:
    class Nothing:
        def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:  # noqa: ARG002
            return Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), ())

    log = Kept()
    decision = ranker(source=Nothing(), log=log).rank("r", LISTENER, CONTEXT, 3, 4, seed=1)
    assert decision.page.shelf.shape == (0,)
    assert len(log.decisions) == 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (51, 4), (3, 0), (3, 101)])
def test_page_sizes_outside_the_limits_are_refused(rows: int, columns: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        ranker().rank("r", LISTENER, CONTEXT, rows, columns, seed=1)


def test_a_page_by_plackett_luce_is_recorded_with_its_temperatures() -> None:
    def softmax(shelf_epsilon: Floats, card_epsilon: Floats) -> PagePolicy:  # noqa: ARG001
        return PagePolicy(PlackettLuce(0.5), PlackettLuce(2))

    decision = ranker(policy=softmax, policy_name="softmax").decide("r", LISTENER, CONTEXT, 3, 4, seed=11)
    assert decision.policy == "plackett_luce(0.5, 2.0)"
    problems, _ = replay(decision)
    assert problems == []
    assert ranker().decide("r", LISTENER, CONTEXT, 3, 4, seed=11).policy == "epsilon_greedy"


def test_a_page_of_a_listener_without_experiments_is_the_best_one_and_who_is_not_profiled_is_not_named() -> None:
    def softmax(shelf_epsilon: Floats, card_epsilon: Floats) -> PagePolicy:  # noqa: ARG001
        return PagePolicy(PlackettLuce(0.5), PlackettLuce(2))

    for mode in ("no_experiments", "not_profiled"):
        asking = replace(LISTENER, wishes=Wishes(mode=mode))
        for changes in ({}, {"policy": softmax, "policy_name": "softmax"}):
            pages = [ranker(**changes).decide("r", asking, CONTEXT, 3, 4, seed=seed) for seed in (1, 2)]
            assert [(page.policy, page.page.propensity) for page in pages] == [("epsilon_greedy", 1.0)] * 2
            assert not pages[0].shelf_epsilon.any()
            assert not pages[0].card_epsilon.any()
            assert pages[0].user_id == (LISTENER.user_id if mode == "no_experiments" else "unnamed:r")


def test_what_was_drawn_passes_the_checks_that_it_is_spared_and_has_every_part() -> None:
    boosted = Rules(boosts=(Boost("item", "i05", 2.0, 0.1),), pins=(Pin(0, 0, "i07"),))
    for changes in ({}, {"rules": boosted}, {"relevance": 0.7}):
        found = ranker(**changes).decide("r", LISTENER, CONTEXT, 4, 3, 5)
        assert same(found, Decision(**{part.name: getattr(found, part.name) for part in fields(Decision)}))


@pytest.mark.parametrize(("request_id", "seed"), [("", 5), ("r", -1), ("r", True)])
def test_a_request_without_an_id_or_with_an_odd_seed_is_refused(request_id: str, seed: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        ranker().decide(request_id, LISTENER, CONTEXT, 4, 3, seed)


class Odd(ByPopularity):
    """Scores that are none."""

    def __init__(self, score: Floats) -> None:
        self._score = score

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:  # noqa: ARG002
        return self._score


@pytest.mark.parametrize("score", [np.full(N, np.nan), np.full(N, np.inf), np.zeros(N + 1), np.zeros((N, 1))])
def test_a_page_of_scores_that_are_none_is_refused(score: Floats) -> None:
    with pytest.raises(ValueError, match="score"):
        ranker(scorer=Odd(score)).decide("r", LISTENER, CONTEXT, 4, 3, 5)
