"""Page logs in blocks against the whole log at once: sums, one fit for all blocks, intervals, comparisons."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_export as exports
import page_log_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.evaluate.page_kernel import Named, PageKernel, blocks_of
from api.evaluate.pages_log import evaluate_log
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.errors import DataError
from bart.log.store.files import export_files
from bart.ope.comparison.evaluation import Common, Place, Question, SummedLog, asked_of, put_block, summed_log
from bart.ope.engine.run import Engine, run_kernel
from bart.ope.engine.sums import Statistics
from bart.ope.engine.weights import put_weights, summed_weights
from bart.ope.estimators.page_estimate import estimate_pages
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.exposure.doubly_robust import fit_exposure
from bart.ope.policies.pages import EvaluationPolicy
from bart.ope.records.estimate import Estimate
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.verdict.pages import weight_facts
from bart.reward.rewards import streamed_30s
from bart.types import PageBatch

EXACT = (
    "independent_ips", "sn_independent_ips", "page_ncis", "cascade_ips", "sn_cascade_ips", "slate_ips", "slate_snips",
    "adaptive_ips", "pseudo_inverse",
)  # fmt: skip
FITTED = ("exposure_dr", "exposure_ips", "dm")
NUMBERS = ("value", "lower", "upper", "effective_sample_size", "max_weight", "mean_weight", "n")


def summed(
    batch: PageBatch, cuts: Sequence[int], kinds: Sequence[str], compared: bool = False
) -> tuple[LoggedPages, SummedLog]:
    """The log at once, and the log summed up in blocks cut there."""
    rng = np.random.default_rng(0)
    score = batch.score + rng.normal(0, 0.5, len(batch.score))
    q = 1 / (1 + np.exp(-batch.score))
    question = Question(asked_of({kind: kind for kind in kinds}), compared, columns=batch.card.shape[2])
    blocks = np.split(np.arange(len(batch)), cuts)

    def run(common: Common | None, _: str) -> Statistics:
        total = Statistics()
        for pages in blocks:
            flat = np.concatenate([np.arange(batch.offset[i], batch.offset[i + 1]) for i in pages])
            policy = EvaluationPolicy("new", score[flat], 0.1, 0.1, unpredicted=True)
            place = Place(len(blocks), len(pages) / len(batch))
            streams = np.random.default_rng(len(flat)).spawn(2)
            put_block(
                total, question, batch.take(pages), [policy], streams, q_logged=q[flat], place=place, common=common
            )
        return total

    whole = logged_pages(batch, score, 0.1, 0.1, q)
    return whole, summed_log(run, ["new"], question, len(blocks))


def estimates(log: SummedLog, interval: str | None = None) -> dict[str, Estimate]:
    return dict(log.rows([np.random.default_rng(1)], 0.95, interval)["new"])


@pytest.fixture(scope="module")
def blocks() -> tuple[LoggedPages, SummedLog, SummedLog]:
    """A log, its sums in twelve blocks of a hundred pages, and in one."""
    batch = world.batch(np.random.default_rng(0), pages=1_200)
    rng = np.random.default_rng(8)
    batch = replace(batch, device=rng.integers(0, 2, 1_200), hour=rng.integers(0, 24, 1_200))
    kinds = (*EXACT, *FITTED, "cascade_dr", "click_ips")
    whole, cut = summed(batch, range(100, 1_200, 100), kinds, compared=True)
    return whole, cut, summed(batch, [], kinds, compared=True)[1]


@pytest.mark.parametrize("name", PAGE_ESTIMATORS)
def test_a_log_of_one_block_has_the_estimates_of_its_record(name: str, blocks: Any) -> None:
    whole, _, one = blocks
    found, expected = estimates(one)[name], estimate_pages(name, whole, rng=np.random.default_rng(2))
    for key in NUMBERS:
        assert getattr(found, key) == pytest.approx(getattr(expected, key), rel=1e-9, abs=1e-12), key
    assert (found.verdict, found.interval) == (expected.verdict, expected.interval)
    assert len(found.warnings) == len(expected.warnings)


@pytest.mark.parametrize("interval", ["normal", "studentised", "percentile"])
def test_intervals_that_draw_listeners_draw_the_same_from_sums(interval: str, blocks: Any) -> None:
    whole, _, one = blocks
    found = one.rows([np.random.default_rng(5)], 0.9, interval)["new"]["independent_ips"]
    rng = np.random.default_rng(5)
    for name in one.policies["new"].asked:
        expected = estimate_pages(name, whole, interval, 0.9, rng)
        if name == "independent_ips":
            break
    assert (found.lower, found.upper) == pytest.approx((expected.lower, expected.upper), rel=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_an_estimate_by_weights_is_that_of_the_whole_log_however_it_is_cut(name: str, blocks: Any) -> None:
    whole, cut, _ = blocks
    found, expected = estimates(cut)[name], estimate_pages(name, whole)
    for key in NUMBERS:
        assert getattr(found, key) == pytest.approx(getattr(expected, key), rel=1e-9), key
    assert found.verdict == expected.verdict


@pytest.mark.parametrize("name", [*FITTED, "cascade_dr", "click_ips"])
def test_an_estimate_by_exposures_is_that_of_one_fit_to_the_whole_log_however_it_is_cut(name: str, blocks: Any) -> None:
    whole, cut, _ = blocks
    found, expected = estimates(cut)[name], estimate_pages(name, whole)
    width = expected.upper - expected.lower
    assert abs(found.value - expected.value) < 0.005 * width
    assert found.upper - found.lower == pytest.approx(width, rel=0.02)
    assert found.effective_sample_size == pytest.approx(expected.effective_sample_size, rel=0.01)


def test_the_factor_by_which_propensities_must_be_wrong_moves_the_value_onto_that_of_the_log(blocks: Any) -> None:
    whole, cut, one = blocks
    found = one.policies["new"].turning_factor()
    assert found == pytest.approx(cut.policies["new"].turning_factor(), rel=1e-3)
    # Every weight by it to the one side or the other, whichever moves the value most: of rewards of 0 and 1 by odds.
    fit = fit_exposure(whole)
    now, seen = fit.terms, fit.summary.seen
    exposed, earned = now.plain * now.trust, now.plain * seen.reward
    rate = earned.sum() / exposed.sum()
    toward = rate * fit.reward.mean() / fit.value
    up = toward > rate
    rates = earned[exposed > 0] / exposed[exposed > 0]
    weight = exposed[exposed > 0]
    best = max if up else min
    moved = best(
        float((w @ rates) / w.sum())
        for edge in np.unique(rates)
        for w in [weight * np.where((rates >= edge) == up, found, 1 / found)]
    )
    assert moved == pytest.approx(toward, rel=0.01)


def test_comparisons_of_a_log_in_blocks_are_those_of_the_whole(blocks: Any) -> None:
    _, cut, one = blocks
    parts = [log.compared(np.random.default_rng(3), {}, 0.95) for log in (cut, one)]
    for key in ("slices", "rewards"):
        assert len(parts[0][key]) == len(parts[1][key]) > 0
        for row, other in zip(*(sorted(part[key], key=_name) for part in parts), strict=True):
            assert _name(row) == _name(other)
            assert abs(row["value"] - other["value"]) < 0.02 * (other["upper"] - other["lower"])
            assert row["upper"] - row["lower"] == pytest.approx(other["upper"] - other["lower"], rel=0.05)
    cost, expected = (part["cost_of_exploration"] for part in parts)
    assert abs(cost["value"] - expected["value"]) < 0.01 * (expected["upper"] - expected["lower"])


def _name(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("dimension", "slice", "reward", "policy") if key in row)


def test_blocks_of_one_page_and_blocks_that_nobody_read_count_as_in_the_log_at_once() -> None:
    batch = world.batch(np.random.default_rng(0), pages=1_200)
    seen, reward = batch.seen.copy(), batch.reward.copy()
    seen[400:500], reward[400:500] = False, 0.0
    batch = replace(batch, seen=seen, reward=reward)
    whole, cut = summed(batch, [400, 500, 501, 520], ["exposure_dr"])
    expected, found = estimate_pages("exposure_dr", whole), estimates(cut)["exposure_dr"]
    assert abs(found.value - expected.value) < 0.01 * (expected.upper - expected.lower)
    assert found.effective_sample_size == pytest.approx(expected.effective_sample_size, rel=0.01)
    assert found.max_weight == pytest.approx(expected.max_weight, rel=0.01)
    assert found.mean_weight == pytest.approx(expected.mean_weight, abs=0.002)  # the balance of exposures
    # The record knows the order of its pages, of which nobody read a hundred in a row; sums know the hours, here one.
    assert found.verdict == "conclusive"
    assert expected.warnings[0].startswith("rewards are not constant")


def test_a_log_that_nobody_read_is_refused() -> None:
    batch = world.batch(np.random.default_rng(0), pages=20)
    unread = replace(batch, seen=np.zeros_like(batch.seen), reward=np.zeros_like(batch.reward))
    for cuts in ([], [10]):
        with pytest.raises(ValueError, match="no card was seen on any page"):
            summed(unread, cuts, ["exposure_dr"])
        _, log = summed(unread, cuts, ["independent_ips"], compared=True)
        assert log.compared(np.random.default_rng(0), {}, 0.95) == {}


def test_what_the_heaviest_pages_carry_is_seen_in_cells() -> None:
    rng = np.random.default_rng(7)
    weight, reward = np.exp(rng.normal(-40, 9, 5_000)), rng.poisson(1.5, 5_000).astype(np.float64)
    total = Statistics()
    for some in np.array_split(np.arange(5_000), 7):
        put_weights(total, "here", weight[some], reward[some])
    found, expected = summed_weights(total, "here"), weight_facts(weight, reward)
    assert found.top == pytest.approx(expected.top, abs=1e-3)
    assert (found.size, found.mean, found.error) == pytest.approx((expected.size, expected.mean, expected.error))


@pytest.fixture(scope="module")
def log(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = exports.export_pages(built_run, tmp_path_factory.mktemp("pages"))
    return path


@pytest.mark.parametrize("block", [None, 2_000])
def test_processes_give_the_report_of_this_process_to_the_last_bit(
    log: Path, tmp_path: Path, block: int | None
) -> None:
    scores = exports.scores_of(log, tmp_path / "mine.parquet")
    given: dict[str, Any] = {"scores": [f"mine={scores}:0.1"], "everything": True, "block_candidates": block}
    here, there = (
        evaluate_log(log, ["popularity:0.2"], load_settings({}), None, Quiet(), engine=engine, **given)
        for engine in (None, Engine("local", 2))
    )
    assert here == there
    assert (here["blocks"] > 1) is (block is not None)
    assert here["slices"]
    assert here["scores"][0]["candidates"] > 0


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
    cut = evaluate_log(folder, ["popularity:0.2"], **given, block_candidates=700)
    whole = evaluate_log(folder, ["popularity:0.2"], **given)
    assert cut["blocks"] > 1
    for name in asked:
        here, there = (report["policies"][1]["estimates"][name]["value"] for report in (cut, whole))
        assert here == pytest.approx(there, rel=0.01), name


def test_a_pickled_kernel_gives_the_same_sums(log: Path) -> None:
    blocks, pages = blocks_of(export_files(log), 700, 700)
    named = Named(log, Path.cwd(), (("popularity", 0.0),))
    question = Question(asked_of({"page_ncis": "page_ncis"}))
    kernel = PageKernel(named, question, (2, 3), None, 1, pages, len(blocks), ("streamed_30s", streamed_30s))
    one, two = run_kernel(kernel, blocks), run_kernel(pickle.loads(pickle.dumps(kernel)), blocks)
    assert one.names() == two.names()
    for name in one.names():
        assert one.values(name).tobytes() == two.values(name).tobytes(), name


def test_blocks_cut_a_log_evenly_between_row_groups_and_leave_a_small_one_whole(log: Path) -> None:
    files = export_files(log)
    (whole,), pages = blocks_of(files, 10_000_000, 1_000)
    assert whole.files == tuple(files)
    assert pages == sum(pq.ParquetFile(file).metadata.num_rows for file in files)
    blocks, _ = blocks_of(files, 1_000, 1_000)
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert sum(block.size for block in blocks) == whole.size
    assert [file for block in blocks for file in block.files] == files


def test_what_cannot_be_done_is_refused_before_anything_is_read(log: Path) -> None:
    with pytest.raises(DataError, match="--interval is 'wald'; expected one of student"):
        evaluate_log(log, [], load_settings({}), None, Quiet(), interval="wald")
    with pytest.raises(DataError, match="the jackknife fits the whole log again and again"):
        evaluate_log(log, [], load_settings({}), None, Quiet(), interval="jackknife", block_candidates=700)
    with pytest.raises(DataError, match="expected local or spark"):
        Engine("ray")
