"""The exploration rate: by surface, adapted on request, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bart.page.exploration import Exploration, trait_factor
from bart.types import ListenerTraits

NOTHING_KNOWN = ListenerTraits()
NEW_AND_BROAD = ListenerTraits(account_age_d=3, diversity=0.9, exploration_success=0.5)


@pytest.mark.parametrize(
    ("surface", "epsilon"),
    [
        ("made_for_you", 0.25),
        ("daily_mix", 0.25),
        ("discover_weekly", 0.45),
        ("radio", 0.08),
        ("top_mixes", 0.12),
        ("release_radar", 0.10),
        ("default", 0.20),
        ("anything else", 0.20),
    ],
)
def test_each_surface_has_its_rate_for_every_listener(surface: str, epsilon: float) -> None:
    assert Exploration().epsilon(surface, NOTHING_KNOWN) == epsilon
    assert Exploration().epsilon(surface, NEW_AND_BROAD) == epsilon


@pytest.mark.parametrize(
    ("traits", "factor"),
    [
        (ListenerTraits(), 1.0),
        (ListenerTraits(account_age_d=29.9), 1.3),
        (ListenerTraits(account_age_d=30), 1.0),
        (ListenerTraits(diversity=0.71), 1.2),
        (ListenerTraits(diversity=0.7), 1.0),
        (ListenerTraits(diversity=0.3), 1.0),
        (ListenerTraits(diversity=0.29), 0.7),
        (ListenerTraits(exploration_success=0.31), 1.1),
        (ListenerTraits(exploration_success=0.3), 1.0),
        (ListenerTraits(exploration_success=0.1), 1.0),
        (ListenerTraits(exploration_success=0.09), 0.8),
        (NEW_AND_BROAD, 1.3 * 1.2 * 1.1),
    ],
)
def test_traits_move_the_rate_only_where_adaptation_is_on(traits: ListenerTraits, factor: float) -> None:
    assert trait_factor(traits) == pytest.approx(factor)
    assert Exploration(adapt=True).epsilon("default", traits) == pytest.approx(0.2 * factor)
    assert Exploration().epsilon("default", traits) == 0.2


def test_what_comes_out_stays_within_the_bounds() -> None:
    adaptive = Exploration(adapt=True)
    assert adaptive.epsilon("discover_weekly", NEW_AND_BROAD) == 0.5
    assert adaptive.epsilon("radio", ListenerTraits(diversity=0.1, exploration_success=0.0)) == 0.05
    assert Exploration(table={"all": 0.9, "none": 0.0}).epsilon("all", NOTHING_KNOWN) == 0.5
    assert Exploration(table={"all": 0.9, "none": 0.0}).epsilon("none", NOTHING_KNOWN) == 0.05


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.7, 1.0])
def test_a_fixed_rate_ignores_table_traits_and_bounds(epsilon: float) -> None:
    for surface in ("radio", "discover_weekly", "default"):
        assert Exploration.fixed(epsilon).epsilon(surface, NEW_AND_BROAD) == epsilon


def test_positions_held_greedy_have_rate_zero_and_no_others() -> None:
    shelf, card = Exploration().epsilons("default", NOTHING_KNOWN, 3, 4)
    np.testing.assert_array_equal(shelf, [0.2] * 3)
    np.testing.assert_array_equal(card, [0.2] * 4)
    held = Exploration(greedy_positions=(0, 2, 9), greedy_rows=(1,))
    shelf, card = held.epsilons("default", NOTHING_KNOWN, 3, 4)
    np.testing.assert_array_equal(shelf, [0.2, 0, 0.2])
    np.testing.assert_array_equal(card, [0, 0.2, 0, 0.2])


def test_bad_configuration_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"table\['radio'\] is 1.5; expected a number in \[0, 1\]"):
        Exploration(table={"radio": 1.5})
    with pytest.raises(ValueError, match=r"default is nan; expected a number in \[0, 1\]"):
        Exploration(default=float("nan"))
    with pytest.raises(ValueError, match=r"lowest is 0.6; expected at most highest = 0.5"):
        Exploration(lowest=0.6)
    with pytest.raises(ValueError, match=r"greedy_positions\[1\] is -1; expected an integer >= 0"):
        Exploration(greedy_positions=(0, -1))
    with pytest.raises(ValueError, match=r"default is 2; expected a number in \[0, 1\]"):
        Exploration.fixed(2)


def test_the_configuration_does_not_follow_a_table_that_is_changed_later() -> None:
    table = {"radio": 0.3}
    exploration = Exploration(table=table)
    table["radio"] = 0.4
    assert exploration.epsilon("radio", NOTHING_KNOWN) == 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"default": "a"}, r"default is 'a'; expected a number in \[0, 1\]"),
        ({"default": None}, "default is None"),
        ({"table": None}, "table is None; expected an epsilon by surface"),
        ({"table": {"a": None}}, r"table\['a'\] is None"),
        ({"greedy_rows": 3}, "greedy_rows is 3; expected a collection of integers"),
    ],
)
def test_a_configuration_of_another_type_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Exploration(**wrong)
