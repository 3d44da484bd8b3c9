"""The reward model learns, refuses what would spoil it, and comes back from disk as it was or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reward_world as world
import vowpal_wabbit_next as vw

from bart.errors import BundleError, SchemaMismatch
from bart.learning.training import card_examples, seen_cards
from bart.reward.contributions import group_logits, probability
from bart.reward.features import Examples, FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel, text_line
from bart.types import Floats

SCHEMA = FeatureSchema(dimension=8)
CONFIG = RewardConfig(SCHEMA, bits=16, learning_rate=None)


def world_examples(schema: FeatureSchema = SCHEMA, pages: int = 60, seed: int = 0) -> tuple[Examples, Floats]:
    rng = np.random.default_rng(seed)
    items = world.item_table(rng)
    batch = world.logged_pages(rng, items, pages)
    cards = seen_cards(batch)
    reward = batch.reward[cards.page, cards.row, cards.column]
    return card_examples(ItemFeatures(schema, items), batch, cards), reward


@pytest.fixture(scope="module")
def data() -> tuple[Examples, Floats]:
    return world_examples()


@pytest.fixture
def trained(data: tuple[Examples, Floats]) -> RewardModel:
    model = RewardModel(CONFIG)
    model.learn(*data)
    return model


def test_a_new_model_predicts_one_half(data: tuple[Examples, Floats]) -> None:
    assert (RewardModel(CONFIG).predict(data[0]) == 0.5).all()


def test_learning_moves_predictions_towards_the_rewards(trained: RewardModel, data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    prediction = trained.predict(examples)
    assert prediction[reward == 1].mean() > prediction[reward == 0].mean()


@pytest.mark.parametrize("bits", [16, 6])
@pytest.mark.parametrize(("order", "full"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
def test_predictions_are_weights_gathered_by_hash(order: int, full: bool, bits: int) -> None:
    schema = FeatureSchema(dimension=8, order=order, full_crosses=full)
    examples, reward = world_examples(schema)
    model = RewardModel(RewardConfig(schema, bits=bits, learning_rate=None))
    model.learn(examples, reward)
    logit = np.sum(list(group_logits(examples, model.weights()).values()), axis=0)
    assert np.abs(probability(logit) - model.predict(examples)).max() < 1e-5


def test_pushed_features_are_those_of_the_text_format(trained: RewardModel, data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    workspace = vw.Workspace(list(CONFIG.arguments))
    parser = vw.TextFormatParser(workspace)
    for i, r in enumerate(reward.tolist()):
        workspace.learn_one(parser.parse_line(text_line(examples, i, "1" if r else "-1")))
    from_text = [workspace.predict_one(parser.parse_line(text_line(examples, i))) for i in range(50)]
    assert np.abs(trained.predict(examples)[:50] - from_text).max() < 1e-5


def test_zeros_are_not_pushed(data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    unknown = replace(
        examples,
        listener=np.zeros_like(examples.listener),
        match=np.zeros_like(examples.match),
        item_vector=np.zeros_like(examples.item_vector),
        popularity=np.zeros_like(examples.popularity),
    )
    model = RewardModel(CONFIG)
    model.learn(unknown, reward)
    logit = group_logits(examples, model.weights())
    for name in ("listener", "item vector", "match", "listener x explanation"):
        assert (logit.get(name, np.zeros(1)) == 0).all()
    assert np.isfinite(model.predict(examples)).all()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("rate", [None, 0.002])
def test_the_prior_is_what_is_believed_and_learning_goes_on_from_it(order: int, rate: float | None) -> None:
    schema = FeatureSchema(dimension=8, order=order)
    examples, reward = world_examples(schema)
    model = RewardModel.prior(RewardConfig(schema, bits=16, learning_rate=rate))
    cosine = examples.match[:, -1] / schema.scale if order > 1 else 0.0
    believed = probability(-2.4 + 1.8 * cosine + 0.6 * examples.popularity)
    assert np.abs(model.predict(examples) - believed).max() < 1e-6
    assert (model.n_learned, model.rules) == (0, set())
    fresh = RewardModel(model.config)
    for one in (model, fresh):
        one.learn(examples, reward)
    wrong = [np.abs(np.log(one.predict(examples) / believed)).mean() for one in (model, fresh)]
    assert wrong[0] < wrong[1]


def test_the_prior_is_the_same_each_time() -> None:
    examples, reward = world_examples()
    models = [RewardModel.prior(CONFIG) for _ in range(2)]
    for model in models:
        model.learn(examples, reward)
    assert (models[0].weights() == models[1].weights()).all()


def test_a_fraction_counts_as_both_outcomes_by_its_share(data: tuple[Examples, Floats]) -> None:
    examples, _ = data
    third = RewardModel(replace(CONFIG, learning_rate=0.1))
    for _ in range(10):
        third.learn(examples, np.full(len(examples), 1 / 3))
    assert abs(third.predict(examples).mean() - 1 / 3) < 0.02


def test_weights_of_one_change_nothing_and_weights_of_zero_teach_nothing(data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    plain, ones, zeros = RewardModel(CONFIG), RewardModel(CONFIG), RewardModel(CONFIG)
    plain.learn(examples, reward)
    ones.learn(examples, reward, np.ones(len(reward)))
    zeros.learn(examples, reward, np.zeros(len(reward)))
    assert (plain.weights() == ones.weights()).all()
    assert (zeros.weights() == 0).all()


def test_heavier_examples_teach_more(data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    towards = RewardModel(CONFIG)
    towards.learn(examples, reward, np.where(reward == 1, 10.0, 1.0))
    plain = RewardModel(CONFIG)
    plain.learn(examples, reward)
    assert towards.predict(examples).mean() > plain.predict(examples).mean() + 0.05


def test_the_same_examples_give_the_same_weights(trained: RewardModel, data: tuple[Examples, Floats]) -> None:
    again = RewardModel(CONFIG)
    again.learn(*data)
    assert (again.weights() == trained.weights()).all()


def test_a_saved_model_predicts_the_same_and_goes_on_learning_the_same(
    tmp_path: Path, trained: RewardModel, data: tuple[Examples, Floats]
) -> None:
    examples, reward = data
    trained.save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert loaded.config == trained.config
    assert loaded.rules == trained.rules == set(world.RULES)
    assert loaded.n_learned == len(examples)
    assert (loaded.predict(examples) == trained.predict(examples)).all()
    trained.learn(examples, reward)
    loaded.learn(examples, reward)
    assert (loaded.weights() == trained.weights()).all()


def test_a_copy_learns_on_its_own(trained: RewardModel, data: tuple[Examples, Floats]) -> None:
    before = trained.weights()
    copy = trained.copy()
    copy.learn(*data)
    assert (trained.weights() == before).all()
    assert not (copy.weights() == before).all()


def test_a_truncated_or_altered_model_is_refused(tmp_path: Path, trained: RewardModel) -> None:
    trained.save(tmp_path)
    data = (tmp_path / "model.vw").read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for altered in (data[:-1000], bytes(flipped), b""):
        (tmp_path / "model.vw").write_bytes(altered)
        with pytest.raises(BundleError, match="its sha256 is not the recorded one"):
            RewardModel.load(tmp_path)


def test_a_model_beside_another_schema_is_refused(tmp_path: Path, trained: RewardModel) -> None:
    trained.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["config"]["schema"]["order"] = 2
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(SchemaMismatch, match="not the one the model was trained with"):
        RewardModel.load(tmp_path)


def test_a_model_with_other_arguments_is_refused(tmp_path: Path, trained: RewardModel) -> None:
    trained.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["arguments"][description["arguments"].index("logistic")] = "squared"
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="arguments do not follow from the configuration"):
        RewardModel.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no reward model in"):
        RewardModel.load(tmp_path)
    (tmp_path / "model.vw").write_bytes(b"")
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BundleError, match="is not of format 1"):
        RewardModel.load(tmp_path)


@pytest.mark.parametrize(
    ("reward", "weight", "text"),
    [
        (1.5, None, r"reward\[3\] is 1.5; expected a number in \[0, 1\]"),
        (-0.5, None, r"reward\[3\] is -0.5; expected a number in \[0, 1\]"),
        (np.nan, None, r"reward\[3\] is nan"),
        (1.0, -1.0, r"weight\[3\] is -1.0; expected a number in \[0, inf\]"),
        (1.0, np.inf, r"weight\[3\] is inf"),
    ],
)
def test_rewards_and_weights_outside_their_range_teach_nothing(
    data: tuple[Examples, Floats], reward: float, weight: float | None, text: str
) -> None:
    examples, good = data
    rewards, weights = good.copy(), None
    rewards[3] = reward
    if weight is not None:
        weights = np.ones(len(good))
        weights[3] = weight
    model = RewardModel(CONFIG)
    with pytest.raises(ValueError, match=text):
        model.learn(examples, rewards, weights)
    assert (model.weights() == 0).all()


def test_values_that_are_not_finite_do_not_reach_the_weights(data: tuple[Examples, Floats]) -> None:
    examples, reward = data
    match = examples.match.copy()
    match[5, 2] = np.nan
    model = RewardModel(CONFIG)
    with pytest.raises(ValueError, match=r"match\[5, 2\] is not finite"):
        model.learn(replace(examples, match=match), reward)
    assert (model.weights() == 0).all()


def test_examples_of_another_schema_are_refused(data: tuple[Examples, Floats]) -> None:
    model = RewardModel(RewardConfig(FeatureSchema(dimension=8, order=2), bits=16, learning_rate=None))
    with pytest.raises(SchemaMismatch, match="the model expects"):
        model.learn(*data)
    with pytest.raises(SchemaMismatch, match="the model expects"):
        model.predict(data[0])


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"bits": 3}, "bits is 3; expected 4 to 28"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected a positive number"),
        ({"l2": -1.0}, "l2 is -1.0; expected 0 or more"),
        ({"l2": 0.1, "learning_rate": None}, "l2 is 0.1; expected 0 where there is no learning_rate"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RewardConfig(**fields)


def test_contributions_of_groups_and_crosses_have_the_names_of_the_schema(trained: RewardModel) -> None:
    examples, _ = world_examples()
    names = list(group_logits(examples, trained.weights()))
    assert names[:3] == ["constant", "context", "listener"]
    assert "context x match" in names
    assert len(names) == 1 + len(SCHEMA.namespaces) + len(SCHEMA.crosses)


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, learning_rate=0.1), replace(CONFIG, learning_rate=0.1, l2=1e-3)]
)
def test_the_content_id_is_of_what_was_learnt_and_not_of_what_was_predicted(
    config: RewardConfig, data: tuple[Examples, Floats], tmp_path: Path
) -> None:
    examples, reward = data
    model = RewardModel(config)
    model.learn(examples, reward)
    before = model.content_id()
    model.save(tmp_path / "before")
    model.predict(examples)
    model.save(tmp_path / "after")
    assert (tmp_path / "before" / "model.vw").read_bytes() != (tmp_path / "after" / "model.vw").read_bytes()
    assert model.content_id() == before
    assert {RewardModel.load(tmp_path / name).content_id() for name in ("before", "after")} == {before}
    assert {(tmp_path / name / "content.sha256").read_text() for name in ("before", "after")} == {before + "\n"}
    model.learn(examples, reward)
    assert model.content_id() != before
    assert RewardModel(replace(config, bits=15)).content_id() != RewardModel(config).content_id()
