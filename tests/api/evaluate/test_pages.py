"""Evaluating a log of pages: blocks, outside scores, several bundles, vectors of another batch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import page_log_world as world
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.evaluate.foreign import EarlierListening, earlier_listening, rows_in
from api.evaluate.pages_log import evaluate_log
from api.run.listening import Listening
from api.run.progress import Quiet
from api.run.settings import load_settings
from bart.bundle import open_bundle
from bart.errors import BundleError, DataError
from bart.item_store import load_items
from bart.log.care.export import export_log
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.pages import read_pages
from bart.log.record.feedback import FeedbackEvent
from bart.ope.estimators.page_estimate import estimate_pages
from bart.ope.estimators.pages import PAGE_ESTIMATORS
from bart.ope.records.from_batch import logged_pages
from bart.ope.report.report import add_positions, position_facts, position_shares
from bart.page.policy import PagePolicy
from bart.ranking.policies import EpsilonGreedy
from bart.types import Candidates, Context, Decision, ListenerTraits, PageBatch, Shelf

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
SETTINGS = {"seed": 4}


# ---- blocks


def test_facts_by_position_add_up_over_blocks() -> None:
    batch = world.batch(np.random.default_rng(2), pages=200)
    sums: dict[str, Any] = {}
    for pages in np.array_split(np.arange(200), 3):
        add_positions(sums, batch.take(pages))
    assert position_shares(sums) == position_facts(batch)


# ---- a log


def decision(bundle: Any, ids: np.ndarray, i: int, **changes: Any) -> Decision:
    """A page of 2 x 3 from 16 cards in 4 shelves; the second half of the log explores more, under another model."""
    rng = np.random.default_rng(i)
    shelves = tuple(Shelf("rule", f"Shelf {s}") for s in range(4))
    n, rate = 16, 0.3 if i < 200 else 0.6
    shelf, raw = np.arange(n) % 4, rng.random(n) * 0.5
    item = ids[rng.permutation(len(ids))[:n]]
    shelf_epsilon, card_epsilon = np.full(2, rate), np.full(3, rate)
    page = PagePolicy(EpsilonGreedy(shelf_epsilon), EpsilonGreedy(card_epsilon)).decide(
        Candidates(np.arange(n), shelf, shelves), raw, 2, 3, rng, raw_score=raw
    )
    listener = rng.normal(size=40).astype(np.float32)
    whole = Decision(
        request_id=f"r{i}",
        user_id=f"listener-{i % 30:02d}",
        context=Context(AT + timedelta(hours=i), 60, "mobile", "home", ""),
        traits=ListenerTraits(),
        listener=listener / np.linalg.norm(listener),
        batch_id=bundle.batch_id,
        policy="epsilon_greedy",
        shelf_epsilon=shelf_epsilon,
        card_epsilon=card_epsilon,
        rules_version="rules",
        seed=i,
        shelves=shelves,
        item_id=item,
        shelf=shelf,
        raw_score=raw,
        score=raw,
        page=page,
        forced=i % 50 == 7,
        model_id="first" if i < 200 else "second",
    )
    return replace(whole, **changes)


@pytest.fixture(scope="module")
def run(built_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run with a log of 400 pages by two models: 8 forced, 8 never displayed."""
    path = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(built_run, path)
    bundle = bundle_of(path)
    items = load_items(bundle.folder("items"))
    decisions = [decision(bundle, items.item_id, i) for i in range(400)]
    log = DecisionLog(path / "other.sqlite")
    log.append_many(decisions)
    rng = np.random.default_rng(9)
    for d in decisions:
        if d.seed % 50 == 11:
            continue
        events = [FeedbackEvent("page", d.decided_at, displayed=True)]
        for row in range(2):
            for column in range(3):
                if rng.random() < 0.3:
                    break
                heard = 60.0 if rng.random() < d.raw_score[d.page.card[row, column]] else 3.0
                events.append(FeedbackEvent(f"{row}{column}", d.decided_at, row, column, True, True, heard))
        log.feedback_many([(d.request_id, events, d.decided_at + timedelta(minutes=5))])
    log.close_windows(AT + timedelta(days=60))
    shutil.rmtree(path / "log", ignore_errors=True)
    export_log(log, path / "log", duration_s=items)
    log.close()
    return path


def bundle_of(run: Path) -> Any:
    return open_bundle(run / "bundle")


