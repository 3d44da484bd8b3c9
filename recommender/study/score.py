"""How well a run's shelves find what its listeners played next, against what is obvious: rolling origins.

At several cut dates every shelf, and simple lists beside it, are made of what was known by then, and compared with what
each listener played in the days after: known items that came again (repeats) and items that they had never played
(first plays) apart. Held-out listening tells what was played without these pages. It has no causal value: an item that
would have been played anyway counts, one that a page would have brought does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bart.errors import DataError
from bart.types import Floats, Ints, ItemTable
from recommender.shelves.rules import ShelfRule
from recommender.shelves.tables import daypart_of
from recommender.study.held_out import DAY_S, Origin, Plays, Visit, cut_dates, origin
from recommender.vectors.sentences import Sentences

NO_CAUSAL_VALUE = (
    "Held-out listening has no causal value: it tells what was played without these shelves. What a page earns is told "
    "by pages that were shown (bart evaluate)."
)
MEASURES = ("played", "recall", "ndcg", "novelty")
REPEATS, FIRST = "repeats", "first plays"
_HALF_LIVES_D = (30.0, 7.0, 90.0, 2.0, 365.0, 0.5)  # of equal ones the first
_SAME_PART = (1.0, 2.0, 5.0)  # what a play at the same time of day counts
_LAST = 20  # plays whose mean is the vector of "last 20"


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """cuts: dates that are judged, after one to tune on. horizon_d: days after a cut that count. cards: of a row that
    are judged. rows: of a page. listeners: at most, a cut.
    """

    cuts: int = 4
    horizon_d: float = 30.0
    cards: int = 10
    rows: int = 6
    listeners: int = 500

    def __post_init__(self) -> None:
        for name in ("cuts", "horizon_d", "cards", "rows", "listeners"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True, slots=True)
class Tuned:
    """Decayed counts: days after which a play counts half, and what one at the same time of day counts."""

    half_life_d: float
    same_part: float


def score_run(
    events: pa.Table,
    items: ItemTable,
    playlists: Sentences | None,
    rules: Mapping[str, ShelfRule],
    config: ScoreConfig,
    rng: np.random.Generator,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """{"lists": [{"kind", "list", "listeners", measure: [mean, half of the 95 % interval]}], ...} as JSON can hold it.

    kind: repeats, first plays or page. The interval is None for one listener. Raises DataError where no listener played
    before and after a cut.
    """
    plays = Plays.of(events, items.row_of)
    dates, horizon_s = cut_dates(plays, config.cuts, config.horizon_d)
    found: dict[tuple[str, str], list[tuple[str, Floats]]] = {}
    tuned = Tuned(30.0, 1.0)
    visits = 0
    for number, at_s in enumerate(dates.tolist()):
        made = origin(events, plays, items, playlists, rules, at_s, horizon_s, config.listeners, rng.spawn(1)[0])
        if number == 0:
            tuned = _tune(made, config.cards)
        else:
            visits += len(made.visits)
            _judge(made, tuned, config, rng.spawn(1)[0], found)
        if on_progress is not None:
            on_progress(number + 1, len(dates), f"{len(made.visits):,} listeners")
    if not found:
        raise DataError("no listener played before and after a cut date; nothing can be scored")
    return {
        "cuts": [int(at_s) for at_s in dates[1:]], "tuned_at": int(dates[0]), "horizon_d": horizon_s / DAY_S,
        "visits": visits, "half_life_d": tuned.half_life_d, "same_part_of_day": tuned.same_part,
        "cards": config.cards, "rows": config.rows, "says": NO_CAUSAL_VALUE,
        "lists": [_line(kind, name, values) for (kind, name), values in found.items()],
    }  # fmt: skip


def decayed_counts(visit: Visit, tuned: Tuned) -> tuple[Ints, Floats]:
    """Rows that the listener knows, ascending, and their plays, older ones and those of other hours counting less."""
    weight = 0.5 ** ((visit.context.at.timestamp() - visit.at_s) / (tuned.half_life_d * DAY_S))
    here = daypart_of(visit.context.hour, visit.context.weekday)
    weight = weight * np.where(visit.part == here, tuned.same_part, 1.0)
    count = np.bincount(np.searchsorted(visit.known, visit.row), weight, minlength=len(visit.known))
    return visit.known, count.astype(np.float64)


def _tune(made: Origin, cards: int) -> Tuned:
    """What finds most repeats at the first cut."""
    best, tuned = -1.0, Tuned(30.0, 1.0)
    for one in (Tuned(half, same) for half in _HALF_LIVES_D for same in _SAME_PART):
        values = []
        for visit in made.visits:
            row, count = decayed_counts(visit, one)
            values.append(_measures(_top(row, count, cards), np.intersect1d(visit.later, visit.known), made, cards)[2])
        value = float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
        if value > best:
            best, tuned = value, one
    return tuned


def _judge(
    made: Origin, tuned: Tuned, config: ScoreConfig, rng: np.random.Generator, found: dict[Any, list[Any]]
) -> None:
    """Adds the measures of every list of every visit to `found`."""
    for visit in made.visits:
        again = np.intersect1d(visit.later, visit.known)
        wanted = {REPEATS: again, FIRST: np.setdiff1d(visit.later, again)}
        heard = np.zeros(len(made.items), dtype=bool)
        heard[visit.known] = True
        candidates = made.source.candidates(visit.listener, visit.context, rng)
        shelves: dict[str, Ints] = {}
        page: list[Ints] = []
        for number, shelf in enumerate(candidates.shelves):
            rows = candidates.item[candidates.shelf == number]
            page.append(rows[: config.cards])
            shelves.setdefault(shelf.rule, rows)  # of several shelves of a rule the first
        row, count = decayed_counts(visit, tuned)
        last = made.items.vector @ made.items.vector[visit.row[-_LAST:]].sum(axis=0)
        popular = made.count + made.items.popularity  # ties by what was always popular
        everything = np.arange(len(made.items))
        counts = np.zeros(len(everything))
        counts[row] = count
        simple = {"decayed counts": counts, "popularity": popular, "last 20, cosine": last}
        for kind, target in wanted.items():
            if not len(target):
                continue
            here = heard if kind == REPEATS else ~heard
            lists = {f"shelf {rule}": rows[here[rows]] for rule, rows in shelves.items()}
            lists |= {n: _top(everything[here], s[here], config.cards) for n, s in simple.items() if s[here].any()}
            for name, rows in lists.items():
                if len(rows):
                    values = _measures(rows[: config.cards], target, made, config.cards)
                    found.setdefault((kind, name), []).append((visit.listener.user_id, values))
        size = config.rows * config.cards
        shown = np.concatenate([np.empty(0, np.int64), *page[: config.rows]])
        pages = {"rules, in their order": shown} | {n: _top(everything, s, size) for n, s in simple.items()}
        for name, rows in pages.items():
            if len(rows):
                values = _measures(rows, visit.later, made, size)
                found.setdefault(("page", name), []).append((visit.listener.user_id, values))


def _top(row: Ints, value: Floats, n: int) -> Ints:
    """The n rows of highest positive value, best first."""
    order = np.argsort(-value, kind="stable")[:n]
    return row[order[value[order] > 0]]


def _measures(cards: Ints, wanted: Ints, made: Origin, k: int) -> Floats:
    """Share of the cards that were played, recall among as many as could be found, NDCG, and novelty: bits of a card's
    rarity. NaN where nothing was wanted, or no card is there.
    """
    if not len(wanted) or not len(cards):
        return np.full(len(MEASURES), np.nan if not len(wanted) else 0.0)
    hit = np.isin(cards, wanted)
    gain = 1 / np.log2(np.arange(2, k + 2))
    most = min(len(wanted), k)
    share = (made.count[cards] + 1) / (made.count.sum() + len(made.count))
    ndcg = gain[: len(cards)][hit].sum() / gain[:most].sum()
    return np.array([hit.mean(), hit.sum() / most, ndcg, -np.log2(share).mean()])


def _line(kind: str, name: str, values: list[tuple[str, Floats]]) -> dict[str, Any]:
    """Means over listeners of their means over cuts, with intervals."""
    user, where = np.unique(np.array([u for u, _ in values], dtype=object), return_inverse=True)
    table = np.stack([v for _, v in values])
    mean = np.stack([np.bincount(where, column) / np.bincount(where) for column in table.T])  # [measures, listeners]
    half = 1.96 * mean.std(axis=1, ddof=1) / np.sqrt(len(user)) if len(user) > 1 else [None] * len(mean)
    told = {
        m: [float(v), None if h is None else float(h)] for m, v, h in zip(MEASURES, mean.mean(1), half, strict=True)
    }
    return {"kind": kind, "list": name, "listeners": len(user), "visits": len(values), **told}
