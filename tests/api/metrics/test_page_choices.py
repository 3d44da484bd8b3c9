"""Whether pages are drawn as their recorded propensities say: what the alert asks, by the rule in deploy/."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import datetime, timezone

import numpy as np
import pytest
from places import ROOT

from api.metrics.choices import PageChoices, page_choices, summed
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ListenerTraits, Page, Shelf

ROWS, COLUMNS, SHELVES, CARDS = 2, 3, 4, 8
SHELF = np.repeat(np.arange(SHELVES), CARDS)
AMONG = Candidates(np.arange(SHELVES * CARDS), SHELF, tuple(Shelf("rule", str(s)) for s in range(SHELVES)))


def drawn(page: Page, score: np.ndarray, epsilon: float) -> Decision:
    return Decision(
        request_id="r",
        user_id="u",
        context=Context(datetime(2026, 3, 1, tzinfo=timezone.utc)),
        traits=ListenerTraits(),
        listener=np.zeros(2, dtype=np.float32),
        batch_id="b",
        policy="epsilon_greedy",
        shelf_epsilon=np.full(ROWS, epsilon),
        card_epsilon=np.full(COLUMNS, epsilon),
        rules_version="",
        seed=0,
        shelves=AMONG.shelves,
        item_id=AMONG.item.astype(str).astype(object),
        shelf=SHELF,
        raw_score=score,
        score=score,
        page=page,
    )


def pages(n: int, seed: int, epsilon: float = 0.25, ties: bool = False, first: bool = False) -> PageChoices:
    """n pages recorded with epsilon .25. epsilon: that they are drawn with. ties: scores of few values. first: the
    first of equal best ones gets all of their mass."""
    rng = np.random.default_rng(seed)
    policy = PagePolicy(EpsilonGreedy(epsilon), EpsilonGreedy(epsilon))
    recorded = PagePolicy(EpsilonGreedy(0.25), EpsilonGreedy(0.25))
    parts = []
    for _ in range(n):
        score = rng.random(len(SHELF))
        if ties:
            score = np.round(score * 3)
        by = score - 1e-6 * np.arange(len(score)) if first else score
        page = policy.decide(AMONG, by, ROWS, COLUMNS, rng)
        shelf, card = recorded.propensity(AMONG, score, page)
        parts.append(page_choices(drawn(replace(page, shelf_propensity=shelf, card_propensity=card), score, 0.25)))
    return summed(parts)


def fires(found: PageChoices) -> bool:
    """The alert's own expression, with the counters put in."""
    text = (ROOT / "deploy" / "alerts.yml").read_text()
    rule = re.search(r"alert: BartPropensitiesWrong\s+expr: >-\s+(.*?)\s+labels:", text, re.DOTALL)
    assert rule is not None
    named = {f"bart_choice_{f.name}_total": getattr(found, f.name) for f in fields(found)}
    named["bart_choices_total"] = found.n
    expression = re.sub(r"sum\(increase\((\w+)\[\w+\]\)\)", lambda m: f"np.float64({named[m[1]]!r})", rule[1])
    expression = re.sub(r"\s+", " ", expression).replace("^", "**").replace("and on()", "and")
    with np.errstate(invalid="ignore"):
        return bool(eval(expression))


@pytest.mark.parametrize("fault", [{"epsilon": 0.2}, {"ties": True, "first": True}])
def test_the_alert_fires_within_ten_thousand_pages_of_a_fault(fault: dict[str, float]) -> None:
    assert fires(pages(3_000, 1, **fault))


@pytest.mark.parametrize("ties", [False, True])
def test_what_was_promised_has_the_spread_that_was_promised(ties: bool) -> None:
    found = [pages(60, seed, ties=ties).errors() for seed in range(80)]
    for name in ("weight", "greedy", *(("tie",) if ties else ())):
        errors = np.array([one[name] for one in found])
        assert abs(errors.mean()) < 4 / np.sqrt(80)
        assert errors.std() == pytest.approx(1.0, abs=0.3)
    assert not fires(pages(3_000, 2, ties=ties))


def test_a_wrong_epsilon_shows_in_the_greedy_share_and_unshared_ties_in_their_place_alone() -> None:
    wrong = pages(3_000, 3, epsilon=0.2).errors()
    assert wrong["greedy"] > 5.5
    unshared = pages(3_000, 4, ties=True, first=True).errors()
    assert unshared["tie"] < -5.5
    assert abs(unshared["weight"]) < 4
    assert abs(unshared["greedy"]) < 4


def test_positions_held_greedy_promise_what_can_be_drawn_there() -> None:
    rng = np.random.default_rng(5)
    policy = PagePolicy(EpsilonGreedy(0.0), EpsilonGreedy(0.0))
    score = rng.random(len(SHELF))
    found = page_choices(drawn(policy.decide(AMONG, score, ROWS, COLUMNS, rng), score, 0.0))
    assert found.weight == pytest.approx(found.weight_expected)
    assert found.errors() == {"weight": 0.0, "greedy": 0.0, "tie": 0.0}
    other = replace(drawn(policy.decide(AMONG, score, ROWS, COLUMNS, rng), score, 0.0), policy="mine")
    assert page_choices(other) == PageChoices()
