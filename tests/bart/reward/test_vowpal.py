"""Vowpal Wabbit's two packages behind one face: each learns, keeps and reads as the other does."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path

import numpy as np
import pytest
from reward_world import item_table, logged_pages

from bart.errors import BundleError
from bart.learning.training import card_examples, seen_cards
from bart.reward.features import Examples, FeatureSchema, ItemFeatures
from bart.reward.model import RewardConfig, RewardModel
from bart.reward.vowpal import PACKAGES, open_workspace
from bart.types import Floats

RATES = (0.05, None)  # adaptive steps, coin betting


def need(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; pip install vowpalwabbit==9.11.* runs this")
    return package


@pytest.fixture(params=list(PACKAGES))
def package(request: pytest.FixtureRequest) -> str:
    return need(request.param)


def config(rate: float | None) -> RewardConfig:
    return RewardConfig(FeatureSchema(dimension=4, order=2), bits=12, learning_rate=rate)


@pytest.fixture(scope="module")
def data() -> tuple[Examples, Floats]:
    rng = np.random.default_rng(1)
    items = item_table(rng, 40, 4)
    pages = logged_pages(rng, items, 60)
    cards = seen_cards(pages)
    examples = card_examples(ItemFeatures(config(None).schema, items), pages, cards)
    return examples, pages.reward[cards.page, cards.row, cards.column]


def taught(package: str, rate: float | None, data: tuple[Examples, Floats]) -> RewardModel:
    model = RewardModel(config(rate))
    model._workspace = open_workspace(model.config.arguments, package=package)
    model.learn(*data)
    return model


def read_by(package: str, model: RewardModel) -> RewardModel:
    other = model.copy()
    other._workspace = open_workspace(model.config.arguments, model._workspace.serialize(), package)
    return other


@pytest.mark.parametrize("rate", RATES)
def test_a_model_learns_and_comes_back_from_its_bytes(
    package: str, rate: float | None, data: tuple[Examples, Floats]
) -> None:
    model = taught(package, rate, data)
    prediction = model.predict(data[0])
    assert np.corrcoef(prediction, data[1])[0, 1] > 0.2
    np.testing.assert_allclose(read_by(package, model).predict(data[0]), prediction, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_what_is_put_counts(package: str, rate: float | None, data: tuple[Examples, Floats]) -> None:
    model = taught(package, rate, data)
    workspace = model._workspace
    state = np.array(workspace.state())
    assert state.shape[0] == 1 << 12
    np.testing.assert_array_equal(state[:, 0], workspace.weights())
    index = np.flatnonzero(state[:, 0])
    workspace.put(index, np.zeros((len(index), state.shape[1]), dtype=np.float32))
    assert not workspace.weights().any()
    np.testing.assert_array_equal(model.predict(data[0]), np.full(len(data[0]), 0.5))


def test_a_shift_moves_every_prediction(package: str, data: tuple[Examples, Floats]) -> None:
    model = taught(package, 0.05, data)
    before = model.predict(data[0])
    model.shift(0.5)
    after = model.predict(data[0])
    np.testing.assert_allclose(np.log(after / (1 - after)) - np.log(before / (1 - before)), 0.5, atol=1e-4)


def test_bytes_that_are_no_model_are_refused(package: str) -> None:
    with pytest.raises(BundleError, match="Vowpal Wabbit cannot read the model"):
        open_workspace(config(0.05).arguments, b"no model", package)


@pytest.mark.parametrize("rate", RATES)
def test_each_package_reads_what_the_other_wrote(rate: float | None, data: tuple[Examples, Floats]) -> None:
    one, other = (need(name) for name in PACKAGES)
    for writer, reader in ((one, other), (other, one)):
        model = taught(writer, rate, data)
        np.testing.assert_allclose(read_by(reader, model).predict(data[0]), model.predict(data[0]), atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_both_packages_learn_the_same(rate: float | None, data: tuple[Examples, Floats]) -> None:
    one, other = (taught(need(name), rate, data) for name in PACKAGES)
    np.testing.assert_allclose(other.predict(data[0]), one.predict(data[0]), atol=1e-4)


@pytest.mark.parametrize("package", list(PACKAGES))
def test_the_model_of_an_earlier_version_is_read(package: str, tmp_path: Path) -> None:
    """Its compiled weights stand beside it: they are what every package must read."""
    from bart.tensors import from_bytes

    need(package)
    with tarfile.open(Path(__file__).parents[2] / "data" / "run_0_1" / "run.tar.xz") as archive:
        for member in archive:
            if "/reward/" in member.name and member.isfile():
                member.name = member.name.split("/reward/")[1]
                archive.extract(member, tmp_path, filter="data")
    folder = tmp_path
    model = read_by(package, RewardModel.load(folder / "model"))
    stored = from_bytes((folder / "weights.safetensors").read_bytes())
    weight = np.zeros(1 << model.config.bits, dtype=np.float32)
    weight[stored["index"]] = stored["value"]
    np.testing.assert_allclose(model._workspace.weights(), weight, atol=1e-6)
