"""How likely a listener is to stream a card that they examine: the truth that every model tries to learn.

    logit = level + match + popularity + quality + explanation + curved taste - fatigue

match is the cosine of the taste of the moment (simulator/world/world.py) with the track's latent vector. Three terms
are beyond a logistic model with the product's features: curved taste (the closest of several interests, and a wish for
tracks of a certain popularity, both not linear), explanations (drawn by kind of listener, which nobody observes), and
fatigue (artists one is tired of for a week, hits heard too often by old accounts, cards shown again and again).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scipy.special import expit, ndtri

from bart.types import Floats, Floats32, Ints, PageBatch, Strings
from simulator.world.containers import is_habit
from simulator.world.population import BUCKET_OF_HOUR, BUCKETS, N_TYPES
from simulator.world.world import World

_WEEK_S = 7 * 86_400
_NEVER = -40.0  # logits


def appeal(
    world: World,
    listener: Ints,
    hour: Ints,
    weekday: Ints,
    device: Ints,
    item: Ints,
    rule: Strings | Sequence[str],
    at_s: Ints,
    *,
    shown_before: Ints | None = None,
) -> Floats:
    """[m] P(stream | the card is examined), in (0, 1).

    listener [m] index; hour, weekday [m] local; device [m] index into DEVICES; item [m] world rows; rule [m] str, the
    shelf's explanation; at_s [m] UTC seconds; shown_before [m] earlier showings of that card without a stream. Rows
    that share listener and moment should stand together: the taste is computed once a run.
    """
    config, m = world.config.appeal, len(item)
    arrays = {"listener": listener, "hour": hour, "weekday": weekday, "device": device, "rule": rule, "at_s": at_s}
    for name, value in arrays.items():
        if len(value) != m:
            raise ValueError(f"{name} has {len(value)} entries; expected {m}, one a card")
    if m == 0:
        return np.empty(0)
    cards = world.cards
    if item.min() < 0 or item.max() >= len(cards):
        bad = int(np.flatnonzero((item < 0) | (item >= len(cards)))[0])
        raise ValueError(f"item[{bad}] is {item[bad]}; expected a row of the catalogue, 0 to {len(cards) - 1}")
    new = np.zeros(m, dtype=np.bool_)
    new[0] = True
    for value in (listener, hour, weekday, device, at_s):
        new[1:] |= value[1:] != value[:-1]
    first = np.flatnonzero(new)
    visit = np.cumsum(new) - 1  # [m] run of each card
    taste = world.taste(listener[first], hour[first], weekday[first], device[first], at_s[first])

    p, effects = world.population, world.effects
    match, closest = _closeness(
        taste.astype(np.float32), p.interest[listener[first]], cards.vector, visit, item.astype(np.int64)
    )
    popularity = cards.popularity[item]
    logit = config.level + config.match * match + config.popularity * popularity + p.openness[listener]
    logit += config.quality * cards.quality[item]
    if effects.explanation:
        logit += config.explanation * explanation_fit(world, listener, hour, rule)
    if effects.curved_taste:
        logit += config.interest * np.maximum(closest - config.near, 0.0)
        logit -= config.popularity_mismatch * (popularity - p.wished_popularity[listener]) ** 2
    if effects.fatigue:
        tired = _uniform(world.salt, listener, cards.artist[item], at_s // _WEEK_S) < config.tired_share
        age = np.clip((at_s - p.joined_at_s[listener]) / (5 * 365 * 86_400.0), 0.0, 1.0)
        logit -= config.tired * tired + config.overplayed * age * popularity**4
        if shown_before is not None:
            logit -= config.shown_again * np.minimum(shown_before, 6)
    if world.containers is not None:
        logit += _of_containers(world, listener, hour, cards.owner[item])
    out: Floats = expit(logit)
    return out


def _of_containers(world: World, listener: Ints, hour: Ints, owner: Ints) -> Floats:
    """[m] what is added for what a card stands for; 0 for a track. owner: of `simulator.world.containers.Cards`."""
    config, effects, out = world.config.appeal, world.effects, np.zeros(len(owner))
    one = np.flatnonzero(owner >= 0)
    if world.containers is None or not len(one):
        return out
    habit, now = is_habit(world.containers, owner[one], listener[one], hour[one])
    habit, now = habit & effects.habitual, now & effects.habitual
    out[one] = config.container + np.where(now, config.habit, np.where(habit, config.habit_elsewhen, 0.0))
    if not effects.non_habitual:
        out[one[~habit]] = _NEVER
    return out


def batch_appeal(world: World, batch: PageBatch, item_id: Strings) -> Floats:
    """[N] appeal of every candidate of many pages.

    item_id: ids of the rows of the item table that the batch refers to; mapped to the world by id, not by position.
    """
    size = np.diff(batch.offset)
    if len(batch.item) and batch.item.min() < 0:
        bad = int(np.argmin(batch.item))
        raise ValueError(f"item[{bad}] is {batch.item[bad]}; expected candidates that the item table holds")
    used, inverse = np.unique(batch.item, return_inverse=True)
    item = world.row_of(item_id[used])[inverse]
    listener = world.listener_of(batch.user_id)
    columns = (listener, batch.hour, batch.weekday, batch.device)
    who, hour, weekday, device = (np.repeat(np.asarray(c, dtype=np.int64), size) for c in columns)
    at_s = np.repeat(batch.at_s, size)
    return appeal(world, who, hour, weekday, device, item, batch.candidate_rule(), at_s)


def explanation_fit(world: World, listener: Ints, hour: Ints, rule: Strings | Sequence[str]) -> Floats:
    """[m] how well a reason suits a kind of listener at a time of day; standard normal over rules and kinds.

    Drawn from the rule's name and the world's salt, so any rule has one.
    """
    encoded = pa.array(rule, pa.string()).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    code = encoded.indices.to_numpy()
    by_kind = np.array([[_normal(world.salt, f"{name}/kind {k}") for k in range(N_TYPES)] for name in names])
    by_time = np.array([[_normal(world.salt, f"{name}/{bucket}") for bucket in BUCKETS] for name in names])
    out: Floats = 0.9 * by_kind[code, world.population.kind[listener]] + 0.44 * by_time[code, BUCKET_OF_HOUR[hour]]
    return out


def _closeness(taste: Floats32, interest: Floats32, vector: Floats32, visit: Ints, item: Ints) -> tuple[Floats, Floats]:
    """[m] cosine of each card with its visit's taste, and with the closest of the listener's interests."""
    from simulator.world.kernels import closeness

    match, closest = np.empty(len(item)), np.empty(len(item))
    closeness(taste, np.ascontiguousarray(interest), vector, visit, item, match, closest)
    return match, closest


def _normal(salt: int, name: str) -> float:
    """A standard normal number that belongs to a name."""
    digest = hashlib.blake2b(f"{salt}/{name}".encode(), digest_size=8).digest()
    return float(ndtri((int.from_bytes(digest, "big") + 0.5) / 2.0**64))


def _uniform(salt: int, *keys: Ints) -> Floats:
    """[m] numbers in [0, 1) that belong to the keys (a splitmix64 hash), so that the truth needs no memory."""
    h = np.full(len(keys[0]), salt, dtype=np.uint64)
    for key in keys:
        h = (h ^ key.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    out: Floats = (h >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out
