"""The music of the world: genres, clusters, artists and tracks in one latent space, and the playlists made from it.

A track stands near its artist, an artist near a cluster, a cluster near a genre, all unit vectors. Whoever makes a
playlist, and whoever listens, draws clusters by closeness to a target and then tracks by popularity, so that tracks
which belong together occur together: this is what vectors learnt from the playlists can find again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bart.types import Dates, Floats, Floats32, Ints
from simulator.world import names
from simulator.world.config import WorldConfig

CHART_SIZE = 300  # tracks in the charts
_PLAYLIST_BLOCK = 2_000  # playlists drawn at once; bounds the memory


def unit(x: Floats) -> Floats:
    """x scaled to length 1 along the last axis."""
    out: Floats = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return out


def around(centre: Floats, spread: float, rng: np.random.Generator) -> Floats:
    """Unit vectors near the given ones; the cosine to the centre is about 1 / sqrt(1 + spread^2)."""
    return unit(centre + spread * rng.standard_normal(centre.shape) / np.sqrt(centre.shape[-1]))


@dataclass(frozen=True, eq=False)
class Catalogue:
    """n tracks, sorted by cluster and artist, so that either is a range of rows.

    genre_vector [G, d], cluster_vector [C, d], vector [n, d]: unit. cluster_genre [C], cluster [n], artist [n].
    weight [n]: how often a track is played, all else equal (Zipf; sums to 1). quality [n]: hidden, standard normal.
    cluster_start [C + 1], artist_start [A + 1]: ranges of rows. released_at [n] datetime64[D].
    """

    genre_vector: Floats
    cluster_vector: Floats
    cluster_genre: Ints
    cluster: Ints
    artist: Ints
    vector: Floats32
    weight: Floats
    quality: Floats
    cluster_start: Ints
    artist_start: Ints
    item_id: tuple[str, ...]
    title: tuple[str, ...]
    artist_name: tuple[str, ...]
    guest: Ints  # [n] second artist, -1 for none
    released_at: Dates
    duration_s: Floats
    explicit: NDArray[np.bool_]
    country: Ints  # [n] the only country where it is available, -1 for everywhere
    cluster_style: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.item_id)

    @cached_property
    def popularity(self) -> Floats:
        """[n] in [0, 1], on a log scale as services show it; 1 for the most played."""
        log = np.log(self.weight)
        out: Floats = (log - log.min()) / max(log.max() - log.min(), 1e-12)
        return out

    @cached_property
    def draw_table(self) -> Floats:
        """[2 n + 1] cumulative weight: rows 0..n by play weight, rows n..2n the charts (the most played only)."""
        chart = np.zeros(len(self))
        top = np.argsort(-self.weight, kind="stable")[: min(CHART_SIZE, len(self))]
        chart[top] = self.weight[top]
        both = np.concatenate([self.weight / self.weight.sum(), chart / chart.sum()])
        return np.concatenate([[0.0], np.cumsum(both)])

    @cached_property
    def draw_log_mass(self) -> Floats:
        """[2, C] log weight of the clusters in either half of `draw_table`."""
        return np.stack([self.cluster_log_mass(self.draw_table, base) for base in (0, len(self))])

    @cached_property
    def playlist_table(self) -> Floats:
        """[n + 1] cumulative weight of a track in playlists: the square root, as collectors dig deeper than plays."""
        return np.concatenate([[0.0], np.cumsum(np.sqrt(self.weight))])

    def cluster_log_mass(self, table: Floats, base: int = 0) -> Floats:
        """[C] log of each cluster's weight in a cumulative table; -1e9 where it has none, so that it is never drawn."""
        mass = table[base + self.cluster_start[1:]] - table[base + self.cluster_start[:-1]]
        return np.where(mass > 1e-14, np.log(np.maximum(mass, 1e-14)), -1e9)

    def items(self, countries: tuple[str, ...]) -> pa.Table:
        """The catalogue in the layout of items.parquet."""
        artist_ids = [
            [self.artist_name[a]] if g < 0 else [self.artist_name[a], self.artist_name[g]]
            for a, g in zip(self.artist.tolist(), self.guest.tolist(), strict=True)
        ]
        genre = [[names.genre_name(int(g)), s] for g, s in zip(self.cluster_genre, self.cluster_style, strict=True)]
        text = pa.list_(pa.string())
        return pa.table(
            {
                "item_id": pa.array(self.item_id, pa.string()),
                "title": pa.array(self.title, pa.string()),
                "type": pa.array(["track"] * len(self), pa.string()),
                "artist_ids": pa.array(artist_ids, text),
                "genres": pa.array([genre[c] for c in self.cluster.tolist()], text),
                "released_at": pa.array(self.released_at.astype("datetime64[D]"), pa.date32()),
                "duration_s": pa.array(self.duration_s, pa.float64()),
                "explicit": pa.array(self.explicit, pa.bool_()),
                "countries": pa.array([[] if c < 0 else [countries[c]] for c in self.country.tolist()], text),
                "popularity": pa.array(self.popularity, pa.float64()),
            }
        )


