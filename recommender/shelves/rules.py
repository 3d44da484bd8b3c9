"""Shelf rules: each proposes rows of cards with the words that explain them.

A rule is one function of `ShelfInputs` and one line in `SHELF_RULES` with its specificity: an item that several shelves
propose stands in the one whose explanation is most specific (the lowest number). A rule that lacks what it needs, such
as a history, proposes nothing. To add a rule, pass `{**SHELF_RULES, "mine": ShelfRule(function, specificity)}`, or
install a package that names a `ShelfRule` under the entry point group `bart.shelf_rules` (docs/shelves.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np

from bart.types import Ints, Shelf
from recommender.shelves.container_rules import (
    albums_for_you,
    artists_for_you,
    continue_listening,
    playlists_like_yours,
    shows_you_may_like,
)
from recommender.shelves.follow_rules import followed, new_from_followed
from recommender.shelves.inputs import (
    STRENGTH,
    ByLabel,
    Lookups,
    Pool,
    Proposal,
    ShelfInputs,
    ShelfRule,
    main_labels,
    shelf_of,
)
from recommender.shelves.tables import DAYPARTS, daypart_of

__all__ = [
    "RULE_GROUP",
    "SHELF_RULES",
    "ByLabel",
    "EditorialList",
    "Lookups",
    "Pool",
    "Proposal",
    "ShelfInputs",
    "ShelfRule",
    "installed_rules",
    "main_labels",
]

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SEEDS = 12  # recently played items from which a shelf may start


def made_for_you(x: ShelfInputs) -> Iterator[Proposal]:
    """The items nearest to the listener's vector."""
    if x.listener.vector.any():
        yield _MADE_FOR_YOU, x.lookups.index.search(x.listener.vector, x.want)[0]


def jump_back_in(x: ShelfInputs) -> Iterator[Proposal]:
    """Known items by how likely they come again: recency and frequency rank them better than any vector does."""
    tables, alone, history = x.lookups.tables, x.lookups.items.stands_alone, x.listener.history
    if tables.again is not None and "decayed" in history:
        row = tables.again.best(history, x.context.at.timestamp(), x.want, alone)
    else:  # no history is kept, or nobody's replays were enough to learn from
        row = tables.replay.best(x.listener.recent, x.listener.favourite)
        row = row[alone[row]][: x.want]
    if len(row):
        yield _JUMP_BACK_IN, row


def because_you_played(x: ShelfInputs) -> Iterator[Proposal]:
    """Neighbours of the item played last and of two other recent ones, by different artists."""
    items, neighbours = x.lookups.items, x.lookups.tables.neighbours
    recent = x.listener.recent[:_SEEDS]
    if not len(recent):
        return
    order = [0, *(1 + x.rng.permutation(len(recent) - 1)).tolist()]
    used: set[int] = set()
    for seed in recent[order].tolist():
        artist = int(items.artists.first[seed])
        near = neighbours[seed]
        if near[0] < 0 or (artist >= 0 and artist in used):
            continue
        used.add(artist)
        title = items.title[seed]
        words = f"Because you played {title}", f"Close to {title}, which you played lately"
        shelf = shelf_of("because_you_played", *words, ("item", items.item_id[seed]), ("title", title))
        yield shelf, near[near >= 0].astype(np.int64)
        if len(used) == 3:
            return


def more_of_artist(x: ShelfInputs) -> Iterator[Proposal]:
    """More by the artist played most, by another one that is often played, and by one who is followed."""
    artists = x.lookups.items.artists
    blocked = {artists.index.get(name) for name in (*x.listener.blocked_artists, *x.listener.wishes.blocked_artists)}
    played = _two_of([code for code in x.main_artists if code not in blocked], x.rng)
    others = [code for code in followed(x) if code not in played]
    drawn = [others[int(x.rng.integers(len(others)))]] if others else []
    for code in (*played, *drawn):
        name = artists.vocabulary[code]
        why = "You often play" if code in played else "You follow"
        shelf = shelf_of("more_of_artist", f"More of {name}", f"{why} {name}", ("artist", name))
        yield shelf, _nearest(x, x.lookups.by_artist.rows(code))


def more_of_genre(x: ShelfInputs) -> Iterator[Proposal]:
    """More of the genre played most, and of another one that is often played."""
    genres = x.lookups.items.genres
    for code in _two_of(x.main_genres, x.rng):
        name = genres.vocabulary[code]
        shelf = shelf_of("more_of_genre", f"More {name} for you", f"You often play {name}", ("genre", name))
        yield shelf, x.lookups.genre[code].best(x.listener.vector, x.want)


