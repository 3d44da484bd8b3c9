"""Many pages in flat arrays, and the protocol of whoever scores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bart.types.arrays import Bools, Floats, Floats32, Ints, Strings
from bart.types.candidates import Candidates
from bart.types.context import Context
from bart.types.levels import CardFeatures


class PageScorer(Protocol):
    """P(reward | context, listener, explanation, card), position held at the first slot."""

    def score(self, context: Context, listener: Floats32, candidates: Candidates, *, user_id: str = "") -> Floats:
        """[n] float64 for the n candidates of one visit; `listener` is the vector [d] of `user_id`."""
        ...

    def score_batch(self, batch: PageBatch) -> Floats:
        """[n] float64 for all candidates of many logged pages; equal to `score` page by page."""
        ...


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
    How final scores came about (see `bart.page.final`): boost_factor, boost_add [N], relevance [b] (NaN without
    diversity); None where no page has it. features: of the N candidates as they were served, None where no page has
    any. vector: [items, d] of the item table that `item` counts in, None where it is
    not at hand.
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
    boost_factor: Floats | None = None
    boost_add: Floats | None = None
    relevance: Floats | None = None
    vector: Floats32 | None = None
    features: CardFeatures | None = None

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
        for name, size in (
            ("saved", (b, *shape[1:])),
            ("skipped", (b, *shape[1:])),
            *((name, (b,)) for name in ("account_age_d", "relevance")),
            *((name, (n,)) for name in ("boost_factor", "boost_add")),
        ):
            if getattr(self, name) is not None:
                expected[name] = size
        for name, of_name in expected.items():
            if getattr(self, name).shape != of_name:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; expected {of_name}")
        if self.features is not None and len(self.features) != n:
            raise ValueError(f"features are of {len(self.features)} candidates; expected {n}")

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
            if name == "vector":
                arrays[name] = next((value for value in values if value is not None), None)
                continue
            if name == "features":
                arrays[name] = _features(parts)
                continue
            if name in _NEUTRAL and any(value is not None for value in values):
                values = [_neutral(part, name) for part in parts]
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
        by_candidate = {"item", "shelf", "raw_score", "score", "boost_factor", "boost_add"}
        arrays: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if name in by_candidate:
                arrays[name] = value[flat]
            elif name == "features":
                arrays[name] = value.take(flat)
            elif name == "rule":
                arrays[name] = value[shelf_flat]
            elif name == "vector":
                arrays[name] = value
            elif name not in ("offset", "shelf_offset"):
                arrays[name] = value[pages]
        return PageBatch(**arrays, offset=offset, shelf_offset=shelf_offset)


_NEUTRAL = {"boost_factor": 1.0, "boost_add": 0.0, "relevance": np.nan}  # of pages that nothing was done to


def _neutral(part: PageBatch, name: str) -> Floats:
    value: Floats | None = getattr(part, name)
    size = len(part) if name == "relevance" else len(part.item)
    return np.full(size, _NEUTRAL[name]) if value is None else value


def _features(parts: Sequence[PageBatch]) -> CardFeatures | None:
    if all(part.features is None for part in parts):
        return None
    return CardFeatures.concat([part.features or CardFeatures.unknown(len(part.item)) for part in parts])


def _ragged_take(offset: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Flat positions of the given rows of a ragged array, and their new offsets."""
    size = np.diff(offset)[rows]
    new = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    flat = np.arange(new[-1]) - np.repeat(new[:-1], size) + np.repeat(offset[rows], size)
    return flat.astype(np.int64), new
