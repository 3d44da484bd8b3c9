"""The arena's table: how far off, how honest and how dear each entry is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bart.types import Bools, Floats
from simulator.arena.tasks import UNSEEN
from simulator.study.selection import kendall_tau

HEAD = "| entry | RMSE | bias | covers | half width | tau | false conclusive | conclusive | CPU s |"


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By entry, best first. All errors are relative to the truth.

    rmse: geometric mean over (world, logging policy) of the root mean squared error over seeds and targets. bias,
    coverage (of answers with an interval; None without), half_width: means over all. tau: mean over logs of Kendall's
    tau between values and truths of the targets. false_conclusive: share of answers that the entry stands by and whose
    interval leaves out the truth; conclusive: share that it stands by. cpu_s: mean, of one answer. answers: how many.
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one answer")
    out = {name: _one([row for row in rows if row["entry"] == name]) for name in {row["entry"] for row in rows}}
    return dict(sorted(out.items(), key=lambda item: (item[1]["rmse"], item[0])))


def by(rows: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The same for each value of "world", "logging" or another column."""
    values = dict.fromkeys(row[key] for row in rows)
    return {str(value): summarise([row for row in rows if row[key] == value]) for value in values}


def order_tau(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> float:
    """Kendall's tau between the orders by RMSE that two sets of answers give the entries they have in common."""
    one, other = summarise(first), summarise(second)
    names = [name for name in one if name in other]
    return kendall_tau(*(np.array([found[name]["rmse"] for name in names]) for found in (one, other)))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Tables as text: over all, in the worlds on which nothing is tuned, and RMSE and coverage by logging policy."""
    parts = [_table("All worlds", summarise(rows))]
    unseen = [row for row in rows if row["world"] in UNSEEN]
    if unseen:
        parts.append(_table(f"Worlds on which nothing is tuned ({', '.join(UNSEEN)})", summarise(unseen)))
    for key in ("logging", "world"):
        parts.append(_crossed(f"RMSE (coverage) by {key}", by(rows, key), list(summarise(rows))))
    return "\n\n".join(parts) + "\n"


def _one(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    truth, value = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("truth", "value"))
    lower, upper = (
        np.array([np.nan if row[name] is None else row[name] for row in rows]) for name in ("lower", "upper")
    )
    stands = np.array([row["conclusive"] for row in rows], dtype=np.bool_)
    off, given = value / truth - 1, ~np.isnan(lower)
    covers: Bools = (lower <= truth) & (truth <= upper)
    cells = _groups(rows, lambda row: (row["world"], row["logging"]))
    logs = _groups(rows, lambda row: (row["world"], row["logging"], row["seed"]))
    return {
        "rmse": float(np.exp(np.mean([np.log(_root_mean_square(off[at])) for at in cells]))),
        "bias": float(off.mean()),
        "coverage": float(covers[given].mean()) if given.any() else None,
        "half_width": float(((upper - lower) / 2 / truth)[given].mean()) if given.any() else None,
        "tau": float(np.mean([kendall_tau(truth[at], value[at]) for at in logs])),
        "false_conclusive": float((stands & given & ~covers).mean()) if given.any() else None,
        "conclusive": float(stands.mean()),
        "cpu_s": float(np.mean([row["cpu_s"] for row in rows])),
        "answers": len(rows),
    }


def _groups(rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> Iterable[list[int]]:
    out: dict[Any, list[int]] = {}
    for k, row in enumerate(rows):
        out.setdefault(key(row), []).append(k)
    return out.values()


def _root_mean_square(off: Floats) -> float:
    return max(float(np.sqrt(np.mean(off**2))), 1e-12)


def _table(title: str, found: dict[str, dict[str, Any]]) -> str:
    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = [f"{title}, {max(one['answers'] for one in found.values()):,} answers an entry:", "", HEAD]
    lines.append("|---" * HEAD.count(" | ") + "|---|")
    for name, one in found.items():
        cells = [
            name,
            number(one["rmse"], 3),
            f"{one['bias']:+.3f}",
            *(number(one[key], 3) for key in ("coverage", "half_width", "tau", "false_conclusive", "conclusive")),
            number(one["cpu_s"], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _crossed(title: str, found: dict[str, dict[str, dict[str, Any]]], names: list[str]) -> str:
    lines = [f"{title}:", "", f"| entry | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for name in names:
        cells = []
        for one in found.values():
            here = one.get(name)
            told = "" if here is None else f"{here['rmse']:.3f}"
            if here is not None and here["coverage"] is not None:
                told += f" ({here['coverage']:.2f})"
            cells.append(told)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
