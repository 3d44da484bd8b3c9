"""What a row is beside a play, and what it counts: likes, ratings, saves and the like, by their type and value.

A play counts 1, a skipped one 0. A signal counts by the weight of its type, in plays; a rating goes from minus the
weight of ratings at the low end of its scale to plus that weight at the high end, so that the middle says nothing. The
weights of `WEIGHTS` are a convention, not measured: a deliberate act says more than one play.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Bools, Floats, Ints
from recommender.events import columns as read
from recommender.sessions.plays import PLAY

WEIGHTS = {"like": 3.0, "dislike": -3.0, "save": 3.0, "follow": 3.0, "share": 3.0, "rating": 3.0}
RATING, LIKE, SKIP = "rating", "like", "skip"
GIVEN = "weighted"  # beside a type: the file says what the row counts
LARGEST = 1_000.0  # of a weight, in plays
HIGHEST = 100.0  # of a rating: larger numbers are counts, not ratings
_SCALES = (1.0, 5.0, 10.0, HIGHEST)
_SAID = {  # other words for the same
    PLAY: "track song music plays played stream streamed listen listened listens scrobble watched complete completed",
    SKIP: "skips skipped",
    LIKE: "likes liked love loved heart thumbs_up thumb_up thumbsup favorite favourite upvote",
    "dislike": "dislikes disliked hate hated ban banned block blocked thumbs_down thumb_down thumbsdown downvote",
    "save": "saves saved bookmark library_add playlist_add add_to_playlist",
    "follow": "follows followed subscribe",
    "share": "shares shared forward",
    RATING: "ratings rated rate stars",
}
_OPPOSITE = {LIKE: "dislike", "dislike": LIKE}
_TYPE_OF = {word: name for name, words in _SAID.items() for word in (name, *words.split())}
UNKNOWN = "type is none that has a weight (events.weights in the settings)"


@dataclass(frozen=True, slots=True)
class Worth:
    """weights: in plays, by type, over `WEIGHTS`. lowest, highest: the scale of ratings, found from them where None."""

    weights: Mapping[str, float] = field(default_factory=dict)
    lowest: float | None = None
    highest: float | None = None

    def weight(self, name: str) -> float:
        """Of one type of signal, in plays."""
        return float(self.weights.get(name, WEIGHTS.get(name, 0.0)))

    def parts(self, words: str | None) -> tuple[str, ...] | None:
        """The types that a cell names ("play+like"), None where one is unknown. Nothing said is a play."""
        if words is None:
            return (PLAY,)
        found = []
        for word in words.split("+"):
            plain = re.sub(r"[\s-]+", "_", word.strip().lower())
            name = plain if plain in self.weights else _TYPE_OF.get(plain)
            if name is None:
                return None
            found.append(name)
        return tuple(dict.fromkeys(found))

    def scale(self, rating: Floats) -> tuple[float, float]:
        """The ends of the scale that ratings are of. rating: [n], at least one."""
        least, most = float(rating.min()), float(rating.max())
        highest = next(s for s in _SCALES if max(most, -least) <= s)
        lowest = -highest if least < 0 else 1.0 if highest in (5.0, 10.0) and least >= 1 else 0.0
        ends = (lowest if self.lowest is None else self.lowest, highest if self.highest is None else self.highest)
        if not ends[0] < ends[1]:
            raise DataError(f"ratings go from {ends[0]:g} to {ends[1]:g}; expected events.rating_lowest below _highest")
        return ends


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """What each row of a block is. type: text, null for a play of which nothing more is said. rating: [n] or NaN, still
    to be weighed. weight: [n] without the rating, NaN where `type` is null and no weight is given. play, skip: [n].
    bad: {reason: [n]}, rows that cannot be read."""

    type: pa.Array
    rating: Floats
    weight: Floats
    play: Bools
    skip: Bools
    bad: dict[str, Bools]


def kinds(columns: Mapping[str, pa.ChunkedArray], rule: Worth, listened: Bools, skipped: Bools) -> Kinds:
    """What the rows of a block are, by `type`, `rating`, `value`, `liked` and `weight`.

    listened: [n], rows that say how long or whether they were listened to: such a row with a rating is a play too.
    skipped: [n], rows that say that they were skipped.
    """
    n, bad = len(listened), _Bad()
    spoken, code, known = _words(columns, n, rule)
    bad.add(UNKNOWN, ~known)
    has = {name: np.array([name in parts for parts in spoken], dtype=np.bool_)[code] for name in (PLAY, SKIP, RATING)}
    rating, turned = _values(columns, n, has, code, spoken, bad)
    rated = ~np.isnan(rating)
    said = "type" in columns
    silent = ~read.present(read.text(columns["type"])) if said else np.ones(n, dtype=np.bool_)
    for outside, end in (
        (rating < _or(rule.lowest, -np.inf), rule.lowest),
        (rating > _or(rule.highest, np.inf), rule.highest),
    ):
        bad.add(f"rating is outside its scale, which ends at {end} (settings)", outside)
    play = (has[PLAY] | has[SKIP]) & ~(silent & rated & ~listened)
    liked = np.zeros(n, dtype=np.bool_)
    if "liked" in columns:
        truth, wrong = read.truths(columns["liked"])
        liked = read.filled(truth)
        bad.add("liked is neither true nor false", wrong)

    skip = has[SKIP] | (skipped & play)
    given = _given(columns, n, bad)
    there = ~np.isnan(given)
    key = ((((code * 2 + turned) * 2 + play) * 2 + rated) * 2 + liked) * 2 + there
    distinct, where = np.unique(key, return_inverse=True)
    where = where.reshape(-1)
    parts = [_parts(spoken[key >> 5], *(bool(key >> bit & 1) for bit in (4, 3, 2, 1, 0))) for key in distinct.tolist()]
    names = pa.array([None if one == [PLAY] else "+".join(one) for one in parts], pa.string()).take(pa.array(where))
    signal = np.array([sum(rule.weight(p) for p in one if p not in (PLAY, RATING, GIVEN)) for one in parts] or [0.0])
    plain = np.array([one == [PLAY] for one in parts] or [True])
    weight = np.where(play & ~skip, 1.0, 0.0) + signal[where]
    weight[plain[where]] = np.nan
    weight = np.where(there, np.where(skip, 0.0, given), weight)
    rating = np.where(there, np.nan, rating)
    return Kinds(names, rating, weight, play, skip, bad.reasons)


def _given(columns: Mapping[str, pa.ChunkedArray], n: int, bad: _Bad) -> Floats:
    """The weight that the file says, NaN where it says none."""
    if "weight" not in columns:
        return np.full(n, np.nan)
    given, wrong = read.numbers(columns["weight"])
    bad.add("weight is not a number", wrong)
    bad.add(f"weight is beyond {LARGEST:g} plays", np.abs(np.nan_to_num(given)) > LARGEST)
    return given


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


class _Bad:
    def __init__(self) -> None:
        self.reasons: dict[str, Bools] = {}

    def add(self, reason: str, where: Bools) -> None:
        self.reasons[reason] = where


def _words(columns: Mapping[str, pa.ChunkedArray], n: int, rule: Worth) -> tuple[list[tuple[str, ...]], Ints, Bools]:
    """The types of each distinct cell, the cell of each row [n], and whether its types are known [n]."""
    if "type" not in columns:
        return [(PLAY,)], np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_)
    encoded = read.text(columns["type"]).dictionary_encode()
    parts = [rule.parts(words) for words in (*encoded.dictionary.to_pylist(), None)]
    code = pc.fill_null(encoded.indices, len(parts) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return [one or (PLAY,) for one in parts], code, np.array([one is not None for one in parts])[code]


def _values(
    columns: Mapping[str, pa.ChunkedArray],
    n: int,
    has: Mapping[str, Bools],
    code: Ints,
    spoken: list[tuple[str, ...]],
    bad: _Bad,
) -> tuple[Floats, Bools]:
    """The rating of each row, and where a negative value makes a like a dislike, or the other way round."""
    rating, turned, is_rating = np.full(n, np.nan), np.zeros(n, dtype=np.bool_), has[RATING]
    if "rating" in columns:
        rating, wrong = read.numbers(columns["rating"])
        bad.add("rating is not a number", wrong)
    if "value" in columns and "type" in columns:  # without a type it may be anything
        value, wrong = _as_numbers(columns["value"])
        bad.add("value is not a number, of a rating", wrong & is_rating)
        rating = np.where(np.isnan(rating) & is_rating, value, rating)
        signal = ~is_rating & ~has[PLAY] & ~has[SKIP]
        turned = signal & (value < 0)
        opposite = np.array([all(part in _OPPOSITE for part in parts) for parts in spoken], dtype=np.bool_)[code]
        bad.add("a signal of value 0: taken back", signal & (value == 0))
        bad.add("a signal of negative value that has no opposite", turned & ~opposite)
    bad.add("a rating without a value", is_rating & np.isnan(rating))
    bad.add(f"rating is beyond {HIGHEST:g}: no scale that is known", np.abs(np.nan_to_num(rating)) > HIGHEST)
    return rating, turned


def _as_numbers(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """Numbers, and true and false as 1 and 0."""
    value, wrong = read.numbers(column)
    if wrong.any():
        truth, neither = read.truths(column)
        as_number = read.one_chunk(truth).cast(pa.float64()).to_numpy(zero_copy_only=False)
        value, wrong = np.where(wrong & ~neither, as_number, value), wrong & neither
    return value, wrong


def _parts(spoken: tuple[str, ...], turned: bool, play: bool, rated: bool, liked: bool, given: bool) -> list[str]:
    """The types of a row as they are stored."""
    found = {_OPPOSITE.get(name, name) if turned else name for name in spoken if name not in (PLAY, SKIP)}
    found |= {name for name, there in ((RATING, rated), (LIKE, liked), (GIVEN, given)) if there}
    return [PLAY] * play + sorted(found)


def told(type_code: Ints, types: list[str], rating: Floats, rule: Worth) -> tuple[list[str], Floats]:
    """What is said of the rows that are more or less than plays, and what each rating adds, [n], 0 without one.

    type_code: [n] into `types`, -1 for a play. rating: [n] or NaN.
    """
    count = np.bincount(type_code[type_code >= 0], minlength=len(types)).tolist()
    adds = np.zeros(len(rating))
    signals: dict[str, int] = {}
    for name, rows in zip(types, count, strict=True):
        for part in name.split("+"):
            if part not in (PLAY, RATING) and (part == GIVEN or GIVEN not in name.split("+")) and rows:
                signals[part] = signals.get(part, 0) + rows
    by_file = signals.pop(GIVEN, 0)
    lines = [f"{rows:,} x {name}, {rule.weight(name):+g} each" for name, rows in signals.items()]
    lines += [f"{by_file:,} rows by the weight that the file gives them"] if by_file else []
    known = np.flatnonzero(~np.isnan(rating))
    if len(known):
        lowest, highest = rule.scale(rating[known])
        full = rule.weight(RATING)
        adds[known] = full * np.clip(2 * (rating[known] - lowest) / (highest - lowest) - 1, -1, 1)
        lines.append(
            f"{len(known):,} ratings on a scale of {lowest:g} to {highest:g}, counted from {-full:+g} to {full:+g}"
        )
    return lines, adds
