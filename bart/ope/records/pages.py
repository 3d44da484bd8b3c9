"""Logged pages as off-policy evaluation reads them: ranks under both policies, choices, feedback.

An epsilon-greedy policy knows cards and shelves only by their rank, so ranks, sizes of ties and exploration rates hold
all that propensities and marginals need. Scores stay outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from bart.types import Bools, Floats, Ints

Ranks: TypeAlias = NDArray[np.int32]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class LoggedPages:
    """Pages of a logging policy, with what an evaluation policy would have preferred on the same candidates.

    b pages of at most rows x columns, N candidates and S shelves in all.
    Candidates of page i: offset[i]:offset[i + 1]. shelf: [N] number of the candidate's shelf within its page, from 0,
    ascending without gaps. rank_logged, rank_target: [N] how many cards of the same shelf score strictly higher under
    either policy; tie_logged, tie_target: [N] how many score the same, itself included. q_logged, q_target: [N]
    predicted reward in [0, 1] of the card if it is seen in the first slot, by the model of either policy, or None.
    Shelves of page i: shelf_offset[i]:shelf_offset[i + 1], ranks and ties in the same way [S].
    Exploration rates: shelf_epsilon_* [b, rows], card_epsilon_* [b, columns]; NaN where the page asked for fewer.
    user: [b] code of the listener. row_shelf: [b, rows] shelf number, order: [b, rows, columns] candidate number within
    the page; -1 where nothing stands. shelf_propensity [b, rows], card_propensity [b, rows, columns]: as recorded.
    seen: [b, rows, columns]. reward: [b, rows, columns] in [0, 1], 0 where not seen. left_out: pages of the log that
    are not here, by reason. fits: what estimators fitted to this record, so that they share it.
    Of pages with pins (see `bart.ope.records.pins`), None without: held [b, rows] pinned slots of each row, column
    [b, rows, columns] in which each draw stood, pinned_reward [b] what the pinned cards earned.
    Of pages whose propensities do not follow from ranks and rates (shelves that share items, policies that are not
    epsilon-greedy), None without: shelf_target [b, rows] and card_target [b, rows, columns], the evaluation policy's
    conditional propensities of the choices, NaN on other pages; the logging policy's are those recorded.
    cautions: what keeps every estimate on this record from being conclusive; said first.
    log: what another record of the same pages `kept` about the log, whatever policy it is for.
    Raises ValueError for any array of another shape or range, and for an empty log.
    """

    offset: Ints
    shelf: Ranks
    rank_logged: Ranks
    tie_logged: Ranks
    rank_target: Ranks
    tie_target: Ranks
    q_logged: Floats | None
    q_target: Floats | None
    shelf_offset: Ints
    shelf_rank_logged: Ranks
    shelf_tie_logged: Ranks
    shelf_rank_target: Ranks
    shelf_tie_target: Ranks
    shelf_epsilon_logged: Floats
    card_epsilon_logged: Floats
    shelf_epsilon_target: Floats
    card_epsilon_target: Floats
    user: Ints
    row_shelf: Ints
    order: Ints
    shelf_propensity: Floats
    card_propensity: Floats
    seen: Bools
    reward: Floats
    left_out: Mapping[str, int] = field(default_factory=dict)
    held: Ints | None = None
    column: Ints | None = None
    pinned_reward: Floats | None = None
    shelf_target: Floats | None = None
    card_target: Floats | None = None
    cautions: tuple[str, ...] = ()
    fits: dict[str, Any] = field(default_factory=dict, repr=False)
    log: InitVar[dict[str, Any] | None] = None
    _of_log: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self, log: dict[str, Any] | None) -> None:
        object.__setattr__(self, "_of_log", {} if log is None else log)
        if len(self.offset) < 2:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
            raise ValueError(f"no page is left to evaluate{f' ({reasons})' if reasons else ''}; expected at least one")
        _check_shapes(self)
        self.kept("checked", lambda: _check_log(self))
        _check_policy(self, "target")

    def __len__(self) -> int:
        return len(self.offset) - 1

    @property
    def rows(self) -> int:
        return int(self.order.shape[1])

    @property
    def columns(self) -> int:
        return int(self.order.shape[2])

    @property
    def drawn_reward(self) -> Floats:
        """Sum of rewards of the drawn cards of each page, [b]."""
        out: Floats = np.where(self.seen, self.reward, 0.0).sum(axis=(1, 2))
        return out

    @property
    def page_reward(self) -> Floats:
        """Sum of rewards of each page, [b], pinned cards included."""
        return self.drawn_reward if self.pinned_reward is None else self.drawn_reward + self.pinned_reward

    @property
    def irregular(self) -> Bools | None:
        """[b], pages whose propensities do not follow from ranks and rates; None where there is none."""
        if self.shelf_target is None:
            return None
        out: Bools = ~np.all(np.isnan(self.shelf_target), axis=1)
        return out

    def alike(self, kind: Literal["", "shelf_"]) -> bool:
        """Whether both policies draw cards, or shelves, from the same ranks with the same rates."""
        if kind == "shelf_":
            return (
                same(self.shelf_rank_logged, self.shelf_rank_target)
                and same(self.shelf_tie_logged, self.shelf_tie_target)
                and same(self.shelf_epsilon_logged, self.shelf_epsilon_target)
            )
        return (
            same(self.rank_logged, self.rank_target)
            and same(self.tie_logged, self.tie_target)
            and same(self.card_epsilon_logged, self.card_epsilon_target)
        )

    @property
    def is_logging(self) -> bool:
        """Whether the evaluation policy is the logging policy itself on every page."""
        found = self.alike("") and self.alike("shelf_")
        if found and self.irregular is not None and self.shelf_target is not None and self.card_target is not None:
            for recorded, target in (
                (self.shelf_propensity, self.shelf_target),
                (self.card_propensity, self.card_target),
            ):
                found = found and bool(((recorded == target) | np.isnan(target)).all())
        return found

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """What is the same for every policy that is judged on these pages: made once."""
        if name not in self._of_log:
            self._of_log[name] = make()
        found: T = self._of_log[name]
        return found

    def shelf_start(self) -> Ints:
        """[S + 1], candidates of shelf s are shelf_start[s]:shelf_start[s + 1] of the flat arrays."""
        return self.kept("shelf start", self._shelf_start)

    def _shelf_start(self) -> Ints:
        first = np.ones(len(self.shelf), dtype=bool)
        first[1:] = self.shelf[1:] != self.shelf[:-1]
        first[self.offset[:-1]] = True
        return np.concatenate([np.flatnonzero(first), [len(self.shelf)]]).astype(np.int64)


def same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether two arrays hold the same, NaN being itself; False where there is one alone."""
    if one is other:
        return True
    return one is not None and other is not None and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def take(data: LoggedPages, pages: Ints) -> tuple[LoggedPages, Ints]:
    """The record of some of the pages, ascending, without what was fitted to all; and which candidates they hold."""
    candidate, offset = _ragged(data.offset, pages)
    shelf, shelf_offset = _ragged(data.shelf_offset, pages)
    out: dict[str, Any] = {"offset": offset, "shelf_offset": shelf_offset}
    taken: dict[int, Any] = {}  # by array: what both policies share stays shared
    for f in fields(LoggedPages):
        value = getattr(data, f.name)
        if f.name in out or not isinstance(value, np.ndarray):
            continue
        of = candidate if f.name in _BY_CANDIDATE else shelf if f.name.startswith(_BY_SHELF) else pages
        out[f.name] = taken[id(value)] if id(value) in taken else taken.setdefault(id(value), value[of])
    return LoggedPages(**{"q_logged": None, "q_target": None, **out}, cautions=data.cautions), candidate


