"""Trains the encoder: a denoising autoencoder that also has to say what is played in the next week.

Groups of features are hidden at random, so that any subset gives a vector; some rows keep nothing but traits and picks,
as those of new listeners. Three linear decoders read the latent vector: the features as they were, means of the next
week's listening (content, factors, a sketch of artists), and which tracks of it were played rather than others drawn by
popularity^.75. Source: Fazelnia et al. 2025 (a denoising autoencoder, squared error, SELU); the decoders of what comes
later are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bart.errors import DataError
from bart.types import Floats, Floats32, Ints
from recommender.users.encoder import EncoderConfig, UserEncoder
from recommender.users.features import GROUP_NAMES, VECTORS, UserFeatures, item_sides
from recommender.users.scaling import Scaling
from recommender.users.snapshots import Later, Moments

SKETCH = 64  # random directions of artists: products of sketches are about products of artist profiles
LEAST = 3  # tracks of a week from which it says something
ALONE = ("onboarding", "country", "age")  # what a stranger may be known by
LIKENESS = {"later": 1.0, "country": 0.05, "onboarding": 2.0}  # what counts in the product of two vectors
Tick = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What the encoder learns from: value [n, width]; later, tracks of the next week; mean [n, t] of them.

    mean is NaN where the week says too little. side [items, s]: what is known of a track. popular [items]: chances to
    be drawn beside what was played.
    """

    value: Floats32
    later: Later
    mean: Floats32
    side: Floats32
    popular: Floats

    @classmethod
    def of(cls, features: UserFeatures, at: Moments, later: Later, plays: Floats, rng: np.random.Generator) -> Lessons:
        """plays [items]: by all, before the last of the moments' weeks."""
        side = item_sides(features.items, features.tables)
        artist = features.items.artists.first
        sketch = rng.standard_normal((len(features.items.artists.vocabulary) + 1, SKETCH)).astype(np.float32)
        sketch[-1] = 0  # of no artist
        every = np.concatenate([side, sketch[artist] / np.float32(np.sqrt(SKETCH))], axis=1)
        popular = plays**0.75
        return cls(at.value, later, _means(every, later), side, popular / max(popular.sum(), 1e-12))


def _means(side: Floats32, later: Later) -> Floats32:
    """[n, s] means over the tracks of each snapshot's later days, by the log of plays; NaN where there are few."""
    import scipy.sparse as sp

    weight = np.log1p(later.count)
    matrix = sp.csr_matrix((weight, later.row, later.offset), shape=(len(later), len(side)))
    total = np.asarray(matrix.sum(axis=1)).ravel()
    out: Floats32 = np.asarray(matrix @ side, dtype=np.float32) / np.maximum(total, 1e-9)[:, None].astype(np.float32)
    out[np.diff(later.offset) < LEAST] = np.nan
    return out


class Autoencoder(nn.Module):
    """x [b, inputs] to z [b, d], and z to features, later means and the logit of tracks."""

    def __init__(self, inputs: int, width: int, mean: int, side: int, config: EncoderConfig) -> None:
        super().__init__()
        d = config.dimension
        self.hidden = nn.Linear(inputs, config.hidden)
        self.latent = nn.Linear(config.hidden, d)
        self.skip = nn.Linear(inputs, d, bias=False)
        self.features = nn.Linear(d, width)
        self.mean = nn.Linear(d, mean)
        self.track = nn.Linear(side, d, bias=False)
        self.own = nn.Linear(side + 1, 1)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.latent(nn.functional.selu(self.hidden(x))) + self.skip(x)
        return z


def train_encoder(
    lessons: Lessons,
    features: UserFeatures,
    config: EncoderConfig,
    seed: int,
    on_progress: Tick | None = None,
) -> UserEncoder:
    """The encoder of a batch. Same lessons, same seed, same encoder. Raises DataError where nobody played anything."""
    if not np.isfinite(lessons.mean).any():
        raise DataError(f"no listener played {LEAST} tracks in a week after another; a user encoder cannot be trained")
    scaling = Scaling.of(lessons.value, features.slices)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x = torch.from_numpy(scaling.inputs(lessons.value))
        mean = _unit_means(lessons.mean)
        model = Autoencoder(x.shape[1], scaling.width, mean.shape[1], lessons.side.shape[1], config)
        _fit(model, x, mean, lessons, scaling, config, np.random.default_rng(seed), on_progress)
    return _serving(model, scaling, features, config, seed, x.numpy())


def _unit_means(value: Floats32) -> torch.Tensor:
    """[n, t] about zero and of unit variance on average, NaN where not known."""
    mean, deviation = np.nanmean(value, axis=0), np.sqrt(np.nanmean(np.nanvar(value, axis=0)))
    return torch.from_numpy(((value - mean) / max(float(deviation), 1e-9)).astype(np.float32))


