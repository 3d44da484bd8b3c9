"""Page logs in blocks on the engine, against the whole log at once and against the estimates of `bart evaluate`."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import page_export as exports
import page_log_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.evaluate.engine_pages import PageKernel, evaluate_pages_on_engine
from api.evaluate.pages_log import evaluate_log
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError
from bart.ope.engine.exposure_fit import Pooled, starts
from bart.ope.engine.pages import caps_of, page_estimates, page_fits, page_replicates, page_value, put_pages, put_pooled
from bart.ope.engine.run import run_kernel
from bart.ope.engine.sums import Statistics
from bart.ope.estimators.pages import PAGE_ESTIMATORS, estimate_pages
from bart.ope.intervals.poisson_hash import hash_text
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.types import PageBatch

EXACT = (
    "independent_ips", "sn_independent_ips", "page_ncis", "cascade_ips", "sn_cascade_ips", "slate_ips", "slate_snips",
)  # fmt: skip
FITTED = ("exposure_dr", "exposure_ips", "dm")


@dataclass
class Summed:
    """A log in blocks: sums, and fits by kind."""

    found: Statistics
    fits: dict[str, Pooled]

    def value(self, kind: str) -> float:
        return page_value(self.found, "new", kind, self.fits.get(kind))

    def replicates(self, kind: str) -> Any:
        return page_replicates(self.found, "new", kind, self.fits.get(kind))


def summed(batch: PageBatch, cuts: Sequence[int], kinds: Sequence[str]) -> tuple[LoggedPages, Summed]:
    """The log at once, and its statistics in blocks cut there, by a pass of each sort."""
    rng = np.random.default_rng(0)
    score = batch.score + rng.normal(0, 0.5, len(batch.score))
    q = 1 / (1 + np.exp(-batch.score))
    users = {user: i for i, user in enumerate(dict.fromkeys(batch.user_id))}
    hashed = hash_text([str(user) for user in users])
    asked: dict[str, dict[str, Any]] = {name: {} for name in kinds}
    total, parts = Statistics(), []
    for pages in np.split(np.arange(len(batch)), cuts):
        flat = np.concatenate([np.arange(batch.offset[i], batch.offset[i + 1]) for i in pages])
        parts.append(partial(logged_pages, batch.take(pages), score[flat], 0.1, 0.1, q[flat], users=users))
    for part in parts:
        put_pages(total, "new", (data := part()), asked, hashed[data.user], 400, 1)
    at = starts(total, ["new"], caps_of(asked))
    assert at is not None
    by_cap = {cap: shared for (_, cap), shared in at.items()}
    for part in parts:
        put_pooled(total, "new", (data := part()), asked, by_cap, hashed[data.user], 400, 1)
    whole = logged_pages(batch, score, 0.1, 0.1, q, users=users)
    return whole, Summed(total, page_fits(total, "new", asked, by_cap))


@pytest.fixture(scope="module")
def blocks() -> tuple[LoggedPages, Summed, Summed]:
    """A log, its statistics in twelve blocks of a hundred pages, and in one."""
    batch = world.batch(np.random.default_rng(0), pages=1_200)
    kinds = (*EXACT, *FITTED, "cascade_dr")
    whole, cut = summed(batch, range(100, 1_200, 100), kinds)
    return whole, cut, summed(batch, [], kinds)[1]


@pytest.mark.parametrize("name", EXACT)
def test_a_value_by_weights_is_that_of_the_whole_log_however_it_is_cut(name: str, blocks: Any) -> None:
    whole, cut, _ = blocks
    assert cut.value(name) == pytest.approx(PAGE_ESTIMATORS[name](whole).value, rel=1e-12)


@pytest.mark.parametrize("name", FITTED)
def test_a_value_by_exposures_is_that_of_one_fit_to_the_whole_log_however_it_is_cut(name: str, blocks: Any) -> None:
    whole, cut, one = blocks
    expected = estimate_pages(name, whole)
    width = expected.upper - expected.lower
    assert abs(one.value(name) - expected.value) < 0.001 * width
    assert abs(cut.value(name) - expected.value) < 0.005 * width
    # Another pass, from where the first came to, takes the rest.
    assert cut.fits[name].off(name) < 1


def test_a_further_pass_finds_nothing_left_to_move(blocks: Any) -> None:
    whole, cut, _ = blocks
    at = cut.fits["exposure_dr"].at.moved(cut.fits["exposure_dr"].step)
    found = Statistics()
    kinds: dict[str, dict[str, Any]] = {"exposure_dr": {}}
    put_pooled(found, "new", whole, kinds, {at.cap: at}, hash_text([str(u) for u in whole.user]), 100, 1)
    fit = page_fits(found, "new", kinds, {at.cap: at})["exposure_dr"]
    assert fit.off("exposure_dr") < 0.01
    assert fit.value("exposure_dr") == pytest.approx(cut.value("exposure_dr"), rel=1e-4)


def test_a_cascade_with_a_base_from_the_whole_logs_fit_is_that_of_the_log_at_once(blocks: Any) -> None:
    whole, cut, _ = blocks
    expected = estimate_pages("cascade_dr", whole)
    assert abs(cut.value("cascade_dr") - expected.value) < 0.02 * (expected.upper - expected.lower)


def test_blocks_of_one_page_and_blocks_that_nobody_read_count_as_in_the_log_at_once() -> None:
    batch = world.batch(np.random.default_rng(0), pages=1_200)
    seen, reward = batch.seen.copy(), batch.reward.copy()
    seen[400:500], reward[400:500] = False, 0.0
    batch = replace(batch, seen=seen, reward=reward)
    whole, cut = summed(batch, [400, 500, 501, 520], ["exposure_dr"])
    expected = estimate_pages("exposure_dr", whole)
    found = page_estimates(cut.found, "new", {"exposure_dr": "exposure_dr"}, 0.95, (), cut.fits)["exposure_dr"]
    assert abs(found.value - expected.value) < 0.01 * (expected.upper - expected.lower)
    assert found.effective_sample_size == pytest.approx(expected.effective_sample_size, rel=0.01)
    assert found.max_weight == pytest.approx(expected.max_weight, rel=0.01)
    assert found.mean_weight == pytest.approx(expected.mean_weight, abs=0.002)  # the balance of exposures
    assert found.verdict == expected.verdict


def test_a_log_that_nobody_read_is_refused() -> None:
    batch = world.batch(np.random.default_rng(0), pages=20)
    unread = replace(batch, seen=np.zeros_like(batch.seen), reward=np.zeros_like(batch.reward))
    with pytest.raises(ValueError, match="no card was seen on any page"):
        summed(unread, [10], ["exposure_dr"])


def test_replicates_of_self_normalised_values_do_not_depend_on_the_blocks(blocks: Any) -> None:
    _, cut, one = blocks
    assert cut.replicates("page_ncis") == pytest.approx(one.replicates("page_ncis"), rel=1e-11)


@pytest.mark.parametrize("name", ["independent_ips", "sn_independent_ips", *FITTED])
def test_the_bootstrap_of_listeners_has_the_spread_of_the_clustered_interval(name: str, blocks: Any) -> None:
    whole, cut, _ = blocks
    expected = estimate_pages(name, whole)
    half = 1.96 * cut.replicates(name).std()
    # 400 replicates know their spread to 4 %, and Student's quantile is a little wider.
    assert half == pytest.approx((expected.upper - expected.lower) / 2, rel=0.2)


@pytest.fixture(scope="module")
def log(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = exports.export_pages(built_run, tmp_path_factory.mktemp("pages"))
    return path


def test_an_exported_log_gives_the_values_of_bart_evaluate(log: Path) -> None:
    settings = load_settings({})
    asked = ["independent_ips", "sn_independent_ips", "page_ncis"]
    here = evaluate_pages_on_engine(
        log, ["popularity"], settings, None, Quiet(), engine="local", workers=1, estimators=asked
    )
    whole = evaluate_log(log, ["popularity"], settings, None, Quiet(), estimators=asked)
    assert here["log"] == pytest.approx(whole["log"])
    assert here["left_out"] == {k: v for k, v in whole["left_out"].items() if k in here["left_out"]}
    for mine, theirs in zip(here["policies"], whole["policies"], strict=True):
        assert mine["name"] == theirs["name"]
        assert mine["weights"]["share"] == pytest.approx(theirs["weights"]["share"])
        for name in asked:
            for key in ("value", "n", "effective_sample_size"):
                assert mine["estimates"][name][key] == pytest.approx(theirs["estimates"][name][key], rel=1e-9)


def test_scores_that_are_probabilities_in_some_blocks_only_predict_in_none(log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    shutil.copytree(log, folder)
    (tmp_path / "bundle").symlink_to((log.parent / "bundle").resolve())
    for file in sorted(folder.rglob("*.parquet"))[:2]:
        table = pq.read_table(file)
        scaled = pa.array([[10.0 * score for score in page] for page in table["raw_score"].to_pylist()])
        pq.write_table(table.set_column(table.schema.get_field_index("raw_score"), "raw_score", scaled), file)
    asked = ["dr", "dm", "exposure_ips"]
    given: dict[str, Any] = {"settings": load_settings({}), "out": None, "stages": Quiet(), "estimators": asked}
    here = evaluate_pages_on_engine(folder, ["popularity:0.2"], **given, engine="local", workers=1)["policies"][1]
    there = evaluate_log(folder, ["popularity:0.2"], **given)["policies"][1]
    for name in asked:
        assert here["estimates"][name]["value"] == pytest.approx(there["estimates"][name]["value"], rel=0.005), name


def test_a_pickled_kernel_gives_the_same_sums(log: Path) -> None:
    kernel = PageKernel(str(log), (("popularity", 0.0),), (("page_ncis", ()),), (2, 3), None, 10, 1)
    one, two = run_kernel(kernel, log, workers=1), run_kernel(pickle.loads(pickle.dumps(kernel)), log, workers=1)
    assert one.names() == two.names()
    for name in one.names():
        assert one.values(name).tobytes() == two.values(name).tobytes(), name


def test_what_the_engine_cannot_do_is_refused(log: Path) -> None:
    with pytest.raises(DataError, match="expected percentile for pages"):
        evaluate_pages_on_engine(log, [], load_settings({}), None, Quiet(), engine="local", interval="student")
