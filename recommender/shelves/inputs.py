"""What a shelf rule sees of one visit, and the tables of a batch in the form that rules read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bart.types import ITEM_TYPES, Bools, Context, Floats32, Ints, ItemTable, Labels, Listener, Shelf
from bart.types.items import CONTAINERS
from recommender.shelves.labels import says_something
from recommender.shelves.tables import ShelfTables
from recommender.vectors.index import ItemIndex

STRENGTH = 0.3  # what the first place of a table adds to a cosine; the last adds nothing
_LABEL_POOL = 120  # most played items of an artist or genre that are ordered for the listener
_CONTAINER_POOL = 20_000  # most popular containers of a type that are ordered for the listener
_LEAST_MEMBERS = 2  # a container of one item is that item
_FOREMOST = 20
_ALL = np.empty(0, dtype=np.bool_)


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
        falling = np.linspace(STRENGTH, 0, num=len(row), dtype=np.float32)
        return cls(row, np.ascontiguousarray(items.vector[row]), falling)

    def best(self, u: Floats32, n: int) -> Ints:
        """The n best for vector u: cosine, and place in the table."""
        return self.row[(-(self.vector @ u) - self.strength).argsort()[:n]]


@dataclass(frozen=True, slots=True, eq=False)
class ByLabel:
    """Rows of the items of each artist or genre, most popular first."""

    row: Ints
    offset: Ints

    @classmethod
    def of(cls, labels: Labels, items: ItemTable) -> ByLabel:
        item = np.repeat(np.arange(len(labels)), np.diff(labels.offset))
        alone = items.stands_alone[item]
        item, code = item[alone], labels.code[alone]
        order = np.lexsort((item, -items.popularity[item], code))
        size = np.bincount(code, minlength=len(labels.vocabulary))
        return cls(item[order], np.concatenate([[0], np.cumsum(size)]).astype(np.int64))

    def rows(self, code: int, most: int = _LABEL_POOL) -> Ints:
        start = self.offset[code]
        return self.row[start : min(start + most, self.offset[code + 1])]


@dataclass(frozen=True, slots=True, eq=False)
class Lookups:
    """The tables in the form that rules read, made once for a batch.

    containers: by type, most popular first. artist_named, genre_named: [labels] which labels say something. newest:
    when the newest item was released, 1970 where nobody knows.
    """

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
    containers: Mapping[str, Pool]
    artist_named: Bools
    genre_named: Bools
    newest: np.datetime64

    @classmethod
    def of(cls, items: ItemTable, tables: ShelfTables, index: ItemIndex) -> Lookups:
        known = _by_popularity(np.flatnonzero(items.stands_alone), items)[:500]
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
            mood_shelf=tuple(mood_shelf(words) for words in tables.mood_words),
            usual=Pool.of(known, items),
            usual_genre=items.genres.first[known],
            by_artist=ByLabel.of(items.artists, items),
            genre=tuple(Pool.of(by_genre.rows(code), items) for code in range(len(items.genres.vocabulary))),
            containers={name: Pool.of(_containers(name, items), items) for name in CONTAINERS},
            artist_named=says_something(items.artists),
            genre_named=says_something(items.genres),
            newest=max(items.released_at[~np.isnat(items.released_at)], default=np.datetime64("1970-01-01", "D")),
        )


def _by_popularity(row: Ints, items: ItemTable) -> Ints:
    return row[np.argsort(-items.popularity[row], kind="stable")]


def _containers(name: str, items: ItemTable) -> Ints:
    """Rows of the containers of a type that have members and a vector, most popular first."""
    able = (items.type == ITEM_TYPES.index(name)) & (items.members.size(len(items)) >= _LEAST_MEMBERS)
    return _by_popularity(np.flatnonzero(able & items.vector.any(axis=1)), items)[:_CONTAINER_POOL]


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
        artists = main_labels(items.artists.first, listener, named=lookups.artist_named)
        genres = main_labels(items.genres.first, listener, named=lookups.genre_named)
        return cls(listener, context, lookups, want, rng, artists, genres)


Proposal = tuple[Shelf, Ints]
RuleFunction = Callable[[ShelfInputs], Iterable[Proposal]]


@dataclass(frozen=True, slots=True)
class ShelfRule:
    """A rule and its rank when an item could stand in several shelves: the lower wins."""

    propose: RuleFunction
    specificity: int


def main_labels(first: Ints, listener: Listener, n: int = 5, named: Bools | None = None) -> list[int]:
    """The n labels that carry most of the listener's foremost favourite and recent items.

    first: label of each item. named: [labels] those that count, all where None.
    """
    from recommender.shelves.history_kernel import foremost_labels  # numba loads only where pages are decided

    that_count = _ALL if named is None else named
    found: list[int] = foremost_labels(first, that_count, listener.favourite, listener.recent, _FOREMOST, n).tolist()
    return found


def shelf_of(rule: str, title: str, explanation: str, *parameters: tuple[str, str]) -> Shelf:
    """A shelf whose key is its rule's name."""
    return Shelf(rule, title, explanation, rule, parameters)


def mood_shelf(words: tuple[str, ...]) -> Shelf:
    name = " and ".join(words)
    return shelf_of("mood", f"In the mood for {name}", f"A corner of the catalogue around {name}", ("words", name))
