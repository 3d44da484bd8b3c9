"""Coverage, width and verdicts of intervals on simulated logs with a known truth, one row a log, resumable.

    python -m benchmarks ope_coverage --rows FILE [--logs 2000] [--cell NAME ...] [--seed 1]
    python -m benchmarks ope_coverage --rows FILE --report
    python -m benchmarks ope_coverage --rows FILE --methods --cell "A n=2,000 D=1"

Rows are appended to FILE as JSON lines; a run goes on where the last one stopped, cell by cell, and rows of other seeds
are left alone. --report prints a Markdown table from the rows. --methods draws other intervals beside the default on
the cells of table A. A sound cell fails where the upper end of the coverage's Clopper-Pearson interval, at .05 over the
number of cells, lies below .95, or the coverage below .93. Cells of A/A tests count a run as covered where no
difference left out 0 on any day. Worlds: `_ope_worlds.py`, `_arm_worlds.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bart.ope import LoggedChoices, estimate
from bart.ope.estimators.choices import ESTIMATORS
from bart.ope.intervals.choices import INTERVALS, Setting

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks._arm_worlds import ARM_CELLS
from benchmarks._ope_worlds import ACTIONS, CELLS, LOG_EPSILON, TARGET_EPSILON

METHODS = {
    "IPS normal": ("ips", "normal"),
    "IPS Student (effective sample size)": ("ips", "student"),
    "IPS percentile bootstrap": ("ips", "percentile"),
    "IPS studentised bootstrap": ("ips", "studentised"),
    "SNIPS percentile bootstrap": ("snips", "percentile"),
    "Clopper-Pearson on w r / wmax": ("ips", "clopper_pearson"),
    "empirical Bernstein (Maurer-Pontil)": ("ips", "bernstein"),
    "anytime-valid (betting)": ("ips", "anytime"),
    "stratified by weight class": ("ips", "stratified"),
}
TABLE_A = {"A n=2,000 D=1": (2_000, 1.0), "A n=2,000 D=.5": (2_000, 0.5), "A n=20,000 D=1": (20_000, 1.0)}


def pratt_bound(n: int, difference: float, level: float = 0.95) -> float:
    """Mean width that no interval of this coverage can fall below, in this world (Pratt, 1961).

    The mean width is the integral over v of the probability that v is inside, at least the error of the best test of v
    against the truth. For each v the null moves only the reward of the choices that weigh most, of which about
    n D epsilon / k are logged.
    """
    share, base = difference * (1 - TARGET_EPSILON + TARGET_EPSILON / ACTIONS), 0.2
    chance = difference * LOG_EPSILON / ACTIONS
    most = int(stats.binom.ppf(1 - 1e-7, n, chance)) + 1
    count = np.repeat(np.arange(most + 1), np.arange(1, most + 2))
    hits = np.concatenate([np.arange(m + 1) for m in range(most + 1)])
    mass = stats.binom.pmf(count, n, chance)
    true = mass * stats.binom.pmf(hits, count, base)
    grid = (np.arange(1_000) + 0.5) / 1_000  # the moved reward
    missed = np.empty(len(grid))
    for i, moved in enumerate(grid):
        null = mass * stats.binom.pmf(hits, count, moved)
        order = np.argsort(-(true / np.maximum(null, 1e-300)), kind="stable")
        size = np.cumsum(null[order])
        full = size <= 1 - level
        power = float(true[order][full].sum())
        edge = int(full.sum())
        if edge < len(order):  # the last point is rejected with the probability that fills the level
            power += float(true[order][edge] * (1 - level - (size[edge - 1] if edge else 0.0)) / null[order][edge])
        missed[i] = 1 - power
    return float(share * missed.mean())


def one_log(name: str, seed: int, log: int) -> dict[str, Any]:
    """covers, width and conclusive of the default interval (or the experiment's) on one log of the cell."""
    rng = np.random.default_rng([seed, sum(map(ord, name)), log])
    if name in ARM_CELLS:
        return dict(ARM_CELLS[name](rng))
    cell = CELLS[name]
    data, truth, options = cell.draw(rng, seed)
    try:
        found = estimate(cell.estimator, data, **options)
    except ValueError:  # no logged action of the target's: nothing is estimated
        return {"covers": True, "width": 1.0, "conclusive": False}
    return {
        "covers": bool(found.lower <= truth <= found.upper),
        "width": found.width,
        "conclusive": found.verdict == "conclusive",
    }


def by_method(name: str, seed: int, log: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same by the other methods of table A."""
    rng = np.random.default_rng([seed, sum(map(ord, name)), log])
    data, truth, _ = CELLS[name].draw(rng, seed)
    assert isinstance(data, LoggedChoices)
    for method, (estimator, interval) in METHODS.items():
        lower, upper = INTERVALS[interval](ESTIMATORS[estimator](data), Setting(rng=rng))
        yield f"{name}: {method}", {"covers": bool(lower <= truth <= upper), "width": upper - lower, "conclusive": None}


def run(file: Path, cells: list[str], seed: int, logs: int, methods: bool) -> None:
    """Appends what is lacking, after what a run that was killed left of its last line is cut off."""
    if file.exists() and not (text := file.read_text()).endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1])
    done: dict[str, int] = {}
    for row in read(file):
        if row["seed"] == seed:
            done[row["cell"]] = max(done.get(row["cell"], 0), row["log"] + 1)
    with file.open("a") as out:
        for name in cells:
            first = f"{name}: {next(iter(METHODS))}" if methods else name
            for log in range(done.get(first, 0), logs):
                found = by_method(name, seed, log) if methods else [(name, one_log(name, seed, log))]
                for cell, row in found:
                    out.write(json.dumps({"cell": cell, "seed": seed, "log": log, **row}, default=float) + "\n")
                out.flush()
            print(f"{name}: {logs} logs", file=sys.stderr, flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    """The rows, whole lines alone."""
    if not file.exists():
        return []
    text = file.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def report(rows: list[dict[str, Any]]) -> str:
    """A Markdown table, by cell: coverage with its standard error, mean width, how often conclusive, pass or fail."""
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_cell.setdefault(row["cell"], []).append(row)
    lines = ["| cell | logs | covers | ± | mean width | conclusive | ± | |", "|---|---|---|---|---|---|---|---|"]
    sound = [name for name in by_cell if name not in CELLS or CELLS[name].sound]
    for name, found in by_cell.items():
        n, hits = len(found), sum(bool(row["covers"]) for row in found)
        rate = hits / n
        width = np.array([row["width"] for row in found], dtype=float)
        sure = [row["conclusive"] for row in found if row["conclusive"] is not None]
        share = sum(sure) / len(sure) if sure else np.nan
        top = 1.0 if hits == n else float(stats.beta.ppf(1 - 0.025 / len(sound), hits + 1, n - hits))
        if name.startswith("A/A"):
            end = 1.0 if hits == 0 else float(stats.beta.ppf(0.95, n - hits + 1, hits))
            told = f"false alarm at most {end:.3f}"
        elif name not in sound or ":" in name:
            told = ""
        else:
            told = "fails" if top < 0.95 or rate < 0.93 else "holds"
        told += "".join(
            f", {key} {np.mean([row[key] for row in found]):.3f}"
            for key in ("arm covers", "once covers")
            if key in found[0]
        )
        mean = f"{width.mean():.4f}" if np.isfinite(width).all() else ""
        lines.append(
            f"| {name} | {n:,} | {rate:.3f} | {np.sqrt(rate * (1 - rate) / n):.3f} | {mean} | {share:.3f} |"
            f" {np.sqrt(share * (1 - share) / n):.3f} | {told.lstrip(', ')} |"
        )
    for name, (n, difference) in TABLE_A.items():
        if name in by_cell:
            lines.append(f"| {name}: Pratt's bound | | | | {pratt_bound(n, difference):.4f} | | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines, made where it is not there")
    parser.add_argument("--logs", type=int, default=2_000, help="logs a cell")
    parser.add_argument("--seed", type=int, default=1, help="constants were tuned on others")
    parser.add_argument("--cell", action="append", help="only these cells; repeatable")
    parser.add_argument("--methods", action="store_true", help="other intervals than the default, on table A")
    parser.add_argument("--report", action="store_true", help="print the table, draw nothing")
    options = parser.parse_args()
    known = list(TABLE_A) if options.methods else [*CELLS, *ARM_CELLS]
    cells = options.cell or known
    unknown = [cell for cell in cells if cell not in known]
    if unknown:
        parser.error(f"unknown cells {unknown}; expected some of {known}")
    if not options.report:
        run(options.rows, cells, options.seed, options.logs, options.methods)
    print(report(read(options.rows)))


if __name__ == "__main__":
    main()
