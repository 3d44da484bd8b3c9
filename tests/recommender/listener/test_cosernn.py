"""The network: causal, blind to padding, and better than its memories where context or sequence matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_listening import synthetic_listening

from recommender.listener.batches import SequenceData
from recommender.listener.cosernn import CoSeRNN, CoSeRNNConfig
from recommender.listener.training import bf16_gains, cosine_loss, predict_all, validation_cosine
from recommender.sessions.sessions import Sessions, cut_sessions
from recommender.sessions.table import SessionColumns


def sessions(seed: int = 0, users: int = 6, days: int = 10) -> Sessions:
    w = synthetic_listening(np.random.default_rng(seed), users=users, days=days)
    return cut_sessions(w.events, {k: i for i, k in enumerate(w.item_id)}, w.vector)


def network(s: Sessions, **more: object) -> CoSeRNN:
    torch.manual_seed(0)
    config = CoSeRNNConfig(dimension=8, hidden=12, width=16, sources=s.sources, **more)  # type: ignore[arg-type]
    model = CoSeRNN(config)
    torch.nn.init.normal_(model.initial.weight)
    return model.eval()


def data_for(model: CoSeRNN, s: Sessions) -> SequenceData:
    return SequenceData(s, model.config.pathways, model.config.memory)


VARIANTS = [
    {},
    {"input": "relu2"},
    {"pathways": ("played",)},
    {"pathways": ("played", "skipped", "all")},
    {"features": ("last",)},
    {"features": ("context", "source", "gap")},
    {"memory": ("average",)},
    {"memory": ("last", "average_same_context")},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_are_unit_vectors_for_every_variant(variant: dict[str, object]) -> None:
    s = sessions()
    model = network(s, **variant)
    u = predict_all(model, data_for(model, s))
    assert np.linalg.norm(u, axis=1) == pytest.approx(np.ones(len(s)), abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_longer_padding_changes_no_bit(variant: dict[str, object]) -> None:
    s = sessions()
    model = network(s, **variant)
    data = data_for(model, s)
    users = np.arange(3)
    with torch.no_grad():
        short, long = model(data.batch(users)), model(data.batch(users, length=50))
    assert torch.equal(short, long[:, : short.shape[1]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_later_session_changes_nothing_earlier(variant: dict[str, object]) -> None:
    s = sessions()
    model = network(s, **variant)
    before = predict_all(model, data_for(model, s))
    row = int(s.offset[2]) + 7
    rng = np.random.default_rng(5)
    columns = s.columns
    changed: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    for name in ("all", "played", "skipped"):
        value = getattr(columns, name).copy()
        value[row] = rng.standard_normal(8)
        changed[name] = value
    for name, code in (("n_tracks", 99), ("source", 1), ("ended_s", int(columns.ended_s[row]) + 600)):
        value = getattr(columns, name).copy()
        value[row] = code
        changed[name] = value
    after = predict_all(model, data_for(model, replace(s, columns=replace(columns, **changed))))  # type: ignore[arg-type]
    # What happened in session 7 of listener 2 is unknown up to and including its own prediction.
    assert np.array_equal(before[: row + 1], after[: row + 1])
    assert np.array_equal(before[s.offset[3] :], after[s.offset[3] :])
    if model.config.features != ("context", "source", "gap"):
        assert not np.array_equal(before[row + 1 : s.offset[3]], after[row + 1 : s.offset[3]])


def test_the_context_of_a_session_moves_its_own_prediction() -> None:
    s = sessions()
    model = network(s)
    hour = s.columns.hour.copy()
    row = int(s.offset[1]) + 4
    hour[row] = (hour[row] + 7) % 24
    before = predict_all(model, data_for(model, s))
    after = predict_all(model, data_for(model, replace(s, columns=replace(s.columns, hour=hour))))
    assert np.array_equal(before[:row], after[:row])
    assert not np.array_equal(before[row], after[row])


def test_switched_off_features_have_no_say() -> None:
    s = sessions()
    model = network(s, features=("last", "tracks"))
    columns = replace(s.columns, hour=(s.columns.hour + 3) % 24, source=0 * s.columns.source)
    assert np.array_equal(
        predict_all(model, data_for(model, s)), predict_all(model, data_for(model, replace(s, columns=columns)))
    )


def test_listeners_do_not_see_each_other() -> None:
    s = sessions()
    model = network(s)
    alone = s.take_users(np.array([4]))
    together = predict_all(model, data_for(model, s))[s.offset[4] : s.offset[5]]
    assert together == pytest.approx(predict_all(model, data_for(model, alone)), abs=1e-6)


def test_a_listener_without_sessions_takes_no_place() -> None:
    s = sessions()
    early = s.before(int(s.columns.started_s.min()) + 1)
    model = network(s)
    assert len(predict_all(model, data_for(model, early))) == len(early)


def test_the_age_of_the_account_sets_the_first_state() -> None:
    s = sessions()
    model = network(s)
    old = replace(s, account_age_d=np.full(s.n_users, 400.0))
    first = s.offset[:-1]
    young = predict_all(model, data_for(model, s))[first]
    assert not np.allclose(young, predict_all(model, data_for(model, old))[first])


def test_a_batch_too_short_for_its_listeners_is_refused() -> None:
    s = sessions()
    with pytest.raises(ValueError, match="longest history"):
        data_for(network(s), s).batch(np.arange(2), length=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input": "cubic"}, "linear"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"pathways": ("loved",)}, "pathways"),
        ({"features": ("mood",)}, "features"),
        ({"memory": ("elephant",)}, "elephant"),
        ({"sources": ("radio",)}, "sources"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoSeRNNConfig(**wrong)  # type: ignore[arg-type]


def test_columns_are_taken_in_the_order_asked() -> None:
    columns: SessionColumns = sessions().columns
    assert columns.take(np.array([3, 1])).hour.tolist() == columns.hour[[3, 1]].tolist()


def test_an_input_layer_folded_into_the_lstm_is_the_same_network_with_the_same_gradients() -> None:
    s = sessions()
    model = network(s).train()
    batch = data_for(model, s).batch(np.arange(4))
    assert model.folded() is not None
    found = []
    for folded in (model.folded, lambda: None):
        model.folded = folded  # type: ignore[method-assign]
        model.zero_grad()
        u = model(batch)
        cosine_loss(u, batch).backward()  # type: ignore[no-untyped-call]
        found.append((u.detach(), {name: value.grad.clone() for name, value in model.named_parameters()}))
    (u, gradient), (plain, plain_gradient) = found
    torch.testing.assert_close(u, plain, atol=1e-5, rtol=0)
    for name, value in plain_gradient.items():
        torch.testing.assert_close(gradient[name], value, atol=1e-5, rtol=1e-3)


def test_nothing_is_folded_where_something_comes_between() -> None:
    s = sessions()
    assert network(s, input="relu2").folded() is None
    assert network(s, dropout=0.5).train().folded() is None
    assert network(s, dropout=0.5).eval().folded() is not None


def test_validation_is_the_mean_over_sessions_whatever_stands_together() -> None:
    s = sessions()
    model = network(s)
    data = data_for(model, s)
    whole = validation_cosine(model, data, data.trainable)
    alone = [validation_cosine(model, data, np.array([user])) for user in data.trainable]
    count = np.bincount(s.user[data.counts], minlength=s.n_users)[data.trainable]
    assert whole == pytest.approx(np.average(alone, weights=count), abs=1e-5)
    assert not bf16_gains(torch.nn.GRU(2, 2))
