"""The records that tie the packages together, each checked once when it is made.

Arrays inside are read-only by agreement. Ids are opaque strings on every surface; integer rows of an `ItemTable` are
internal to one batch and never leave the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Floats32: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Strings: TypeAlias = NDArray[np.object_]  # of str
Dates: TypeAlias = NDArray[np.datetime64]

ITEM_TYPES = ("track", "album", "playlist", "artist", "show", "episode", "article")
DEVICES = ("mobile", "desktop", "speaker", "web", "tablet")
OTHER_DEVICE = len(DEVICES)  # index of any device that is not in DEVICES


# --------------------------------------------------------------------------------------------------------------- items


class Labels:
    """Lists of labels, one list an item (artists, genres, countries), as flat codes and offsets.

    code: [m] int64 into `vocabulary`; offset: [n + 1] int64; item i has `code[offset[i]:offset[i + 1]]`.
    """

    def __init__(self, code: Ints, offset: Ints, vocabulary: Sequence[str]) -> None:
        self.code = np.asarray(code, dtype=np.int64)
        self.offset = np.asarray(offset, dtype=np.int64)
        self.vocabulary = tuple(vocabulary)
        if self.offset.ndim != 1 or len(self.offset) == 0 or self.offset[0] != 0 or self.offset[-1] != len(self.code):
            raise ValueError(f"offset must be [n + 1], from 0 to {len(self.code)}; got shape {self.offset.shape}")
        if np.any(np.diff(self.offset) < 0):
            raise ValueError("offset must not decrease")
        if len(self.code) and (self.code.min() < 0 or self.code.max() >= len(self.vocabulary)):
            raise ValueError(f"code must lie in [0, {len(self.vocabulary)}), the size of the vocabulary")

    @classmethod
    def of(cls, lists: Iterable[Sequence[str] | None]) -> Labels:
        """Encodes lists of strings; None and an empty list are the same. Vocabulary in order of first appearance."""
        index: dict[str, int] = {}
        code: list[int] = []
        offset = [0]
        for labels in lists:
            code.extend(index.setdefault(label, len(index)) for label in (labels or ()))
            offset.append(len(code))
        return cls(np.array(code, dtype=np.int64), np.array(offset, dtype=np.int64), tuple(index))

    def __len__(self) -> int:
        return len(self.offset) - 1

    def __getitem__(self, row: int) -> tuple[str, ...]:
        """The labels of one item."""
        return tuple(self.vocabulary[c] for c in self.code[self.offset[row] : self.offset[row + 1]])

    @cached_property
    def first(self) -> Ints:
        """Code of each item's first label, [n]; -1 where it has none."""
        has = self.offset[1:] > self.offset[:-1]
        out = np.full(len(self), -1, dtype=np.int64)
        out[has] = self.code[self.offset[:-1][has]]
        return out

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Code of each label."""
        return {label: code for code, label in enumerate(self.vocabulary)}

    def rows_with(self, label: str) -> Ints:
        """Rows of the items that carry `label`, ascending; empty for an unknown label."""
        code = self.index.get(label)
        if code is None:
            return np.empty(0, dtype=np.int64)
        return np.unique(np.searchsorted(self.offset, np.flatnonzero(self.code == code), side="right") - 1)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """What is known of each item; the rows of one batch.

    item_id, title: [n] str. type: [n] int8 into `ITEM_TYPES`. artists, genres, countries: a list an item (no country
    means everywhere). released_at: [n] datetime64[D], NaT where unknown. explicit: [n] bool. popularity: [n] in
    [0, 1], 1 for the most played. duration_s: [n] seconds, NaN where unknown. vector: [n, d] float32, unit length or
    all zero where the item has none. Raises ValueError for repeated ids, other shapes or values outside these ranges.
    """

    item_id: Strings
    title: Strings
    type: NDArray[np.int8]
    artists: Labels
    genres: Labels
    released_at: Dates
    countries: Labels
    explicit: Bools
    popularity: Floats
    duration_s: Floats
    vector: Floats32

    def __post_init__(self) -> None:
        n = len(self.item_id)
        for name in (
            "title",
            "type",
            "artists",
            "genres",
            "released_at",
            "countries",
            "explicit",
            "popularity",
            "duration_s",
        ):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries; expected {n}, one an item")
        if self.vector.ndim != 2 or len(self.vector) != n:
            raise ValueError(f"vector has shape {self.vector.shape}; expected ({n}, d)")
        if not np.isfinite(self.vector).all():
            raise ValueError(f"vector[{int(np.argwhere(~np.isfinite(self.vector))[0][0])}] is not finite")
        if not np.all((self.popularity >= 0) & (self.popularity <= 1)):
            raise ValueError("popularity must lie in [0, 1]")
        if n and not (self.type.min() >= 0 and self.type.max() < len(ITEM_TYPES)):
            raise ValueError(f"type must lie in [0, {len(ITEM_TYPES)})")
        if len(self.row_of) != n:
            raise ValueError("item_id must not repeat")

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def dimension(self) -> int:
        return int(self.vector.shape[1])

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each item id."""
        return {item: row for row, item in enumerate(self.item_id.tolist())}

    def rows(self, item_id: Iterable[str]) -> Ints:
        """Rows of the given ids, [m]; -1 where the id is unknown."""
        get = self.row_of.get
        return np.fromiter((get(i, -1) for i in item_id), dtype=np.int64)


