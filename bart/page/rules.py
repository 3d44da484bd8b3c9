"""Business rules: what may be shown, what is lifted, how often one artist may come, and what is fixed.

Nothing here is random and nothing depends on the policy: the rules act on the candidates before the draw, so that page
propensities factorise as without them, and evaluation keeps the logged rules. `Rules.version` is recorded with each
decision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np

from bart.page.final import final_score
from bart.page.labels import carries, is_artist, is_named
from bart.ranking import checks as check
from bart.types import ITEM_TYPES, Bools, Candidates, Context, Decision, Floats, Ints, ItemTable, Listener, Shelf

BOOST_KINDS = ("item", "artist", "genre", "type")
CAP_SCOPES = ("shelf", "page")

Pins = tuple[tuple[int, int, int], ...]
_NO_PINS = np.empty(0, dtype=np.bool_), np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Boost:
    """score x factor + add for the candidates that match; by item id, artist, genre or item type.

    It moves cards within their shelf. Shelves are chosen by raw scores, which boosts leave alone, so that there is no
    boost by shelf: it would change nothing.
    """

    kind: str
    name: str
    factor: float = 1.0
    add: float = 0.0

    def __post_init__(self) -> None:
        if self.kind == "shelf":
            raise ValueError(
                "boost kind is 'shelf'; shelves are chosen by the model's scores, which boosts leave alone: "
                f"expected one of {', '.join(BOOST_KINDS)}"
            )
        if self.kind not in BOOST_KINDS:
            raise ValueError(f"boost kind is {self.kind!r}; expected one of {', '.join(BOOST_KINDS)}")
        if self.kind == "type" and self.name not in ITEM_TYPES:
            raise ValueError(f"boost name is {self.name!r}; expected an item type: {', '.join(ITEM_TYPES)}")
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"boost name is {self.name!r}; expected a non-empty string")
        for name in ("factor", "add"):
            check.number(f"boost {name}", getattr(self, name))
        if self.factor < 0:
            raise ValueError(f"boost factor is {self.factor}; expected a number >= 0, which keeps the order")


@dataclass(frozen=True, slots=True)
class Pin:
    """An item fixed at (row, column), both from 0, on one surface ("" for all)."""

    row: int
    column: int
    item_id: str
    surface: str = ""

    def __post_init__(self) -> None:
        for name in ("row", "column"):
            place = getattr(self, name)
            if not _whole(place):
                raise ValueError(f"pin {name} is {place!r}; expected an integer >= 0")
        for name in ("item_id", "surface"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"pin {name} is {getattr(self, name)!r}; expected a string")
        if self.row < 0 or self.column < 0:
            raise ValueError(f"pin of {self.item_id!r} is at ({self.row}, {self.column}); expected both >= 0")
        if not self.item_id:
            raise ValueError("pin item_id is empty; expected an item id")


@dataclass(frozen=True)
class Rules:
    """Configuration of the rules; the defaults keep to rights and to the listener's own wishes, and no more.

    block_region, block_explicit, block_unreleased: by the item's countries, by `context.explicit_allowed`, by
    `released_at` after the day of the visit (UTC). blocked_artists: for everybody. The listener's own wishes
    (`bart.types.Wishes`) hold beside all of these.
    blocked_items: ids that are shown to nobody, such as those that were taken down.
    block_recent: the first so many of `listener.recent` are not shown, 0 for none. available_until: last day (UTC) on
    which an item may be shown. boosts: applied in this order to what the policy draws by. cap_per_artist: at most so
    many candidates with the same first artist, in the order in which candidates came, per "shelf" or "page"; None for
    no cap. pins: fixed slots.
    """

    block_region: bool = True
    block_explicit: bool = True
    block_unreleased: bool = True
    blocked_artists: frozenset[str] = frozenset()
    blocked_items: frozenset[str] = frozenset()
    block_recent: int = 0
    available_until: Mapping[str, date] = field(default_factory=dict)
    boosts: tuple[Boost, ...] = ()
    cap_per_artist: int | None = None
    cap_scope: str = "shelf"
    pins: tuple[Pin, ...] = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "blocked_artists", frozenset(self.blocked_artists))
        object.__setattr__(self, "blocked_items", frozenset(self.blocked_items))
        object.__setattr__(self, "available_until", dict(self.available_until))
        object.__setattr__(self, "boosts", tuple(self.boosts))
        object.__setattr__(self, "pins", tuple(self.pins))
        for item, until in self.available_until.items():
            if not isinstance(until, date) or isinstance(until, datetime):
                raise ValueError(f"available_until[{item!r}] is {until!r}; expected a date")
        if not _whole(self.block_recent) or self.block_recent < 0:
            raise ValueError(f"block_recent is {self.block_recent!r}; expected an integer >= 0")
        if self.cap_per_artist is not None and not (_whole(self.cap_per_artist) and self.cap_per_artist >= 1):
            raise ValueError(f"cap_per_artist is {self.cap_per_artist!r}; expected an integer >= 1, or None")
        if self.cap_scope not in CAP_SCOPES:
            raise ValueError(f"cap_scope is {self.cap_scope!r}; expected one of {', '.join(CAP_SCOPES)}")
        self._check_pins()

    def _check_kinds(self) -> None:
        for name in ("blocked_artists", "blocked_items"):
            blocked: object = getattr(self, name)
            if isinstance(blocked, str):  # it would pass as a set of letters
                raise ValueError(f"{name} is the text {blocked!r}; expected a set of {name.removeprefix('blocked_')}")
        for name, kind in (("blocked_artists", str), ("blocked_items", str), ("boosts", Boost), ("pins", Pin)):
            entries: Any = getattr(self, name)
            if not isinstance(entries, Iterable):
                raise ValueError(f"{name} is {entries!r}; expected a collection of {kind.__name__}")
            for i, entry in enumerate(entries):
                if not isinstance(entry, kind):
                    raise ValueError(f"{name}[{i}] is {entry!r}; expected a {kind.__name__}")
        until_by_item: Any = self.available_until
        if not isinstance(until_by_item, Mapping):
            raise ValueError(f"available_until is {until_by_item!r}; expected a date by item id")

    def _check_pins(self) -> None:
        for i, pin in enumerate(self.pins):
            for other in self.pins[:i]:
                if pin.surface and other.surface and pin.surface != other.surface:
                    continue
                if (pin.row, pin.column) == (other.row, other.column) or pin.item_id == other.item_id:
                    raise ValueError(f"pins[{i}] takes the slot or the item of an earlier pin: {pin} and {other}")

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Rules:
        """Rules from plain values, as in a TOML or JSON file; boosts and pins are lists of tables."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(f"rules has an unknown entry {unknown[0]!r}; expected some of {', '.join(sorted(known))}")
        values = dict(config)
        try:
            values["boosts"] = tuple(Boost(**boost) for boost in values.get("boosts", ()))
            values["pins"] = tuple(Pin(**pin) for pin in values.get("pins", ()))
        except TypeError as error:
            raise ValueError(f"rules has a boost or pin with wrong entries: {error}") from None
        until = values.get("available_until", {})
        if not isinstance(until, Mapping):
            raise ValueError(f"available_until is {until!r}; expected a date by item id")
        values["available_until"] = {
            item: date.fromisoformat(day) if isinstance(day, str) else day for item, day in until.items()
        }
        return cls(**values)

    @cached_property
    def version(self) -> str:
        """A short hash of the content: equal rules have equal versions, on every machine."""
        content: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        content["blocked_artists"] = sorted(self.blocked_artists)
        if self.blocked_items:
            content["blocked_items"] = sorted(self.blocked_items)
        else:
            del content["blocked_items"]  # the same name as before there was this rule
        content["available_until"] = {item: day.isoformat() for item, day in self.available_until.items()}
        content["boosts"] = [[b.kind, b.name, float(b.factor), float(b.add)] for b in self.boosts]
        content["pins"] = sorted([p.surface, p.row, p.column, p.item_id] for p in self.pins)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def without_effect(self, items: ItemTable) -> tuple[str, ...]:
        """Pins and boosts, in words, that name an item, an artist or a genre which the table does not hold."""
        names = {"item": items.row_of.keys(), "artist": items.artists.vocabulary, "genre": items.genres.vocabulary}
        pins = (f"the pin of {pin.item_id!r}" for pin in self.pins if pin.item_id not in items.row_of)
        boosts = (
            f"the boost of {boost.kind} {boost.name!r}"
            for boost in self.boosts
            if boost.kind in names and boost.name not in names[boost.kind]
        )
        return (*pins, *boosts)

    def apply(
        self, items: ItemTable, listener: Listener, context: Context, candidates: Candidates
    ) -> tuple[Candidates, Pins]:
        """The candidates that may be drawn, and the pins as (row, column, candidate).

        Removed: what is blocked, then what is over the cap. A pinned item leaves its shelf (or comes from the table)
        and stands at the end with shelf -1; it must not be blocked, except that it may have been played recently.
        """
        keep = ~self.forbidden(items, listener, context, candidates.item)
        named = self._names_what_is_blocked(items, listener, candidates.shelves)
        if any(named):
            keep &= ~np.array([*named, False])[candidates.shelf]  # shelf -1: the last
        if self.block_recent:
            keep &= ~np.isin(candidates.item, listener.recent[: self.block_recent])
        chosen = [pin for pin in self.pins if pin.surface in ("", context.surface)]
        held, pinned = self._held(items, listener, context, chosen)
        if len(pinned):
            keep &= ~np.isin(candidates.item, pinned)
        if not keep.all():
            candidates = candidates.keep(keep)
        if self.cap_per_artist is not None:
            under = self._under_cap(items, candidates, self.cap_per_artist)
            if not under.all():
                candidates = candidates.keep(under)
        if len(pinned) == 0:
            return candidates, ()
        n = len(candidates)
        pins = tuple(
            (pin.row, pin.column, n + i) for i, pin in enumerate(p for p, h in zip(chosen, held, strict=True) if h)
        )
        shelf = np.concatenate([candidates.shelf, np.full(len(pinned), -1, dtype=np.int64)])
        return Candidates(np.concatenate([candidates.item, pinned]), shelf, candidates.shelves), pins

    def _held(self, items: ItemTable, listener: Listener, context: Context, pins: Sequence[Pin]) -> tuple[Bools, Ints]:
        """Which pins hold, [pins], and the rows of those."""
        if not pins:
            return _NO_PINS
        row = items.rows(pin.item_id for pin in pins)
        held = np.zeros(len(row), dtype=np.bool_)
        held[row >= 0] = ~self.forbidden(items, listener, context, row[row >= 0])
        return held, row[held]

    def boosts_of(self, items: ItemTable, candidates: Candidates) -> tuple[Floats, Floats] | None:
        """Factor and addend of each candidate, [n] each, all boosts in turn (see `bart.page.final`); None where none is
        configured. Raises ValueError where they are beyond the largest number."""
        if not self.boosts:
            return None
        factor, add = np.ones(len(candidates)), np.zeros(len(candidates))
        for boost in self.boosts:
            match = _matches(items, candidates, boost)
            with np.errstate(over="ignore", invalid="ignore"):  # told below
                factor[match] *= boost.factor
                add[match] = add[match] * boost.factor + boost.add
        if not (np.isfinite(factor).all() and np.isfinite(add).all()):
            raise ValueError("boosts multiply to more than the largest number; expected finite ones")
        return factor, add

    def boost(self, items: ItemTable, candidates: Candidates, score: Floats) -> Floats:
        """What the policy draws by, [n]: the score after all boosts, or the same array where none is configured.

        Raises ValueError where a boosted score is beyond the largest number.
        """
        if score.shape != (len(candidates),):
            raise ValueError(f"score has shape {score.shape}; expected ({len(candidates)},), one a candidate")
        factor, add = self.boosts_of(items, candidates) or (None, None)
        return final_score(score, candidates.shelf, factor, add, None, None)

    def forbidden(self, items: ItemTable, listener: Listener, context: Context, item: Ints) -> Bools:
        """Which of the rows must not be shown to this listener now, [n]: themselves, or (albums, playlists, shows)
        all that they hold."""
        out = self._forbidden(items, listener, context, item)
        if not len(items.members.row):
            return out
        place, member = items.members.of(item)
        if len(place):
            left = np.bincount(place, ~self._forbidden(items, listener, context, member), minlength=len(item))
            out[np.unique(place)] |= left[np.unique(place)] == 0
        return out

    def _forbidden(self, items: ItemTable, listener: Listener, context: Context, item: Ints) -> Bools:
        """Which of the rows must not be shown for themselves, [n]."""
        out = np.zeros(len(item), dtype=np.bool_)
        wishes = listener.wishes
        if (self.block_explicit and not context.explicit_allowed) or not wishes.explicit:
            out |= items.explicit[item]
        day = context.at.date()
        if self.block_unreleased and items.last_released_at > (today := np.datetime64(day)):
            out |= items.released_at[item] > today
        if self.block_region and items.countries.vocabulary:
            bound = items.countries.offset[item + 1] > items.countries.offset[item]
            out |= bound & ~carries(items.countries, item, {context.country})
        if self.blocked_items:
            out |= self._is_blocked(items)[item]
        if wishes.blocked_items or wishes.not_interested:
            out |= np.isin(item, items.rows(wishes.hidden_items))
        blocked = self._blocked_artists(listener)
        if blocked:
            out |= carries(items.artists, item, blocked) | is_artist(items, item, blocked)
        if self.available_until:
            get = self.available_until.get
            until = (get(i) for i in items.item_id[item].tolist())
            out |= np.fromiter((last is not None and last < day for last in until), dtype=np.bool_, count=len(item))
        return out

    def refuses(self, items: ItemTable, listener: Listener, decision: Decision) -> bool:
        """Whether a page that was decided earlier holds what must not be shown to this listener any more."""
        page = decision.page
        shown = decision.item_id[page.card[page.card >= 0]]
        row = items.rows(shown.tolist())
        if self.forbidden(items, listener, decision.context, row[row >= 0]).any():
            return True
        hidden = self.blocked_items | listener.wishes.hidden_items
        if not hidden.isdisjoint(shown[row < 0].tolist()):  # of another batch: what is known of them is their id
            return True
        shelves = [decision.shelves[number] for number in page.shelf.tolist()]
        return any(self._names_what_is_blocked(items, listener, shelves))

    def _blocked_artists(self, listener: Listener) -> frozenset[str]:
        return self.blocked_artists | listener.blocked_artists | listener.wishes.blocked_artists

    def _names_what_is_blocked(self, items: ItemTable, listener: Listener, shelves: Sequence[Shelf]) -> list[bool]:
        """Which shelves are explained by an item or an artist that is blocked: they do not stand either."""
        hidden, artists = self.blocked_items | listener.wishes.hidden_items, self._blocked_artists(listener)
        if not hidden and not artists:
            return []
        return [is_named(items, dict(shelf.parameters), hidden, artists) for shelf in shelves]

    def _is_blocked(self, items: ItemTable) -> Bools:
        """Which rows of the table are blocked by id; kept for the table that was asked for last."""
        known: tuple[ItemTable, Bools] | None = self.__dict__.get("_blocked_rows")
        if known is None or known[0] is not items:
            row = items.rows(self.blocked_items)
            mask = np.zeros(len(items), dtype=np.bool_)
            mask[row[row >= 0]] = True
            known = items, mask
            self.__dict__["_blocked_rows"] = known
        return known[1]

    def _under_cap(self, items: ItemTable, candidates: Candidates, cap: int) -> Bools:
        """Whether each candidate is among the first `cap` of its first artist, in its shelf or on the page, [n]."""
        artist = items.artists.first[candidates.item]
        group = artist if self.cap_scope == "page" else candidates.shelf * (len(items.artists.vocabulary) + 1) + artist
        order = np.argsort(group, kind="stable")
        ordered = group[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else order
        size = np.diff(np.append(first, len(order)))
        count = np.empty(len(order), dtype=np.int64)
        count[order] = np.arange(len(order)) - np.repeat(first, size)
        under: Bools = (count < cap) | (artist < 0) | (candidates.shelf < 0)
        return under


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _matches(items: ItemTable, candidates: Candidates, boost: Boost) -> Bools:
    """Which candidates a boost lifts, [n]."""
    if boost.kind == "item":
        match: Bools = candidates.item == items.row_of.get(boost.name, -1)
        return match
    if boost.kind == "type":
        match = items.type[candidates.item] == ITEM_TYPES.index(boost.name)
        return match
    return carries(items.artists if boost.kind == "artist" else items.genres, candidates.item, {boost.name})
