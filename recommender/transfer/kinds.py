"""The kinds of listener vectors that are compared, all made from what was known before the cut.

Encoder, factorizations and networks have the same dimension, and so has the mean over three windows (three times the
tracks'); the average is of the tracks' own dimension, as the paper's is; raw features are what the encoder reads, and
PCA brings them to its dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bart.types import Floats32
from recommender.transfer.factorizations import FACTORIZATIONS
from recommender.transfer.networks import NETWORKS, Sides, network_vectors
from recommender.transfer.protocol import Prepared
from recommender.users.encoder import EncoderConfig, UserEncoder
from recommender.users.scaling import Scaling
from recommender.users.training import train_encoder

ENCODER, AVERAGE = "encoder", "average"
NUMBERS = ("genres", "habits", "hours", "devices", "lengths", "age")  # groups that are no vectors
Kind = Callable[[Prepared, int, int], Floats32]  # (prepared, dimension, seed) to [users, .]


def encoder_of(prepared: Prepared, config: EncoderConfig, seed: int) -> UserEncoder:
    return train_encoder(prepared.lessons, prepared.features, config, seed)


def _group(name: str, last: int | None = None) -> Kind:
    def of(prepared: Prepared, dimension: int, seed: int) -> Floats32:  # noqa: ARG001
        value = np.nan_to_num(prepared.now.value[:, prepared.features.slices[name]])
        return prepared.by_user(value if last is None else value[:, -prepared.items.dimension :])

    return of


def _raw(prepared: Prepared, dimension: int, seed: int) -> Floats32:  # noqa: ARG001
    scaling = Scaling.of(prepared.lessons.value, prepared.features.slices)
    return prepared.by_user(scaling.inputs(prepared.now.value))


def _pca(prepared: Prepared, dimension: int, seed: int) -> Floats32:
    raw = _raw(prepared, dimension, seed)
    heard = prepared.now.listener
    mean = raw[heard].mean(axis=0)
    _, _, right = np.linalg.svd(raw[heard] - mean, full_matrices=False)
    out: Floats32 = (raw - mean) @ right[:dimension].T
    return out


def _factorized(name: str) -> Kind:
    def of(prepared: Prepared, dimension: int, seed: int) -> Floats32:
        return FACTORIZATIONS[name](prepared.plays, dimension, np.random.default_rng(seed))[0]

    return of


def _network(name: str) -> Kind:
    def of(prepared: Prepared, dimension: int, seed: int) -> Floats32:
        return network_vectors(name, _sides(prepared), dimension, seed)

    return of


def _sides(prepared: Prepared) -> Sides:
    """Countries of listeners, artists and first genres of items; what of the features is neither vector nor country."""
    names = {name: code for code, name in enumerate(prepared.accounts.countries)}
    country = [names.get(prepared.accounts.country.get(user, ""), -1) for user in prepared.user_id]
    items = prepared.items
    slices = prepared.features.slices
    scaled = Scaling.of(prepared.lessons.value, slices).inputs(prepared.now.value)
    number = np.concatenate([scaled[:, slices[name]] for name in NUMBERS], axis=1)
    return Sides(
        prepared.plays,
        np.array(country, dtype=np.int64)[:, None],
        np.stack([items.artists.first, items.genres.first], axis=1),
        prepared.by_user(number),
    )


KINDS: Mapping[str, Kind] = {
    AVERAGE: _group("content", last=1),
    "three windows": _group("content"),
    "factors in three windows": _group("collaborative"),
    "raw features": _raw,
    "PCA of raw features": _pca,
    **{name: _factorized(name) for name in FACTORIZATIONS},
    **{name: _network(name) for name in NETWORKS},
}
SEEDLESS = (AVERAGE, "three windows", "factors in three windows", "raw features", "PCA of raw features")