def make_catalogue(config: WorldConfig, rng: np.random.Generator) -> Catalogue:
    """A catalogue of `config.n_tracks` tracks."""
    n, d = config.n_tracks, config.dimension
    place, fame, words, dates, marks = rng.spawn(5)

    genre_vector = unit(place.standard_normal((config.n_genres, d)))
    cluster_genre = np.arange(config.n_clusters) % config.n_genres
    cluster_vector = around(genre_vector[cluster_genre], config.cluster_spread, place)

    # Artists: sizes differ widely; sorted by cluster, so that clusters and artists are both ranges of rows.
    n_artists = max(1, n // config.tracks_per_artist)
    artist_cluster = np.sort(
        place.choice(config.n_clusters, size=n_artists, p=place.dirichlet(np.full(config.n_clusters, 4.0)))
    )
    size = 1 + place.multinomial(n - n_artists, _shares(np.exp(place.normal(0.0, 0.9, size=n_artists))))
    artist = np.repeat(np.arange(n_artists), size)
    cluster = artist_cluster[artist]
    artist_vector = around(cluster_vector[artist_cluster], config.artist_spread, place)
    vector = around(artist_vector[artist], config.track_spread, place)

    # Zipf over ranks; the rank follows the artist's fame, the track's quality and chance.
    quality = fame.standard_normal(n)
    strength = 1.2 * fame.standard_normal(n_artists)[artist] + 0.6 * quality + 0.9 * fame.standard_normal(n)
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-strength, kind="stable")] = np.arange(n)
    weight = _shares(np.power(rank + config.zipf_offset, -config.zipf_exponent, dtype=np.float64))

    released_at = _release_dates(config, artist, dates)
    explicit_share = marks.beta(0.6, 4.0, size=config.n_genres)
    number = marks.permutation(max(10 * n, 1_000_000))[:n]  # opaque: neither the row nor the rank shows in the id
    country = np.where(marks.random(n) < 0.03, marks.integers(0, len(config.countries), size=n), -1)
    guest = np.where(marks.random(n) < 0.08, marks.integers(0, n_artists, size=n), -1)
    styles = [names.styles(g, int(np.sum(cluster_genre == g))) for g in range(config.n_genres)]
    return Catalogue(
        genre_vector=genre_vector,
        cluster_vector=cluster_vector,
        cluster_genre=cluster_genre,
        cluster=cluster,
        artist=artist,
        vector=vector.astype(np.float32),
        weight=weight,
        quality=quality,
        cluster_start=np.searchsorted(cluster, np.arange(config.n_clusters + 1)).astype(np.int64),
        artist_start=np.searchsorted(artist, np.arange(n_artists + 1)).astype(np.int64),
        item_id=tuple(f"t{i:07d}" for i in number.tolist()),
        title=tuple(names.track_titles(n, words)),
        artist_name=tuple(names.artist_names(n_artists, words)),
        guest=np.where(guest == artist, -1, guest),
        released_at=released_at,
        duration_s=np.clip(marks.normal(215.0, 45.0, size=n), 90.0, 480.0).round().astype(np.float64),
        explicit=marks.random(n) < explicit_share[cluster_genre[cluster]],
        country=country,
        cluster_style=tuple(styles[g][k // config.n_genres] for k, g in enumerate(cluster_genre.tolist())),
    )


def make_playlists(catalogue: Catalogue, config: WorldConfig, rng: np.random.Generator) -> pa.Table:
    """Playlists in the layout of playlists.parquet: most keep to a corner of the space, some mix.

    A track stands at most once in a playlist. Lengths are 8 and more, `config.playlist_length` on average.
    """
    table = catalogue.playlist_table
    log_mass = catalogue.cluster_log_mass(table)
    playlist: list[Ints] = []
    position: list[Ints] = []
    item: list[Ints] = []
    for first in range(0, config.n_playlists, _PLAYLIST_BLOCK):
        m = min(_PLAYLIST_BLOCK, config.n_playlists - first)
        theme = rng.integers(0, config.n_clusters, size=m)
        target = around(catalogue.cluster_vector[theme], 0.5, rng)
        sharpness = np.where(rng.random(m) < 0.12, 3.0, config.playlist_sharpness)  # a few mixed bags
        length = 8 + rng.poisson(rng.gamma(2.0, (config.playlist_length - 8) / 2.0, size=m))
        pmf = cluster_pmf(target @ catalogue.cluster_vector.T * sharpness[:, None] + 0.5 * log_mass)
        owner = np.repeat(np.arange(m), length)
        row = draw_in_range(
            table, catalogue.cluster_start, draw_cluster(pmf, owner, rng.random(len(owner))), rng.random(len(owner))
        )
        # A second draw of the same track is dropped; rows stay in the order in which they were drawn.
        key = owner * len(catalogue) + row
        keep = np.sort(np.unique(key, return_index=True)[1])
        owner, row = owner[keep], row[keep]
        playlist.append(owner + first)
        position.append(np.arange(len(owner)) - np.searchsorted(owner, owner))
        item.append(row)
    ids = pa.array([f"p{i:06d}" for i in range(config.n_playlists)], pa.string())
    return pa.table(
        {
            "playlist_id": ids.take(pa.array(np.concatenate(playlist))),
            "position": pa.array(np.concatenate(position), pa.int32()),
            "item_id": pa.array(catalogue.item_id, pa.string()).take(pa.array(np.concatenate(item))),
        }
    )


def cluster_pmf(logit: Floats) -> Floats:
    """[s, C] cumulative probabilities of the clusters, from logits; the last column is exactly 1."""
    logit -= logit.max(axis=1, keepdims=True)
    np.exp(logit, out=logit)
    np.cumsum(logit, axis=1, out=logit)
    logit /= logit[:, -1:]
    return logit


def draw_cluster(cumulative: Floats, owner: Ints, u: Floats) -> Ints:
    """[e] a cluster for each event from its owner's cumulative pmf [s, C]; owner [e] ascending, u [e] uniform."""
    n_clusters = cumulative.shape[1]
    flat = (cumulative + np.arange(len(cumulative))[:, None]).ravel()  # one ascending array: one search for all
    out: Ints = np.searchsorted(flat, u + owner, side="right") - owner * n_clusters
    out = np.minimum(out, n_clusters - 1)
    return out


def draw_in_range(table: Floats, start: Ints, group: Ints, u: Floats) -> Ints:
    """[e] a row of each group's range, by the weights of a cumulative table; u [e] uniform."""
    lo, hi = table[start[group]], table[start[group + 1]]
    row: Ints = np.searchsorted(table, lo + u * (hi - lo), side="right") - 1
    row = np.clip(row, start[group], start[group + 1] - 1)
    return row


def _shares(x: Floats) -> Floats:
    out: Floats = x / x.sum()
    return out


def _release_dates(config: WorldConfig, artist: Ints, rng: np.random.Generator) -> Dates:
    """Mostly recent years; a few come out during the simulated days, never an artist's first row."""
    n = len(artist)
    start = np.datetime64(config.start.date(), "D")
    career = rng.gamma(1.3, 4_000.0, size=int(artist[-1]) + 1)
    age = 1 + (career[artist] * rng.random(n)).astype(np.int64)
    fresh = rng.random(n) < config.new_release_share
    first_row = np.concatenate([[True], artist[1:] != artist[:-1]])
    fresh &= ~first_row
    horizon = config.days + config.visit_days
    age = np.where(fresh, -rng.integers(0, horizon, size=n), np.minimum(age, 365 * 60))
    out: Dates = start - age.astype("timedelta64[D]")
    return out
