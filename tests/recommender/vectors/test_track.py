"""Truths of track vectors: what is played together is near, where nothing is shared nothing is learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from bart.types import Floats32, Ints, Labels
from recommender.events.table import read_events
from recommender.vectors.sentences import Sentences, sentences_of_events, sentences_of_playlists
from recommender.vectors.track import TrackVectorConfig, container_vectors, train_track_vectors, unit

N_ITEMS, N_GENRES = 120, 6
GENRE: Ints = np.arange(N_ITEMS) % N_GENRES
LABELS = Labels(GENRE, np.arange(N_ITEMS + 1), [f"g{k}" for k in range(N_GENRES)])
CONFIG = TrackVectorConfig(dimension=16)


def sentences(rng: np.random.Generator, by_genre: bool = True, n: int = 1_500) -> Sentences:
    """Sentences of ten items of one genre, or of any."""
    if by_genre:
        row = rng.integers(N_ITEMS // N_GENRES, size=(n, 10)) * N_GENRES + rng.integers(N_GENRES, size=(n, 1))
    else:
        row = rng.integers(N_ITEMS, size=(n, 10))
    return Sentences(row.reshape(-1), np.arange(0, 10 * n + 1, 10))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often near neighbours share a label (genre, artist): share against chance, over `n` items."""

    share: float
    chance: float
    n: int

    @property
    def lift(self) -> float:
        """Times chance; NaN where no two items share a label."""
        return self.share / self.chance if self.chance > 0 else float("nan")


