"""Deezer's carousel: 862 playlists, listeners, and the truth about them.

Carousel Personalization in Music Streaming Apps with Contextual Bandits (Bendada, Salha and Bontempelli, RecSys 2020).
The files are read from where the user has them and are no part of this package: playlist_features.csv (a weight vector
and a bias a playlist) and user_features.csv, or user_features_small.csv with the nine listeners that come with it.
The truth is P(listener x streams playlist i | seen) = sigmoid(theta_i . [x, 1]). A listener reads from the left and
stops at the first stream, so a page earns 1 - product of (1 - p).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from scipy.special import expit

from bart.errors import DataError
from bart.types import Bools, Floats, Ints

SLOTS, INITIAL = 12, 3
_CHUNK = 4_000  # listeners scored at once
_ALIKE = 0.73  # mean cosine of two of the nine published listeners, who are of one segment


@dataclass(frozen=True, eq=False)
class CarouselEnvironment:
    """Listeners, cards and the truth about them.

    listener: [n, d]. segment: [n] int. theta: [cards, d], bias: [cards]. given: how many of the listeners come from the
    file; the others are synthesised. slots: cards on a page; initial: of them on screen before one swipes.
    """

    listener: Floats
    segment: Ints
    theta: Floats
    bias: Floats
    given: int = 0
    slots: int = SLOTS
    initial: int = INITIAL

    def __post_init__(self) -> None:
        if self.listener.ndim != 2 or self.theta.ndim != 2 or self.listener.shape[1] != self.theta.shape[1]:
            raise ValueError(
                f"listener {self.listener.shape} and theta {self.theta.shape} must be [n, d] and [cards, d]"
            )
        if self.segment.shape != (len(self.listener),) or self.bias.shape != (len(self.theta),):
            raise ValueError("segment must have one entry a listener and bias one a card")
        if len(self.listener) == 0 or self.segment.min() < 0:
            raise ValueError("there must be at least one listener, and segments must be at least 0")
        if not 0 < self.initial <= self.slots <= self.n_cards:
            raise ValueError(
                f"initial {self.initial}, slots {self.slots}, cards {self.n_cards}; expected 0 < initial <= slots <="
                " cards"
            )

    @property
    def n_cards(self) -> int:
        return len(self.theta)

    @cached_property
    def x(self) -> Floats:
        """[n, d + 1] listeners, with 1 in the last column."""
        return np.column_stack([self.listener, np.ones(len(self.listener))])

    def probability(self, listener: Ints) -> Floats:
        """[m, cards] P(stream | seen)."""
        return np.asarray(expit(self.listener[listener] @ self.theta.T + self.bias))

    def respond(self, listener: Ints, shown: Ints, u: Floats) -> tuple[Bools, Floats]:
        """What happens on pages: streamed [m, slots], at most once a page; and the expected streams [m] of each.

        shown: [m, slots] cards. u: [m, slots] uniform; the same chance for whatever card stands there.
        """
        from simulator.datasets.carousel.kernels import respond

        streamed = np.empty(shown.shape, dtype=np.bool_)
        value = np.empty(len(shown))
        respond(self.listener, self.theta, self.bias, listener, shown, u, streamed, value)
        return streamed, value

    @cached_property
    def best_value(self) -> Floats:
        """[n] expected streams of each listener's best page."""
        out = np.empty(len(self.listener))
        for first in range(0, len(out), _CHUNK):
            who = np.arange(first, min(first + _CHUNK, len(out)))
            logit = self.listener[who] @ self.theta.T + self.bias
            top = np.partition(logit, self.n_cards - self.slots, axis=1)[:, self.n_cards - self.slots :]
            out[who] = 1 - np.prod(expit(-top), axis=1)
        return out

    @cached_property
    def segment_value(self) -> Floats:
        """[n] expected streams of each listener where all of a segment get its twelve cards of the highest mean."""
        total = np.zeros((int(self.segment.max()) + 1, self.n_cards))
        chunks = [np.arange(i, min(i + _CHUNK, len(self.segment))) for i in range(0, len(self.segment), _CHUNK)]
        for who in chunks:
            np.add.at(total, self.segment[who], self.probability(who))
        best = np.argsort(-total, axis=1, kind="stable")[:, : self.slots]
        out = np.empty(len(self.segment))
        for who in chunks:
            p = np.take_along_axis(self.probability(who), best[self.segment[who]], axis=1)
            out[who] = 1 - np.prod(1 - p, axis=1)
        return out

    def random_value(self, listener: Ints) -> Floats:
        """[m] expected streams of a page drawn at random, in closed form.

        1 - mean over all sets of `slots` cards of product (1 - p), by the recursion of elementary symmetric means.
        """
        none = np.zeros((self.slots + 1, len(listener)))  # [j]: mean over sets of j cards
        none[0] = 1.0
        size = np.arange(1, self.slots + 1)[:, None]
        for n, miss in enumerate((1 - self.probability(listener)).T, start=1):
            share = np.minimum(size / n, 1.0)  # of the sets with the newest card among them
            none[1:] = (1 - share) * none[1:] + share * miss * none[:-1]
        return np.asarray(1 - none[-1])