def time_of_day(x: ShelfInputs) -> Iterator[Proposal]:
    """Items played at this time of day more than at others, those near the listener first; none where the listener's
    clock is not known."""
    if not x.context.zone_known:
        return
    local = x.context.local_time
    hour, weekday = local.hour, local.weekday()
    pool = x.lookups.daypart[daypart_of(hour, weekday)]
    if len(pool.row):
        yield _TIMES[weekday][hour // 6], pool.best(x.listener.vector, x.want)


def popular_now(x: ShelfInputs) -> Iterator[Proposal]:
    """The most played items, in that order for everyone."""
    yield _POPULAR_NOW, x.lookups.popular.row[: x.want]


def new_and_rising(x: ShelfInputs) -> Iterator[Proposal]:
    """New releases and items played more than before, those near the listener first."""
    yield _NEW_AND_RISING, x.lookups.rising.best(x.listener.vector, x.want)


def outside_your_usual(x: ShelfInputs) -> Iterator[Proposal]:
    """Well-known items at a medium distance, of none of the listener's main genres; the best known first."""
    pool, u = x.lookups.usual, x.listener.vector
    if len(pool.row) < 20 or not len(x.listener.favourite) or not u.any():
        return
    by_closeness = (-(pool.vector @ u)).argsort()
    medium = np.sort(by_closeness[int(0.4 * len(pool.row)) : int(0.8 * len(pool.row))])
    main = np.zeros(len(x.lookups.items.genres.vocabulary) + 1, dtype=bool)  # the last: no genre
    main[list(x.main_genres[:3])] = True
    yield _OUTSIDE, pool.row[medium[~main[x.lookups.usual_genre[medium]]]][: x.want]


def mood(x: ShelfInputs) -> Iterator[Proposal]:
    """Two regions of the catalogue: the listener's nearest and one of the next few; any two for a newcomer."""
    n = len(x.lookups.mood)
    if not n:
        return
    u = x.listener.vector
    order = np.argsort(-(x.lookups.tables.mood_centre @ u), kind="stable") if u.any() else x.rng.permutation(n)
    second = int(order[1 + x.rng.integers(min(n - 1, 4))]) if n > 1 else -1
    for c in (int(order[0]), second):
        if c >= 0:
            yield x.lookups.mood_shelf[c], x.lookups.mood[c].best(u, x.want)


@dataclass(frozen=True, slots=True)
class EditorialList:
    """A rule that shows given items in the given order; ids that the item table lacks are passed over."""

    name: str
    title: str
    item_ids: tuple[str, ...]
    explanation: str = ""

    def __call__(self, x: ShelfInputs) -> Iterator[Proposal]:
        row = x.lookups.items.rows(self.item_ids)
        yield Shelf(self.name, self.title, self.explanation, self.name), row[row >= 0][: x.want]


# The more specific an explanation, the lower its number.
SHELF_RULES: dict[str, ShelfRule] = {
    "jump_back_in": ShelfRule(jump_back_in, 10),
    "continue": ShelfRule(continue_listening, 15),
    "because_you_played": ShelfRule(because_you_played, 20),
    "new_from_followed": ShelfRule(new_from_followed, 25),
    "more_of_artist": ShelfRule(more_of_artist, 30),
    "new_and_rising": ShelfRule(new_and_rising, 40),
    "time_of_day": ShelfRule(time_of_day, 50),
    "more_of_genre": ShelfRule(more_of_genre, 60),
    "shows_you_may_like": ShelfRule(shows_you_may_like, 61),
    "albums_for_you": ShelfRule(albums_for_you, 62),
    "playlists_like_yours": ShelfRule(playlists_like_yours, 63),
    "artists_for_you": ShelfRule(artists_for_you, 64),
    "outside_your_usual": ShelfRule(outside_your_usual, 70),
    "mood": ShelfRule(mood, 75),
    "made_for_you": ShelfRule(made_for_you, 80),
    "popular_now": ShelfRule(popular_now, 90),
}

RULE_GROUP = "bart.shelf_rules"


def installed_rules() -> dict[str, ShelfRule]:
    """The rules above and those of installed packages, by name.

    Raises ValueError for an entry point that is no ShelfRule, and for a name that is taken.
    """
    out = dict(SHELF_RULES)
    for point in entry_points(group=RULE_GROUP):
        rule = point.load()
        if not isinstance(rule, ShelfRule):
            raise ValueError(f"{RULE_GROUP} {point.name!r} is of type {type(rule).__name__}; expected a ShelfRule")
        if point.name in out:
            raise ValueError(f"{RULE_GROUP} {point.name!r} is taken; expected a name of its own")
        out[point.name] = rule
    return out


_MADE_FOR_YOU = shelf_of("made_for_you", "Made for you", "Close to what you play")
_JUMP_BACK_IN = shelf_of("jump_back_in", "Jump back in", "What you played lately and often")
_POPULAR_NOW = shelf_of("popular_now", "Popular now", "Most played these days")
_NEW_AND_RISING = shelf_of("new_and_rising", "New and rising", "New releases, and what is played more and more")
_OUTSIDE = shelf_of("outside_your_usual", "Outside your usual", "Well loved, and not what you mostly play")
_OFTEN_NOW = "Played at this time more than at others"
_TIMES = tuple(
    tuple(
        shelf_of("time_of_day", f"For your {day} {part}", _OFTEN_NOW, ("weekday", day.lower()), ("daypart", part))
        for part in DAYPARTS
    )
    for day in _WEEKDAYS
)


def _nearest(x: ShelfInputs, row: Ints) -> Ints:
    """Rows of an artist or genre, ordered by closeness and popularity."""
    items = x.lookups.items
    score = items.vector[row] @ x.listener.vector + STRENGTH * items.popularity[row]
    return row[(-score).argsort()[: x.want]]


def _two_of(main: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The first, and one drawn from the others."""
    return [*main[:1], *([main[1 + int(rng.integers(len(main) - 1))]] if len(main) > 1 else [])]
