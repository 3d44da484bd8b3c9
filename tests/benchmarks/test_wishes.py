"""What the crowd counts as shown wrongly, and that a served run shows nothing of that: the benchmark, small."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.served.wishes import Crowd, Told, wishes
from simulator.search.world import SearchParams, SearchWorld


def test_wishes_that_may_hold_for_a_page_are_those_from_a_second_before_it_to_its_end() -> None:
    told = Told(sent=[1.0, 3.0, 5.0], answered=[1.5, 3.5], wishes=[{"n": 1}, {"n": 2}, {"n": 3}])
    assert told.in_force(1.2, 1.4, 0.0) == [{}, {"n": 1}]
    assert told.in_force(2.0, 2.5, 0.0) == [{"n": 1}]
    assert told.in_force(2.0, 2.5, 1.0) == [{}, {"n": 1}]
    assert told.in_force(3.2, 6.0, 0.0) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert told.in_force(4.6, 4.9, 1.0) == [{"n": 2}]


def test_a_card_is_wrong_where_all_that_may_hold_forbids_it() -> None:
    items = SearchWorld.make(SearchParams(items=300), np.random.default_rng(0)).items
    crowd = Crowd(0, "", items, 1, seed=0)
    user = crowd.users[0]
    crowd.told[user] = Told([0.0, 2.0], [0.1, 2.1], [{"blocked_artists": ["artist 7"]}, {"blocked_items": ["s00009"]}])
    crowd.down = Told([0.0], [0.1], [{"blocked_items": ["s00001"]}])
    crowd.asked = [
        (1.5, 1.6, user, ["s00007", "s00009", "s00001", "s00002"]),
        (1.9, 2.05, user, ["s00007", "s00009"]),
        (5.0, 5.1, user, ["s00007", "s00009"]),
        (5.0, 5.1, crowd.users[1], ["s00007", "s00009"]),
    ]
    assert crowd.shown_wrongly(1.0) == [(user, "s00007"), (user, "s00001"), (user, "s00009")]


@pytest.mark.slow
def test_no_page_rank_or_list_of_two_workers_shows_what_is_blocked_while_preferences_change(
    demo_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(demo_run, tmp_path / "run", symlinks=True))
    found = wishes(run, 400, seed=5)
    assert found["passed"], found
    assert found["answers"] >= 400
    assert found["changes"] >= 10
    assert {"home", "rank", "search", "retry"} == set(found["kinds"])
