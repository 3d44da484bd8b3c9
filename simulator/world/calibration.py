"""What the listening of a world looks like in the figures that were published of real listening.

Contextual and Sequential User Embeddings (RecSys 2020), sections 3 and 4. Cosines need track vectors: the world's own,
or the ones that are learnt from the playlists. "Half" is the cosine of two disjoint halves of a session's first ten
tracks: the noise that no prediction from the past can beat down.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from bart.types import DEVICES, Bools, Floats, Floats32, Ints
from simulator.world.population import BUCKET_OF_HOUR, BUCKETS
from simulator.world.world import World

FIRST_TRACKS = 10
_TEST_DAYS = 14


def describe(world: World, batches: Iterable[pa.RecordBatch], vector: Floats32 | None = None) -> dict[str, float]:
    """Named figures of an event stream of `simulate_events`.

    vector: [n, d] of the tracks in the world's order, of any length; the latent ones by default.
    """
    table = pa.Table.from_batches(list(batches))
    vector = world.catalogue.vector if vector is None else vector
    listener = _codes(table, "user_id", world.population.user_id)
    item = _codes(table, "item_id", world.catalogue.item_id)
    started_s: Ints = table["started_at"].cast(pa.int64()).to_numpy() // 1_000_000
    offset_min: Ints = table["utc_offset_min"].to_numpy().astype(np.int64)
    skipped: Bools = table["skipped"].to_numpy()
    device = _codes(table, "device", DEVICES)
    session_code: Ints = table["session_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.lexsort((started_s, listener))
    skipped = skipped[order]
    listener, item, started_s, offset_min, device, session_code = (
        a[order] for a in (listener, item, started_s, offset_min, device, session_code)
    )
    first = np.flatnonzero(np.diff(session_code, prepend=-1))
    length = np.diff(first, append=len(item))
    owner, device = listener[first], device[first]
    bucket = BUCKET_OF_HOUR[(started_s[first] + 60 * offset_min[first]) // 3_600 % 24]
    out = _marginals(world, owner, length, bucket, device, skipped, item)

    session = np.repeat(np.arange(len(first)), length)
    position = np.arange(len(item)) - first[session]
    early = position < FIRST_TRACKS
    total = _sums(session[early], vector[item[early]], len(first))
    out |= _halves(session[early], position[early], vector[item[early]], length)
    played = early & ~skipped
    sound = _unit(_sums(session[played], vector[item[played]], len(first)))
    out |= _from_the_past(world, owner, started_s[first], bucket, sound)
    skips = np.bincount(session[skipped], minlength=len(first))
    out |= _skips(owner, _unit(total), sound, skips, length)
    return out


def _marginals(
    world: World, owner: Ints, length: Ints, bucket: Ints, device: Ints, skipped: Bools, item: Ints
) -> dict[str, float]:
    there = world.population.joined_at_s <= world.config.start.timestamp()
    sessions = np.bincount(owner, minlength=len(there))
    out = {
        "sessions_a_listener_60d": float(sessions[there].mean() * 60 / world.config.days),
        "tracks_a_session": float(length.mean()),
        "afternoon_evening": float(np.isin(bucket, (2, 3)).mean()),
        "listeners_at_night": float(len(np.unique(owner[bucket == BUCKETS.index("night")])) / len(np.unique(owner))),
        "skip_rate": float(skipped.mean()),
    }
    out |= {f"device_{name}": float((device == d).mean()) for d, name in enumerate(DEVICES)}
    plays = np.sort(np.bincount(item, minlength=len(world.catalogue)))[::-1]
    rank = np.arange(1, len(plays) + 1)
    middle = slice(len(plays) // 300, len(plays) // 6)
    out["zipf_slope"] = float(np.polyfit(np.log(rank[middle]), np.log(np.maximum(plays[middle], 0.5)), 1)[0])
    out["top_percent_share"] = float(plays[: max(len(plays) // 100, 1)].sum() / plays.sum())
    return out


def _halves(session: Ints, position: Ints, vector: Floats32, length: Ints) -> dict[str, float]:
    """Sessions of at least four tracks; odd against even positions, and the odd ones against all."""
    n = len(length)
    odd = position % 2 == 1
    one = _sums(session[odd], vector[odd], n)
    other = _sums(session[~odd], vector[~odd], n)
    long = length >= 4
    a, b, whole = (_unit(x[long]) for x in (one, other, one + other))
    return {"half_half": float((a * b).sum(1).mean()), "half_whole": float((a * whole).sum(1).mean())}


def _from_the_past(world: World, owner: Ints, at_s: Ints, bucket: Ints, sound: Floats) -> dict[str, float]:
    """Mean cosine of the played part of each session of the last two weeks with summaries of what came before."""
    n, d = len(world.population), sound.shape[1]
    mean, ema, last = np.zeros((n, d)), np.zeros((n, d)), np.zeros((n, d))
    same = np.zeros((n, len(BUCKETS), d))
    test = at_s >= at_s.max() - _TEST_DAYS * 86_400
    nth = np.arange(len(owner)) - np.searchsorted(owner, owner)
    names = ("last", "mean", "ema", "same_context")
    total, count = np.zeros(len(names)), 0
    for k in range(int(nth.max()) + 1):
        rows = np.flatnonzero(nth == k)
        who, when = owner[rows], bucket[rows]
        use = test[rows] & (np.abs(sound[rows]).sum(1) > 0) & (k > 10)
        for j, guess in enumerate((last[who], mean[who], ema[who], same[who, when])):
            total[j] += (_unit(guess[use]) * sound[rows][use]).sum()
        count += int(use.sum())
        mean[who] += sound[rows]
        ema[who] = 0.8 * ema[who] + 0.2 * sound[rows]
        last[who] = sound[rows]
        same[who, when] += sound[rows]
    return {f"cosine_{name}": float(total[j] / max(count, 1)) for j, name in enumerate(names)}


def _skips(owner: Ints, whole: Floats, sound: Floats, skips: Ints, length: Ints) -> dict[str, float]:
    """Correlation of a session's skip rate with its cosine to the listener's mean, by the least number of skips."""
    mean = _sums(owner, sound, int(owner.max()) + 1)
    cosine = (_unit(mean)[owner] * whole).sum(1)
    out = {}
    for least in (0, 2, 5):
        use = skips >= least
        out[f"skip_correlation_{least}"] = float(np.corrcoef(cosine[use], (skips / length)[use])[0, 1])
    return out


def _codes(table: pa.Table, name: str, values: tuple[str, ...]) -> Ints:
    encoded = table[name].combine_chunks().dictionary_encode()
    place = {value: i for i, value in enumerate(values)}
    lookup = np.array([place[v] for v in encoded.dictionary.to_pylist()], dtype=np.int64)
    out: Ints = lookup[encoded.indices.to_numpy()]
    return out


def _sums(group: Ints, vector: Floats32 | Floats, n: int) -> Floats:
    """[n, d] sum of the vectors of each group."""
    return np.stack([np.bincount(group, weights=vector[:, j], minlength=n) for j in range(vector.shape[1])], axis=1)


def _unit(x: Floats) -> Floats:
    out: Floats = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return out