# ------------------------------------------------------------------------------------------------- context and listener


@dataclass(frozen=True, slots=True)
class Context:
    """When, where and on what device a page is asked for.

    at: aware datetime, kept in UTC. utc_offset_min: the listener's offset from UTC at that moment, minutes.
    device: free text, `DEVICES` are told apart. surface: chooses the exploration rate. country: ISO code, or "".
    """

    at: datetime
    utc_offset_min: int = 0
    device: str = "mobile"
    surface: str = "default"
    country: str = ""
    explicit_allowed: bool = True

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"context.at is {self.at.isoformat()}, without a time zone; expected an aware datetime")
        if not -24 * 60 < self.utc_offset_min < 24 * 60:
            raise ValueError(f"context.utc_offset_min is {self.utc_offset_min}; expected minutes within a day")
        object.__setattr__(self, "at", self.at.astimezone(timezone.utc))

    @property
    def local_time(self) -> datetime:
        """The listener's wall clock (naive)."""
        return (self.at + timedelta(minutes=self.utc_offset_min)).replace(tzinfo=None)

    @property
    def hour(self) -> int:
        """Listener-local hour, 0 to 23."""
        return self.local_time.hour

    @property
    def weekday(self) -> int:
        """Listener-local day, 0 (Monday) to 6."""
        return self.local_time.weekday()


def device_code(device: str) -> int:
    """Index into DEVICES, OTHER_DEVICE for any other."""
    return DEVICES.index(device) if device in DEVICES else OTHER_DEVICE


