"""Pareto's k beside the effective sample size, in every form of a report."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bart.ope.engine.sums import Statistics
from bart.ope.engine.weights import put_weights, weight_cells
from bart.ope.report.report import terminal_table, write_report
from bart.ope.verdict.tails import pareto_k


def test_the_tail_is_read_off_cells_of_weights() -> None:
    rng = np.random.default_rng(1)
    weight = np.exp(rng.normal(0, 1.5, 5_000)) * (rng.random(5_000) < 0.8)
    out = Statistics()
    put_weights(out, "here", weight, rng.random(5_000))
    size, pages = weight_cells(out, "here")
    assert pages.sum() == 5_000
    assert float(size @ pages) == pytest.approx(weight.sum(), rel=1e-3)
    assert pareto_k(size, pages) == pytest.approx(pareto_k(weight), abs=0.01)


def test_reports_show_it_beside_the_effective_sample_size(tmp_path: Path) -> None:
    one: dict[str, Any] = {"value": 1.0, "lower": 0.9, "upper": 1.1, "verdict": "weak"}
    one |= {"effective_sample_size": 123.0, "max_weight": 9.0}
    names = [f"e{i}" for i in range(8)]  # more than fit side by side
    estimates: dict[str, Any] = {name: one | {"warnings": []} for name in names}
    policy = {"name": "new", "pareto_k": 0.87, "estimates": estimates}
    estimates["e1"] = one | {"warnings": [], "pareto_k": None}
    report = {"seed": 1, "policies": [policy], "log": {}, "replay": None}
    screen = Console(width=200, record=True, file=StringIO())
    screen.print(terminal_table(report))
    text = screen.export_text()
    assert "Pareto k" in text
    assert text.count("0.870") == 7
    page = write_report(report, tmp_path, plots=()).read_text()
    assert page.count('<td data-head="Pareto k">0.870</td>') == 1 + 7
