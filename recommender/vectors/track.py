"""Track vectors: items that stand together in playlists or sessions oftener than chance lie near each other.

Positive pointwise mutual information of windowed co-occurrence, factored into 40 dimensions, unit length. What a
word2vec learns by sampling is thereby computed (Levy and Goldberg 2014): Hansen and others (2020), section 4.1, train
CBOW on playlists; measured beside it, this finds better neighbours in a fraction of the time (docs/track_vectors.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bart.types import Floats32
from recommender.vectors.cooccurrence import cooccurrences, positive_information
from recommender.vectors.factors import leading_factors
from recommender.vectors.sentences import Sentences

_HISTORY = 200  # mean words of a sentence above which it is a history, not a session


@dataclass(frozen=True, slots=True)
class TrackVectorConfig:
    """How the vectors are made; None is chosen by volume. Defaults were chosen on validation data.

    dimension: of the vectors. window: items on either side that count as near. min_count: plays below which a track
    gets no vector. smoothing: of context counts, 1 for none. pseudo_count: by which the information of rare pairs
    is held back. shift: information below which a pair says nothing, nats. power: of the eigenvalues, .5 shares them
    between both sides of a pair.
    """

    dimension: int = 40
    window: int | None = None
    min_count: int | None = None
    smoothing: float = 0.5
    pseudo_count: float = 1.0
    shift: float = 0.0
    power: float = 0.5

    def __post_init__(self) -> None:
        for name in ("dimension", "window", "min_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1" + " or None" * (name != "dimension"))
        for name in ("smoothing", "power"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("pseudo_count", "shift"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")

    def fewest(self, n_words: int) -> int:
        """`min_count` for so many words: small data keep every track."""
        return self.min_count or (1 if n_words < 100_000 else 2 if n_words < 1_000_000 else 3)

    def reach(self, n_words: int, n_sentences: int) -> int:
        """`window` for so many words: a long sentence, which is a whole history, says what belongs together and little
        about neighbours, so its window is wide.
        """
        return self.window or (50 if n_words > _HISTORY * max(n_sentences, 1) else 10)


def train_track_vectors(
    sentences: Sentences, n_items: int, config: TrackVectorConfig | None = None, *, seed: int = 0
) -> Floats32:
    """Unit vectors [n_items, dimension]; all zero for an item that was not played often enough, or always alone.

    Raises ValueError where no item occurs often enough to learn from.
    """
    config = config or TrackVectorConfig()
    count = np.bincount(sentences.row, minlength=n_items)
    if len(count) > n_items:
        raise ValueError(f"sentences name row {len(count) - 1}; expected rows below {n_items}")
    n_words = len(sentences.row)
    fewest = config.fewest(n_words)
    if not (count >= fewest).any():
        raise ValueError(f"no item occurs {fewest} times in {len(sentences):,} sentences; nothing to train on")
    near = cooccurrences(sentences.only(count >= fewest), n_items, config.reach(n_words, len(sentences)))
    told = positive_information(near, config.smoothing, config.pseudo_count, config.shift)
    return unit(leading_factors(told, config.dimension, config.power, np.random.default_rng(seed)))


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
