"""Truths of what is new to a listener: artists of tracks, and containers by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bart.types import ITEM_TYPES, Context, Ints
from simulator.loop.service import Service, make_service
from simulator.world.config import ContainerConfig, WorldConfig
from simulator.world.world import World


@pytest.fixture(scope="module")
def service() -> Service:
    config = WorldConfig(
        n_tracks=600, n_listeners=12, days=4, n_clusters=40, n_genres=6,
        containers=ContainerConfig(shows=20, playlists=20, episodes=8),
    )  # fmt: skip
    world_rng, service_rng = np.random.default_rng(2).spawn(2)
    return make_service(World.make(config, world_rng), service_rng)


def rows(service: Service, kind: str) -> Ints:
    return np.flatnonzero(service.items.type == ITEM_TYPES.index(kind))


def keys(service: Service, item: Ints) -> Ints:
    return service.novelty_key(np.zeros(len(item), dtype=np.int64), item)


def test_an_episode_is_as_new_as_its_show_and_containers_are_told_apart(service: Service) -> None:
    for show in rows(service, "show").tolist():
        assert set(keys(service, service.items.members[show]).tolist()) == set(keys(service, np.array([show])).tolist())
    each = np.concatenate([rows(service, kind) for kind in ("album", "playlist", "show")])
    assert len(np.unique(keys(service, each))) == len(each)


def test_a_track_is_as_new_as_its_artist(service: Service) -> None:
    tracks = rows(service, "track")
    artist = service.items.artists.first[tracks]
    assert len(np.unique(keys(service, tracks))) == len(np.unique(artist))


def test_no_two_listeners_share_what_is_new(service: Service) -> None:
    everything = np.arange(len(service.items))
    other = service.novelty_key(np.ones(len(everything), dtype=np.int64), everything)
    assert not np.intersect1d(keys(service, everything), other).size


def test_what_was_heard_of_a_show_or_an_album_is_new_no_more(service: Service) -> None:
    listener = service.store.listener("u000001", Context(service.world.config.end))
    heard = listener.history["item"]
    containers = heard[service.items.is_container[heard] & (listener.history["plays"] > 0)]
    assert len(containers) > 3
    who = np.full(len(containers), int(service.world.listener_of(["u000001"])[0]))
    assert np.isin(service.novelty_key(who, containers), service.heard).all()
