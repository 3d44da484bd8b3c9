"""Small worlds of page browsing with a known truth, apart from the simulator, for studies of page estimators.

12 shelves x 30 cards, page 6 x 6. The logging model is mediocre (epsilon 0.2), the target's better (epsilon 0.05).
W1: position-only abandonment, several streams. W2: stops at the first stream. W3: rows are abandoned depending on
success, trust 0.93^column. W4: as W1, but listeners differ in patience, which no estimator here knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.ope.records.pages import LoggedPages
from bart.ranking.batch import batch_rank, min_rank
from bart.types import Floats, Ints


@dataclass(frozen=True)
class World:
    """column_hazard, row_hazard: going on without / with a stream. column_trust, row_trust: factor a position.

    patience: standard deviation of a listener's logit of going on. visits: pages a listener.
    """

    column_hazard: tuple[float, float] = (0.88, 0.88)
    row_hazard: tuple[float, float] = (0.8, 0.8)
    column_trust: float = 1.0
    row_trust: float = 1.0
    patience: float = 0.0
    visits: int = 4
    shelves: int = 12
    cards: int = 30
    rows: int = 6
    columns: int = 6
    logged_epsilon: float = 0.2
    target_epsilon: float = 0.05
    logged_noise: float = 1.5
    target_noise: float = 0.6


WORLDS = {
    "W1": World(),
    "W2": World(column_hazard=(0.92, 0.0), row_hazard=(0.88, 0.0)),
    "W3": World(column_hazard=(0.9, 0.9), row_hazard=(0.6, 0.92), column_trust=0.93),
    "W4": World(patience=1.0),
}


@dataclass(frozen=True)
class Visits:
    """appeal, logged, target: [b, shelves, cards] true probability in the first slot and both models' logits."""

    appeal: Floats
    logged: Floats
    target: Floats
    user: Ints
    patience: Floats