_BY_CANDIDATE = ("shelf", "rank_logged", "tie_logged", "rank_target", "tie_target", "q_logged", "q_target")
_BY_SHELF = ("shelf_rank_", "shelf_tie_")


def _ragged(offset: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Flat positions of some rows of a ragged array, and their new offsets."""
    size = np.diff(offset)[rows]
    new = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    return np.arange(new[-1]) + np.repeat(offset[rows] - new[:-1], size), new


# --------------------------------------------------------------------------------------------- what a record must be


def _check_log(data: LoggedPages) -> bool:
    """Raises ValueError with what is wrong with the log's side, where, and what was expected."""
    _check_policy(data, "logged")
    _check_values(data)
    _check_choices(data)
    return True


def _check_policy(data: LoggedPages, who: str) -> None:
    _check_ranks(data, who)
    _check_rates(data, who)


def _check_shapes(data: LoggedPages) -> None:
    b, n, s = len(data.offset) - 1, len(data.shelf), len(data.shelf_rank_logged)
    if data.order.ndim != 3:
        raise ValueError(f"order has shape {data.order.shape}; expected [pages, rows, columns]")
    rows, columns = data.order.shape[1:]
    for name, shape in (
        *((f"{what}_{who}", (n,)) for what in ("rank", "tie", "q") for who in ("logged", "target")),
        *((f"shelf_{what}_{who}", (s,)) for what in ("rank", "tie") for who in ("logged", "target")),
        *((f"shelf_epsilon_{who}", (b, rows)) for who in ("logged", "target")),
        *((f"card_epsilon_{who}", (b, columns)) for who in ("logged", "target")),
        ("shelf_offset", (b + 1,)),
        ("user", (b,)),
        ("row_shelf", (b, rows)),
        ("shelf_propensity", (b, rows)),
        *(
            (name, (b, rows, columns))
            for name in ("order", "card_propensity", "seen", "reward", "column", "card_target")
        ),
        *((name, (b, rows)) for name in ("held", "shelf_target")),
        ("pinned_reward", (b,)),
    ):
        value = getattr(data, name)
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} has shape {value.shape}; expected {shape}")
    for name, offset, end in (("offset", data.offset, n), ("shelf_offset", data.shelf_offset, s)):
        if offset[0] != 0 or offset[-1] != end or np.any(np.diff(offset) < 1):
            raise ValueError(f"{name} must rise from 0 to {end}, by at least 1 a page")


