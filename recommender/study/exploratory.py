"""How listening depends on context: the analyses of the CoSeRNN paper's section 4 (Figures 1 to 3), as numbers.

A context is a part of the day or a device. Nothing here is learnt; sampling is by the caller's generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bart.types import DEVICES, Floats32, Ints
from recommender.listener.memories import DAY_PART, DAY_PARTS, memory_vectors
from recommender.sessions.table import Sessions

DEVICE_NAMES = (*DEVICES, "other")
_LEAST_SKIPS = 10  # sessions hold ten tracks at most
_PAIRS = 50_000
_LISTENERS = 1_000


@dataclass(frozen=True, slots=True)
class ContextKind:
    """One way to part sessions: names of its contexts, and the code of each session [n]."""

    names: tuple[str, ...]
    code: Ints


def context_kinds(sessions: Sessions) -> dict[str, ContextKind]:
    """Parts of the day and devices, each without the contexts that do not occur."""
    columns = sessions.columns
    found = {"time": (DAY_PARTS, DAY_PART[columns.hour]), "device": (DEVICE_NAMES, columns.device)}
    out = {}
    for kind, (names, code) in found.items():
        occurs = np.flatnonzero(np.bincount(code, minlength=len(names)))
        place = np.searchsorted(occurs, code)
        out[kind] = ContextKind(tuple(names[i] for i in occurs), place)
    return out


def exploratory(sessions: Sessions, vector: Floats32, rng: np.random.Generator) -> dict[str, Any]:
    """Figures 1 to 3 as plain numbers: {"figure1", "figure2a", "figure2b", "figure3"}.

    vector: [items, d] unit vectors. At most 50,000 pairs of tracks a context, at most 1,000 listeners for Figure 3.
    """
    kinds = context_kinds(sessions)
    pair_rng, listener_rng = rng.spawn(2)
    return {
        "figure1": {kind: shares(sessions, parts) for kind, parts in kinds.items()},
        "figure2a": {kind: track_similarity(sessions, vector, parts, pair_rng) for kind, parts in kinds.items()},
        "figure2b": skips_by_similarity(sessions),
        "figure3": {kind: nearest_sessions(sessions, parts, listener_rng) for kind, parts in kinds.items()},
    }


def shares(sessions: Sessions, parts: ContextKind) -> dict[str, dict[str, float]]:
    """Figure 1: share of sessions in each context, and of listeners with at least one session there."""
    n = len(parts.names)
    count = np.bincount(parts.code, minlength=n)
    pair = np.unique(sessions.user * n + parts.code)
    listeners = np.bincount(pair % n, minlength=n)
    active = int((sessions.size > 0).sum())
    return {
        name: {"sessions": float(count[i] / len(sessions)), "listeners": float(listeners[i] / active)}
        for i, name in enumerate(parts.names)
    }


def track_similarity(
    sessions: Sessions, vector: Floats32, parts: ContextKind, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Figure 2a: quantiles of the cosine between two tracks heard in the same context, by whomever."""
    of_track = np.repeat(parts.code, np.diff(sessions.track_offset))
    out = {}
    for i, name in enumerate(parts.names):
        track = sessions.track[of_track == i]
        if len(track) < 2:
            continue
        one, other = (vector[track[rng.integers(len(track), size=_PAIRS)]] for _ in range(2))
        cosine = np.einsum("md,md->m", one, other)
        quantiles = np.quantile(cosine, (0.05, 0.25, 0.5, 0.75, 0.95))
        out[name] = dict(zip(("q05", "q25", "median", "q75", "q95"), map(float, quantiles), strict=True))
    return out


def skips_by_similarity(sessions: Sessions) -> list[dict[str, float]]:
    """Figure 2b: correlation and slope of a session's skip rate on its cosine to the mean of the sessions before.

    One entry for each least number of skips, as long as a hundred sessions have so many.
    """
    skipped = np.add.reduceat(np.append(sessions.track_skipped, False).astype(np.int64), sessions.track_offset[:-1])
    size = np.diff(sessions.track_offset)
    skipped = np.where(size > 0, skipped, 0)
    mean = memory_vectors(sessions, ("average",))[:, 0]
    cosine = np.einsum("nd,nd->n", mean, sessions.columns.all)
    usable = (sessions.position > 0) & (size > 0)
    out: list[dict[str, float]] = []
    for least in range(_LEAST_SKIPS):
        rows = usable & (skipped >= least)
        if rows.sum() < 100:
            break
        x, y = cosine[rows], skipped[rows] / size[rows]
        if x.std() == 0 or y.std() == 0:
            continue
        correlation = float(np.corrcoef(x, y)[0, 1])
        slope = float(correlation * y.std() / x.std())
        out.append({"least": least, "sessions": int(rows.sum()), "correlation": correlation, "slope": slope})
    return out


def nearest_sessions(sessions: Sessions, parts: ContextKind, rng: np.random.Generator) -> dict[str, Any]:
    """Figure 3: context of a session's nearest other session of the listener, given its own, beyond chance.

    Returns {"contexts": names, "excess": [source][target]}: the conditional distribution less that of a session of the
    same listener drawn at random. Rows sum to 0.
    """
    n = len(parts.names)
    users = np.flatnonzero(sessions.size > 1)
    users = np.sort(rng.permutation(users)[:_LISTENERS])
    found, chance = np.zeros((n, n)), np.zeros((n, n))
    for user in users.tolist():
        rows = np.arange(sessions.offset[user], sessions.offset[user + 1])
        rows = rows[sessions.columns.all[rows].any(axis=1)]
        if len(rows) < 2:
            continue
        code, sound = parts.code[rows], sessions.columns.all[rows]
        near = sound @ sound.T
        np.fill_diagonal(near, -np.inf)
        np.add.at(found, (code, code[near.argmax(axis=1)]), 1)
        count = np.bincount(code, minlength=n)
        others = (count - np.eye(n)) / (len(rows) - 1)  # [source, target], the session itself left out
        chance += count[:, None] * others
    total = np.maximum(found.sum(axis=1, keepdims=True), 1)
    return {"contexts": list(parts.names), "excess": ((found - chance) / total).tolist()}


def relative_gain(
    contexts: Mapping[str, Mapping[str, Mapping[str, float | None]]], metrics: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Figure 5: per cent by which CoSeRNN exceeds JODIE in each context. contexts: as `evaluate_sessions` returns."""
    ours, theirs = contexts["CoSeRNN"], contexts["JODIE"]

    def gain(name: str, metric: str) -> float | None:
        a, b = ours[name][metric], theirs[name][metric]
        return None if a is None or not b else 100 * (a / b - 1)

    return {name: {metric: gain(name, metric) for metric in metrics} for name in ours}
