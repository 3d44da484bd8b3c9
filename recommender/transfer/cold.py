"""The first four hours: newcomers before their first play, known by their account alone.

The task model learns from listeners who were there before, as if they were new: of their features only picks and
country are left, and the tracks are those of the four hours after the first play of a week. Newcomers are kept from
what the encoder learns from, so the age of a new account, which it never saw, is left out too. Beside the encoder's
vector stand the mean vector of the picks and nothing at all, which leaves the task model what is popular; with the
picks, and as if nobody had completed the onboarding. Table 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats, Floats32, Ints
from recommender.features.tables import Plays
from recommender.transfer.protocol import Drawn, Prepared, aucs
from recommender.transfer.task import Pairs, Trial, scaled, score, tuned
from recommender.users.encoder import UserEncoder
from recommender.users.features import Known

HOURS_S = 4 * 3600
WEEKS = 3  # before the cut, of listeners who teach the task model
LEFT = ("onboarding", "country")
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """n first hours. listener [n] places in user_id; item [n] rows of what was played, distinct; old [n] whether the
    listener was there before."""

    listener: Ints
    item: tuple[Ints, ...]
    old: Floats


def first_hours(prepared: Prepared) -> First:
    """Of newcomers after their first play, of others after the first play of each of some weeks before the cut."""
    plays = Plays.of(prepared.events, prepared.items)
    number = {user: place for place, user in enumerate(prepared.user_id)}
    who = np.array([number.get(user, -1) for user in plays.user_id.tolist()], dtype=np.int64)[plays.listener]
    kept = ~plays.skipped & ~prepared.items.is_container[plays.item]
    order = np.lexsort((plays.at_s, who))
    order = order[kept[order]]
    begins = int(plays.at_s.min())
    week_s = int(prepared.config.days * 86_400)
    listener, item, old = [], [], []
    for rows in np.split(order, np.flatnonzero(np.diff(who[order])) + 1) if len(order) else ():
        own = int(who[rows[0]])
        made = prepared.accounts.made_at_s.get(prepared.user_id[own])
        at_s = plays.at_s[rows]
        new = made is not None and made >= begins
        since = [0] if new else [prepared.cut_s - week_s * k for k in range(1, WEEKS + 1)]
        for since_s in since:
            start = int(np.searchsorted(at_s, since_s))
            if start == len(rows) or (not new and at_s[start] >= prepared.cut_s):
                continue
            stop = int(np.searchsorted(at_s, at_s[start] + HOURS_S))
            listener.append(own)
            item.append(np.unique(plays.item[rows[start:stop]]))
            old.append(not new)
    return First(np.array(listener, dtype=np.int64), tuple(item), np.array(old, dtype=np.float64))


def cold(
    prepared: Prepared, encoder: UserEncoder, power: float, seed: int, trials: tuple[Trial, ...]
) -> dict[str, dict[str, Floats]]:
    """{"encoder", "picks", "popularity"} x {"", ", no onboarding"} to AUC and accuracy by newcomer; empty for few."""
    first = first_hours(prepared)
    rng = np.random.default_rng(seed)
    old = np.unique(first.listener[first.old > 0])
    new = np.unique(first.listener[first.old == 0])
    if len(new) < FEWEST or len(old) < FEWEST:
        return {}
    held = rng.permutation(old)[: max(len(old) // 5, 1)]
    chance = prepared.popular**power if power else np.ones(len(prepared.items))
    draw = Drawn(np.cumsum(np.where(prepared.items.is_container, 0.0, chance)), rng)
    is_old = first.old > 0
    parts = [
        np.flatnonzero(is_old & ~np.isin(first.listener, held)),
        np.flatnonzero(is_old & np.isin(first.listener, held)),
        np.flatnonzero(~is_old),
    ]
    train, valid, test = (_pairs(first, part, draw) for part in parts)
    out = {}
    for name, vector in _vectors(prepared, encoder).items():
        z = scaled(vector, np.unique(train.user)) if vector.any() else vector
        model, _, _ = tuned(z, prepared.side, train, valid, seed, trials)
        found = aucs(score(model, z, prepared.side, test), test)
        out[name] = {key: found[key] for key in ("auc", "accuracy")}
    return out


def _vectors(prepared: Prepared, encoder: UserEncoder) -> dict[str, Floats32]:
    value = np.full((len(prepared.user_id), prepared.features.width), np.nan, dtype=np.float32)
    slices = prepared.features.slices
    for number, user in enumerate(prepared.user_id):
        value[number] = prepared.features.row(Known(None, prepared.accounts.usage(user, prepared.items), None), 0.0)
    kept = np.full_like(value, np.nan)
    for name in LEFT:
        kept[:, slices[name]] = value[:, slices[name]]
    without = kept.copy()
    without[:, slices["onboarding"]] = np.nan
    content = slices["onboarding"].start + np.arange(prepared.items.dimension)
    nothing = np.zeros((len(value), 1), np.float32)
    return {
        "encoder": encoder.encode(kept),
        "picks": np.nan_to_num(kept[:, content]),
        "popularity": nothing,
        "encoder, no onboarding": encoder.encode(without),
    }


def _pairs(first: First, places: Ints, draw: Drawn) -> Pairs:
    user, item, played = [], [], []
    for place in places.tolist():
        own = first.item[place]
        user.append(np.full(2 * len(own), first.listener[place]))
        item += [own, draw(len(own), own)]
        played.append(np.repeat([1.0, 0.0], len(own)))
    return Pairs(np.concatenate(user), np.concatenate(item), np.concatenate(played).astype(np.float32))
