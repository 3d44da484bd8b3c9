"""The policies of the carousel benchmark: random, by segment of listeners, and linear Thompson sampling.

Carousel Personalization in Music Streaming Apps with Contextual Bandits (RecSys 2020), section 3.3, whose names and
constants they keep. A policy ranks cards for a batch of listeners, then learns from what the batch saw. All listeners
of a segment share its counts; Thompson sampling still draws for each listener anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from scipy.special import betaincc, expit, ndtr

from bart.types import Bools, Floats, Ints

_BEYOND = 28  # how many cards of a listener should have draws in the tail that is looked at
_CHUNK = 2_000  # listeners scored at once


class CarouselPolicy(Protocol):
    """What the benchmark runs."""

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        """[m, slots] cards for each of the listeners [m], the best first."""

    def update(self, listener: Ints, shown: Ints, streamed: Bools, seen: Ints) -> None:
        """Learns from a batch: shown, streamed [m, slots], of which the first seen [m] cards count as seen."""


class Random:
    """Each listener gets cards at random."""

    def __init__(self, n_cards: int) -> None:
        self.order = np.arange(n_cards)[None]

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        m = len(listener)
        return _by_order(self.order, self.order * 0 + 1, np.zeros(m, np.int64), np.ones(m, np.bool_), slots, rng)

    def update(self, listener: Ints, shown: Ints, streamed: Bools, seen: Ints) -> None:
        """Nothing to learn."""


class BySegment:
    """Streams and displays counted by segment and card; subclasses rank by them.

    segment: [n] int, of every listener. success, display: [segments, cards].
    """

    def __init__(self, segment: Ints, n_cards: int) -> None:
        self.segment = segment
        n_segments = int(segment.max()) + 1
        self.success = np.zeros((n_segments, n_cards))
        self.display = np.zeros((n_segments, n_cards))

    def update(self, listener: Ints, shown: Ints, streamed: Bools, seen: Ints) -> None:
        among_seen = np.arange(shown.shape[1]) < seen[:, None]
        cell = self.segment[listener][:, None] * self.display.shape[1] + shown
        size = self.display.size
        self.display += np.bincount(cell[among_seen], minlength=size).reshape(self.display.shape)
        self.success += np.bincount(cell[among_seen & streamed], minlength=size).reshape(self.display.shape)

    def mean(self, unseen: float) -> Floats:
        """[segments, cards] observed stream rates, `unseen` where nothing was."""
        return np.where(self.display > 0, self.success / np.maximum(self.display, 1.0), unseen)


class ExploreThenCommit(BySegment):
    """The cards that have been seen less than `least` times first, the least seen of them before all; then by rate."""

    def __init__(self, segment: Ints, n_cards: int, least: int) -> None:
        super().__init__(segment, n_cards)
        self.least = least

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        missing = np.maximum(self.least - self.display, 0.0)
        # Rates lie in [0, 1], so what is missing (whole numbers) always comes first.
        return _by_score(2.0 * missing + self.mean(0.0), self.segment[listener], slots, rng)


class EpsilonGreedySegment(BySegment):
    """By observed rate, cards never seen first; with probability epsilon a listener gets cards at random."""

    def __init__(self, segment: Ints, n_cards: int, epsilon: float) -> None:
        super().__init__(segment, n_cards)
        self.epsilon = epsilon

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        at_random = rng.random(len(listener)) < self.epsilon
        return _by_score(self.mean(1.0), self.segment[listener], slots, rng, at_random)


class KlUcb(BySegment):
    """By the upper confidence bound of Bernoulli rates. Source: Garivier and Cappe (2011), with c = 0.

    t is the number of displays in the segment, as each segment is a bandit of its own; the published code takes that
    of all segments together.
    """

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        from simulator.datasets.carousel.kernels import kl_bounds

        bound = np.empty(self.display.shape)
        threshold = np.log(np.maximum(self.display.sum(axis=1), 1.0))
        kl_bounds(self.success, self.display, threshold, bound)
        return _by_score(bound, self.segment[listener], slots, rng)


class ThompsonSegment(BySegment):
    """By draws from Beta(alpha + streams, beta + displays - streams), anew for each listener and card."""

    def __init__(self, segment: Ints, n_cards: int, alpha: float, beta: float) -> None:
        if alpha < 1 or beta < 1:
            raise ValueError(f"the prior is Beta({alpha}, {beta}); expected both at least 1")
        super().__init__(segment, n_cards)
        self.alpha, self.beta = alpha, beta

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        from simulator.datasets.carousel.kernels import best_of_beta, beta_draws

        segment = self.segment[listener]
        present, group = np.unique(segment, return_inverse=True)
        a = self.alpha + self.success[present]
        b = self.beta + self.display[present] - self.success[present]
        typical = np.empty(a.shape)
        beta_draws(a, b, 3, _seed(rng), typical)
        least = np.ascontiguousarray(typical[:, min(max(_BEYOND, 2 * slots), a.shape[1]) - 1])
        member = np.argsort(group, kind="stable")
        offset = np.searchsorted(group[member], np.arange(len(present) + 1))
        out = np.empty((len(listener), slots), dtype=np.int64)
        best_of_beta(a, b, least, betaincc(a, b, least[:, None]), member, offset, _seed(rng), out)
        return out


class LinearThompson:
    """Bayesian logistic regression for each card on the listener's vector, weights drawn anew for each listener.

    Posterior of independent normal weights by Laplace's approximation. Source: Chapelle and Li (2011), algorithm 3.
    With independent weights the score of a card for a listener is normal, so it is drawn as one number: mean x . m and
    variance x^2 . (1 / q), instead of 97. x: [n, d + 1], the last column 1; bias: prior mean of its weight.
    """

    def __init__(self, x: Floats, n_cards: int, bias: float) -> None:
        self.x = x
        self.mean = np.zeros((n_cards, x.shape[1]))
        self.mean[:, -1] = bias
        self.precision = np.ones((n_cards, x.shape[1]))

    def rank(self, listener: Ints, slots: int, rng: np.random.Generator) -> Ints:
        from simulator.datasets.carousel.kernels import STEPS, best_of_normal

        tail = ndtr(-np.arange(8 * STEPS + 1) / STEPS)
        weight = np.ascontiguousarray(self.mean.T, dtype=np.float32)
        variance = np.ascontiguousarray(1 / self.precision.T, dtype=np.float32)
        out = np.empty((len(listener), slots), dtype=np.int64)
        for first in range(0, len(listener), _CHUNK):
            part = slice(first, first + _CHUNK)
            x = self.x[listener[part]].astype(np.float32)
            best_of_normal(x @ weight, np.sqrt((x * x) @ variance), tail, _seed(rng), out[part])
        return out

    def update(self, listener: Ints, shown: Ints, streamed: Bools, seen: Ints) -> None:
        among_seen = np.arange(shown.shape[1]) < seen[:, None]
        card = shown[among_seen]
        order = np.argsort(card, kind="stable")
        row = np.broadcast_to(listener[:, None], shown.shape)[among_seen][order]
        success = streamed[among_seen][order]
        cards, start = np.unique(card[order], return_index=True)
        for i, rows in zip(cards.tolist(), np.split(np.arange(len(row)), start[1:]), strict=True):
            x = self.x[row[rows]]
            self.mean[i] = posterior_mode(x, success[rows], self.mean[i], self.precision[i])
            p = expit(x @ self.mean[i])
            self.precision[i] += (p * (1 - p)) @ (x * x)


def posterior_mode(x: Floats, success: Bools, mean: Floats, precision: Floats) -> Floats:
    """[d] most likely weights of a logistic regression with independent normal priors, by Newton's method.

    x [n, d], success [n]; mean, precision [d] of the prior. Steps are halved where they would go too far.
    """

    def loss(w: Floats) -> float:
        margin = x @ w
        return float(np.logaddexp(0.0, np.where(success, -margin, margin)).sum() + precision @ (w - mean) ** 2 / 2)

    w = mean.copy()
    now = loss(w)
    for _ in range(30):
        p = expit(x @ w)
        slope = x.T @ (p - success) + precision * (w - mean)
        curve = (x.T * (p * (1 - p))) @ x
        curve[np.diag_indices_from(curve)] += precision
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (there := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        w = w - size * step
        gained, now = now - there, there
        if gained < 1e-9 * (1 + abs(now)):
            break
    return w


class Cards(Protocol):
    """What policies may know of an environment: who the listeners are, not what they like."""

    @property
    def n_cards(self) -> int: ...
    @property
    def segment(self) -> Ints: ...
    @property
    def x(self) -> Floats: ...


POLICIES: Mapping[str, Callable[[Cards], CarouselPolicy]] = {
    "random": lambda e: Random(e.n_cards),
    "etc-seg-explore": lambda e: ExploreThenCommit(e.segment, e.n_cards, least=100),
    "etc-seg-exploit": lambda e: ExploreThenCommit(e.segment, e.n_cards, least=20),
    "epsilon-greedy-explore": lambda e: EpsilonGreedySegment(e.segment, e.n_cards, epsilon=0.1),
    "epsilon-greedy-exploit": lambda e: EpsilonGreedySegment(e.segment, e.n_cards, epsilon=0.01),
    "kl-ucb-seg": lambda e: KlUcb(e.segment, e.n_cards),
    "ts-seg-naive": lambda e: ThompsonSegment(e.segment, e.n_cards, alpha=1, beta=1),
    "ts-seg-pessimistic": lambda e: ThompsonSegment(e.segment, e.n_cards, alpha=1, beta=99),
    "ts-lin-naive": lambda e: LinearThompson(e.x, e.n_cards, bias=0.0),
    "ts-lin-pessimistic": lambda e: LinearThompson(e.x, e.n_cards, bias=-5.0),
}


def _by_score(
    score: Floats, segment: Ints, slots: int, rng: np.random.Generator, at_random: Bools | None = None
) -> Ints:
    """[m, slots] the cards of the highest score [segments, cards] of each listener's segment, ties at random."""
    order = np.argsort(-score, axis=1, kind="stable")
    ranked = np.take_along_axis(score, order, axis=1)
    n_cards = score.shape[1]
    # Where the ties of each place end: the next place with another score, counted from behind.
    place = np.where(ranked[:, 1:] != ranked[:, :-1], np.arange(1, n_cards), n_cards)
    until = np.full(score.shape, n_cards)
    until[:, :-1] = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    if at_random is None:
        at_random = np.zeros(len(segment), dtype=np.bool_)
    return _by_order(order, until, segment, at_random, slots, rng)


def _by_order(order: Ints, until: Ints, segment: Ints, at_random: Bools, slots: int, rng: np.random.Generator) -> Ints:
    from simulator.datasets.carousel.kernels import best_of_ties

    out = np.empty((len(segment), slots), dtype=np.int64)
    best_of_ties(order, until, segment, at_random, _seed(rng), out)
    return out


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**63))
