"""The one serving path: candidates, rules, scores, exploration, the draw, the record.

The API, the simulator and batch jobs all call `HomeRanker.rank`. It holds no clock and no randomness of its own: the
caller gives the time (in the context) and the seed, so that every page can be decided again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bart.page.exploration import Exploration
from bart.page.final import final_score
from bart.page.policy import PagePolicy, recorded_name
from bart.page.rules import Rules
from bart.page.search import search_exploration, search_page, search_rules
from bart.ranking.policies import EpsilonGreedy
from bart.types import (
    CandidateSource,
    Context,
    Decision,
    DecisionSink,
    FeatureSource,
    Floats,
    ItemTable,
    Listener,
    PageScorer,
)
from bart.types.wishes import recorded_user

MAX_ROWS = 50
MAX_COLUMNS = 100


def epsilon_greedy_page(shelf_epsilon: Floats, card_epsilon: Floats) -> PagePolicy:
    """The default policy: epsilon-greedy over shelves, then over cards; epsilons [rows] and [columns]."""
    return _epsilon_greedy(tuple(shelf_epsilon.tolist()), tuple(card_epsilon.tolist()))


@lru_cache(maxsize=256)
def _epsilon_greedy(shelf_epsilon: tuple[float, ...], card_epsilon: tuple[float, ...]) -> PagePolicy:
    """Checked once: nearly all pages have the same few epsilons."""
    return PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon))


@dataclass(frozen=True)
class HomeRanker:
    """Decides pages and records them.

    source: candidates by shelf. items: the table that candidates index. scorer: the reward model. policy: makes a page
    policy from epsilons [rows], [columns]. exploration: epsilon by surface and listener. rules: business rules. log:
    where decisions go, or None for a dry run. batch_id, model_id: recorded with each decision. relevance: weight of
    the score against diversity in Maximal Marginal Relevance, in (0, 1]; None leaves scores as they are. features: says
    what is known of each candidate, for the scorer and the record; None where only the item itself counts.
    """

    source: CandidateSource
    items: ItemTable
    scorer: PageScorer
    exploration: Exploration
    rules: Rules
    log: DecisionSink | None = None
    policy: Callable[[Floats, Floats], PagePolicy] = epsilon_greedy_page
    batch_id: str = ""
    model_id: str = ""
    policy_name: str = "epsilon_greedy"
    relevance: float | None = None
    features: FeatureSource | None = None

    def rank(
        self,
        request_id: str,
        listener: Listener,
        context: Context,
        rows: int,
        columns: int,
        seed: int,
        *,
        arm: str = "",
        forced: bool = False,
    ) -> Decision:
        """The page for one visit (`decide`), recorded in the log before it is returned."""
        decision = self.decide(request_id, listener, context, rows, columns, seed, arm=arm, forced=forced)
        if self.log is not None:
            self.log.append(decision)
        return decision

    def decide(
        self,
        request_id: str,
        listener: Listener,
        context: Context,
        rows: int,
        columns: int,
        seed: int,
        *,
        arm: str = "",
        forced: bool = False,
    ) -> Decision:
        """The page for one visit, for the caller to record before anybody sees it.

        rows, columns: size asked for, at least 1; the page may be smaller where candidates are few. seed: of the
        policy's random stream, >= 0; the candidate step has its own stream apart from it, so that the same visit has
        the same candidates under every policy. forced: seed or time were set by hand; never used for learning.
        Who takes part in no experiments gets the best page, and a page of who is not profiled names nobody.
        Raises ValueError for a size outside 1 to 50 rows and 1 to 100 columns.
        """
        if not 1 <= rows <= MAX_ROWS:
            raise ValueError(f"rows is {rows}; expected 1 to {MAX_ROWS}")
        if not 1 <= columns <= MAX_COLUMNS:
            raise ValueError(f"columns is {columns}; expected 1 to {MAX_COLUMNS}")
        found = self.source.candidates(listener, context, np.random.default_rng([seed, 1]))
        candidates, pins = self.rules.apply(self.items, listener, context, found)
        if self.features is not None:
            known, given = self.features.features(listener, context, candidates), candidates.features
            candidates = candidates.knowing(known if given is None else known.beside(given))
        raw_score = self.scorer.score(context, listener.vector, candidates, user_id=listener.user_id)
        factor, add = self.rules.boosts_of(self.items, candidates) or (None, None)
        vectors = None if self.relevance is None else self.items.vector[candidates.item]
        score = final_score(raw_score, candidates.shelf, factor, add, self.relevance, vectors)
        exploration = self.exploration if listener.wishes.experiments else Exploration.fixed(0.0)
        shelf_epsilon, card_epsilon = exploration.epsilons(context.surface, listener.traits, rows, columns)
        policy, name = self.policy(shelf_epsilon, card_epsilon), self.policy_name
        if not listener.wishes.experiments and not policy.by_rates:  # its chance would not be in the rates
            policy, name = epsilon_greedy_page(shelf_epsilon, card_epsilon), "epsilon_greedy"
        page = policy.decide(
            candidates, score, rows, columns, np.random.default_rng(seed), raw_score=raw_score, pins=pins
        )
        return Decision.drawn(
            request_id=request_id,
            user_id=recorded_user(listener.user_id, listener.wishes, request_id),
            context=context,
            traits=listener.traits,
            listener=listener.vector,
            batch_id=self.batch_id,
            model_id=self.model_id,
            policy=recorded_name(policy, name),
            shelf_epsilon=shelf_epsilon,
            card_epsilon=card_epsilon,
            rules_version=self.rules.version,
            seed=seed,
            shelves=candidates.shelves,
            item_id=self.items.item_id[candidates.item],
            shelf=candidates.shelf,
            raw_score=raw_score,
            score=score,
            page=page,
            arm=arm,
            forced=forced,
            boost_factor=factor,
            boost_add=add,
            relevance=self.relevance,
            features=candidates.features,
        )

    def for_search(self) -> HomeRanker:
        """The same ranker for the results of a query: one row by the reward model, where nothing is lifted or fixed and
        exploration exchanges neighbours below the second place (`bart.page.search`)."""
        return replace(
            self,
            policy=search_page,
            exploration=search_exploration(self.exploration),
            rules=search_rules(self.rules),
            relevance=None,
        )

    def dry(self) -> HomeRanker:
        """The same ranker without a log."""
        return replace(self, log=None)
