"""Search results as a page of one row: the order by score, explored by exchanging neighbours below the second place."""

from __future__ import annotations

from dataclasses import replace

from bart.page.exploration import Exploration
from bart.page.policy import PagePolicy
from bart.page.rules import Rules
from bart.ranking.policies import EpsilonGreedy
from bart.ranking.swaps import Swaps
from bart.types import Floats

HELD = (0, 1)  # places that nothing but the score decides


def search_page(shelf_epsilon: Floats, card_epsilon: Floats) -> PagePolicy:
    """The policy of search results; card_epsilon: [columns], the rate at which a place and the next are exchanged."""
    return PagePolicy(EpsilonGreedy(tuple(shelf_epsilon.tolist())), Swaps(tuple(card_epsilon.tolist())))


def search_exploration(exploration: Exploration) -> Exploration:
    """The same rates with the first two places held."""
    return replace(
        exploration, greedy_positions=(*exploration.greedy_positions, *HELD), greedy_rows=(*exploration.greedy_rows, 0)
    )


def search_rules(rules: Rules) -> Rules:
    """What must not be shown, and nothing that lifts, fixes or spreads: who asks for an artist wants many of one."""
    return replace(rules, boosts=(), pins=(), cap_per_artist=None, block_recent=0)
