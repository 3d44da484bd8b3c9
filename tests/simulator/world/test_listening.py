"""Simulated listening and visits: layout, calibration, effects, determinism."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from simulator.loop.visits import simulate_visits
from simulator.world.calibration import describe
from simulator.world.config import Effects, WorldConfig
from simulator.world.listening import SCHEMA, SESSION_GAP_S, simulate_events
from simulator.world.world import World

SEQUENCE_OFF = {"drift": False, "persistence": False, "mood": False}
CONTEXT_OFF = {"common_context": False, "own_context": False}
ALL_OFF = {**SEQUENCE_OFF, **CONTEXT_OFF, "repeats": False}


@cache
def listening(n_listeners: int, days: int, off: tuple[str, ...] = ()) -> tuple[World, list[pa.RecordBatch]]:
    effects = Effects(**dict.fromkeys(off, False))
    config = WorldConfig(n_listeners=n_listeners, days=days, n_playlists=100, effects=effects)
    world = World.make(config, np.random.default_rng(7))
    return world, list(simulate_events(world, np.random.default_rng(8)))


@cache
def figures(*off: str) -> dict[str, float]:
    world, batches = listening(250, 60, off)
    return describe(world, batches)


def columns(n_listeners: int = 250, days: int = 60) -> dict[str, np.ndarray]:
    """Events by listener, then time, as numpy; seconds as floats."""
    world, batches = listening(n_listeners, days)
    table = pa.Table.from_batches(batches)
    out = {name: table[name].to_numpy() for name in ("listened_s", "skipped", "session_id", "duration_s")}
    out["started_s"] = table["started_at"].cast(pa.int64()).to_numpy() / 1e6
    out["listener"] = world.listener_of(table["user_id"].to_pylist())
    out["item"] = world.row_of(table["item_id"].to_pylist())
    order = np.lexsort((out["started_s"], out["listener"]))
    return {name: value[order] for name, value in out.items()}


def test_events_have_the_layout_of_the_event_table() -> None:
    _, batches = listening(250, 60)
    assert all(batch.schema == SCHEMA for batch in batches)
    required = {"user_id", "item_id", "started_at", "tz", "utc_offset_min", "listened_s", "skipped", "device", "source"}
    assert required | {"duration_s", "session_id"} == set(SCHEMA.names)
    assert sum(column.null_count for batch in batches for column in batch.columns) == 0


def test_listening_has_the_published_marginals() -> None:
    is_now = figures()
    wanted = {
        "sessions_a_listener_60d": (220, 22),
        "tracks_a_session": (10, 0.3),
        "device_mobile": (0.883, 0.025),
        "device_desktop": (0.086, 0.025),
        "afternoon_evening": (0.536, 0.03),
        "listeners_at_night": (0.765, 0.07),
        "half_half": (0.7077, 0.025),
    }
    for name, (value, tolerance) in wanted.items():
        assert is_now[name] == pytest.approx(value, abs=tolerance), name
    others = is_now["device_speaker"] + is_now["device_web"] + is_now["device_tablet"]
    assert others == pytest.approx(0.031, abs=0.015)


def test_skips_fall_with_similarity_more_so_where_there_are_skips() -> None:
    is_now = figures()
    assert -0.65 < is_now["skip_correlation_2"] < is_now["skip_correlation_0"] < -0.16
    assert 0.2 < is_now["skip_rate"] < 0.4


def test_few_tracks_get_many_of_the_plays() -> None:
    assert -1.2 < figures()["zipf_slope"] < -0.7
    assert 0.25 < figures()["top_percent_share"] < 0.45


def test_a_memory_for_context_pays_only_where_context_has_an_effect() -> None:
    assert figures()["cosine_same_context"] > figures()["cosine_mean"] + 0.005
    off = figures(*CONTEXT_OFF)
    assert off["cosine_same_context"] < off["cosine_mean"]


def test_the_recent_past_pays_only_where_sequence_has_an_effect() -> None:
    assert figures()["cosine_ema"] > figures()["cosine_mean"] + 0.01
    off = figures(*ALL_OFF)
    assert off["cosine_ema"] < off["cosine_mean"]
    assert off["cosine_last"] < off["cosine_mean"] - 0.05
    assert off["cosine_same_context"] < off["cosine_mean"]


def test_known_tracks_come_again_only_where_repeats_are_switched_on() -> None:
    def repeated(off: tuple[str, ...]) -> float:
        world, batches = listening(60, 20, off)
        table = pa.Table.from_batches(batches)
        distinct = table.group_by(["user_id", "item_id"]).aggregate([]).num_rows
        assert world.effects.repeats is not ("repeats" in off)
        return 1 - distinct / table.num_rows

    assert repeated(()) > repeated(("repeats",)) + 0.1


def test_sessions_are_twenty_minutes_apart_and_their_tracks_are_not() -> None:
    c = columns()
    gap = c["started_s"][1:] - c["started_s"][:-1] - c["listened_s"][:-1]
    same_listener = c["listener"][1:] == c["listener"][:-1]
    same_session = c["session_id"][1:] == c["session_id"][:-1]
    assert (gap[same_session] < 10).all()
    assert (gap[same_session] >= -1e-3).all()
    assert (gap[same_listener & ~same_session] >= SESSION_GAP_S).all()
    assert len(np.unique(c["session_id"])) == 1 + (~same_session).sum()


def test_what_is_skipped_was_heard_for_less_than_thirty_seconds() -> None:
    c = columns()
    np.testing.assert_array_equal(c["skipped"], c["listened_s"] < 30)
    assert (c["listened_s"] <= c["duration_s"]).all()
    assert (c["listened_s"] > 0).all()


def test_nobody_listens_before_joining_and_nothing_is_heard_before_its_release() -> None:
    world, _ = listening(250, 60)
    c = columns()
    assert (c["started_s"] >= world.population.joined_at_s[c["listener"]]).all()
    released_s = world.catalogue.released_at[c["item"]].astype(np.int64) * 86_400
    assert (released_s <= c["started_s"]).all()
    start_s = world.config.start.timestamp()
    fresh = world.catalogue.released_at.astype(np.int64) * 86_400 > start_s
    assert fresh.any()
    assert fresh[c["item"]].any()  # new releases are found once they are out


def test_batches_do_not_grow_with_the_days() -> None:
    _, batches = listening(250, 60)
    size = np.array([len(batch) for batch in batches])
    assert len(size) == 60
    assert size[-10:].mean() < 1.4 * size[:10].mean()


def test_no_play_begins_after_the_end_of_listening_where_visits_begin() -> None:
    """Also where midnight comes late, and in sessions that go on past it: visits from then on would know it."""
    world, _ = listening(250, 60)
    end_s = world.config.end.timestamp()
    started_s = columns()["started_s"]
    assert started_s.max() < end_s
    assert started_s.max() > end_s - 1_800
    assert simulate_visits(world, 50, np.random.default_rng(0)).at_s.min() >= end_s


def test_progress_ends_at_one() -> None:
    world = World.make(WorldConfig(n_tracks=2_000, n_listeners=20, days=3), np.random.default_rng(0))
    seen: list[float] = []
    for _ in simulate_events(world, np.random.default_rng(0), seen.append):
        pass
    assert seen == [1 / 3, 2 / 3, 1.0]


DIGEST = """
import hashlib, sys
import numpy as np, pyarrow as pa
from simulator.world.listening import SCHEMA, simulate_events
from simulator.world.config import WorldConfig
from simulator.world.world import World
world = World.make(WorldConfig(n_tracks=3_000, n_listeners=150, days=8), np.random.default_rng(3))
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, SCHEMA) as writer:
    for batch in simulate_events(world, np.random.default_rng(4)):
        writer.write_batch(batch)
