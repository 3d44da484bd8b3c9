"""The encoder: what it learns, what it leaves alone, and that what is saved is what serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from user_world import DAY_S, UserWorld, user_world

from bart.errors import BundleError, DataError
from recommender.users.encoder import CONFIG, FILE, EncoderConfig, UserEncoder
from recommender.users.features import GROUP_NAMES
from recommender.users.snapshots import Moments, moments, played_after
from recommender.users.training import Lessons, train_encoder

SMALL = EncoderConfig(dimension=12, hidden=16, epochs=4, batch=32)


@pytest.fixture(scope="module")
def world() -> UserWorld:
    return user_world()


@pytest.fixture(scope="module")
def past(world: UserWorld) -> Moments:
    users = world.timeline().until(world.end_s).users
    at_s = [world.end_s - DAY_S * days for days in (21, 14, 7)]
    return moments(world.timeline(), world.features, at_s, users)


@pytest.fixture(scope="module")
def lessons(world: UserWorld, past: Moments) -> Lessons:
    later = played_after(world.events, world.items, past)
    plays = world.tables.of_all[:, 0].astype(np.float64)
    return Lessons.of(world.features, past, later, plays, np.random.default_rng(0))


@pytest.fixture(scope="module")
def encoder(world: UserWorld, lessons: Lessons) -> UserEncoder:
    return train_encoder(lessons, world.features, SMALL, 1)


def test_equal_seeds_give_equal_encoders_and_others_do_not(
    world: UserWorld, lessons: Lessons, encoder: UserEncoder
) -> None:
    assert train_encoder(lessons, world.features, SMALL, 1).version == encoder.version
    assert train_encoder(lessons, world.features, SMALL, 2).version != encoder.version


def test_any_subset_of_groups_gives_a_vector_and_none_gives_zero(
    world: UserWorld, past: Moments, encoder: UserEncoder
) -> None:
    value = past.value[:1].repeat(len(GROUP_NAMES) + 1, axis=0)
    for k, name in enumerate(GROUP_NAMES):
        hidden = np.ones(value.shape[1], dtype=bool)
        hidden[world.features.slices[name]] = False
        value[k, hidden] = np.nan
    value[-1] = np.nan
    vector = encoder.encode(value)
    known = np.isfinite(value).any(axis=1)
    assert vector[known].any(axis=1).all()
    assert not vector[~known].any()
    assert not known[-1]


def test_a_saved_encoder_encodes_the_same_to_the_last_bit(past: Moments, encoder: UserEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    again = UserEncoder.load(tmp_path)
    assert again is not None
    assert again.version == encoder.version
    np.testing.assert_array_equal(again.encode(past.value), encoder.encode(past.value))


def test_a_damaged_file_and_one_of_other_features_are_refused(
    world: UserWorld, encoder: UserEncoder, tmp_path: Path
) -> None:
    assert UserEncoder.load(tmp_path) is None
    encoder.save(tmp_path)
    other = replace(world.features, countries=("SE",))
    with pytest.raises(BundleError, match="other features"):
        encoder.fitting(other)
    assert encoder.fitting(world.features) is encoder
    data = bytearray((tmp_path / FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / FILE).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="checksum"):
        UserEncoder.load(tmp_path)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        UserEncoder.load(tmp_path)


def test_one_listener_and_many_are_encoded_alike(past: Moments, encoder: UserEncoder) -> None:
    together = encoder.encode(past.value[:5])
    alone = np.concatenate([encoder.encode(past.value[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_features_of_another_width_are_refused(encoder: UserEncoder) -> None:
    with pytest.raises(ValueError, match="expected"):
        encoder.encode(np.zeros((2, 3), np.float32))


def test_weeks_without_plays_teach_nothing(world: UserWorld, lessons: Lessons) -> None:
    silent = replace(lessons, mean=np.full_like(lessons.mean, np.nan))
    with pytest.raises(DataError, match="cannot be trained"):
        train_encoder(silent, world.features, SMALL, 1)


def near_own_week(world: UserWorld, lessons: Lessons, mean: np.ndarray) -> float:
    """How much nearer, by cosine of what is said of the next week, a listener's vector lies to those who play alike."""
    encoder = train_encoder(replace(lessons, mean=mean), world.features, replace(SMALL, epochs=30, item_weight=0.0), 3)
    vector = encoder.encode(lessons.value)
    unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    week = lessons.mean - np.nanmean(lessons.mean, axis=0)
    week /= np.linalg.norm(week, axis=1, keepdims=True)
    apart = ~np.eye(len(unit), dtype=bool)
    return float(np.corrcoef((unit @ unit.T)[apart], (week @ week.T)[apart])[0, 1])


def test_likeness_of_vectors_is_likeness_of_the_next_week_and_not_where_weeks_are_shuffled(
    world: UserWorld, lessons: Lessons
) -> None:
    shuffled = lessons.mean[np.random.default_rng(0).permutation(len(lessons.mean))]
    learnt, chance = (near_own_week(world, lessons, mean) for mean in (lessons.mean, shuffled))
    assert learnt > 0.6
    assert learnt > chance + 0.2
