"""The coverage study goes on where it stopped, and judges a cell by its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ope_coverage
from benchmarks._arm_worlds import ARM_CELLS
from benchmarks._ope_worlds import CELLS

NAME = "weights 0 and 50, rate .1"


def test_a_study_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped.jsonl", tmp_path / "whole.jsonl"
    ope_coverage.run(stopped, [NAME], 7, 2, methods=False)
    with stopped.open("a") as out:
        out.write('{"cell": "cut o')
    assert len(ope_coverage.read(stopped)) == 2
    ope_coverage.run(stopped, [NAME], 7, 4, methods=False)
    ope_coverage.run(whole, [NAME], 7, 4, methods=False)
    assert ope_coverage.read(stopped) == ope_coverage.read(whole)


def test_a_cell_fails_where_its_coverage_lies_below_what_chance_allows() -> None:
    def rows(hits: int) -> list[dict[str, object]]:
        each = {"cell": NAME, "seed": 1, "width": 0.1, "conclusive": True}
        return [{**each, "log": i, "covers": i < hits} for i in range(2_000)]

    assert "holds" in ope_coverage.report(rows(1_900))
    assert "fails" in ope_coverage.report(rows(1_850))


@pytest.mark.parametrize("name", [name for name in CELLS if "20,000" not in name and "clicks" not in name])
def test_every_cell_draws_a_log_whose_truth_is_within_its_rewards(name: str) -> None:
    data, truth, _ = CELLS[name].draw(np.random.default_rng(0), 1)
    assert 0 <= truth <= data.reward.max()
    assert len(data) >= 1_000


def test_arms_that_earn_the_same_are_mostly_not_told_apart() -> None:
    found = [ARM_CELLS["arms 20 and 90"](np.random.default_rng(i)) for i in range(40)]
    assert np.mean([one["covers"] for one in found]) >= 0.85
    assert np.mean([one["conclusive"] for one in found]) <= 0.1
