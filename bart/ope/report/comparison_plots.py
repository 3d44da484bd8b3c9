"""Plots of policies against each other: differences with intervals beside P(best), and shares of exposure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bart.ope.report.plots import FAINT, INK, SERIES, finite, short, svg_figure, svg_text


def selection_plot(report: Mapping[str, Any]) -> str | None:
    """Differences to the baseline with their intervals, and the probability of each policy to be the best."""
    selection = report.get("selection")
    if not selection or not selection["versus_baseline"]:
        return None
    best = {policy["name"]: policy["p_best"] or 0.0 for policy in selection["policies"]}
    rows = selection["versus_baseline"]
    figure, axes = svg_figure(8.4, 0.9 + 0.34 * len(rows), 2)
    left, right = axes
    for i, row in enumerate(rows):
        low, high = (row[end] if finite(row[end]) else row["value"] for end in ("lower", "upper"))
        alpha = 0.35 if row["decision"] == "unusable" else 1.0
        left.plot([low, high], [i, i], color=SERIES[0], lw=2.2, alpha=alpha, solid_capstyle="butt")
        left.plot([row["value"]], [i], "o", color=SERIES[0], ms=5, alpha=alpha)
        right.barh(i, best.get(row["policy"], 0.0), 0.6, color=SERIES[0], alpha=0.8 * alpha, linewidth=0)
    left.axvline(0.0, color=INK, lw=0.8)
    left.set_xlabel(f"difference to {short(selection['baseline'])}")
    right.set_xlabel("P(best)")
    right.set_xlim(0, 1)
    for panel, names in ((left, [short(row["policy"]) for row in rows]), (right, [])):
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_yticks(range(len(rows)) if names else [], names)
        panel.grid(axis="x", color=FAINT, lw=0.3, alpha=0.5)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.25, right=0.98, top=0.97, bottom=0.5 / height, wspace=0.08)
    return svg_text(figure)


def exposure_plot(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Shares of exposure by group, one mark a policy."""
    groups = list(dict.fromkeys(share["group"] for row in rows for share in row["shares"]))
    if not groups:
        return None
    figure, axes = svg_figure(8.4, 2.6)
    shown = rows[: len(SERIES)]
    width = 0.8 / max(len(shown), 1)
    for i, row in enumerate(shown):
        found = {share["group"]: share for share in row["shares"]}
        at = [g - 0.4 + width * (i + 0.5) for g in range(len(groups))]
        values = [found[group]["value"] if group in found else math.nan for group in groups]
        axes.bar(at, values, width * 0.9, color=SERIES[i], linewidth=0, label=short(row["policy"]))
    axes.set_xticks(range(len(groups)), [str(group) for group in groups])
    axes.set_ylabel("share of exposure")
    axes.grid(axis="y", color=FAINT, lw=0.3, alpha=0.5)
    axes.legend(loc="best", frameon=False, fontsize=8, labelcolor=INK)
    figure.subplots_adjust(left=0.09, right=0.99, top=0.96, bottom=0.14)
    return svg_text(figure)
