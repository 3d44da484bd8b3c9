"""Who gets seen: the share of exposure that popular items and new artists have under a policy.

A policy's marginals say how probable each candidate is in each slot; the log says how often a card in that slot is
seen. Their product, summed over slots, is a candidate's expected exposure, and the sum over a group's candidates in
that of all is the group's share. Exposure by position alone (Singh and Joachims, 2018): the attention of a slot is the
log's, whatever stands there, for all policies the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bart.ope.intervals.quantiles import normal_quantile
from bart.ope.records.choices import LoggedChoices
from bart.ope.records.pages import LoggedPages
from bart.ope.weights.pages import card_marginals, shelf_marginals
from bart.types import Floats, Ints, ItemTable

MOST_PAGES = 4_000  # more add little to a share: every page tells of all its candidates
CHUNK = 500_000
ARTIST_AGES = (("under 1 year", 0.0, 1.0), ("1 to 5 years", 1.0, 5.0), ("5 years and more", 5.0, np.inf))
DAYS = 365.25


@dataclass(frozen=True, slots=True)
class Share:
    """A group's share of the exposure, with a normal interval clustered by listener."""

    group: str
    value: float
    lower: float
    upper: float

    def as_dict(self) -> dict[str, Any]:
        return {"group": self.group, "value": self.value, "lower": self.lower, "upper": self.upper}


def popularity_decile(items: ItemTable) -> tuple[Ints, tuple[str, ...]]:
    """[n] decile of each item among all, 0 the least popular; items of equal popularity share one. And their names."""
    # The mean rank, from 0.5, of those that are equal: how many stand below, and half of the equal ones.
    _, place, count = np.unique(items.popularity, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - count / 2)[place]
    decile = np.minimum((10 * rank / max(len(items), 1)).astype(np.int64), 9)
    return decile, tuple(f"decile {d + 1}" for d in range(10))


