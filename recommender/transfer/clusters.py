"""Whether near listeners belong together: nDCG@50 of neighbours by cosine, by what is shared in a window after.

Table 3 of the paper, with the protocol written out: relevant is how much two listeners share, by their ten favourite
artists of the week after the cut, by the country of the artists that they play most in it, by artists and genres of
their picks. An artist is of the country whose listeners' plays hold the largest multiple of the usual share of it.
"""

from __future__ import annotations

import numpy as np

from bart.types import Floats, Floats32, Ints
from recommender.transfer.protocol import Prepared

FIRST = 50
FAVOURITES = 10
MOST_LISTENERS = 3_000
Labels = dict[str, tuple[Ints, Floats32]]  # by task: places in `now` [n] and what they share by products [n, labels]


def labels(prepared: Prepared) -> Labels:
    """What is shared, for each task of which the data know anything."""
    asked = prepared.asked[:MOST_LISTENERS]
    out: Labels = {}
    by_artist = _artist_counts(prepared, asked)
    if by_artist.any():
        top = np.zeros_like(by_artist)
        order = np.argsort(-by_artist, axis=1, kind="stable")[:, :FAVOURITES]
        np.put_along_axis(top, order, (np.take_along_axis(by_artist, order, axis=1) > 0).astype(np.float32), axis=1)
        out["favourite artists"] = asked, top
        country = _countries(prepared, by_artist)
        if country is not None:
            out["country of most listened artists"] = asked, country
    picked = np.array([bool(prepared.accounts.picked.get(user)) for user in prepared.user_id])
    chosen = asked[picked[prepared.now.listener[asked]]]
    if len(chosen) > FIRST:
        out["onboarding"] = chosen, _picks(prepared, chosen)
    return out


def ndcg(vector: Floats32, shared: Floats32, first: int = FIRST) -> Floats:
    """[n] of each listener's nearest others by cosine; NaN of one who shares nothing with anybody.

    vector [n, d]; shared [n, labels]: relevance is the product of two rows.
    """
    n = len(vector)
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    unit = vector / np.maximum(length, 1e-12)
    relevant = (shared @ shared.T).astype(np.float64)
    near = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(relevant, 0.0)
    np.fill_diagonal(near, -np.inf)
    first = min(first, n - 1)
    weight = 1.0 / np.log2(np.arange(first) + 2.0)
    order = np.argsort(-near, axis=1, kind="stable")[:, :first]
    best = -np.sort(-relevant, axis=1)[:, :first]
    ideal = best @ weight
    found = np.take_along_axis(relevant, order, axis=1) @ weight
    return np.where(ideal > 0, found / np.where(ideal > 0, ideal, 1), np.nan)


def _artist_counts(prepared: Prepared, places: Ints) -> Floats32:
    """[n, artists] plays of each artist in the days after the cut."""
    artist = prepared.items.artists.first
    out = np.zeros((len(places), len(prepared.items.artists.vocabulary)), np.float32)
    for row, place in enumerate(places.tolist()):
        between = slice(prepared.later.offset[place], prepared.later.offset[place + 1])
        code = artist[prepared.later.row[between]]
        np.add.at(out[row], code[code >= 0], prepared.later.count[between][code >= 0])
    return out


def _countries(prepared: Prepared, by_artist: Floats32) -> Floats32 | None:
    """[n, countries] one for the country of the artists that are played most; None where no countries are known."""
    names = prepared.accounts.countries
    if len(names) < 2:
        return None
    place = {name: k for k, name in enumerate(names)}
    own = np.array([place.get(prepared.accounts.country.get(user, ""), -1) for user in prepared.user_id])
    artist = prepared.items.artists.first
    plays = prepared.plays.tocoo()
    kept = (own[plays.row] >= 0) & (artist[plays.col] >= 0)
    count = np.zeros((len(names), by_artist.shape[1]))
    np.add.at(count, (own[plays.row[kept]], artist[plays.col[kept]]), plays.data[kept])
    usual = count.sum(axis=1, keepdims=True) / max(count.sum(), 1.0)
    share = (count + 5 * usual) / (count.sum(axis=0) + 5)  # few plays say little
    of_artist = np.argmax(share / np.maximum(usual, 1e-12), axis=0)
    weight = np.zeros((len(by_artist), len(names)))
    for country in range(len(names)):
        weight[:, country] = by_artist[:, of_artist == country].sum(axis=1)
    out = np.zeros((len(by_artist), len(names)), np.float32)
    out[np.arange(len(out)), np.argmax(weight, axis=1)] = weight.any(axis=1)
    return out


def _picks(prepared: Prepared, places: Ints) -> Floats32:
    artists, genres = prepared.items.artists.first, prepared.items.genres.first
    n_artists, n_genres = len(prepared.items.artists.vocabulary), len(prepared.items.genres.vocabulary)
    out = np.zeros((len(places), n_artists + n_genres), np.float32)
    for row, place in enumerate(places.tolist()):
        picked = prepared.items.rows(prepared.accounts.picked[prepared.user_id[int(prepared.now.listener[place])]])
        picked = picked[picked >= 0]
        code, genre = artists[picked], genres[picked]
        out[row, code[code >= 0]] = 1
        out[row, n_artists + genre[genre >= 0]] = 1
    return out
