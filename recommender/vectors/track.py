"""Track vectors: word2vec over playlists or sessions, where a track is a word and a playlist a sentence.

CBOW, 40 dimensions, unit length, as in Hansen and others (2020), section 4.1. Playlists are the better sentences where
there are any; sessions of the events serve otherwise. Trained by gensim on one thread, so a seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bart.errors import DataError
from bart.types import Floats32, Ints
from recommender.events.columns import numbers, one_chunk, text
from recommender.events.table import SESSION_GAP_S
from recommender.sessions.plays import only_plays, worth

_LONGEST = 1_000  # words of a sentence; gensim drops what exceeds 10,000
_COARSE = 0.5  # share of equal neighbouring times from which a clock says nothing about sessions
_WORDS_TO_READ = 2_000_000  # in all epochs together; more brought nothing on small data
_HISTORY = 200  # mean words of a sentence above which it is a history, not a session
_UPPER_SEED = 2**31 - 1
_A_LIFE_S = 200 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class TrackVectorConfig:
    """How the vectors are trained; None is chosen by volume.

    dimension: of the vectors. negative: noise words a word. learning_rate: the first one, falling to nothing; gensim's
    own 0.025 leaves the vectors nearly parallel after few epochs, 0.2 gives worse neighbours. window: words on either
    side. sample: frequency above which popular tracks are thinned. epochs: passes over the data. min_count: plays below
    which a track gets no vector.
    """

    dimension: int = 40
    negative: int = 10
    learning_rate: float = 0.1
    window: int | None = None
    sample: float | None = None
    epochs: int | None = None
    min_count: int | None = None

    def __post_init__(self) -> None:
        for name in ("dimension", "negative"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected more than 0")
        for name in ("window", "epochs", "min_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1 or None")

    def resolved(self, n_words: int, n_sentences: int) -> TrackVectorConfig:
        """With everything fixed: small data are read more often and keep every track; a long sentence, which is a whole
        history, says what belongs together and little about neighbours, so its window is wide.
        """
        history = n_words > _HISTORY * max(n_sentences, 1)
        return TrackVectorConfig(
            dimension=self.dimension,
            negative=self.negative,
            learning_rate=self.learning_rate,
            window=self.window or (50 if history else 10),
            sample=self.sample if self.sample is not None else (1e-4 if history else 1e-3),
            epochs=self.epochs or int(np.clip(_WORDS_TO_READ // max(n_words, 1), 3, 60)),
            min_count=self.min_count or (1 if n_words < 100_000 else 2 if n_words < 1_000_000 else 3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sentences:
    """Rows of items in sequence: sentence i is `row[offset[i]:offset[i + 1]]`."""

    row: Ints
    offset: Ints

    def __len__(self) -> int:
        return len(self.offset) - 1

    def text(self) -> list[list[str]]:
        """As lists of words, the longest in parts."""
        words = self.row.astype(str).tolist()
        return [
            words[start : min(start + _LONGEST, end)]
            for begin, end in zip(self.offset[:-1].tolist(), self.offset[1:].tolist(), strict=True)
            for start in range(begin, end, _LONGEST)
        ]


def sentences_of_playlists(playlists: pa.Table, row_of: Mapping[str, int]) -> Sentences:
    """One sentence a playlist, in order of position; items that `row_of` lacks are left out.

    playlists: playlist_id, position (optional: the order of the rows), item_id. Raises DataError for a missing column,
    a position that is not a number, or where no item is known.
    """
    for name in ("playlist_id", "item_id"):
        if name not in playlists.column_names:
            raise DataError(f"playlists lack {name}; columns: {', '.join(playlists.column_names)}")
    playlist = text(playlists["playlist_id"]).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    n = len(playlists)
    position = np.arange(n, dtype=np.float64)
    if "position" in playlists.column_names:
        position, bad = numbers(playlists["position"])
        bad |= np.isnan(position)
        if bad.any():
            raise DataError(f"playlists: position of row {int(np.flatnonzero(bad)[0]) + 1} is not a number")
    row = _rows(playlists["item_id"].cast(pa.string()), row_of)
    if n and (row < 0).all():
        raise DataError(f"none of the {n:,} playlist entries names an item of the events or the items file")
    order = np.lexsort((np.arange(n), position, playlist))
    return _sentences(playlist[order].astype(np.int64), row[order])


def sentences_of_events(events: pa.Table, row_of: Mapping[str, int], gap_s: int = SESSION_GAP_S) -> Sentences:
    """One sentence a session, or a listener where the clock is too coarse to cut sessions (hourly polls of a station).

    Where no event is a play, what each listener likes is a sentence, in the order of time. events: the event table,
    sorted by listener and time. gap_s: inactivity that ends a session, seconds.
    """
    plays = only_plays(events)
    if len(events) and not len(plays):
        plays, gap_s = events.filter(pa.array(worth(events) > 0)), _A_LIFE_S
    events = plays
    user = one_chunk(events["user_id"]).dictionary_encode().indices.to_numpy().astype(np.int64)
    at_us = one_chunk(events["started_at"].cast(pa.int64())).to_numpy()
    same_user = np.diff(user) == 0
    step_us = np.diff(at_us)
    coarse = same_user.any() and np.mean(step_us[same_user] == 0) > _COARSE
    new = ~same_user if coarse else ~same_user | (step_us > gap_s * 1_000_000)
    return _sentences(np.concatenate([[0], np.cumsum(new)])[: len(user)], _rows(events["item_id"], row_of))


def train_track_vectors(
    sentences: Sentences, n_items: int, config: TrackVectorConfig | None = None, *, seed: int = 0
) -> Floats32:
    """Unit vectors [n_items, dimension]; all zero for an item that was not played often enough.

    The mean vector is taken from all before they are scaled: word2vec leaves a direction that all words share, which
    says nothing about any of them and would swamp every cosine (Mu and Viswanath 2018, "All-but-the-Top").
    Raises ValueError where no item occurs often enough to train on.
    """
    from gensim.models import Word2Vec  # takes a second to import

    config = (config or TrackVectorConfig()).resolved(len(sentences.row), len(sentences))
    if not 0 <= seed <= _UPPER_SEED:
        raise ValueError(f"seed is {seed}; expected 0 to {_UPPER_SEED}")
    count = np.bincount(sentences.row, minlength=n_items)
    if len(count) > n_items:
        raise ValueError(f"sentences name row {len(count) - 1}; expected rows below {n_items}")
    if not (count >= (config.min_count or 1)).any():
        raise ValueError(
            f"no item occurs {config.min_count} times in {len(sentences):,} sentences; nothing to train on"
        )
    model = Word2Vec(
        sentences.text(),
        vector_size=config.dimension,
        window=config.window,
        min_count=config.min_count,
        sample=config.sample,
        negative=config.negative,
        alpha=config.learning_rate,
        epochs=config.epochs,
        sg=0,
        workers=1,
        seed=seed,
    )
    out = np.zeros((n_items, config.dimension), dtype=np.float32)
    trained = model.wv.vectors
    centre = trained.mean(axis=0) if len(trained) > 1 else 0.0
    out[np.array(model.wv.index_to_key, dtype=np.int64)] = trained - centre
    return unit(out)


def unit(vector: Floats32) -> Floats32:
    """Each row at length 1; a row of zeros stays one."""
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    scaled: Floats32 = np.divide(vector, length, out=np.zeros_like(vector), where=length > 1e-12)
    return scaled


def container_vectors(vector: Floats32, members: Sentences) -> Floats32:
    """Unit mean of each container's members, [containers, d]: albums, playlists, artists, shows."""
    total = np.zeros((len(members), vector.shape[1]), dtype=np.float32)
    np.add.at(total, np.repeat(np.arange(len(members)), np.diff(members.offset)), vector[members.row])
    return unit(total)


def _rows(item_id: pa.ChunkedArray, row_of: Mapping[str, int]) -> Ints:
    encoded = one_chunk(item_id).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    row = np.fromiter((row_of.get(name, -1) for name in names), dtype=np.int64, count=len(names))
    return row[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)] if len(names) else row


def _sentences(group: Ints, row: Ints) -> Sentences:
    """Runs of equal `group`, without the unknown rows and empty sentences."""
    known = row >= 0
    group, row = group[known], row[known]
    start = np.flatnonzero(np.diff(group, prepend=-1) != 0) if len(group) else np.empty(0, dtype=np.int64)
    return Sentences(row, np.concatenate([start, [len(row)]]).astype(np.int64))