def report_of(log: Path, policies: list[str], **more: Any) -> dict[str, Any]:
    return evaluate_log(log, policies, load_settings(SETTINGS), None, Quiet(), **more)


def estimates(report: dict[str, Any], policy: str) -> dict[str, Any]:
    return dict(next(row for row in report["policies"] if row["name"] == policy)["estimates"])


def all_pages(run: Path) -> PageBatch:
    items = load_items(bundle_of(run).folder("items"))
    return PageBatch.concat(list(read_pages(run / "log", items)))


def scores_of(run: Path, path: Path, keep: float = 1.0) -> Path:
    """A table of outside scores: 3 x the logged ones minus 7, which rank alike."""
    rows = pa.concat_tables(
        [pq.read_table(file) for file in sorted((run / "log").glob("date=*/*.parquet"))]
    ).to_pylist()
    found = [
        {"request_id": row["request_id"], "item_id": item, "score": 3 * score - 7}
        for row in rows
        for item, score in zip(row["item_id"], row["raw_score"], strict=True)
    ]
    found = found[: int(keep * len(found))]
    pq.write_table(pa.Table.from_pylist(found), path)
    return path


def test_every_record_keeps_its_own_propensities_whatever_bundle_wrote_it(run: Path) -> None:
    report = report_of(run / "log", ["logging", "popularity:0.5"], everything=True)
    logging = estimates(report, "logging")
    pages = all_pages(run)
    usable = pages.closed & pages.displayed & ~pages.forced
    mean = np.where(pages.seen, pages.reward, 0.0).sum(axis=(1, 2))[usable].mean()
    assert {e["max_weight"] for n, e in logging.items() if n in ("ips", "snips", "slate_ips", "cascade_ips")} == {1.0}
    for name in ("ips", "snips", "dr", "slate_ips"):
        assert logging[name]["value"] == pytest.approx(mean, rel=1e-9), name
    assert {float(e) for e in np.unique(pages.card_epsilon)} == {0.3, 0.6}
    assert set(logging) == {"ips", "snips", "ncis", "dm", "dr"} | set(PAGE_ESTIMATORS) - {
        "independent_ips",
        "sn_independent_ips",
        "page_ncis",
        "exposure_dr",
    }
    assert report["left_out"]["forced"] == 8
    assert report["left_out"]["not displayed"] == 8
    assert report["log"]["pages"] == 400
    assert "logged candidates only" in report["note"]


def test_outside_scores_that_rank_as_the_log_did_are_evaluated_like_it(run: Path, tmp_path: Path) -> None:
    file = scores_of(run, tmp_path / "mine.parquet")
    report = report_of(run / "log", [], scores=[f"same={file}:0.3", f"{file}"], estimators=["independent_ips", "ncis"])
    pages = all_pages(run)
    data = logged_pages(pages, pages.raw_score, 0.3, 0.3)
    assert set(estimates(report, "mine")) == {"independent_ips", "ncis"}
    value = estimates(report, "same, epsilon 0.3")["independent_ips"]["value"]
    assert value == pytest.approx(estimate_pages("independent_ips", data).value, rel=1e-9)
    assert [row["missing"] for row in report["scores"]] == [0, 0]


def test_candidates_without_a_score_rank_last_and_too_many_are_refused(run: Path, tmp_path: Path) -> None:
    file = scores_of(run, tmp_path / "part.parquet", keep=0.95)
    report = report_of(run / "log", [], scores=[f"{file}"])
    assert report["scores"] == [{"name": "part", "candidates": 6_400, "missing": 320}]
    with pytest.raises(DataError, match=r"no score for 320 of the log's 6,400 candidates \(5%\); expected at most 1%"):
        report_of(run / "log", [], scores=[f"{file}"], most_missing=0.01)
    pages = all_pages(run)
    from bart.ope.inputs.scores import read_scores

    items = load_items(bundle_of(run).folder("items"))
    found = read_scores("part", file).of(pages.request_id, pages.offset, items.item_id[pages.item])
    assert found[-320:].max() < found[:-320].min()
    with pytest.raises(DataError, match="two scores for request_id 'r0'"):
        doubled = pq.read_table(file)
        pq.write_table(pa.concat_tables([doubled, doubled]), tmp_path / "twice.parquet")
        read_scores("twice", tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="has no column 'score'"):
        pq.write_table(pq.read_table(file).drop(["score"]), tmp_path / "less.parquet")
        report_of(run / "log", [], scores=[str(tmp_path / "less.parquet")])


