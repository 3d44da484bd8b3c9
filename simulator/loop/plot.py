"""A run of the loop as one SVG: values by round, and how far the learners came. Reads a result, computes nothing."""

from __future__ import annotations

from typing import Any

from bart.ope.report.plots import svg_of
from simulator.loop.records import LoopResult

INK, FAINT = "#333333", "#999999"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all


def plot(result: LoopResult) -> str:
    """The SVG text; the same result gives the same bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8))
    left, right = figure.subplots(1, 2)
    rounds = [r.number for r in result.rounds]
    for name, label in (("true_score", "true scores"), ("popularity", "popularity"), ("random", "random")):
        style = {"true_score": "-", "popularity": "-.", "random": ":"}[name]
        left.plot(rounds, [getattr(r, name).value for r in result.rounds], style, color=INK, lw=1.3, label=label)
    for i, first in enumerate(result.rounds[0].learners):
        colour = COLOURS[i % len(COLOURS)]
        mine = [r.learner(first.name) for r in result.rounds]
        _line(left, rounds, [x.greedy for x in mine], colour, "-", f"{first.name}, greedy")
        _line(left, rounds, [x.exploring for x in mine], colour, "--", f"{first.name}, exploring")
        _line(right, rounds, [x.share for x in mine], colour, "-", first.name)
    left.set_title("expected streams a page", fontsize=10, loc="left", color=INK)
    right.set_title("way from random (0) to true scores (1), greedy", fontsize=10, loc="left", color=INK)
    right.axhline(0.0, color=INK, lw=1.0, ls=":")
    right.axhline(1.0, color=INK, lw=1.0)
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("rounds of learning", fontsize=9, color=INK)
        axes.set_xticks(rounds)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=FAINT, lw=0.3, alpha=0.6)
        axes.tick_params(labelsize=8.5, colors=INK)
        axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.18), ncols=2)
    figure.subplots_adjust(left=0.05, right=0.99, top=0.91, bottom=0.33, wspace=0.14)
    return svg_of(figure)


def _line(axes: Any, x: list[int], values: list[Any], colour: str, style: str, label: str) -> None:
    axes.plot(x, [v.value for v in values], style, color=colour, lw=1.6, label=label, marker="o", ms=3)
    axes.fill_between(x, [v.lower for v in values], [v.upper for v in values], color=colour, alpha=0.12, lw=0)
