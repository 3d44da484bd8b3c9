"""Logs of every kind of page at once: many records that are read and replayed together are what each is alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_pages import AT, make

from bart.log.care.export import export_log
from bart.log.care.replay import candidate_items, rebuilder, replay
from bart.log.care.verify import VerifyResult, verify
from bart.log.decision_log import DecisionLog
from bart.page.policy import SWAPS, PagePolicy, recorded_name
from bart.page.search import search_page
from bart.ranking.policies import EpsilonGreedy, PlackettLuce, Uniform
from bart.types import Candidates, CardFeatures, Decision, Page
from bart.types.levels import LEVELS

SOFT = PagePolicy(PlackettLuce(0.3), PlackettLuce(0.5))


def page(i: int, rng: np.random.Generator) -> Decision:
    """A page of some size and policy, drawn by its seed, with some of what a record may further hold."""
    one = make(i, n=int(rng.choice([5, 12, 29])), rows=int(rng.integers(1, 4)), columns=int(rng.integers(1, 5)))
    n, score = len(one.item_id), rng.random(len(one.item_id))
    score = np.round(score, 1) if rng.random() < 0.3 else score.astype(np.float32).astype(np.float64)
    raw = score if rng.random() < 0.5 else rng.random(n)
    ids = one.item_id if rng.random() < 0.7 else np.array([f"item-{k % 4}" for k in range(n)], dtype=object)
    epsilons = [np.full(len(old), rng.choice([0.0, 0.3, 1.0])) for old in (one.shelf_epsilon, one.card_epsilon)]
    kind = rng.choice(["epsilon_greedy", "epsilon_greedy", "uniform", SWAPS, "soft", "imported", "unknown"])
    policy = {
        "uniform": PagePolicy(Uniform(), Uniform()),
        "soft": SOFT,
        SWAPS: search_page(*epsilons),
    }.get(kind, PagePolicy(EpsilonGreedy(epsilons[0]), EpsilonGreedy(epsilons[1])))
    further: dict[str, Any] = {"forced": bool(rng.random() < 0.2), "relevance": 0.5 if rng.random() < 0.5 else None}
    if rng.random() < 0.3:
        further |= {"boost_factor": 1 + rng.random(n), "boost_add": rng.random(n)}
    if rng.random() < 0.3:
        further["features"] = CardFeatures(("one", "ü"), rng.integers(0, LEVELS, (n, 2)).astype(np.uint8))
    shelf = np.full(n, -1) if rng.random() < 0.1 else one.shelf  # nothing to choose from: an empty page
    asked = replace(
        one, policy=recorded_name(SOFT, "") if kind == "soft" else str(kind), item_id=ids, shelf=shelf, raw_score=raw,
        score=score, shelf_epsilon=epsilons[0], card_epsilon=epsilons[1], page=NONE, **further,
    )  # fmt: skip
    drawn = policy.decide(
        Candidates(candidate_items(asked), shelf, one.shelves),
        score,
        len(epsilons[0]),
        len(epsilons[1]),
        np.random.default_rng(one.seed),
        raw_score=raw,
    )
    return replace(asked, page=drawn)


NONE = Page(np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty(0), np.empty((0, 0)), np.empty((0, 0), bool))


def false(one: Decision, rng: np.random.Generator) -> Decision:
    """The page with something else than what was drawn, or drawn from."""
    shown = one.page
    lower = replace(shown, card_propensity=np.nextafter(shown.card_propensity, 0.0))
    other = replace(shown, card=np.where(shown.card >= 0, (shown.card + 1) % len(one.item_id), -1))
    changed = (
        replace(one, page=lower),
        replace(one, page=other),
        replace(one, seed=one.seed + 1),
        replace(one, score=one.score[::-1].copy()),
        replace(one, card_epsilon=one.card_epsilon * 0.9),
    )
    return changed[rng.integers(len(changed))]


def told(result: VerifyResult) -> tuple[Counter[tuple[str, str]], tuple[int, ...]]:
    counts = result.records, result.verified, result.excluded, result.forced, result.imported, result.unknown_policy
    return Counter((problem.request_id, problem.text) for problem in result.problems), counts


@pytest.mark.parametrize("seed", range(2))
def test_a_mixed_log_is_accused_of_what_its_pages_are_each_by_itself(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    honest = [page(i, rng) for i in range(80)]
    pages = [false(one, rng) if rng.random() < 0.2 else one for one in honest]
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append_many(pages)
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    accused: set[str] = set()
    expected: Counter[tuple[str, str]] = Counter()
    right = excluded = 0
    for one in pages:
        if rebuilder(one.policy) is None:
            continue
        problems, moments = replay(one)
        expected.update((one.request_id, text) for text in problems)
        right += not problems
        excluded += 0 if problems or one.forced else moments.excluded
        accused |= {one.request_id} if problems else set()
    found = verify(tmp_path / "log.sqlite")
    assert {p: n for p, n in told(found)[0].items() if p[0] in accused} == expected
    assert (found.records, found.verified, found.excluded) == (len(pages), right, excluded)
    assert not accused & {one.request_id for one, was in zip(pages, honest, strict=True) if one is was}
    assert len(accused) > 5
    assert told(verify(tmp_path / "log")) == told(found)


@pytest.mark.parametrize("seed", range(2))
def test_an_honest_mixed_log_is_never_accused(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng((seed, 1))
    with DecisionLog(tmp_path / "log.sqlite") as log:
        log.append_many([page(i, rng) for i in range(120)])
        export_log(log, tmp_path / "log", now=AT + timedelta(days=9))
    of_log, of_export = verify(tmp_path / "log.sqlite"), verify(tmp_path / "log")
    assert (of_log.problems, of_export.problems) == ((), ())
    assert told(of_log) == told(of_export)
    assert of_log.verified + of_log.imported + of_log.unknown_policy == 120
    assert [(m.choice, m.n, m.mean) for m in of_log.means] == [(m.choice, m.n, m.mean) for m in of_export.means]