def load_carousel(
    folder: Path, rng: np.random.Generator, n_listeners: int = 50_000, n_segments: int = 100
) -> CarouselEnvironment:
    """The environment of the files in `folder`, with at least `n_listeners` listeners.

    user_features.csv is read where it is there, else user_features_small.csv. Listeners that are missing are
    synthesised (`synthesise`). Raises DataError where a file is missing or has other columns.
    """
    folder = Path(folder)
    cards = _table(folder / "playlist_features.csv")
    whole = folder / "user_features.csv"
    file = whole if whole.is_file() else folder / "user_features_small.csv"
    people = _table(file)
    if "segment" not in people.column_names:
        raise DataError(f"{file} has no column segment; expected segment, dim_0, dim_1, ...")
    segment = people["segment"].to_numpy().astype(np.int64)
    listener = _matrix(file, people.drop_columns(["segment"]))
    weight = _matrix(folder / "playlist_features.csv", cards)  # the bias is its last column
    if weight.shape[1] != listener.shape[1] + 1:
        raise DataError(
            f"{folder} has listeners of {listener.shape[1]} and playlists of {weight.shape[1]} columns; expected one"
            " more, the bias, for playlists"
        )
    given = len(listener)
    if n_listeners > given:
        listener, segment = synthesise(listener, segment, n_listeners, n_segments, rng)
    theta, bias = np.ascontiguousarray(weight[:, :-1]), np.ascontiguousarray(weight[:, -1])
    return CarouselEnvironment(listener, segment, theta, bias, given)


def synthesise(
    listener: Floats, segment: Ints, n_listeners: int, n_segments: int, rng: np.random.Generator
) -> tuple[Floats, Ints]:
    """The listeners given and new ones after them: [n_listeners, d] and their segments [n_listeners].

    Norms are drawn from a normal with mean and deviation of the given ones. Directions: a segment has a centre,
    uniform on the sphere (the mean of the given listeners for segments that have any), and its listeners stand around
    it so that two of them have a mean cosine of .73, as the nine published ones do. How real segments lie is not known.
    """
    n_new, d = n_listeners - len(listener), listener.shape[1]
    norm = np.linalg.norm(listener, axis=1)
    centre = rng.normal(size=(max(n_segments, int(segment.max()) + 1), d))
    for s in np.unique(segment):
        centre[s] = listener[segment == s].mean(axis=0)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    new = rng.integers(0, n_segments, size=n_new)
    way = np.sqrt(_ALIKE) * centre[new] + np.sqrt((1 - _ALIKE) / d) * rng.normal(size=(n_new, d))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    spread = norm.std() if len(norm) > 1 else 0.0
    length = np.maximum(rng.normal(norm.mean(), spread, size=n_new), 0.1 * norm.mean())
    return np.concatenate([listener, length[:, None] * way]), np.concatenate([segment, new])


def synthetic_carousel(
    rng: np.random.Generator,
    n_listeners: int = 50_000,
    n_cards: int = 862,
    dimension: int = 96,
    n_segments: int = 100,
) -> CarouselEnvironment:
    """An environment with nothing of the data in it, of the same dimensions and about the same stream rates."""
    first = rng.normal(size=(1, dimension))
    seed = 12.8 * first / np.linalg.norm(first) * (1 + 0.08 * np.array([[-1.0], [1.0]]))
    listener, segment = synthesise(seed, np.zeros(2, np.int64), n_listeners, n_segments, rng)
    length = 0.1 * rng.lognormal(0.0, 0.5, size=(n_cards, 1))
    way = rng.normal(size=(n_cards, dimension))
    theta = length * way / np.linalg.norm(way, axis=1, keepdims=True)
    return CarouselEnvironment(listener, segment, theta, rng.normal(-5.4, 0.7, size=n_cards))


def _table(file: Path) -> pa.Table:
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected playlist_features.csv and user_features(_small).csv")
    try:
        return csv.read_csv(file)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} is not a CSV file of numbers: {str(error).splitlines()[0]}") from None


def _matrix(file: Path, table: pa.Table) -> Floats:
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)) or column.null_count:
            raise DataError(f"{file}: column {name} is not all numbers; expected one vector a line")
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{file} is empty; expected one vector a line")
    return np.column_stack([column.to_numpy().astype(np.float64) for column in table.columns])
