"""The report: verdict first, numbers as given, no request to anywhere, the same bytes for the same rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import page_log_world as world
import pytest
from rich.console import Console

from bart.ope.report.report import position_facts, terminal_table, write_report
from bart.ope.report.shelves import shelf_facts
from bart.ope.report.text import number, plain


def row(value: float, half: float, verdict: str = "conclusive", **more: Any) -> dict[str, Any]:
    return {"value": value, "lower": value - half, "upper": value + half, "verdict": verdict, **more}


def report() -> dict[str, Any]:
    return {
        "seed": 11,
        "policies": [
            {
                "name": "logging <policy>",
                "truth": 1.5,
                "truth_error": 0.01,
                "estimates": {
                    "ips": row(1.51, 0.2, effective_sample_size=900.0),
                    "dr": row(1.499, 0.1, effective_sample_size=1_000.0),
                    "dm": row(1.45, 0.02, "weak", effective_sample_size=1_000.0),
                },
            },
            {
                "name": "new model",
                "truth": None,
                "truth_error": None,
                "estimates": {
                    "ips": row(7.0, 90.0, "unusable", effective_sample_size=2.0, warnings=["2 pages carry all weight"]),
                    "dr": row(2.25, 0.3, "weak", warnings=["about 4,000 more pages are needed"]),
                },
                "weights": {"edges": [0, 1, 10], "share": [0.7, 0.2, 0.1]},
            },
        ],
        "log": {"pages": 20_000, "seen": 150_000, "streams": 30_000.0},
        "replay": {"checked": 20_000, "mismatches": 0},
        "configuration": {"world": {"listeners": 1_000}, "when": None},
        "note": "Only a demonstration.",
    }


def test_the_json_holds_the_rows_as_given(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["policies"][1]["estimates"]["dr"]["lower"] == 2.25 - 0.3
    assert {key: found[key] for key in ("seed", "log", "replay")} == {
        key: report()[key] for key in ("seed", "log", "replay")
    }


def test_what_is_not_finite_becomes_null() -> None:
    mixed = {"a": np.float64(np.inf), "b": [np.nan, 1.0], "c": np.int64(3), "d": np.array([True]), "e": {2: None}}
    assert plain(mixed) == {"a": None, "b": [None, 1.0], "c": 3, "d": [True], "e": {"2": None}}


def test_the_page_says_the_verdict_before_any_number(tmp_path: Path) -> None:
    html = write_report(report(), tmp_path).read_text()
    body = html[html.index("<main>") :]
    assert body.index("supports a conclusion on 1 of 2 policies") < body.index("1.499")
    assert body.index(">weak<") < body.index("2.250")
    assert "about 4,000 more pages are needed" in body


def test_the_page_asks_nothing_of_other_servers(tmp_path: Path) -> None:
    html = write_report(report(), tmp_path, pages=world.batch(np.random.default_rng(1), pages=50)).read_text()
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "<script" not in html


def test_the_page_shows_seed_sample_size_configuration_and_names_escaped(tmp_path: Path) -> None:
    html = write_report(report(), tmp_path).read_text()
    for text in (
        ">11<",
        "20,000",
        "world.listeners",
        "logging &lt;policy&gt;",
        "20,000, 0 differ",
        "Only a demonstration.",
    ):
        assert text in html
    assert "<policy>" not in html


def test_plots_take_their_colours_from_the_page(tmp_path: Path) -> None:
    batch = world.batch(np.random.default_rng(2), pages=50)
    html = write_report(report(), tmp_path, pages=batch).read_text()
    assert html.count("<svg") == 4
    assert "var(--series-0)" in html
    assert "prefers-color-scheme: dark" in html
    assert "#0a0b0c" not in html
    assert write_report(report(), tmp_path, plots=()).read_text().count("<svg") == 0


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(report(), tmp_path).read_bytes()
    assert write_report(report(), tmp_path).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_report_without_truth_or_replay_is_complete(tmp_path: Path) -> None:
    rows = report()
    rows["replay"] = None
    for policy in rows["policies"]:
        policy["truth"] = None
    html = write_report(rows, tmp_path).read_text()
    assert "<th>truth</th>" not in html
    assert "replayed" not in html


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    rows = report()
    del rows["seed"]
    with pytest.raises(ValueError, match="report has no 'seed'"):
        write_report(rows, tmp_path)
    with pytest.raises(ValueError, match="at least one policy"):
        write_report(report() | {"policies": []}, tmp_path)
    with pytest.raises(ValueError, match="plots has 'pie'"):
        write_report(report(), tmp_path, plots=("pie",))


def test_the_terminal_table_holds_verdicts_values_and_intervals() -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(report()))
    console.file.close()
    text = console.export_text()
    for part in ("conclusive", "weak", "new model", "1.499", "1.399 to 1.599", "doubly robust", "truth", "1.500"):
        assert part in text


def test_explore_share_is_the_rate_of_choices_that_were_not_greedy() -> None:
    batch = world.batch(np.random.default_rng(3), pages=4_000, epsilon=0.3)
    facts = position_facts(batch)
    # An exploring draw picks the best of n left by chance once in n: shelves 5, 4, 3 and cards 7, 6, 5.
    expected_shelf = [0.3 * (n - 1) / n for n in (5, 4, 3)]
    expected_card = [0.3 * (n - 1) / n for n in (7, 6, 5)]
    assert facts["explored_shelf"] == pytest.approx(expected_shelf, abs=4 * np.sqrt(0.21 / 4_000))
    assert facts["explored_card"] == pytest.approx(expected_card, abs=4 * np.sqrt(0.21 / 12_000))
    assert facts["seen"][0][0] == 1.0
    assert facts["reward"][0][0] == pytest.approx(batch.reward[:, 0, 0].mean())


def test_i2s_of_a_shelf_is_its_streams_over_its_cards_that_were_seen() -> None:
    batch = world.batch(np.random.default_rng(3), pages=400, epsilon=0.3)
    batch = replace(batch, listened_s=np.where(batch.reward > 0, 40.0, 12.0))
    found = shelf_facts(batch)
    assert "types" not in found
    rule = np.array(
        [shelf for page in range(len(batch)) for shelf in batch.rule[batch.shelf_offset[page] :][batch.row_shelf[page]]]
    )
    seen = batch.seen.reshape(-1, batch.card.shape[2])
    streamed = seen & (batch.listened_s.reshape(seen.shape) >= 30)
    assert sum(one["seen"] for one in found["shelves"]) == seen.sum()
    for one in found["shelves"]:
        mine = rule == one["name"]
        assert (one["seen"], one["streams"]) == (seen[mine].sum(), streamed[mine].sum())
        assert one["i2s"] == pytest.approx(one["streams"] / one["seen"])
        assert one["lower"] < one["i2s"] < one["upper"]


def test_a_page_that_nobody_saw_counts_for_no_shelf() -> None:
    batch = world.batch(np.random.default_rng(3), pages=50, epsilon=0.3)
    assert shelf_facts(replace(batch, displayed=np.zeros(50, dtype=bool))) == {"shelves": []}


def test_the_page_shows_impression_to_stream_where_the_log_is_given(tmp_path: Path) -> None:
    batch = world.batch(np.random.default_rng(3), pages=60, epsilon=0.3)
    html = write_report(report(), tmp_path, pages=batch).read_text()
    assert "Impression to stream" in html
    assert len(json.loads((tmp_path / "report.json").read_text())["shelves"]) > 0
    assert "Impression to stream" not in write_report(report(), tmp_path).read_text()


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0.12345, 123.456, 12_345.6, None, float("nan"))] == [
        "0.123",
        "123.5",
        "12,346",
        "–",
        "–",
    ]