def _check_ranks(data: LoggedPages, who: str) -> None:
    start = data.shelf_start()
    shelves = len(data.shelf_rank_logged)
    first = data.shelf[start[:-1]]
    expected = np.arange(shelves) - np.repeat(data.shelf_offset[:-1], np.diff(data.shelf_offset))
    if len(start) - 1 != shelves or not np.array_equal(first, expected):
        raise ValueError(f"shelf must ascend without gaps from 0 within each page; expected {shelves} shelves in all")
    for prefix, count, cut in (("", np.diff(start), start), ("shelf_", np.diff(data.shelf_offset), data.shelf_offset)):
        rank, tie = getattr(data, f"{prefix}rank_{who}"), getattr(data, f"{prefix}tie_{who}")
        bad = (rank < 0) | (tie < 1)
        if bad.any() or np.any(np.maximum.reduceat(rank + tie, cut[:-1]) > count):
            size = np.repeat(count, count)
            at = int(np.flatnonzero(bad | (rank + tie > size))[0])
            raise ValueError(
                f"{prefix}rank_{who}[{at}] is {rank[at]} with {tie[at]} tied among {size[at]}; "
                f"expected rank >= 0, tie >= 1 and rank + tie <= {size[at]}"
            )


def _where(bad: Any) -> str:
    return ", ".join(str(int(i)) for i in np.argwhere(bad)[0])


