"""Comparisons on logs of pages: slices, several rewards, shares of exposure, cost of exploration, their report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_log_world as world
import pytest

from bart.ope.comparison.comparison import compare_policies
from bart.ope.comparison.exposure_share import (
    artist_age,
    expected_exposure,
    exposure_share,
    popularity_decile,
)
from bart.ope.comparison.several_rewards import outcome_spread, outcome_terms, page_outcomes
from bart.ope.comparison.slices import page_slices, slice_choices, slice_spread, slice_terms
from bart.ope.estimators.pages import exposure_dr
from bart.ope.intervals.pages import Spread
from bart.ope.records.from_batch import logged_pages
from bart.ope.records.pages import LoggedPages
from bart.ope.report.comparison import comparison_tables
from bart.ope.report.report import write_report
from bart.ope.report.text import plain
from bart.types import ItemTable, Labels, PageBatch

PAGES, RATE = 1_200, 0.3


def items(n: int) -> ItemTable:
    """Items of rising popularity; the first artist has released since 2000, the second since last year."""
    released = np.where(np.arange(n) % 2 == 0, "2000-01-01", "2023-06-01").astype("datetime64[D]")
    return ItemTable(
        item_id=np.array([f"i{k}" for k in range(n)], dtype=object),
        title=np.array(["t"] * n, dtype=object),
        type=np.zeros(n, dtype=np.int8),
        artists=Labels.of([[f"artist {k % 2}"] for k in range(n)]),
        genres=Labels.of([[]] * n),
        released_at=released,
        countries=Labels.of([[]] * n),
        explicit=np.zeros(n, dtype=np.bool_),
        popularity=np.arange(n) / n,
        duration_s=np.full(n, 200.0),
        vector=np.zeros((n, 2), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def log() -> PageBatch:
    rng = np.random.default_rng(0)
    batch = world.batch(rng, pages=PAGES)
    return replace(
        batch,
        at_s=np.full(PAGES, 1_704_067_200, dtype=np.int64),  # 2024-01-01
        device=rng.integers(0, 2, PAGES),
        hour=rng.integers(0, 24, PAGES),
        saved=batch.seen & (rng.random(batch.seen.shape) < 0.1),
        skipped=np.where(batch.seen, rng.random(batch.seen.shape) < 0.3, -1).astype(np.int8),
        account_age_d=np.where(np.arange(PAGES) % 5 == 0, 3.0, 400.0),
    )


@pytest.fixture(scope="module")
def records(log: PageBatch) -> dict[str, LoggedPages]:
    q = 1 / (1 + np.exp(-log.score))
    noise = np.random.default_rng(1).normal(size=len(log.score))
    return {
        "logging": logged_pages(log, log.score, RATE, RATE, q_logged=q, q_target=q),
        "keener": logged_pages(log, log.score, 0.05, 0.05, q_logged=q, q_target=q),
        "random": logged_pages(log, noise, RATE, RATE, q_logged=q, q_target=q),
    }


@pytest.fixture(scope="module")
def found(log: PageBatch, records: dict[str, LoggedPages]) -> dict[str, Any]:
    return compare_policies(
        log,
        records,
        np.random.default_rng(2),
        items=items(35),
        q_logged=1 / (1 + np.exp(-log.score)),
        masks={"early": log.hour < 3},
        verdicts=dict.fromkeys(records, "conclusive"),
    )


def test_the_logging_policy_has_the_mean_of_every_slice(log: PageBatch, found: dict[str, Any]) -> None:
    masks = {(d, name): mask for d, named in page_slices(log).items() for name, mask in named.items()}
    masks["own", "early"] = log.hour < 3
    rows = [row for row in found["slices"] if row["policy"] == "logging"]
    assert {row["dimension"] for row in rows} == {"device", "hour", "listener", "own"}  # one surface: nothing to slice
    for row in rows:
        mask = masks[row["dimension"], row["slice"]]
        pages = log.reward[mask].sum(axis=(1, 2))
        assert row["value"] == pytest.approx(pages.mean(), rel=1e-6)
        assert row["pages"] == mask.sum()
        assert row["lower"] < row["value"] < row["upper"]


def test_the_whole_log_as_a_slice_is_the_estimate_with_its_spread(records: dict[str, LoggedPages]) -> None:
    data = records["keener"]
    terms = exposure_dr(data)
    assert terms.fit is not None
    assert terms.page_weight is not None
    part = slice_spread(slice_terms(terms.fit), np.ones(len(data)), np.zeros(len(data)))
    whole = Spread(terms.value, terms.influence, np.arange(len(data)))
    assert part.value == pytest.approx(terms.value, rel=1e-4)
    # Hazards and levels are taken as known within a slice: their error is small beside its own.
    assert part.standard_error() == pytest.approx(whole.standard_error(), rel=0.15)


def test_small_slices_are_weak_and_differences_are_adjusted_for_all(found: dict[str, Any]) -> None:
    early = [row for row in found["slices"] if row["dimension"] == "own"]
    assert {row["verdict"] for row in early} <= {"weak", "unusable"}
    assert any("200 are needed" in warning for warning in early[0]["warnings"])
    compared = [row["difference"] for row in found["slices"] if row["difference"]]
    assert all(d["adjusted_p"] >= d["p_value"] for d in compared)
    assert all(row["difference"]["told_apart"] for row in found["slices"] if row["policy"] == "random")


def test_rewards_come_from_one_set_of_weights(log: PageBatch, records: dict[str, LoggedPages], found: Any) -> None:
    by_key = {(row["reward"], row["policy"]): row for row in found["rewards"]}
    outcomes = page_outcomes(log)
    assert list(outcomes) == ["minutes", "saves", "skips"]
    for name, values in outcomes.items():
        mean = values.sum(axis=(1, 2)).mean()
        assert by_key[name, "logging"]["value"] == pytest.approx(mean, rel=1e-6)
    # Every stream of this log is 40 s long: minutes are streams in another unit, weights and all.
    minutes, streams = by_key["minutes", "keener"], by_key["streams", "keener"]
    assert minutes["value"] == pytest.approx(streams["value"] * 40 / 60, rel=1e-9)
    assert minutes["upper"] == pytest.approx(streams["upper"] * 40 / 60, rel=1e-6)
    main = exposure_dr(records["random"])
    assert main.fit is not None
    y, z = outcome_terms(main.fit, [np.zeros_like(log.reward)]).T
    none = outcome_spread(Spread(main.value, main.influence, records["random"].user), y, z)
    assert none.value == 0.0
    assert not none.influence.any()


def test_expected_exposure_is_that_of_all_pages_enumerated() -> None:
    rng = np.random.default_rng(3)
    small = world.enumerated(rng.normal(size=6), rng.normal(size=6), np.full(6, 0.3))
    slot = np.array([[1.0, 0.7], [0.5, 0.2]])
    for who, probability in (("logged", small.logged), ("target", small.target)):
        expected = np.zeros(6)
        for page, p in enumerate(probability):
            np.add.at(expected, small.pages.order[page], p * slot)
        flat, exposed = expected_exposure(small.pages, who, np.array([0]), slot)
        np.testing.assert_array_equal(flat, np.arange(6))
        np.testing.assert_allclose(exposed, expected, rtol=1e-12)


def test_shares_of_exposure_sum_to_one_and_a_policy_by_popularity_shows_the_popular(log: PageBatch) -> None:
    table = items(35)
    decile, names = popularity_decile(table)
    np.testing.assert_array_equal(np.bincount(decile), [3, 4, 3, 4, 3, 4, 3, 4, 3, 4])
    group = decile[log.item]  # candidates stand in the order of the record: five shelves of seven, in order
    popular = logged_pages(log, table.popularity[log.item], 0.0, 0.0)
    shares = exposure_share(popular, group, names)
    assert sum(share.value for share in shares) == pytest.approx(1.0)
    own = {share.group: share.value for share in exposure_share(popular, group, names, "logged")}
    top = {share.group: share for share in shares}["decile 10"]
    assert top.value > 2 * own["decile 10"]
    assert top.lower <= top.value <= top.upper


def test_the_age_of_an_artist_counts_from_the_first_release() -> None:
    table = items(4)
    table.released_at[2] = np.datetime64("2023-12-01")  # artist 0 has another release of 2000
    group, names = artist_age(table, np.datetime64("2024-01-01"))
    assert [names[g] for g in group] == ["5 years and more", "under 1 year", "5 years and more", "under 1 year"]
    table.released_at[[1, 3]] = np.datetime64("NaT")
    group, names = artist_age(table, np.datetime64("2024-01-01"))
    assert [names[g] for g in group] == ["5 years and more", "unknown", "5 years and more", "unknown"]


def test_exploration_costs_what_the_greedy_pages_would_have_earned_more() -> None:
    # A score that is the appeal itself, and reading that depends on nothing: the greedy value is known.
    rng = np.random.default_rng(4)
    pages, n = 2_500, 15
    appeal = rng.uniform(0.05, 0.6, pages * n)
    batch = world.batch(
        rng, pages, 3, 5, 2, 2, 0.4, score=appeal, appeal=appeal, hazards=(0.9, 0.9, 0.8, 0.8), visits=1
    )
    by_shelf = -np.sort(-appeal.reshape(pages, 3, 5), axis=2)
    best = np.take_along_axis(by_shelf, np.argsort(-by_shelf[:, :, 0], axis=1)[:, :2, None], axis=1)[:, :, :2]
    greedy = float((best * np.array([[1.0, 0.9], [0.8, 0.72]])).sum(axis=(1, 2)).mean())
    itself = logged_pages(batch, batch.score, batch.shelf_epsilon, batch.card_epsilon, appeal, appeal)
    cost = compare_policies(batch, {"logging": itself}, rng, q_logged=appeal, verdicts={})["cost_of_exploration"]
    assert cost["lower"] < cost["value"] < cost["upper"]
    assert cost["greedy"] == pytest.approx(greedy, abs=4 * (cost["upper"] - cost["lower"]) / 3.92 + 0.02)
    assert cost["lower"] > 0
    assert cost["logging"] == pytest.approx(batch.reward.sum() / pages)


def test_a_log_without_seen_flags_compares_nothing(log: PageBatch) -> None:
    blind = replace(log, seen=np.zeros_like(log.seen))
    record = logged_pages(blind, blind.score, RATE, RATE)
    assert compare_policies(blind, {"a": record}, np.random.default_rng(0)) == {}


def test_mistakes_are_named(log: PageBatch, records: dict[str, LoggedPages]) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"slice 'odd' has shape \(1200,\) and type float64; expected booleans"):
        compare_policies(log, records, rng, masks={"odd": np.ones(len(log))})
    with pytest.raises(ValueError, match="record 'logging' has 1200 pages; expected 10"):
        compare_policies(log.take(np.arange(10)), records, rng)
    with pytest.raises(ValueError, match="slice 'x' has shape"):
        slice_choices("ips", _single(), {"x": np.ones(3, dtype=bool)})


def _single() -> Any:
    from bart.ope import LoggedChoices

    return LoggedChoices(np.ones(2), np.zeros(2, dtype=int), np.ones(2), np.ones((2, 1)))


def test_the_report_shows_the_comparison(found: dict[str, Any], tmp_path: Path) -> None:
    estimate = {"value": 1.0, "lower": 0.5, "upper": 1.5, "verdict": "conclusive", "warnings": []}
    report = {
        "seed": 1,
        "policies": [{"name": "logging", "truth": None, "truth_error": None, "estimates": {"dr": estimate}}],
        "log": {"pages": PAGES},
        "replay": None,
        **found,
    }
    html = write_report(report, tmp_path).read_text()
    for section in ("selection", "slices", "rewards", "exposure", "cost_of_exploration"):
        assert f'<section id="{section}"' in html
    assert "<script" not in html
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["selection"] == plain(found["selection"])
    selection, looks, cost = comparison_tables(report)
    assert looks.title == "At every look"
    assert selection.row_count == len(found["selection"]["policies"])
    assert cost.row_count == 1