def neighbour_agreement(
    vector: Floats32, labels: Labels, rng: np.random.Generator, *, k: int = 10, sample: int = 2_000
) -> Agreement:
    """Share of the k nearest neighbours that have a label in common, beside that of all items.

    Over at most `sample` items that have a vector and a label; neighbours are sought among the same kind of items.
    """
    import scipy.sparse as sp

    able = np.flatnonzero(vector.any(axis=1) & (np.diff(labels.offset) > 0))
    if len(able) <= k:
        raise ValueError(f"{len(able)} items have a vector and a label; expected more than k = {k}")
    size = np.diff(labels.offset)
    item = np.repeat(np.arange(len(labels)), size)
    has = sp.csr_matrix(
        (np.ones(len(labels.code), dtype=np.float32), (item, labels.code)), shape=(len(labels), len(labels.vocabulary))
    )[able]
    asked = np.sort(rng.permutation(len(able))[:sample])
    share, chance = 0.0, 0.0
    for part in np.array_split(asked, max(len(asked) * len(able) // 20_000_000, 1)):
        near = vector[able[part]] @ vector[able].T  # [part, able]
        near[np.arange(len(part)), part] = -np.inf
        common = (has[part] @ has.T).toarray() > 0
        common[np.arange(len(part)), part] = False
        top = np.argpartition(-near, k - 1, axis=1)[:, :k]
        share += float(np.take_along_axis(common, top, axis=1).mean(axis=1).sum())
        chance += float(common.sum(axis=1).sum()) / (len(able) - 1)
    return Agreement(share / len(asked), chance / len(asked), len(asked))


def test_neighbours_share_the_genre_that_sentences_share() -> None:
    vector = train_track_vectors(sentences(np.random.default_rng(0)), N_ITEMS, CONFIG)
    agreement = neighbour_agreement(vector, LABELS, np.random.default_rng(1))
    assert agreement.share > 0.95
    assert agreement.chance == pytest.approx((N_ITEMS / N_GENRES - 1) / (N_ITEMS - 1))
    assert agreement.lift == pytest.approx(agreement.share / agreement.chance)


def test_sentences_of_chance_give_neighbours_of_chance() -> None:
    vector = train_track_vectors(sentences(np.random.default_rng(0), by_genre=False), N_ITEMS, CONFIG)
    agreement = neighbour_agreement(vector, LABELS, np.random.default_rng(1))
    # 120 items with 10 neighbours each: the share's standard error is about sqrt(p (1 - p) / 1200), times 4
    assert abs(agreement.share - agreement.chance) < 0.045


def test_vectors_have_unit_length_and_items_never_played_have_none() -> None:
    vector = train_track_vectors(sentences(np.random.default_rng(0)), N_ITEMS + 5, CONFIG)
    length = np.linalg.norm(vector, axis=1)
    np.testing.assert_allclose(length[:N_ITEMS], 1, atol=1e-6)
    assert not vector[N_ITEMS:].any()
    assert vector.dtype == np.float32


def test_the_same_seed_gives_the_same_bytes_and_another_seed_the_same_neighbours() -> None:
    rng = np.random.default_rng(0)
    n = 400  # more than are factored whole
    row = (rng.integers(n // 8, size=(4_000, 10)) * 8 + rng.integers(8, size=(4_000, 1))).reshape(-1)
    said = Sentences(row, np.arange(0, len(row) + 1, 10))
    first, again, other = (train_track_vectors(said, n, seed=s) for s in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    np.testing.assert_allclose(first @ first.T, other @ other.T, atol=1e-2)


def test_items_played_less_than_min_count_get_no_vector() -> None:
    row = np.array([0, 1] * 30 + [2], dtype=np.int64)
    said = Sentences(row, np.array([0, 30, 61]))
    vector = train_track_vectors(said, 3, TrackVectorConfig(dimension=4, min_count=2))
    assert vector.any(axis=1).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no item occurs 99 times in 2 sentences"):
        train_track_vectors(said, 3, TrackVectorConfig(min_count=99))


def test_rows_outside_the_item_table_are_refused() -> None:
    with pytest.raises(ValueError, match="sentences name row 9; expected rows below 5"):
        train_track_vectors(Sentences(np.array([1, 9]), np.array([0, 2])), 5)


@pytest.mark.parametrize("name", ["dimension", "window", "min_count"])
def test_a_configuration_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        TrackVectorConfig(**{name: 0})


def test_a_configuration_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing is 1.5; expected 0 to 1"):
        TrackVectorConfig(smoothing=1.5)
    with pytest.raises(ValueError, match=r"pseudo_count is -1.0; expected at least 0"):
        TrackVectorConfig(pseudo_count=-1.0)


def test_small_data_keep_every_track_and_histories_get_a_wider_window() -> None:
    config = TrackVectorConfig()
    assert config.fewest(10_000) == 1 < config.fewest(10_000_000)
    assert config.reach(10_000, 10) > config.reach(10_000, 1_000)
    assert TrackVectorConfig(window=3).reach(10_000, 10) == 3


def test_an_item_that_always_stands_alone_has_no_vector() -> None:
    said = Sentences(np.array([0, 1, 0, 1, 2, 2]), np.array([0, 2, 4, 5, 6]))
    assert train_track_vectors(said, 3).any(axis=1).tolist() == [True, True, False]


def test_playlists_are_read_in_order_of_position_and_without_unknown_items() -> None:
    playlists = pa.table(
        {"playlist_id": ["p", "q", "p", "p"], "position": [2, 0, 1, 0], "item_id": ["c", "x", "b", "?"]}
    )
    said = sentences_of_playlists(playlists, {"b": 1, "c": 2, "x": 7})
    assert [said.row[a:b].tolist() for a, b in zip(said.offset, said.offset[1:], strict=False)] == [[1, 2], [7]]


def test_sessions_are_sentences_and_a_coarse_clock_makes_histories_of_them() -> None:
    at = [10**9, 10**9 + 60, 10**9 + 9_000]
    fine = read_events(pa.table({"user_id": ["u"] * 3, "item_id": list("abc"), "started_at": at})).events
    row_of = {"a": 0, "b": 1, "c": 2}
    assert len(sentences_of_events(fine, row_of)) == 2
    polls = pa.table({"user_id": ["u"] * 6, "item_id": list("abcabc"), "started_at": [10**9] * 3 + [10**9 + 3_600] * 3})
    assert len(sentences_of_events(read_events(polls).events, row_of)) == 1


def test_a_container_is_the_unit_mean_of_its_members() -> None:
    vector = unit(np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32))
    held = container_vectors(vector, Sentences(np.array([0, 1, 2, 1]), np.array([0, 2, 3, 3, 4])))
    np.testing.assert_allclose(held, [[0.5**0.5, 0.5**0.5], [0, 0], [0, 0], [0, 1]], atol=1e-7)