def _check_rates(data: LoggedPages, who: str) -> None:
    for name in (f"shelf_epsilon_{who}", f"card_epsilon_{who}"):
        value = getattr(data, name)
        asked = ~np.isnan(value)
        bad = asked & ((value < 0) | (value > 1))
        bad[:, 1:] |= asked[:, 1:] & ~asked[:, :-1]
        bad[:, 0] |= ~asked[:, 0]
        if bad.any():
            raise ValueError(f"{name}[{_where(bad)}] is {value[bad][0]}; expected [0, 1], from the first position on")
    value = getattr(data, f"q_{who}")
    if value is not None:
        bad = ~((value >= 0) & (value <= 1))
        if bad.any():
            raise ValueError(f"q_{who}[{_where(bad)}] is {value[bad][0]}; expected a probability in [0, 1]")


def _check_values(data: LoggedPages) -> None:
    shown = data.order >= 0
    bad = data.seen & ~shown
    if bad.any():
        raise ValueError(f"seen[{_where(bad)}] is true where no card stands")
    bad = data.seen & ~((data.reward >= 0) & (data.reward <= 1))
    if bad.any():
        raise ValueError(f"reward[{_where(bad)}] is {data.reward[bad][0]}; expected [0, 1]")
    bad = ~data.seen & (data.reward != 0)
    if bad.any():
        raise ValueError(f"reward[{_where(bad)}] is {data.reward[bad][0]} on a card that was not seen; expected 0")
    for name, there in (("shelf_propensity", data.row_shelf >= 0), ("card_propensity", shown)):
        value = getattr(data, name)
        bad = there & ~((value > 0) & (value <= 1))
        if bad.any():
            raise ValueError(f"{name}[{_where(bad)}] is {value[bad][0]}; expected (0, 1]")


def _check_choices(data: LoggedPages) -> None:
    shown = data.order >= 0
    if np.any(data.order >= np.diff(data.offset)[:, None, None]):
        raise ValueError("order must be below the number of candidates of its page")
    flat = data.offset[:-1, None, None] + np.maximum(data.order, 0)
    stray = shown & (data.shelf[flat] != data.row_shelf[:, :, None])
    if stray.any():
        at = np.argwhere(stray)[0]
        raise ValueError(f"order[{at[0]}, {at[1]}, {at[2]}] stands in a row of another shelf")
    size = np.diff(data.shelf_start())
    rows_there = data.row_shelf >= 0
    shelf = data.shelf_offset[:-1, None] + np.maximum(data.row_shelf, 0)
    rows_asked = (~np.isnan(data.shelf_epsilon_logged)).sum(axis=1)
    columns_asked = (~np.isnan(data.card_epsilon_logged)).sum(axis=1)
    expected_rows = np.minimum(rows_asked, np.diff(data.shelf_offset))
    free = columns_asked[:, None] if data.held is None else columns_asked[:, None] - data.held
    in_row = np.where(rows_there, np.minimum(free, size[shelf]), 0)
    bad_rows = (rows_there != (np.arange(data.rows) < expected_rows[:, None])).any(axis=1)
    bad_cards = (shown != (np.arange(data.columns) < in_row[:, :, None])).any(axis=(1, 2))
    bad = bad_rows | bad_cards
    if data.irregular is not None:  # a card taken by one shelf leaves the others, which may then end early
        bad &= ~data.irregular
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"page {at} does not fill its slots from the first on; expected {expected_rows[at]} rows of at most "
            f"{columns_asked[at]} cards, as many as its shelves hold"
        )
    wide = np.sort(np.where(shown, data.order, -1 - np.arange(data.rows * data.columns).reshape(shown.shape[1:])))
    shelves = np.sort(np.where(rows_there, data.row_shelf, -1 - np.arange(data.rows)), axis=1)
    if np.any(wide[..., 1:] == wide[..., :-1]) or np.any(shelves[:, 1:] == shelves[:, :-1]):
        raise ValueError("a card or a shelf stands twice on one page; expected each once")
