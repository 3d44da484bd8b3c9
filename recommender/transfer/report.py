"""The tables of an evaluation of listener vectors as text, the paper's percentages beside them as context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Fazelnia et al. 2025, Tables 1 to 3: gains of their representation in per cent. Their candidates and task model are
# not published, so the figures are context, not a yardstick.
PAPER_TASK = {"NMF": 18.6, "PMF": 12.7, "average": 1.6}
PAPER_FIRST = {"popularity": 27.0, "picks": 5.1}
PAPER_CLUSTERS = {"favourite artists": 2.9, "country of most listened artists": 5.5, "onboarding": 26.2}


def as_text(found: Mapping[str, Any]) -> str:
    """Markdown."""
    sizes = "; ".join(f"{name} {value}" for name, value in found["sizes"].items())
    parts = [f"Seed {found['seed']}, {found['seeds']} trainings. {sizes}."]
    for name, kinds in found["task"].items():
        lines = [
            [kind, *(_mean(one[m]) for m in ("accuracy", "auc", "pooled", "new_auc")), _gain(one["auc"]),
             _gain(one["new_auc"]), _paper(PAPER_TASK, kind)]
            for kind, one in kinds.items()
        ]  # fmt: skip
        head = ("vector", "accuracy", "AUC", "AUC, pooled", "AUC, never heard", "gain", "gain, never heard", "paper")
        parts.append(_table(f"The next days, negatives {name}", head, lines))
    for name, kinds in found["first_hours"].items():
        lines = [
            [kind, _mean(one["accuracy"]), _mean(one["auc"]), _gain(one["auc"]), _paper(PAPER_FIRST, kind)]
            for kind, one in kinds.items()
        ]
        parts.append(
            _table(f"The first four hours, negatives {name}", ("vector", "accuracy", "AUC", "gain", "paper"), lines)
        )
    for name, kinds in found["clusters"].items():
        lines = [
            [kind, _mean(one), _gain(one), _paper({"average": PAPER_CLUSTERS.get(name, 0.0)}, kind)]
            for kind, one in kinds.items()
        ]
        parts.append(_table(f"nDCG@50 of neighbours: {name}", ("vector", "nDCG@50", "gain", "paper"), lines))
    if found["without"]:
        whole = found["without"][""]
        lines = [
            [group or "nothing", *(f"{100 * (value / whole[m] - 1):+.1f} %" if group else f"{value:.4f}"
                                   for m, value in line.items())]
            for group, line in found["without"].items()
        ]  # fmt: skip
        parts.append(_table("Without a group of features", ("without", *whole), lines))
    parts.append("gain: of the encoder over that vector, with its 95 % interval over listeners and trainings.")
    return "\n\n".join(parts)


def _mean(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.4f}"


def _gain(one: Mapping[str, Any]) -> str:
    if "gain" not in one:
        return ""
    between = "" if one["interval"] is None else " ({:+.4f} to {:+.4f})".format(*one["interval"])
    return f"{one['gain']:+.4f}{between}, {one['percent']:+.1f} %"


def _paper(paper: Mapping[str, float], kind: str) -> str:
    return f"{paper[kind]:+.1f} %" if paper.get(kind) else ""


def _table(title: str, head: tuple[str, ...], lines: list[list[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in (list(head), ["---"] * len(head), *lines)]
    return "\n".join([f"{title}\n", *rows])
