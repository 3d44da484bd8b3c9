"""A study of estimators in one picture: how each orders close policies, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bart.ope.report.plots import svg_of

FAR = 10.0  # relative errors beyond are drawn at the edge


def study_plot(summary: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """An SVG image. summary: as from `summarise_study`.

    Left: Kendall's tau of every log and their mean. Right: relative root mean squared error, with coverage beside it.
    """
    from matplotlib.figure import Figure

    names = sorted(summary, key=lambda name: summary[name]["mean_kendall_tau"])
    at = np.arange(len(names))
    figure = Figure(figsize=(9, 0.6 + 0.32 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for y, name in enumerate(names):
        tau = summary[name]["kendall_tau"]
        left.plot(tau, np.full(len(tau), y), "o", color="#4c78a8", alpha=0.35, markersize=4, markeredgewidth=0)
    left.plot([summary[name]["mean_kendall_tau"] for name in names], at, "|", color="black", markersize=12)
    left.set_yticks(at, names)
    left.set_xlim(-1.02, 1.02)
    left.set_xlabel("Kendall's tau, by log and mean")
    error = np.clip([summary[name]["relative_rmse"] for name in names], 1e-3, FAR)
    right.barh(at, error, left=1e-3, height=0.55, color="#a0b8d0")
    for y, name in enumerate(names):
        said = f"covers {summary[name]['coverage']:.2f}"
        right.annotate(said, (error[y], y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    right.set_xscale("log")
    right.set_xlim(1e-3, 10 * FAR)
    right.set_xlabel("relative root mean squared error")
    figure.suptitle(title, fontsize=10)
    return svg_of(figure)
