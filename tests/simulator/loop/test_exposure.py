"""Coverage, evenness and what new items and the tail earn, counted on pages that were laid out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bart.page.exploration import Exploration
from simulator.loop.exposure import Exposure, gini
from simulator.loop.rounds import decide, gather
from simulator.loop.service import make_service
from simulator.loop.visits import simulate_visits
from simulator.world.config import WorldConfig
from simulator.world.world import World


def test_gini_is_none_where_all_are_alike_and_whole_where_one_takes_all() -> None:
    assert gini(np.full(10, 3.0)) == pytest.approx(0.0)
    assert gini(np.eye(10)[3]) == pytest.approx(0.9)  # 1 - 1 / n
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert np.isnan(gini(np.zeros(4)))


def test_exposure_counts_displayed_pages_and_their_streams() -> None:
    world = World.make(WorldConfig(n_tracks=600, n_listeners=30, days=10), np.random.default_rng(1))
    service = make_service(world, np.random.default_rng(2), unheard=np.arange(60))
    visits = simulate_visits(world, 8, np.random.default_rng(3))
    offers = gather(service, visits, np.arange(8), np.arange(8), [f"r{i}" for i in range(8)], 3, 3)
    pages = decide(offers, np.zeros(len(offers.pages.item)), Exploration.fixed(1.0))
    displayed = np.arange(8) < 4
    pages = replace(pages, displayed=displayed, seen=pages.card >= 0, reward=(pages.card >= 0).astype(float))
    there = pages.card >= 0
    shown = [
        pages.item[pages.offset[page] + card[here]]
        for page, (card, here) in enumerate(zip(pages.card, there, strict=True))
        if displayed[page]
    ]
    item = np.concatenate(shown)
    found = Exposure.of(pages, service)
    assert found.coverage == pytest.approx(len(np.unique(item)) / len(service.items))
    assert found.unheard == pytest.approx(service.unheard[item].sum() / 4)
    assert 0 < found.tail < len(item) / 4
    assert np.isnan(Exposure.of(replace(pages, displayed=np.zeros(8, dtype=bool)), service).gini)
