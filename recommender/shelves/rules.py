"""Shelf rules: each proposes rows of cards with the words that explain them.

A rule is one function of `ShelfInputs` and one line in `SHELF_RULES` with its specificity: an item that several shelves
propose stands in the one whose explanation is most specific (the lowest number). A rule that lacks what it needs, such
as a history, proposes nothing. To add a rule, pass `{**SHELF_RULES, "mine": ShelfRule(function, specificity)}`, or
install a package that names a `ShelfRule` under the entry point group `bart.shelf_rules` (docs/shelves.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np

from bart.types import Context, Floats32, Ints, ItemTable, Labels, Listener, Shelf
from recommender.shelves.tables import DAYPARTS, ShelfTables, daypart_of
from recommender.vectors.index import ItemIndex

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_STRENGTH = 0.3  # what the first place of a table adds to a cosine; the last adds nothing
_LABEL_POOL = 120  # most played items of an artist or genre that are ordered for the listener
_SEEDS = 12  # recently played items from which a shelf may start


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Rows of a table with what is needed to order them for a listener in one product."""

    row: Ints
    vector: Floats32
    strength: Floats32

    @classmethod
    def of(cls, row: Ints, items: ItemTable) -> Pool:
        """The rows before the first -1."""
        row = row[row >= 0]
        falling = np.linspace(_STRENGTH, 0, num=len(row), dtype=np.float32)
        return cls(row, np.ascontiguousarray(items.vector[row]), falling)

    def best(self, u: Floats32, n: int) -> Ints:
        """The n best for vector u: cosine, and place in the table."""
        return self.row[np.argsort(-(self.vector @ u) - self.strength)[:n]]


@dataclass(frozen=True, slots=True, eq=False)
class ByLabel:
    """Rows of the items of each artist or genre, most popular first."""

    row: Ints
    offset: Ints

    @classmethod
    def of(cls, labels: Labels, items: ItemTable) -> ByLabel:
        item = np.repeat(np.arange(len(labels)), np.diff(labels.offset))
        order = np.lexsort((item, -items.popularity[item], labels.code))
        size = np.bincount(labels.code, minlength=len(labels.vocabulary))
        return cls(item[order], np.concatenate([[0], np.cumsum(size)]).astype(np.int64))

    def rows(self, code: int, most: int = _LABEL_POOL) -> Ints:
        start = self.offset[code]
        return self.row[start : min(start + most, self.offset[code + 1])]