@dataclass(frozen=True, slots=True)
class ListenerTraits:
    """What moves the exploration rate, as recorded with each decision.

    account_age_d: days since the account was made. diversity: spread of the listener's taste, in [0, 1].
    exploration_success: share of recently explored cards that were streamed, in [0, 1]. None where unknown.
    """

    account_age_d: float | None = None
    diversity: float | None = None
    exploration_success: float | None = None

    def __post_init__(self) -> None:
        if self.account_age_d is not None and not self.account_age_d >= 0:
            raise ValueError(f"account_age_d is {self.account_age_d}; expected days >= 0")
        for name in ("diversity", "exploration_success"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a number in [0, 1]")


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A listener as seen at one visit.

    vector: [d] float32, unit length (all zero when nothing is known). recent: rows last played, newest first,
    distinct. favourite: rows most played, best first. rested: rows that were shown often without a stream and rest.
    known is False for a cold start. blocked_artists: the listener's own blocks.
    """

    user_id: str
    vector: Floats32
    traits: ListenerTraits = field(default_factory=ListenerTraits)
    recent: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    favourite: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rested: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    known: bool = True
    blocked_artists: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.user_id:
            raise ValueError("user_id is empty; expected a non-empty string")
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise ValueError(f"vector of shape {self.vector.shape} must be [d] and finite")


# ---------------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True, slots=True)
class Shelf:
    """One row that may be shown: a rule (the explanation feature) and its words.

    title and explanation are text; key with parameters is the same for translation. specificity is the rule's rank
    when an item could stand in several shelves (lower wins).
    """

    rule: str
    title: str
    explanation: str = ""
    key: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The cards that may be shown, each in a shelf.

    item: [n] rows of the item table. shelf: [n] index into `shelves`, or -1 for an item held out of the draw (a pin).
    An item normally stands in one shelf; callers may give overlapping shelves (the same row in several).
    """

    item: Ints
    shelf: Ints
    shelves: tuple[Shelf, ...]

    def __post_init__(self) -> None:
        if self.item.ndim != 1 or self.item.shape != self.shelf.shape:
            raise ValueError(f"item {self.item.shape} and shelf {self.shelf.shape} must both be [n]")
        for name in ("item", "shelf"):
            _check_integers(name, getattr(self, name))
        if len(self.shelf) and (self.shelf.min() < -1 or self.shelf.max() >= len(self.shelves)):
            raise ValueError(f"shelf must lie in [-1, {len(self.shelves)})")
        if len(self.item) and self.item.min() < 0:
            raise ValueError(f"item[{int(np.argmin(self.item))}] is {int(self.item.min())}; expected a row >= 0")

    def __len__(self) -> int:
        return len(self.item)

    @property
    def overlapping(self) -> bool:
        """Whether an item stands in more than one place."""
        return len(np.unique(self.item)) != len(self.item)

    def keep(self, mask: Bools) -> Candidates:
        """The candidates where mask [n] is true; shelves keep their numbers."""
        return Candidates(self.item[mask], self.shelf[mask], self.shelves)


class CandidateSource(Protocol):
    def candidates(self, listener: Listener, context: Context, rng: np.random.Generator) -> Candidates:
        """Cards by shelf for one visit. `rng` is a stream apart from the policy's."""
        ...


class ListenerStore(Protocol):
    def listener(self, user_id: str, context: Context) -> Listener:
        """The listener's vector and history for this context; a cold start for an unknown id. Commits nothing."""
        ...


class PageScorer(Protocol):
    """P(reward | context, listener, explanation, card), position held at the first slot."""

    def score(self, context: Context, listener: Floats32, candidates: Candidates) -> Floats:
        """[n] float64 for the n candidates of one visit; `listener` is the vector [d]."""
        ...

    def score_batch(self, batch: PageBatch) -> Floats:
        """[n] float64 for all candidates of many logged pages; equal to `score` page by page."""
        ...


# ---------------------------------------------------------------------------------------------------------------- page


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Shelves and cards as drawn, with the probability of each choice given those before it.

    shelf: [rows] shelf numbers. card: [rows, columns] candidate positions; a shorter row is padded with -1.
    shelf_propensity: [rows]; card_propensity: [rows, columns], NaN where padded. pinned: [rows, columns], cards
    that were fixed before the draw (propensity 1, no training datum). Rows that could not be filled are left out.
    """

    shelf: Ints
    card: Ints
    shelf_propensity: Floats
    card_propensity: Floats
    pinned: Bools

    def __post_init__(self) -> None:
        shape = self.card.shape
        if self.card.ndim != 2 or self.card_propensity.shape != shape or self.pinned.shape != shape:
            raise ValueError(
                f"card {shape}, card_propensity {self.card_propensity.shape}, pinned {self.pinned.shape} must agree"
            )
        if self.shelf.shape != shape[:1] or self.shelf_propensity.shape != shape[:1]:
            raise ValueError(
                f"shelf {self.shelf.shape} and shelf_propensity {self.shelf_propensity.shape} must be {shape[:1]}"
            )
        for name in ("shelf_propensity", "card_propensity"):
            _check_probabilities(name, getattr(self, name))

    @property
    def shown(self) -> Bools:
        """[rows, columns], where a card stands."""
        return self.card >= 0

    @property
    def propensity(self) -> float:
        """Probability of the whole page: the product of all conditionals."""
        return float(np.prod(self.shelf_propensity) * np.prod(self.card_propensity[self.shown]))


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One page as decided: all that is needed to check its propensities and to learn from it.

    request_id: unique. batch_id: the items and vectors that served; model_id: the reward model. policy: its name.
    shelf_epsilon: [rows], card_epsilon: [columns], for each position of the page asked for. seed: of the policy's own
    random stream. item_id: [n] str and shelf [n] as in Candidates. raw_score: [n] of the reward model; score: [n] what
    was drawn from (the same array where nothing came between). forced: seed or time were set by an administrator, never
    used for training or evaluation. arm: experiment arm.
    """

    request_id: str
    user_id: str
    context: Context
    traits: ListenerTraits
    listener: Floats32
    batch_id: str
    policy: str
    shelf_epsilon: Floats
    card_epsilon: Floats
    rules_version: str
    seed: int
    shelves: tuple[Shelf, ...]
    item_id: Strings
    shelf: Ints
    raw_score: Floats
    score: Floats
    page: Page
    arm: str = ""
    forced: bool = False
    model_id: str = ""

    def __post_init__(self) -> None:
        n = len(self.item_id)
        for name in ("shelf", "raw_score", "score"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected ({n},), one a candidate")
        for name in ("raw_score", "score"):
            bad = ~np.isfinite(getattr(self, name))
            if bad.any():
                raise ValueError(f"{name}[{int(np.flatnonzero(bad)[0])}] is not finite")
        if not isinstance(self.request_id, str) or not self.request_id:
            raise ValueError(f"request_id is {self.request_id!r}; expected a non-empty string")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected an integer >= 0")
        for name in ("shelf_epsilon", "card_epsilon"):
            epsilon = getattr(self, name)
            if epsilon.ndim != 1:
                raise ValueError(f"{name} has shape {epsilon.shape}; expected one number a position")
            _check_probabilities(name, epsilon)
        # Only a page drawn elsewhere may come of a policy that has no epsilon.
        if not self.policy.startswith("imported") and np.isnan(self.shelf_epsilon.sum() + self.card_epsilon.sum()):
            raise ValueError(f"shelf_epsilon or card_epsilon is NaN; expected numbers in [0, 1] for {self.policy!r}")
        _check_range("shelf", self.shelf, -1, len(self.shelves))
        _check_range("page.shelf", self.page.shelf, 0, len(self.shelves))
        _check_range("page.card", self.page.card, -1, n)

    @property
    def decided_at(self) -> datetime:
        return self.context.at

    @property
    def rows(self) -> int:
        """Rows asked for."""
        return len(self.shelf_epsilon)

    @property
    def columns(self) -> int:
        """Columns asked for."""
        return len(self.card_epsilon)


class DecisionSink(Protocol):
    """Where decisions go: the decision log, or nothing in a dry run."""

    def append(self, decision: Decision) -> None:
        """Takes one decision; durable according to the sink's own setting when it returns."""
        ...


# ----------------------------------------------------------------------------------------------------------- many pages


@dataclass(frozen=True, slots=True, eq=False)
class PageBatch:
    """Many logged pages as flat arrays: what training, batch scoring, evaluation and the simulator's truth read.

    b pages, N candidates in all, S shelves in all, pages of at most rows x columns.
    Per page [b]: request_id, user_id (str), at_s (int64 seconds UTC), hour, weekday, device (codes), surface, country
    (str), listener [b, d] float32, forced, displayed, closed (feedback window over).
    Candidates of page i: offset[i]:offset[i + 1] of item [N] (rows of the item table, -1 where the table does not hold
    the id), shelf [N] (number within the page), raw_score, score [N].
    Shelves of page i: shelf_offset[i]:shelf_offset[i + 1] of rule [S] (str).
    Choices: row_shelf [b, rows], card [b, rows, columns] (candidate number within the page), -1 where nothing stands;
    shelf_propensity [b, rows], card_propensity [b, rows, columns], NaN where nothing stands; pinned as in Page;
    shelf_epsilon [b, rows], card_epsilon [b, columns].
    Feedback: seen [b, rows, columns] bool, listened_s and reward [b, rows, columns] (0 where not seen).
    None where the source does not hold them: saved [b, rows, columns] bool, skipped [b, rows, columns] int8
    (1 yes, 0 no, -1 not said), account_age_d [b] days.
    """

    request_id: Strings
    user_id: Strings
    at_s: Ints
    hour: Ints
    weekday: Ints
    device: Ints
    surface: Strings
    country: Strings
    listener: Floats32
    forced: Bools
    displayed: Bools
    closed: Bools
    offset: Ints
    item: Ints
    shelf: Ints
    raw_score: Floats
    score: Floats
    shelf_offset: Ints
    rule: Strings
    row_shelf: Ints
    card: Ints
    shelf_propensity: Floats
    card_propensity: Floats
    pinned: Bools
    shelf_epsilon: Floats
    card_epsilon: Floats
    seen: Bools
    listened_s: Floats
    reward: Floats
    saved: Bools | None = None
    skipped: NDArray[np.int8] | None = None
    account_age_d: Floats | None = None

    def __post_init__(self) -> None:
        b, n = len(self.request_id), len(self.item)
        for name, end in (("offset", n), ("shelf_offset", len(self.rule))):
            offset = getattr(self, name)
            if offset.shape != (b + 1,) or offset[0] != 0 or offset[-1] != end or np.any(offset[1:] < offset[:-1]):
                raise ValueError(f"{name} must be [{b + 1}], from 0 to {end}, and never decrease")
        shape = self.card.shape
        if len(shape) != 3:
            raise ValueError(f"card has shape {shape}; expected ({b}, rows, columns)")
        expected = {
            **dict.fromkeys(("card", "card_propensity", "pinned", "seen", "listened_s", "reward"), (b, *shape[1:])),
            **dict.fromkeys(("row_shelf", "shelf_propensity", "shelf_epsilon"), (b, shape[1])),
            "card_epsilon": (b, shape[2]),
            **dict.fromkeys(("item", "shelf", "raw_score", "score"), (n,)),
        }
        for name, size in (("saved", (b, *shape[1:])), ("skipped", (b, *shape[1:])), ("account_age_d", (b,))):
            if getattr(self, name) is not None:
                expected[name] = size
        for name, of_name in expected.items():
            if getattr(self, name).shape != of_name:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {of_name}")

    def __len__(self) -> int:
        return len(self.request_id)

    def candidate_rule(self) -> Strings:
        """[N] rule of each candidate ("" for one held out of the draw)."""
        page = np.repeat(np.arange(len(self)), np.diff(self.offset))
        out: Strings = self.rule[np.clip(self.shelf_offset[page] + self.shelf, 0, max(len(self.rule) - 1, 0))].copy()
        out[self.shelf < 0] = ""
        return out

    @classmethod
    def concat(cls, parts: Sequence[PageBatch]) -> PageBatch:
        """All pages, part after part. Raises ValueError for no part, or parts of different page size."""
        if not parts:
            raise ValueError("parts is empty; expected at least one PageBatch")
        if len({part.card.shape[1:] for part in parts}) > 1:
            raise ValueError(f"pages are of sizes {sorted({part.card.shape[1:] for part in parts})}; expected one size")
        arrays: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                continue  # what some parts do not know, the whole does not
            if name in ("offset", "shelf_offset"):
                start = np.cumsum([0, *(value[-1] for value in values)])
                values = [values[0][:1]] + [value[1:] + first for value, first in zip(values, start, strict=False)]
            arrays[name] = np.concatenate(values)
        return cls(**arrays)

    def take(self, pages: Ints) -> PageBatch:
        """The given pages, in that order."""
        pages = np.asarray(pages, dtype=np.int64)
        flat, offset = _ragged_take(self.offset, pages)
        shelf_flat, shelf_offset = _ragged_take(self.shelf_offset, pages)
        by_candidate = {"item", "shelf", "raw_score", "score"}
        arrays: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if name in by_candidate:
                arrays[name] = value[flat]
            elif name == "rule":
                arrays[name] = value[shelf_flat]
            elif name not in ("offset", "shelf_offset"):
                arrays[name] = value[pages]
        return PageBatch(**arrays, offset=offset, shelf_offset=shelf_offset)


def _check_integers(name: str, value: Any) -> None:
    if value.dtype.kind not in "iu" and value.size:
        raise ValueError(f"{name} has type {value.dtype}; expected integers")


def _check_range(name: str, value: Any, low: int, high: int) -> None:
    """Integers in [low, high); ValueError with the first that is not."""
    _check_integers(name, value)
    if value.size and (value.min() < low or value.max() >= high):
        bad = value[(value < low) | (value >= high)].flat[0]
        raise ValueError(f"{name} holds {bad}; expected numbers in [{low}, {high})")


def _check_probabilities(name: str, value: Floats) -> None:
    """Numbers in [0, 1] or NaN; ValueError with the first that is not."""
    if value.size and not (np.fmin.reduce(value, axis=None) >= 0 and np.fmax.reduce(value, axis=None) <= 1):
        bad = value[(value < 0) | (value > 1)]  # none where all are NaN
        if bad.size:
            raise ValueError(f"{name} holds {bad[0]}; expected numbers in [0, 1]")


def _ragged_take(offset: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Flat positions of the given rows of a ragged array, and their new offsets."""
    size = np.diff(offset)[rows]
    new = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    flat = np.arange(new[-1]) - np.repeat(new[:-1], size) + np.repeat(offset[rows], size)
    return flat.astype(np.int64), new