def artist_age(items: ItemTable, at: Any) -> tuple[Ints, tuple[str, ...]]:
    """[n] group of each item by how long its first artist has been releasing at the time `at`, from the item table.

    at: a datetime64. Items without an artist or a known date are "unknown", the last group.
    """
    artist = items.artists.first
    released = items.released_at.astype("datetime64[D]")
    known = (artist >= 0) & ~np.isnat(released)
    first = np.full(int(artist.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, artist[known], released[known].astype(np.int64))
    day = int(np.datetime64(at, "D").astype(np.int64))
    years = np.full(len(items), np.nan)
    has = artist >= 0
    with_date = has & (first[np.maximum(artist, 0)] < np.iinfo(np.int64).max) if len(first) else np.zeros_like(has)
    years[with_date] = (day - first[artist[with_date]]) / DAYS
    group = np.full(len(items), len(ARTIST_AGES), dtype=np.int64)
    for number, (_, low, high) in enumerate(ARTIST_AGES):
        group[(years >= low) & (years < high)] = number
    group[years < 0] = 0  # announced, not released yet
    return group, (*(name for name, _, _ in ARTIST_AGES), "unknown")


def attention(data: LoggedPages) -> Floats:
    """[rows, columns]: how often the card in a slot was seen, of those that stood there; 1 everywhere without flags."""
    return seen_share(data.seen.sum(axis=0), (data.order >= 0).sum(axis=0))


def seen_share(seen: Ints | Floats, shown: Ints | Floats) -> Floats:
    """The same from how often a card was seen and shown in each slot."""
    if not seen.any():
        return np.ones(shown.shape)
    out: Floats = np.divide(seen, shown, out=np.zeros(shown.shape), where=shown > 0)
    return out


def expected_exposure(data: LoggedPages, who: str, pages: Ints, slot: Floats) -> tuple[Ints, Floats]:
    """Rows of the flat candidate arrays on the given pages, and the expected exposure of each, both [m].

    who: "logged" or "target". slot: [rows, columns] attention.
    """
    start = data.shelf_start()
    size = np.diff(start)
    count = np.diff(data.offset)[pages]
    page = np.repeat(pages, count)
    flat = np.arange(len(page)) + np.repeat(data.offset[:-1][pages] - (np.cumsum(count) - count), count)
    shelf = data.shelf_offset[page] + data.shelf[flat]
    by_column = shelf_marginals(data, who) @ slot  # [S, columns]: rows summed out
    out = np.empty(len(flat))
    for first in range(0, len(flat), CHUNK):
        part = slice(first, first + CHUNK)
        stands = card_marginals(data, who, flat[part], page[part], size[shelf[part]])
        out[part] = np.einsum("mc,mc->m", stands, by_column[shelf[part]])
    return flat, out


@dataclass(frozen=True, slots=True, eq=False)
class Exposed:
    """Expected exposure of the candidates of some pages. pages: [p] that were read. place: [m] of each candidate's page
    among them; flat: [m] its row in the flat arrays, of which there are `candidates`; exposure: [m]."""

    pages: Ints
    place: Ints
    flat: Ints
    exposure: Floats
    candidates: int

    @staticmethod
    def of(data: LoggedPages, who: str = "target", slot: Floats | None = None, most: int = MOST_PAGES) -> Exposed:
        """slot: [rows, columns] attention, the record's own where None. Of more than `most` pages as many are read,
        evenly spread."""
        pages = np.unique(np.linspace(0, len(data) - 1, min(len(data), most)).astype(np.int64))
        flat, exposure = expected_exposure(data, who, pages, attention(data) if slot is None else slot)
        return Exposed(
            pages, np.repeat(np.arange(len(pages)), np.diff(data.offset)[pages]), flat, exposure, len(data.shelf)
        )

    def by_group(self, group: NDArray[np.integer[Any]], groups: int) -> Floats:
        """Sums on each page, [p, groups]. group: [N] of each candidate of the record, in [0, groups)."""
        if np.shape(group) != (self.candidates,):
            raise ValueError(f"group has shape {np.shape(group)}; expected ({self.candidates},), one a candidate")
        if len(group) and not (group.min() >= 0 and group.max() < groups):
            raise ValueError(f"group lies in [{group.min()}, {group.max()}]; expected [0, {groups})")
        place = self.place * groups + group[self.flat]
        sums: Floats = np.bincount(place, self.exposure, len(self.pages) * groups).astype(np.float64)
        return sums.reshape(len(self.pages), groups)


def exposure_share(
    data: LoggedPages,
    group: NDArray[np.integer[Any]],
    names: Sequence[str],
    who: str = "target",
    level: float = 0.95,
) -> list[Share]:
    """Each group's share of the expected exposure under a policy; groups without any exposure are left out."""
    found = Exposed.of(data, who)
    return shares(found.by_group(group, len(names)), data.user[found.pages], names, level)


def exposure_share_choices(
    data: LoggedChoices,
    group: Ints,
    names: Sequence[str],
    level: float = 0.95,
    user: NDArray[Any] | None = None,
) -> list[Share]:
    """Each group's share of the evaluation policy's choices; group: [k] of each action."""
    if np.shape(group) != (data.n_actions,):
        raise ValueError(f"group has shape {np.shape(group)}; expected ({data.n_actions},), one an action")
    sums = data.pmf() @ np.eye(len(names))[np.asarray(group)]
    return shares(sums, np.arange(len(data)) if user is None else np.asarray(user), names, level)


def shares(sums: Floats, user: NDArray[Any], names: Sequence[str], level: float = 0.95) -> list[Share]:
    """Shares of each group from its exposure on each page, sums [m, groups]; user: [m] listener of the page.

    A share is a ratio of means, its error that of the ratio's influence, summed by listener. Groups without any
    exposure are left out.
    """
    total = float(sums.sum())
    code = np.unique(user, return_inverse=True)[1].reshape(-1)
    clusters = int(code.max()) + 1
    z = normal_quantile(0.5 + level / 2)
    out = []
    for g in np.flatnonzero(sums.sum(axis=0) > 0).tolist():
        share = float(sums[:, g].sum()) / total if total > 0 else 0.0
        off = np.bincount(code, sums[:, g] - share * sums.sum(axis=1)) / max(total, 1e-300)
        half = z * float(np.sqrt(off @ off * clusters / max(clusters - 1, 1))) if clusters > 1 else np.inf
        out.append(Share(names[g], share, max(share - half, 0.0), min(share + half, 1.0)))
    return out