def test_a_log_in_blocks_reports_what_the_whole_does(run: Path) -> None:
    whole = report_of(run / "log", ["popularity:0.5"])
    cut = report_of(run / "log", ["popularity:0.5"], block_candidates=2_500)
    assert (whole["blocks"], cut["blocks"]) == (1, 3)
    for key in ("log", "left_out", "positions"):
        assert cut[key] == whole[key]
    one, other = estimates(whole, "popularity, epsilon 0.5"), estimates(cut, "popularity, epsilon 0.5")
    for name in ("ips", "snips", "ncis"):
        for key in ("value", "lower", "upper", "effective_sample_size"):
            assert other[name][key] == pytest.approx(one[name][key], rel=1e-9), (name, key)
    assert abs(other["dr"]["value"] - one["dr"]["value"]) < 0.01 * (one["dr"]["upper"] - one["dr"]["lower"])
    assert other["dr"]["upper"] == pytest.approx(one["dr"]["upper"], rel=0.02)


def test_unknown_estimators_and_policies_named_twice_are_refused(run: Path) -> None:
    with pytest.raises(DataError, match="--estimator 'ipss' is not known for pages; expected one of exposure_dr"):
        report_of(run / "log", ["popularity"], estimators=["ipss"])
    with pytest.raises(DataError, match="'popularity' is named twice"):
        report_of(run / "log", ["popularity", "popularity"])
    with pytest.raises(DataError, match="in the time asked for"):
        report_of(run / "log", ["popularity"], since=datetime(2030, 1, 1, tzinfo=timezone.utc))


# ---- another batch


def test_a_page_of_a_foreign_batch_depends_on_nothing_that_came_after_it(run: Path, tmp_path: Path) -> None:
    bundle = bundle_of(run)
    items = load_items(bundle.folder("items"))
    events = pq.read_table(run / "events.parquet")
    at = np.asarray(events["started_at"].cast(pa.int64())) // 1_000_000
    pages = all_pages(run)
    cut = int(np.quantile(at, 0.6))
    # Pages decided at the cut, and one second after a play: the running session must not enter.
    moments = np.where(np.arange(len(pages)) % 2, cut, int(at[at < cut].max()) + 1)
    pages = replace(pages, at_s=moments, hour=moments // 3600 % 24, weekday=(moments // 86400 + 3) % 7)

    def vectors(table: pa.Table, name: str) -> tuple[np.ndarray, EarlierListening]:
        pq.write_table(table, tmp_path / name)
        loaded = Listening(tmp_path / name).load(load_settings(SETTINGS))
        listening = earlier_listening(bundle, items, loaded.events)
        return listening.on(pages).listener, listening

    every, counted = vectors(events, "all.parquet")
    earlier, _ = vectors(events.filter(pa.array(at < cut)), "earlier.parquet")
    odd = np.arange(len(pages)) % 2 == 1
    assert np.array_equal(every[odd], earlier[odd])
    before = events.filter(pa.array(at < moments.min()))
    assert np.array_equal(every[~odd], vectors(before, "before.parquet")[0][~odd])
    assert counted.pages == 400
    none, cold = vectors(events.filter(pa.array(at == at.max())), "none.parquet")
    assert cold.cold_pages == 400
    assert np.array_equal(none, np.tile(np.load(bundle.folder("listener") / "cold_vector.npy"), (400, 1)))
    assert not np.array_equal(every, none)


def test_a_bundle_of_another_batch_needs_the_listening_before_each_page(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree((run / "bundle").resolve(), other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "batch_id": "0" * 16}))
    with pytest.raises(BundleError, match=r"different batches cannot be compared; .* or --events"):
        report_of(run / "log", [f"{other}:0.1"])
    report = report_of(run / "log", [f"{other}:0.1"], events=Listening(run / "events.parquet"))
    assert f"{other}, epsilon 0.1" in [row["name"] for row in report["policies"]]
    assert report["recomputed"][0]["pages"] == 400


def test_items_of_two_tables_meet_by_id(run: Path) -> None:
    items = load_items(bundle_of(run).folder("items"))
    renamed = items.item_id.copy()
    renamed[:3] = ["other a", "other b", "other c"]
    turned = replace(items, item_id=renamed[::-1])
    rows = rows_in(items, turned)
    assert rows[:3].tolist() == [-1, -1, -1]
    assert rows[-1] == -1
    assert (turned.item_id[rows[3:-1]] == items.item_id[3:]).all()