def visits(world: World, n: int, rng: np.random.Generator) -> Visits:
    users = -(-n // world.visits)
    user = np.repeat(np.arange(users), world.visits)[:n]
    taste = rng.normal(0, 0.4, users)[user]
    shape = (n, world.shelves, world.cards)
    signal = rng.normal(0, 0.5, shape[:2])[:, :, None] + rng.normal(0, 0.8, shape)
    level = -2.2 + taste[:, None, None]
    spread = 0.25 + 0.64

    def model(noise: float) -> Floats:
        seen: Floats = signal + rng.normal(0, noise, shape)
        return -2.0 + seen * spread / (spread + noise**2)

    appeal = 1 / (1 + np.exp(-(level + signal)))
    patience = world.patience * rng.normal(0, 1, users)[user]
    return Visits(appeal, model(world.logged_noise), model(world.target_noise), user, patience)


def draw(world: World, score: Floats, epsilon: float, rng: np.random.Generator) -> tuple[Ints, Ints, Floats, Floats]:
    """Pages by an epsilon-greedy policy: row_shelf [b, rows], card within shelf [b, rows, columns], propensities."""
    b, s, m = score.shape
    shelf, p_shelf = batch_rank(score.max(axis=2).reshape(-1), np.arange(b + 1) * s, world.rows, epsilon, rng)
    rows = np.take_along_axis(score, shelf[:, :, None], axis=1).reshape(-1)
    card, p_card = batch_rank(rows, np.arange(b * world.rows + 1) * m, world.columns, epsilon, rng)
    shape = (b, world.rows, world.columns)
    return shelf, card.reshape(shape), p_shelf, p_card.reshape(shape)


def _going_on(world: World, patience: Floats) -> tuple[Floats, Floats]:
    """Hazards by listener: column [b, 2], row [b, 2]."""

    def shift(p: tuple[float, float]) -> Floats:
        with np.errstate(divide="ignore"):
            base = np.log(np.array(p)) - np.log1p(-np.array(p))
        return 1 / (1 + np.exp(-(base + patience[:, None])))

    return shift(world.column_hazard), shift(world.row_hazard)


def _shown(appeal: Floats, shelf: Ints, card: Ints) -> Floats:
    return np.take_along_axis(np.take_along_axis(appeal, shelf[:, :, None], axis=1), card, axis=2)


def _trusted(world: World, shown: Floats) -> Floats:
    trust = world.row_trust ** np.arange(world.rows)[:, None] * world.column_trust ** np.arange(world.columns)
    out: Floats = shown * trust
    return out


def page_value(world: World, p: Floats, patience: Floats) -> Floats:
    """Expected streams of pages whose slots are streamed with probability p [b, rows, columns] if seen: exact."""
    column, row = _going_on(world, patience)
    b = len(p)
    reach, value = np.ones(b), np.zeros(b)
    for r in range(world.rows):
        plain, streamed = np.ones(b), np.zeros(b)
        end_plain, end_streamed = np.zeros(b), np.zeros(b)
        for c in range(world.columns):
            q = p[:, r, c]
            value += reach * (plain + streamed) * q
            on = c + 1 < world.columns
            still = plain * (1 - q) * column[:, 0] * on
            now = (plain * q * column[:, 1] + streamed * (q * column[:, 1] + (1 - q) * column[:, 0])) * on
            end_plain += plain * (1 - q) - still
            end_streamed += plain * q + streamed - now
            plain, streamed = still, now
        reach = reach * (end_plain * row[:, 0] + end_streamed * row[:, 1])
    return value


def truth(
    world: World, rng: np.random.Generator, n: int = 100_000, epsilon: float | None = None
) -> tuple[float, float]:
    """Value of the target policy and its standard error, by exact values of drawn pages."""
    values, rate = [], world.target_epsilon if epsilon is None else epsilon
    for _ in range(max(1, n // 5_000)):
        v = visits(world, 5_000, rng)
        shelf, card, _, _ = draw(world, v.target, rate, rng)
        values.append(page_value(world, _trusted(world, _shown(v.appeal, shelf, card)), v.patience))
    pages = np.concatenate(values)
    by_user = pages[: len(pages) // world.visits * world.visits].reshape(-1, world.visits).mean(axis=1)
    return float(pages.mean()), float(by_user.std() / np.sqrt(len(by_user)))


def browse(world: World, p: Floats, patience: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """What listeners saw and streamed: two boolean arrays [b, rows, columns]."""
    column, row = _going_on(world, patience)
    b = len(p)
    seen, reward = np.zeros(p.shape, dtype=bool), np.zeros(p.shape, dtype=bool)
    here = np.ones(b, dtype=bool)
    for r in range(world.rows):
        in_row, any_stream = here.copy(), np.zeros(b, dtype=bool)
        for c in range(world.columns):
            seen[:, r, c] = in_row
            reward[:, r, c] = in_row & (rng.random(b) < p[:, r, c])
            any_stream |= reward[:, r, c]
            in_row &= rng.random(b) < np.where(reward[:, r, c], column[:, 1], column[:, 0])
        here &= rng.random(b) < np.where(any_stream, row[:, 1], row[:, 0])
    return seen, reward


def logged(world: World, n: int, rng: np.random.Generator, predictor: str = "good") -> LoggedPages:
    """A log of n pages under the logging policy, with the target's ranks. predictor: "good", "weak" or "both"."""
    return _log(world, visits(world, n, rng), rng, predictor)


def _ranks(score: Floats) -> dict[str, Ints]:
    """Ranks and ties of cards and shelves by [b, shelves, cards] scores."""
    b, s, m = score.shape
    out = {}
    for prefix, values, offset in (
        ("", score.reshape(-1), np.arange(b * s + 1) * m),
        ("shelf_", score.max(axis=2).reshape(-1), np.arange(b + 1) * s),
    ):
        rank, tie = min_rank(values, offset)
        out[f"{prefix}rank"], out[f"{prefix}tie"] = rank.astype(np.int32), tie.astype(np.int32)
    return out


def _log(world: World, v: Visits, rng: np.random.Generator, predictor: str) -> LoggedPages:
    n = len(v.user)
    shelf, card, p_shelf, p_card = draw(world, v.logged, world.logged_epsilon, rng)
    seen, reward = browse(world, _trusted(world, _shown(v.appeal, shelf, card)), v.patience, rng)
    s, m = world.shelves, world.cards
    ranks = {
        f"{name}_{who}": value
        for who, score in (("logged", v.logged), ("target", v.target))
        for name, value in _ranks(score).items()
    }
    q = {who: 1 / (1 + np.exp(-score.reshape(-1))) for who, score in (("logged", v.logged), ("target", v.target))}
    return LoggedPages(
        offset=np.arange(n + 1) * s * m,
        shelf=np.tile(np.repeat(np.arange(s, dtype=np.int32), m), n),
        **ranks,
        q_logged=q["logged"] if predictor in ("weak", "both") else None,
        q_target=q["target"] if predictor in ("good", "both") else None,
        shelf_offset=np.arange(n + 1) * s,
        shelf_epsilon_logged=np.full((n, world.rows), world.logged_epsilon),
        card_epsilon_logged=np.full((n, world.columns), world.logged_epsilon),
        shelf_epsilon_target=np.full((n, world.rows), world.target_epsilon),
        card_epsilon_target=np.full((n, world.columns), world.target_epsilon),
        user=v.user,
        row_shelf=shelf,
        order=shelf[:, :, None] * m + card,
        shelf_propensity=p_shelf,
        card_propensity=p_card,
        seen=seen,
        reward=reward.astype(np.float64),
    )