def _fit(
    model: Autoencoder,
    x: torch.Tensor,
    mean: torch.Tensor,
    lessons: Lessons,
    scaling: Scaling,
    config: EncoderConfig,
    rng: np.random.Generator,
    on_progress: Tick | None,
) -> None:
    n, width = len(x), scaling.width
    group = torch.from_numpy(scaling.group_of())
    alone = np.array([name in ALONE for name in GROUP_NAMES])
    size = np.array([max(of.stop - of.start, 1) for of in scaling.slices.values()])
    share = np.array([1.0 if name in VECTORS else 0.2 for name in GROUP_NAMES])
    each = torch.from_numpy((share / size)[scaling.group_of()[:width]].astype(np.float32))  # a group counts as one
    side = torch.from_numpy(lessons.side)
    fame = torch.from_numpy(np.log(lessons.popular + 1e-7).astype(np.float32))[:, None]
    fame = (fame - fame.mean()) / fame.std().clamp_min(1e-6)
    draws = _Draws(lessons.later, lessons.popular)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.decay)
    steps = config.epochs * -(-n // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(config.epochs):
        total = 0.0
        for rows in np.array_split(rng.permutation(n), -(-n // config.batch)):
            own = torch.from_numpy(rows)
            keep = rng.random((len(rows), len(GROUP_NAMES))) >= config.masked
            keep[rng.random(len(rows)) < config.strangers] &= alone
            shown = torch.from_numpy(keep.astype(np.float32))[:, group]  # [b, inputs]
            noisy = x[own] * shown
            noise = torch.from_numpy(rng.standard_normal((len(rows), width), dtype=np.float32))
            noisy[:, :width] += config.noise * noise * (noisy[:, :width] != 0)
            z = model.encode(noisy)
            there = x[own][:, width:][:, group[:width]]
            rebuilt = (((model.features(z) - x[own][:, :width]) ** 2) * there * each).sum(dim=1).mean() / len(size)
            target = mean[own]
            known = torch.isfinite(target[:, 0])
            later = ((model.mean(z)[known] - target[known]) ** 2).mean() if known.any() else rebuilt * 0
            row, item, played = draws.of(rows, config.items, rng)
            if len(row):
                code = torch.from_numpy(item)
                own_term = model.own(torch.cat([side[code], fame[code]], dim=1))[:, 0]
                logit = (z[torch.from_numpy(row)] * model.track(side[code])).sum(dim=1) + own_term
                tracks = nn.functional.binary_cross_entropy_with_logits(logit, torch.from_numpy(played))
            else:
                tracks = rebuilt * 0
            loss = config.feature_weight * rebuilt + config.mean_weight * later + config.item_weight * tracks
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if on_progress is not None:
            on_progress(epoch + 1, config.epochs, total / n)


class _Draws:
    """Tracks of the next week, as many a row as asked, and as many others drawn by popularity."""

    def __init__(self, later: Later, popular: Floats) -> None:
        self.later, self.cumulative = later, np.cumsum(popular)
        self.size = np.diff(later.offset)
        n = len(popular)
        self.key = np.sort(later.owner * n + later.row)  # to tell what was played
        self.n = n

    def of(self, rows: Ints, count: int, rng: np.random.Generator) -> tuple[Ints, Ints, Floats32]:
        """Place in `rows` [m], item [m], played [m] 1 or 0; what was played is never a draw."""
        able = np.flatnonzero(self.size[rows] >= LEAST)
        if not len(able):
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, np.empty(0, np.float32)
        place = np.repeat(able, count)
        start, size = self.later.offset[rows[place]], self.size[rows[place]]
        liked = self.later.row[start + (rng.random(len(place)) * size).astype(np.int64)]
        last = self.cumulative[-1]
        other = np.minimum(np.searchsorted(self.cumulative, rng.random(len(place)) * last), self.n - 1)
        key = rows[place] * self.n + other
        at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        new = self.key[at] != key
        played = np.concatenate([np.ones(len(place), np.float32), np.zeros(int(new.sum()), np.float32)])
        return np.concatenate([place, place[new]]), np.concatenate([liked, other[new]]), played


def _serving(
    model: Autoencoder,
    scaling: Scaling,
    features: UserFeatures,
    config: EncoderConfig,
    seed: int,
    x: Floats32,
) -> UserEncoder:
    """The encoder in numpy, its latent vector centred and turned by what it decodes to."""
    w = {name: value.detach().numpy().astype(np.float64) for name, value in model.state_dict().items()}
    decoders = [np.sqrt(LIKENESS["later"]) * w["mean.weight"]]
    decoders += [
        np.sqrt(LIKENESS[name]) * w["features.weight"][scaling.slices[name]] for name in ("country", "onboarding")
    ]
    decoded = np.concatenate(decoders)
    metric = decoded.T @ decoded  # [d, d]
    metric += (
        1e-3 * np.trace(metric) / len(metric) * np.eye(len(metric))
    )  # what decodes to nothing still counts a little
    value, vector = np.linalg.eigh(metric)
    turn = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    with torch.no_grad():
        centre = model.encode(torch.from_numpy(x)).mean(dim=0).numpy()
    return UserEncoder(
        scaling,
        {
            "w1": w["hidden.weight"].astype(np.float32),
            "b1": w["hidden.bias"].astype(np.float32),
            "w2": (turn @ w["latent.weight"]).astype(np.float32),
            "skip": (turn @ w["skip.weight"]).astype(np.float32),
            "b2": (turn @ (w["latent.bias"] - centre)).astype(np.float32),
        },
        features.countries,
        features.genres,
        config,
        seed,
    )
