"""The policy that served, evaluated on its own log, is itself: every weight 1, the mean reward as its value, no gain.

Over every setting that shapes a page, through `bart evaluate`, the gate of `retrain` and `bart report`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.evaluate.pages_log import evaluate_log
from api.jobs import gates
from api.run.progress import Quiet
from api.run.runs import OpenRun, exploration_of, open_run, rules_of
from api.run.settings import load_settings
from api.upkeep.online_report import online_report
from bart.home import HomeRanker
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import read_pages
from bart.log.record.feedback import FeedbackEvent
from bart.ope.policies.pages import EvaluationPolicy
from bart.ope.weights.pages import cascade_weight, joint_weight, marginal_weight
from bart.page.exploration import Exploration
from bart.page.policy import PagePolicy
from bart.page.rules import Boost, Pin, Rules
from bart.ranking.policies import PlackettLuce
from bart.reward.scorer import load_scorer
from bart.types import Candidates, Context, ListenerTraits, PageBatch, Wishes
from bart.types.wishes import MODES, UNNAMED
from recommender.states.preferences import SqlitePreferences

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PAGES, ROWS, COLUMNS = 30, 3, 4

BOOSTS = (Boost("genre", "soul", 3.0), Boost("artist", "Artist 3", 1.0, 0.5), Boost("genre", "folk", 0.0, 0.2))
PINS = (Pin(0, 1, "item-05"), Pin(2, 0, "item-11"), Pin(2, 3, "item-12"))
WIDE = Exploration.fixed(0.3)
ADAPTED = Exploration(default=0.3, adapt=True)
HELD = Exploration(table={}, default=0.3, greedy_positions=(0,), greedy_rows=(1,))
BY_SURFACE = Exploration(table={"home": 0.2, "radio": 0.45})


class Overlapping:
    """Shelves that share cards: each shelf also holds the cards of the next one."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def candidates(self, listener: Any, context: Context, rng: np.random.Generator) -> Candidates:
        found = self.source.candidates(listener, context, rng)
        shelves = len(found.shelves)
        item = np.concatenate([found.item, found.item])
        return Candidates(item, np.concatenate([found.shelf, (found.shelf + 1) % shelves]), found.shelves)


def plackett_luce(shelf_epsilon: Any, card_epsilon: Any) -> PagePolicy:  # noqa: ARG001
    return PagePolicy(PlackettLuce(0.3), PlackettLuce(0.2))


def overlap(ranker: HomeRanker) -> HomeRanker:
    return replace(ranker, source=Overlapping(ranker.source))


def own(ranker: HomeRanker) -> HomeRanker:
    return replace(ranker, policy=plackett_luce, policy_name="plackett_luce")


def plain(ranker: HomeRanker) -> HomeRanker:
    return ranker


RULES = {
    "none": Rules(),
    "boosts": Rules(boosts=BOOSTS),
    "cap": Rules(cap_per_artist=1),
    "pins": Rules(pins=PINS),
    "all rules": Rules(boosts=BOOSTS, cap_per_artist=2, cap_scope="page", pins=PINS, block_recent=2),
}
RATES = {"fixed": WIDE, "adapted": ADAPTED, "held greedy": HELD, "by surface": BY_SURFACE}
KINDS: dict[str, Callable[[HomeRanker], HomeRanker]] = {"epsilon-greedy": plain, "overlap": overlap, "own": own}
EVERY = [
    *product(RULES, RATES, ("epsilon-greedy",), (None, 0.6)),
    *product(("none", "pins", "all rules"), ("fixed", "held greedy"), ("overlap", "own"), (None, 0.6)),
]


def serve(run: OpenRun, ranker: HomeRanker, folder: Path, arm: Callable[[int], str] = lambda _: "") -> Path:
    """Pages with feedback as an export beside a link to the run's bundle."""
    rng = np.random.default_rng(3)
    with DecisionLog(folder / "decisions.sqlite") as found:
        for i in range(PAGES):
            context = Context(AT + timedelta(hours=i), surface=("home", "radio")[i % 2])
            listener = run.store.listener(f"listener-{i % 30:02d}", context)
            traits = ListenerTraits(5.0 if i % 3 else None, (0.1, 0.5, 0.9)[i % 3], 0.4 if i % 4 else 0.01)
            decision = ranker.rank(f"r{i}", replace(listener, traits=traits), context, ROWS, COLUMNS, i, arm=arm(i))
            found.append(decision)
            events = [FeedbackEvent("page", context.at, displayed=True)]
            for row, column in np.argwhere(decision.page.card >= 0)[: int(rng.integers(1, 8))].tolist():
                heard = 60.0 if rng.random() < 0.4 else 3.0
                events.append(FeedbackEvent(f"{row} {column}", context.at, row, column, True, True, heard))
            found.feedback_many([(f"r{i}", events, context.at + timedelta(minutes=5))])
        export_log(found, folder / "log", now=AT + timedelta(days=60), duration_s=run.items)
    if not (folder / "bundle").exists():
        (folder / "bundle").symlink_to(run.bundle.path)
    return folder / "log"