@dataclass(frozen=True, slots=True, eq=False)
class Lookups:
    """The tables in the form that rules read, made once for a batch."""

    items: ItemTable
    tables: ShelfTables
    index: ItemIndex
    popular: Pool
    rising: Pool
    daypart: tuple[Pool, ...]
    mood: tuple[Pool, ...]
    mood_shelf: tuple[Shelf, ...]
    usual: Pool
    usual_genre: Ints
    by_artist: ByLabel
    genre: tuple[Pool, ...]

    @classmethod
    def of(cls, items: ItemTable, tables: ShelfTables, index: ItemIndex) -> Lookups:
        known = np.argsort(-items.popularity, kind="stable")[:500]
        known = known[items.vector[known].any(axis=1)]
        by_genre = ByLabel.of(items.genres, items)
        return cls(
            items=items,
            tables=tables,
            index=index,
            popular=Pool.of(tables.popular, items),
            rising=Pool.of(tables.rising, items),
            daypart=tuple(Pool.of(rows, items) for rows in tables.daypart),
            mood=tuple(Pool.of(rows, items) for rows in tables.mood),
            mood_shelf=tuple(_mood_shelf(words) for words in tables.mood_words),
            usual=Pool.of(known, items),
            usual_genre=items.genres.first[known],
            by_artist=ByLabel.of(items.artists, items),
            genre=tuple(Pool.of(by_genre.rows(code), items) for code in range(len(items.genres.vocabulary))),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ShelfInputs:
    """What a rule sees of one visit.

    want: rows to propose; later steps keep fewer. main_artists, main_genres: codes of up to five that carry most of
    what the listener plays, strongest first.
    """

    listener: Listener
    context: Context
    lookups: Lookups
    want: int
    rng: np.random.Generator
    main_artists: Sequence[int]
    main_genres: Sequence[int]

    @classmethod
    def of(
        cls, listener: Listener, context: Context, lookups: Lookups, want: int, rng: np.random.Generator
    ) -> ShelfInputs:
        """The inputs of a visit."""
        items = lookups.items
        artists, genres = (main_labels(labels.first, listener) for labels in (items.artists, items.genres))
        return cls(listener, context, lookups, want, rng, artists, genres)


Proposal = tuple[Shelf, Ints]
RuleFunction = Callable[[ShelfInputs], Iterable[Proposal]]


@dataclass(frozen=True, slots=True)
class ShelfRule:
    """A rule and its rank when an item could stand in several shelves: the lower wins."""

    propose: RuleFunction
    specificity: int


def made_for_you(x: ShelfInputs) -> Iterator[Proposal]:
    """The items nearest to the listener's vector."""
    if x.listener.vector.any():
        yield _MADE_FOR_YOU, x.lookups.index.search(x.listener.vector, x.want)[0]


def jump_back_in(x: ShelfInputs) -> Iterator[Proposal]:
    """Known items by how likely they come again: recency and frequency rank them better than any vector does."""
    row, score = x.lookups.tables.replay.score(x.listener.recent, x.listener.favourite)
    if len(row):
        yield _JUMP_BACK_IN, row[np.argsort(-score, kind="stable")[: x.want]]


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
        shelf = _shelf("because_you_played", *words, ("item", items.item_id[seed]), ("title", title))
        yield shelf, near[near >= 0].astype(np.int64)
        if len(used) == 3:
            return


def more_of_artist(x: ShelfInputs) -> Iterator[Proposal]:
    """More by the artist played most, and by another one that is often played."""
    artists = x.lookups.items.artists
    blocked = {artists.index.get(name) for name in x.listener.blocked_artists}
    for code in _two_of([code for code in x.main_artists if code not in blocked], x.rng):
        name = artists.vocabulary[code]
        shelf = _shelf("more_of_artist", f"More of {name}", f"You often play {name}", ("artist", name))
        yield shelf, _nearest(x, x.lookups.by_artist.rows(code))


def more_of_genre(x: ShelfInputs) -> Iterator[Proposal]:
    """More of the genre played most, and of another one that is often played."""
    genres = x.lookups.items.genres
    for code in _two_of(x.main_genres, x.rng):
        name = genres.vocabulary[code]
        shelf = _shelf("more_of_genre", f"More {name} for you", f"You often play {name}", ("genre", name))
        yield shelf, x.lookups.genre[code].best(x.listener.vector, x.want)


def time_of_day(x: ShelfInputs) -> Iterator[Proposal]:
    """Items played at this time of day more than at others, those near the listener first."""
    hour, weekday = x.context.hour, x.context.weekday
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
    by_closeness = np.argsort(-(pool.vector @ u))
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
    "because_you_played": ShelfRule(because_you_played, 20),
    "more_of_artist": ShelfRule(more_of_artist, 30),
    "new_and_rising": ShelfRule(new_and_rising, 40),
    "time_of_day": ShelfRule(time_of_day, 50),
    "more_of_genre": ShelfRule(more_of_genre, 60),
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


_FOREMOST = 20
_SHARES = tuple((1 / (3 + np.arange(_FOREMOST))).tolist())


def _shelf(rule: str, title: str, explanation: str, *parameters: tuple[str, str]) -> Shelf:
    """A shelf whose key is its rule's name."""
    return Shelf(rule, title, explanation, rule, parameters)


_MADE_FOR_YOU = _shelf("made_for_you", "Made for you", "Close to what you play")
_JUMP_BACK_IN = _shelf("jump_back_in", "Jump back in", "What you played lately and often")
_POPULAR_NOW = _shelf("popular_now", "Popular now", "Most played these days")
_NEW_AND_RISING = _shelf("new_and_rising", "New and rising", "New releases, and what is played more and more")
_OUTSIDE = _shelf("outside_your_usual", "Outside your usual", "Well loved, and not what you mostly play")
_OFTEN_NOW = "Played at this time more than at others"
_TIMES = tuple(
    tuple(
        _shelf("time_of_day", f"For your {day} {part}", _OFTEN_NOW, ("weekday", day.lower()), ("daypart", part))
        for part in DAYPARTS
    )
    for day in _WEEKDAYS
)


def _mood_shelf(words: tuple[str, ...]) -> Shelf:
    name = " and ".join(words)
    return _shelf("mood", f"In the mood for {name}", f"A corner of the catalogue around {name}", ("words", name))


def _nearest(x: ShelfInputs, row: Ints) -> Ints:
    """Rows of an artist or genre, ordered by closeness and popularity."""
    items = x.lookups.items
    score = items.vector[row] @ x.listener.vector + _STRENGTH * items.popularity[row]
    return row[np.argsort(-score)[: x.want]]


def main_labels(first: Ints, listener: Listener, n: int = 5) -> list[int]:
    """The n labels that carry most of the listener's foremost favourite and recent items. first: label of each item."""
    weight: dict[int, float] = {}
    for rows in (listener.favourite[:_FOREMOST], listener.recent[:_FOREMOST]):
        for share, code in zip(_SHARES, first[rows].tolist(), strict=False):
            weight[code] = weight.get(code, 0.0) + share
    weight.pop(-1, None)  # items without a label
    return sorted(weight, key=lambda code: (-weight[code], code))[:n]


def _two_of(main: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The first, and one drawn from the others."""
    return [*main[:1], *([main[1 + int(rng.integers(len(main) - 1))]] if len(main) > 1 else [])]
