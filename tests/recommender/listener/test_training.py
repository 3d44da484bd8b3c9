"""Training: it learns where there is something to learn, repeats itself to the bit, and leaves torch as it found it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_listening import synthetic_listening

from bart.errors import DataError
from recommender.listener.batches import SequenceData
from recommender.listener.cosernn import CoSeRNN, CoSeRNNConfig
from recommender.listener.memories import LONG_TERM, memory_vectors
from recommender.listener.training import (
    Progress,
    Trained,
    TrainingConfig,
    contrastive_loss,
    cosine_loss,
    predict_all,
    train,
)
from recommender.sessions.sessions import Sessions, cut_sessions, time_split

CONFIG = CoSeRNNConfig(dimension=8, hidden=16, width=24, memory=LONG_TERM, sources=("", "library", "playlist"))
DATA = {"pathways": CONFIG.pathways, "memory": CONFIG.memory}


def sessions(**effects: float) -> Sessions:
    w = synthetic_listening(np.random.default_rng(0), users=24, days=30, **effects)  # type: ignore[arg-type]
    return cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)


def fit(s: Sessions, seed: int = 1, checkpoint: Path | None = None, **more: float) -> Trained:
    training = TrainingConfig(**{"epochs": 12, "listeners": 4, **more})  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    return train(lambda: CoSeRNN(CONFIG), s, time_split(s, 6, 3), training, rng, checkpoint=checkpoint, **DATA)


def test_cosine(s: Sessions, u: np.ndarray) -> float:  # type: ignore[type-arg]
    test = s.has_played & (s.columns.started_s >= time_split(s, 6, 3).test_s)
    return float((u * s.columns.played).sum(axis=1)[test].mean())


test_cosine.__test__ = False  # type: ignore[attr-defined]


def test_where_taste_follows_the_hour_it_beats_every_memory_that_ignores_it() -> None:
    s = sessions(context_effect=1.5, drift=0.1)
    model = fit(s, epochs=30, learning_rate=4e-3).model
    learnt = test_cosine(s, predict_all(model, SequenceData(s, CONFIG.pathways, CONFIG.memory)))
    for name in ("average", "ema_0.8", "last"):
        assert learnt > test_cosine(s, memory_vectors(s, (name,))[:, 0]) * 1.06


def test_where_nothing_depends_on_context_or_sequence_it_gains_nothing_over_the_average() -> None:
    s = sessions(context_effect=0.0, drift=0.0)
    model = fit(s).model
    learnt = test_cosine(s, predict_all(model, SequenceData(s, CONFIG.pathways, CONFIG.memory)))
    assert learnt < test_cosine(s, memory_vectors(s, ("average",))[:, 0]) * 1.005


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    s = sessions()
    one, same, other = (fit(s, seed, epochs=2).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_training_gives_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    s = sessions()
    whole = fit(s, epochs=4).model.state_dict()

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.epoch == 3 and progress.validation is None:
            raise Stopped

    training = TrainingConfig(epochs=4, listeners=4)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        train(
            lambda: CoSeRNN(CONFIG), s, time_split(s, 6, 3), training, np.random.default_rng(1), **DATA,
            checkpoint=file, on_progress=stop,
        )  # fmt: skip
    resumed = fit(s, epochs=4, checkpoint=file).model.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_is_kept_is_the_average_of_the_weights_over_the_last_steps() -> None:
    s = sessions()
    made: list[CoSeRNN] = []
    weight: list[np.ndarray] = []  # type: ignore[type-arg]

    def make() -> CoSeRNN:
        made.append(CoSeRNN(CONFIG))
        return made[0]

    def record(progress: Progress) -> None:
        if progress.validation is None:
            weight.append(made[0].offset.weight.detach().numpy().copy())

    training = TrainingConfig(epochs=2, listeners=2, averaged=0.25, patience=2)
    kept = train(
        make, s, time_split(s, 6, 3), training, np.random.default_rng(1), on_progress=record, **DATA
    )  # fmt: skip
    assert kept.best_epoch == 2
    n = len(weight)
    share = [1 / max(min(0.25 * n, (i + 1) / 2), 1) for i in range(n)]
    expected = sum(share[i] * np.prod([1 - later for later in share[i + 1 :]]) * w for i, w in enumerate(weight))
    assert np.allclose(kept.model.state_dict()["offset.weight"].numpy(), expected, atol=1e-6)
    assert not np.allclose(weight[-1], expected, atol=1e-3)


def test_few_batches_are_seen_more_often_and_many_less_unless_the_passes_are_given() -> None:
    by_size = TrainingConfig(epochs=None)
    assert [by_size.passes(batches) for batches in (1, 15, 25, 32, 125, 250, 500, 100_000)] == [
        40, 25, 15, 12, 12, 12, 6, 4,
    ]  # fmt: skip
    assert TrainingConfig(epochs=7).passes(1) == TrainingConfig(epochs=7).passes(100_000) == 7


def test_it_leaves_the_threads_and_the_random_stream_of_torch_alone() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fit(sessions(), epochs=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(before, torch.get_rng_state())


def test_it_stops_when_validation_no_longer_improves_and_keeps_the_best_epoch() -> None:
    trained = fit(sessions(context_effect=0.0, drift=0.0), epochs=60, learning_rate=2e-2, patience=2)
    assert len(trained.validation) < 60
    assert trained.validation[trained.best_epoch - 1] == max(trained.validation)


def test_test_sessions_do_not_reach_the_training() -> None:
    s = sessions()
    split = time_split(s, 6, 3)
    shortened = s.before(split.test_s)
    training = TrainingConfig(epochs=1, listeners=4)
    whole, cut = (
        train(lambda: CoSeRNN(CONFIG), data, split, training, np.random.default_rng(1), **DATA).model.state_dict()
        for data in (s, shortened)
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_progress_tells_loss_and_speed_and_ends_each_epoch_with_a_validation() -> None:
    s = sessions()
    seen: list[Progress] = []
    training = TrainingConfig(epochs=2, listeners=8)
    train(
        lambda: CoSeRNN(CONFIG),
        s,
        time_split(s, 6, 3),
        training,
        np.random.default_rng(0),
        on_progress=seen.append,
        **DATA,
    )
    assert [p.validation is not None for p in seen] == [False, False, False, True] * 2
    assert all(p.loss > 0 and p.sessions_per_s > 0 for p in seen)


def test_the_loss_of_perfect_predictions_is_zero_and_of_opposite_ones_two() -> None:
    s = sessions()
    batch = SequenceData(s, ("played",), ("average",)).batch(np.arange(3))
    assert float(cosine_loss(batch.target, batch)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(-batch.target, batch)) == pytest.approx(2, abs=1e-6)


def test_the_contrastive_loss_is_lower_for_the_true_session_than_for_a_common_vector() -> None:
    s = sessions()
    batch = SequenceData(s, ("played",), ("average",)).batch(np.arange(8))
    common = torch.nn.functional.normalize(batch.target.mean(dim=(0, 1)), dim=0).expand_as(batch.target)
    assert float(contrastive_loss(batch.target, batch, 0.1, 64)) < float(contrastive_loss(common, batch, 0.1, 64))


def test_nothing_played_means_nothing_to_learn() -> None:
    w = synthetic_listening(np.random.default_rng(0), users=2, days=30)
    s = cut_sessions(w.events, {}, w.vector)
    with pytest.raises(DataError, match="nothing can be learnt"):
        fit(s)