@pytest.fixture(scope="module")
def opened(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    copy = Path(shutil.copytree(built_run, tmp_path_factory.mktemp("served") / "run", symlinks=True))
    return open_run(copy, load_settings({"exploration": {"epsilon": 0.3}}))


def mean_reward(pages: PageBatch) -> float:
    return float(np.where(pages.seen, pages.reward, 0.0).sum() / len(pages))


def assert_itself(row: dict[str, Any], mean: float) -> None:
    for name, found in row["estimates"].items():
        assert found["value"] == pytest.approx(mean, rel=1e-12, abs=1e-12), name
        if name in ("ips", "snips", "ncis", "dr"):
            assert found["max_weight"] == pytest.approx(1.0, abs=1e-12), name
        if name in ("ips", "snips", "ncis"):
            assert found["mean_weight"] == pytest.approx(1.0, abs=1e-12), name


@pytest.mark.parametrize(("rules", "rates", "kind", "relevance"), EVERY)
def test_the_policy_that_served_is_itself_on_its_own_log(
    opened: OpenRun, tmp_path: Path, rules: str, rates: str, kind: str, relevance: float | None
) -> None:
    ranker = KINDS[kind](replace(opened.ranker, rules=RULES[rules], exploration=RATES[rates], relevance=relevance))
    log = serve(opened, ranker, tmp_path)
    pages = PageBatch.concat(list(read_pages(log, opened.items)))
    mean = mean_reward(pages)
    # what serves and what evaluates: the same scores, but for rounding
    score = load_scorer(opened.bundle.folder("reward"), opened.items).score_batch(pages)

    policy = EvaluationPolicy("served", score, pages.shelf_epsilon, pages.card_epsilon).logged(pages, pages.raw_score)
    assert len(policy) == PAGES
    assert policy.page_reward.mean() == pytest.approx(mean)
    shown = policy.order >= 0
    for weight in (marginal_weight(policy)[shown], cascade_weight(policy)[shown], joint_weight(policy)):
        assert weight == pytest.approx(1.0, abs=1e-12)

    bundle = tmp_path / "bundle"
    report = evaluate_log(log, [f"{bundle}:logged"], load_settings({}), None, Quiet())
    logging, served = report["policies"]
    assert_itself(logging, mean)
    assert_itself(served, mean)
    (difference,) = report["selection"]["versus_baseline"]
    assert [difference[key] for key in ("value", "lower", "upper")] == [0.0, 0.0, 0.0]

    compared = gates.compare(pages, score, pages.raw_score, 0.95, np.random.default_rng(1))
    assert (compared.gain, compared.lower, compared.upper) == (0.0, 0.0, 0.0)
    assert compared.candidate.value == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_where_wishes_were_in_force_the_policy_is_itself_too(opened: OpenRun, tmp_path: Path, kind: str) -> None:
    wishes = SqlitePreferences(tmp_path / "preferences.sqlite")
    for number in range(30):
        own = Wishes(
            blocked_artists=frozenset({f"Artist {number % 10}"}) if number % 2 else frozenset(),
            blocked_items=frozenset({f"item-{number:02d}"}) if number % 3 else frozenset(),
            followed_artists=frozenset({f"Artist {(number + 1) % 10}"}),
            mode=MODES[number % 5 % 3],
        )
        wishes.change(f"listener-{number:02d}", lambda _, own=own: own)  # type: ignore[misc]
    opened.store.preferences = wishes
    try:
        log = serve(opened, KINDS[kind](replace(opened.ranker, exploration=WIDE)), tmp_path)
    finally:
        opened.store.preferences = None
        wishes.close()
    pages = PageBatch.concat(list(read_pages(log, opened.items)))
    assert sum(user.startswith(UNNAMED) for user in pages.user_id) == 6
    for page, user in enumerate(pages.user_id.tolist()):
        if user.startswith("listener-"):
            own_artist = int(user[-2:]) % 10
            candidates = pages.item[pages.offset[page] : pages.offset[page + 1]]
            held = {opened.items.artists[row][0] for row in candidates.tolist()}
            assert (f"Artist {own_artist}" in held) <= (int(user[-2:]) % 2 == 0)
    report = evaluate_log(log, ["logging"], load_settings({}), None, Quiet())
    assert_itself(report["policies"][0], mean_reward(pages))


def test_there_are_at_least_forty_settings() -> None:
    assert len(EVERY) >= 40


@pytest.mark.parametrize("rules", ["none", "boosts", "pins", "all rules"])
@pytest.mark.parametrize("rates", [{"epsilon": 0.3}, {"adapt": True}, {"greedy_positions": [0], "greedy_rows": [1]}])
def test_arms_that_serve_alike_have_each_others_mean_reward(
    opened: OpenRun, tmp_path: Path, rules: str, rates: dict[str, Any]
) -> None:
    run = Path(shutil.copytree(opened.paths.root, tmp_path / "run", symlinks=True))
    settings = load_settings(
        {
            "exploration": rates,
            "rules": {
                "boosts": [vars_of(boost) for boost in RULES[rules].boosts],
                "pins": [vars_of(pin) for pin in RULES[rules].pins],
                "cap_per_artist": RULES[rules].cap_per_artist,
            },
            "experiment": {"name": "e", "arms": {"a": {"share": 0.5}, "b": {"share": 0.5}}},
        }
    )
    ranker = replace(opened.ranker, rules=rules_of(settings), exploration=exploration_of(settings))
    serve(opened, ranker, run, lambda i: f"e:{'ab'[i % 2]}")
    report = online_report(run, settings, Quiet(), AT + timedelta(days=60))
    a, b = report["arms"]
    for arm, other in ((a, b), (b, a)):
        assert arm["off_policy"]["value"] == pytest.approx(other["value"], rel=1e-12)


def vars_of(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}
