"""What the listeners of a world play: sessions and their tracks, as a stream of event batches.

Day by day, and within a day session by session: a session's target is the taste of that moment plus what is sequential
(the last sessions, a slowly moving mood) plus a surprise; clusters are drawn by closeness to it, tracks by popularity,
some come again from the listener's memory; a track far from the taste is skipped more often. Memory does not grow with
the number of days. Linear algebra is in float64 and what is written is rounded, so that the bytes do not depend on how
many threads multiply matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bart.types import DEVICES, Bools, Floats, Ints
from simulator.world.catalogue import cluster_pmf, draw_cluster, draw_in_range, unit
from simulator.world.event_batches import SCHEMA, Columns, Events
from simulator.world.habits import Habits
from simulator.world.population import HOUR_SHARE
from simulator.world.world import World

__all__ = ["SCHEMA", "SESSION_GAP_S", "SOURCES", "draw_devices", "simulate_events"]

SESSION_GAP_S = 20 * 60  # sessions of a listener are at least this far apart

# What a source means, for all listeners: how often it is chosen, how closely it keeps to the target (times the
# configured sharpness), how much it repeats (times the listener's own share), how much more is skipped (logit), the
# share of tracks that come from one artist.
SOURCES = ("library", "playlist", "radio", "charts", "artist", "search")
_SOURCE_SHARE: Floats = np.array([0.30, 0.27, 0.18, 0.08, 0.10, 0.07])
_SOURCE_SHARPNESS: Floats = np.array([1.0, 1.15, 1.0, 0.5, 1.0, 0.75])
_SOURCE_REPEAT: Floats = np.array([1.6, 1.0, 0.3, 0.3, 0.8, 0.8])
_SOURCE_SKIP: Floats = np.array([-0.3, 0.0, 0.5, 0.2, -0.1, -0.1])
_SOURCE_ARTIST: Floats = np.array([0.1, 0.0, 0.05, 0.0, 0.75, 0.3])
_CHARTS = SOURCES.index("charts")

# How much likelier than on average each device is at each hour: desktop in working hours, speakers in the evening.
_DEVICE_BY_HOUR: Floats = np.ones((len(DEVICES), 24))
_DEVICE_BY_HOUR[DEVICES.index("desktop"), 9:18] = 2.2
_DEVICE_BY_HOUR[DEVICES.index("speaker"), 18:23] = 2.5
_DEVICE_BY_HOUR[DEVICES.index("tablet"), 20:24] = 2.0
_DEVICE_BY_HOUR /= (_DEVICE_BY_HOUR @ HOUR_SHARE)[:, None]

_MEMORY = 64  # tracks a listener may come back to
_LISTENER_BLOCK = 2_500  # listeners simulated at once, one record batch a block and day
_MOOD_KEEPS = 0.9  # of the mood, from a session to the next
_USUAL_TAKES = 0.03  # weight of the newest session in what a listener is used to
_RECENT_TAKES = 0.45  # weight of the newest session in what persists
_WEEKDAY: Floats = np.array([0.97, 0.97, 0.98, 1.0, 1.06, 1.03, 0.99])


@dataclass(eq=False)
class _State:
    """What carries over from session to session, by listener."""

    recent: Floats  # [L, d] moving average of what the last sessions sounded like; zero before the first
    mood: Floats  # [L, d]
    usual: Floats  # [L, d] slowly moving average of all sessions
    memory: Ints  # [L, _MEMORY] rows last played, -1 where empty
    written: Ints  # [L] plays written to memory so far
    busy_until_s: Ints  # [L] end of the last session, UTC
    sessions: Ints  # [L]


def simulate_events(
    world: World, rng: np.random.Generator, progress: Callable[[float], None] | None = None
) -> Iterator[pa.RecordBatch]:
    """The events of all days in the layout of events.parquet, day by day.

    Within a batch: one day of up to 2,500 listeners, by listener, then time. A session that begins before midnight and
    ends after it stays with its first day. What would begin after the last day, in UTC, is not there: visits come from
    then on, and are not to know it. progress: called after each day with the share done.
    """
    config, n = world.config, len(world.population)
    d = config.dimension
    state = _State(
        recent=np.zeros((n, d)),
        mood=unit(rng.standard_normal((n, d))),
        usual=world.base_taste(np.arange(n), np.zeros(n)),
        memory=np.full((n, _MEMORY), -1, dtype=np.int64),
        written=np.zeros(n, dtype=np.int64),
        busy_until_s=np.zeros(n, dtype=np.int64),
        sessions=np.zeros(n, dtype=np.int64),
    )
    columns = Columns(world, SOURCES)
    habits = Habits.of(world, rng.spawn(1)[0])  # of a stream of its own: music stays the same
    for day in range(config.days):
        for first in range(0, n, _LISTENER_BLOCK):
            listener = np.arange(first, min(first + _LISTENER_BLOCK, n))
            busy_until_s = state.busy_until_s[listener]
            parts = [_day(world, state, listener, day, rng)]
            if habits is not None:
                parts.append(habits.day(listener, day, parts[0], busy_until_s, SESSION_GAP_S))
            there = [part for part in parts if part is not None]
            events = Events.join(there).before(int(config.end.timestamp())) if there else None
            if events is not None and len(events):
                yield columns.batch(events)
        if progress is not None:
            progress((day + 1) / config.days)


def _day(world: World, state: _State, listener: Ints, day: int, rng: np.random.Generator) -> Events | None:
    """The music of one day of some listeners, by listener and time; None when nobody listens."""
    config, p = world.config, world.population
    day_s = int(config.start.timestamp()) + 86_400 * day
    weekday = (config.start.weekday() + day) % 7
    count = rng.poisson(p.rate[listener] * _WEEKDAY[weekday] / _WEEKDAY.mean())
    owner = np.repeat(listener, count)
    offset_s = 60 * world.utc_offset_min[day][p.zone[owner]]
    # Wished starts, in UTC seconds: the listener's hour, sorted within the listener.
    hour = (np.cumsum(p.hour_share[owner], axis=1) < rng.random(len(owner))[:, None]).sum(axis=1)
    wished = day_s - offset_s + 3_600 * np.minimum(hour, 23) + rng.integers(0, 3_600, size=len(owner))
    there = wished >= p.joined_at_s[owner]
    owner, wished = owner[there], wished[there]
    if len(owner) == 0:
        return None
    order = np.lexsort((wished, owner))
    owner, wished = owner[order], wished[order]
    wave = np.arange(len(owner)) - np.searchsorted(owner, owner)  # the how-manieth session of the listener's day
    waves = [_sessions(world, state, owner[wave == k], wished[wave == k], rng) for k in range(int(wave.max()) + 1)]
    return Events.join(waves)


def _sessions(world: World, state: _State, listener: Ints, wished: Ints, rng: np.random.Generator) -> Events:
    """One session of each given (different) listener."""
    config, p, music, effects = world.config, world.population, world.catalogue, world.effects
    s = len(listener)
    earliest = state.busy_until_s[listener] + SESSION_GAP_S + 1 + rng.integers(0, 1_800, size=s)
    start_s = np.where(state.busy_until_s[listener] > 0, np.maximum(wished, earliest), wished)
    day = np.clip((start_s - int(config.start.timestamp())) // 86_400, 0, len(world.utc_offset_min) - 1)
    offset_min = world.utc_offset_min[day, p.zone[listener]]
    local = start_s + 60 * offset_min
    hour = local // 3_600 % 24
    weekday = (local // 86_400 + 3) % 7  # 1970-01-01 was a Thursday
    device = draw_devices(world, listener, hour, rng.random(s))
    source = np.searchsorted(np.cumsum(_SOURCE_SHARE), rng.random(s), side="right").clip(0, len(SOURCES) - 1)

    # The target of the session.
    base = world.base_taste(listener, world.days_since_start(start_s))
    surprise = music.cluster_vector[rng.integers(0, config.n_clusters, size=s)]
    state.mood[listener] = (
        _MOOD_KEEPS * state.mood[listener]
        + np.sqrt(1 - _MOOD_KEEPS**2) * (music.cluster_vector[rng.integers(0, config.n_clusters, size=s)])
    )
    target = base + world.context_shift(listener, hour, weekday, device) + config.surprise_strength * surprise
    if effects.persistence:
        target += config.persistence_strength * state.recent[listener]
    if effects.mood:
        target += config.mood_strength * state.mood[listener]
    target = unit(target)

    # Tracks: new ones by cluster, or from one artist, or known ones from memory.
    mean = config.session_length - 1
    length = 1 + np.minimum(rng.poisson(rng.gamma(1.6, mean / 1.6, size=s)), 59)
    event = np.repeat(np.arange(s), length)
    e = len(event)
    chart = source == _CHARTS
    logit = target @ music.cluster_vector.T
    logit *= (config.sharpness * _SOURCE_SHARPNESS[source])[:, None]
    row = _fresh_rows(world, logit, chart, event, rng)
    single = _SOURCE_ARTIST[source][event] > rng.random(e)
    begin = np.searchsorted(event, np.arange(s))
    lead = music.artist[row[begin]]  # the artist of the session's first track
    row = np.where(single, draw_in_range(music.draw_table, music.artist_start, lead[event], rng.random(e)), row)
    known = rng.random(e) < (p.repeat[listener] * _SOURCE_REPEAT[source])[event]
    from_memory = _remembered(state.memory[listener], logit, music.cluster, event, rng)
    known &= (from_memory >= 0) & effects.repeats
    known &= _first_in_session(np.where(known, from_memory, -1 - np.arange(e)), event)
    row = np.where(known, from_memory, row)
    row = _released(world, row, event, start_s)

    # Skips: a track far from what the listener is used to, in a session that is far from it.
    vector = music.vector[row].astype(np.float64)
    sound = unit(np.add.reduceat(vector, begin, axis=0))
    usual = unit(state.usual[listener])
    liked = np.einsum("ed,ed->e", vector, usual[event])
    fit = np.einsum("sd,sd->s", sound, usual)
    whole = p.skip[listener] + _SOURCE_SKIP[source] + config.skip_slope * (0.6 - fit)
    skip_logit = config.skip_level + 0.4 * config.skip_slope * (0.4 - liked) + whole[event]
    skipped = rng.random(e) < 1.0 / (1.0 + np.exp(-skip_logit))
    duration = music.duration_s[row]
    full = rng.random(e) < 0.82
    share = np.where(full, 1.0, 0.3 + 0.7 * rng.random(e))
    listened = np.where(skipped, np.minimum(1.0 + rng.exponential(9.0, size=e), 29.0), np.maximum(share * duration, 30))
    listened_ds = np.floor(10 * listened).astype(np.int64)
    step = listened_ds + rng.integers(0, 30, size=e)
    total = np.cumsum(step)
    elapsed = total - step - (total - step)[begin][event]
    started_ds = 10 * start_s[event] + elapsed

    # What the next sessions will remember.
    end = begin + length - 1
    state.busy_until_s[listener] = (started_ds[end] + listened_ds[end]) // 10 + 1
    state.usual[listener] += _USUAL_TAKES * (sound - state.usual[listener])
    state.recent[listener] += _RECENT_TAKES * (sound - state.recent[listener])
    _remember(state, listener, event, row, ~skipped & ~known)
    number = state.sessions[listener].copy()
    state.sessions[listener] += 1
    return Events(
        listener=listener[event],
        row=row,
        started_ds=started_ds,
        listened_ds=listened_ds,
        skipped=skipped,
        device=device[event],
        source=source[event],
        session=number[event],
        offset_min=offset_min[event],
        container=np.full(e, -1, dtype=np.int64),
    )


def draw_devices(world: World, listener: Ints, hour: Ints, u: Floats) -> Ints:
    """[s] a device for each session; what the others do not take is mobile."""
    share = world.population.device_share[listener] * _DEVICE_BY_HOUR[:, hour].T
    other = np.minimum(share[:, 1:].sum(axis=1, keepdims=True), 0.97)
    share[:, 1:] *= other / np.maximum(share[:, 1:].sum(axis=1, keepdims=True), 1e-12)
    share[:, :1] = 1 - other
    out: Ints = np.minimum((np.cumsum(share, axis=1) < u[:, None]).sum(axis=1), len(DEVICES) - 1)
    return out


def _fresh_rows(world: World, logit: Floats, chart: Bools, event: Ints, rng: np.random.Generator) -> Ints:
    """[e] tracks by closeness of their cluster to the target and by their popularity."""
    music = world.catalogue
    table, n = music.draw_table, len(music)
    cumulative = cluster_pmf(logit + world.config.mass * music.draw_log_mass[chart.astype(np.int64)])
    cluster = draw_cluster(cumulative, event, rng.random(len(event)))
    base = np.where(chart[event], n, 0)  # the charts stand behind the catalogue in the table
    lo = table[base + music.cluster_start[cluster]]
    hi = table[base + music.cluster_start[cluster + 1]]
    row: Ints = np.searchsorted(table, lo + rng.random(len(event)) * (hi - lo), side="right") - 1 - base
    row = np.clip(row, music.cluster_start[cluster], music.cluster_start[cluster + 1] - 1)
    return row


def _remembered(memory: Ints, logit: Floats, cluster: Ints, event: Ints, rng: np.random.Generator) -> Ints:
    """[e] of three random memories the one that suits the session best; -1 where they are empty."""
    slot = rng.integers(0, memory.shape[1], size=(len(event), 3))
    row = memory[event[:, None], slot]
    fit = np.where(row >= 0, logit[event[:, None], cluster[row]], -np.inf)
    best: Ints = row[np.arange(len(event)), np.argmax(fit, axis=1)]
    return best


def _first_in_session(key: Ints, event: Ints) -> Bools:
    """[e] whether no earlier event of the same session has the same key."""
    order = np.lexsort((key, event))
    again = (np.diff(key[order], prepend=key[order[:1]] - 1) == 0) & (np.diff(event[order], prepend=-1) == 0)
    out = np.ones(len(key), dtype=np.bool_)
    out[order[again]] = False  # lexsort is stable: the earliest of equals comes first
    return out


def _remember(state: _State, listener: Ints, event: Ints, row: Ints, played: Bools) -> None:
    """Writes what was played over the oldest memories."""
    who, row = event[played], row[played]
    nth = np.arange(len(who)) - np.searchsorted(who, who)
    slot = (state.written[listener][who] + nth) % _MEMORY
    state.memory[listener[who], slot] = row
    state.written[listener] += np.bincount(who, minlength=len(listener))


def _released(world: World, row: Ints, event: Ints, start_s: Ints) -> Ints:
    """Tracks that are not out yet give way to their artist's first one, which always is."""
    music = world.catalogue
    out = music.released_at[row].astype(np.int64) * 86_400 <= start_s[event]
    return np.where(out, row, music.artist_start[music.artist[row]])