print(hashlib.sha256(sink.getvalue()).hexdigest())
"""


def test_the_same_seed_writes_the_same_bytes_in_two_processes_with_any_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_visits_come_in_order_after_the_listening_by_those_who_have_joined() -> None:
    world, _ = listening(250, 60)
    visits = simulate_visits(world, 5_000, np.random.default_rng(1))
    assert (np.diff(visits.at_s) >= 0).all()
    first, last = world.config.end.timestamp(), world.config.end.timestamp() + 14 * 86_400
    assert first <= visits.at_s[0]
    assert visits.at_s[-1] < last
    assert (visits.at_s >= world.population.joined_at_s[visits.listener]).all()
    share = np.bincount(visits.listener, minlength=250) / 5_000
    assert np.corrcoef(share, world.population.rate)[0, 1] > 0.8
    assert (visits.device == 0).mean() == pytest.approx(0.883, abs=0.03)


def test_a_visit_has_the_context_that_the_truth_uses() -> None:
    world, _ = listening(250, 60)
    visits = simulate_visits(world, 50, np.random.default_rng(1), surface="home")
    for i in range(50):
        context = visits.context(i)
        assert (context.hour, context.weekday) == (visits.hour[i], visits.weekday[i])
        assert context.surface == "home"
        assert context.at.timestamp() == visits.at_s[i]
        assert visits.user_id(i) == f"u{visits.listener[i]:06d}"
        assert context.country == world.config.countries[visits.zone[i]]


def test_no_visits_are_refused() -> None:
    world, _ = listening(250, 60)
    with pytest.raises(ValueError, match="n is 0; expected at least 1 visit"):
        simulate_visits(world, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="without a time zone"):
        naive = dataclasses.replace(world.config).start.replace(tzinfo=None)
        simulate_visits(world, 1, np.random.default_rng(0), naive)
