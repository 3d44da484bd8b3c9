"""Plots of the report as SVG text that takes its colours from the page, so that light and dark need one drawing.

Matplotlib draws with placeholder colours; they are replaced by CSS variables, and text stays text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bart.ope.report.text import NAMES, UNIT, estimator_names, main_estimate

INK, FAINT, SURFACE = "#0a0b0c", "#8a8b8c", "#fafbfc"
SERIES = ("#010001", "#020002", "#030003", "#040004", "#050005", "#060006")
_CSS = {INK: "var(--ink)", FAINT: "var(--faint)", SURFACE: "var(--surface)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)
}
_LONGEST = 34
_LEAST = {"pages": 50, "choices": 16, "slates": 16}  # effective sample size below which an estimate is unusable


def estimates(report: Mapping[str, Any]) -> str:
    """Every estimate with its interval, by policy, and the truth as a line across."""
    policies, names = report["policies"], estimator_names(report)
    if len(names) > len(SERIES):
        return _estimates_by_line(report, names)
    step = 0.8 / len(names)
    figure, axes = svg_figure(8.4, 0.9 + len(policies) * (0.24 + 0.17 * len(names)))
    axes.set_autoscale_on(False)
    limit = _limit(policies)
    labelled: set[str] = set()
    for row, policy in enumerate(policies):
        for i, name in enumerate(names):
            found = policy["estimates"].get(name)
            if found is None or not finite(found.get("value")):
                continue
            y = row - 0.4 + step * (i + 0.5)
            colour = SERIES[i % len(SERIES)]
            _mark(axes, found, y, colour, limit, solid_capstyle="butt")
            if name not in labelled:
                axes.plot([], [], "o-", color=colour, ms=5, lw=2.2, label=NAMES.get(name, name))
                labelled.add(name)
        if finite(policy.get("truth")):
            label = None if "truth" in labelled else "truth (simulator)"
            axes.plot([policy["truth"]] * 2, [row - 0.44, row + 0.44], color=INK, lw=1.4, label=label)
            labelled.add("truth")
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.set_xlim(0, limit)
    axes.set_yticks(range(len(policies)), [short(policy["name"]) for policy in policies])
    axes.set_xlabel(str(report.get("unit") or UNIT))
    for row in range(1, len(policies)):
        axes.axhline(row - 0.5, color=FAINT, lw=0.4)
    axes.grid(axis="x", color=FAINT, lw=0.3, alpha=0.5)
    figure.legend(
        loc="upper left", ncols=len(labelled), frameon=False, fontsize=8.5, labelcolor=INK, bbox_to_anchor=(0.0, 1.0)
    )
    figure.subplots_adjust(
        left=0.22, right=0.98, top=1 - 0.36 / figure.get_figheight(), bottom=0.5 / figure.get_figheight()
    )
    return svg_text(figure)


def _mark(axes: Any, found: Mapping[str, Any], y: float, colour: str, limit: float, **line: Any) -> None:
    """A dot for the value and a line for its interval, which ends in an arrow beyond the limit."""
    alpha = 0.35 if found.get("verdict") == "unusable" else 1.0
    low, high = (found[end] if finite(found.get(end)) else found["value"] for end in ("lower", "upper"))
    axes.plot([min(low, limit), min(high, limit)], [y, y], color=colour, lw=2.2, alpha=alpha, **line)
    if found["value"] <= limit:
        axes.plot([found["value"]], [y], "o", color=colour, ms=5, alpha=alpha)
    if high > limit:
        axes.plot([limit], [y], ">", color=colour, ms=5, alpha=alpha, clip_on=False)


def _estimates_by_line(report: Mapping[str, Any], names: Sequence[str]) -> str:
    """The same for more estimators than there are colours: each has a line with its name, policies are headings."""
    lines: list[tuple[str, Mapping[str, Any] | None, Any]] = []
    for policy in report["policies"]:
        lines.append((short(policy["name"]), None, policy.get("truth")))
        for name in names:
            found = policy["estimates"].get(name)
            if found is not None and finite(found.get("value")):
                lines.append((NAMES.get(name, name.replace("_", " ")), found, policy.get("truth")))
    figure, axes = svg_figure(8.4, 0.7 + 0.2 * len(lines))
    axes.set_autoscale_on(False)
    limit = _limit(report["policies"])
    for y, (_, found, truth) in enumerate(lines):
        if found is None:
            axes.axhline(y - 0.5, color=FAINT, lw=0.4)
            continue
        _mark(axes, found, y, SERIES[0], limit)
        if finite(truth):
            axes.plot([truth] * 2, [y - 0.5, y + 0.5], color=INK, lw=1.4)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(0, limit)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines])
    for label, (_, found, _) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if found is not None else "bold")
    axes.set_xlabel(str(report.get("unit") or UNIT))
    axes.grid(axis="x", color=FAINT, lw=0.3, alpha=0.5)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.26, right=0.98, top=1 - 0.1 / height, bottom=0.5 / height)
    return svg_text(figure)


def weights(report: Mapping[str, Any]) -> str | None:
    """How many pages carry each estimate (effective sample size), and classes of weights where they are recorded."""
    names = [n for n in estimator_names(report) if n != "dm"][: len(SERIES) - 1]
    policies = report["policies"]
    sizes = [
        (row, i, name, policy["estimates"][name].get("effective_sample_size"))
        for row, policy in enumerate(policies)
        for i, name in enumerate(names)
        if name in policy["estimates"]
    ]
    sizes = [entry for entry in sizes if finite(entry[3]) and entry[3] > 0]
    histograms = [policy for policy in policies if policy.get("weights")]
    if not sizes and not histograms:
        return None
    figure, axes = svg_figure(8.4, 1.1 + 0.5 * len(policies), 2 if sizes and histograms else 1)
    panels = list(axes) if sizes and histograms else [axes]
    if sizes:
        panel = panels[0]
        order = estimator_names(report)
        for i, name in enumerate(names):
            # One step down an estimator, so that equal sizes do not hide one another.
            points = [(size, row + 0.12 * (i - (len(names) - 1) / 2)) for row, j, _, size in sizes if j == i]
            colour = SERIES[order.index(name) % len(SERIES)]
            if points:
                panel.plot(*zip(*points, strict=True), "o", color=colour, ms=6, label=NAMES.get(name, name))
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:,.0f}")
        least = _LEAST.get(str(report.get("kind") or "pages"), 16)
        panel.axvline(least, color=FAINT, lw=0.8, ls="--")
        panel.set_ylim(len(policies) - 0.5, -0.5)
        panel.set_yticks(range(len(policies)), [short(policy["name"]) for policy in policies])
        panel.set_xlabel(f"effective sample size (dashed: {least}, the least)")
        panel.grid(axis="x", color=FAINT, lw=0.3, alpha=0.5)
        figure.legend(
            loc="upper left", ncols=len(names), frameon=False, fontsize=8, labelcolor=INK, bbox_to_anchor=(0.0, 1.0)
        )
    if histograms:
        panel = panels[-1]
        for row, policy in enumerate(policies):
            shares = (policy.get("weights") or {}).get("share", [])
            left = 0.0
            for k, share in enumerate(shares):
                # Heavier classes are more opaque: one hue, so that the eye reads an order.
                panel.barh(row, share, 0.6, left, color=SERIES[0], alpha=(k + 1) / len(shares), linewidth=0)
                left += share
        panel.set_ylim(len(policies) - 0.5, -0.5)
        panel.set_yticks(range(len(policies)), [] if sizes else [short(policy["name"]) for policy in policies])
        edges = histograms[0]["weights"]["edges"]
        panel.set_xlabel(f"share by weight, below {edges[1]:g} to above {edges[-1]:g} (darker)")
        panel.set_xlim(0, 1)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.22, right=0.98, top=1 - 0.36 / height, bottom=0.5 / height, wspace=0.08)
    return svg_text(figure)


def positions(report: Mapping[str, Any]) -> str | None:
    """Share of cards seen, and reward a seen card, by row and column."""
    facts = report.get("positions")
    if not facts:
        return None
    rows, columns = len(facts["seen"]), len(facts["seen"][0])
    figure, axes = svg_figure(8.4, 0.9 + 0.3 * rows, 2)
    for panel, key, title in zip(axes, ("seen", "reward"), ("share of cards seen", "reward a seen card"), strict=True):
        values: list[float] = [v for row in facts[key] for v in row if v is not None]
        top = max(values, default=0.0) or 1.0
        for r, row in enumerate(facts[key]):
            for c, value in enumerate(row):
                if value is None:
                    continue
                panel.barh(r, 0.94, 0.88, c - 0.47, color=SERIES[0], alpha=0.12 + 0.6 * value / top, linewidth=0)
                if columns <= 10:
                    panel.text(c, r, f"{value:.2f}", ha="center", va="center", fontsize=8, color=INK)
        panel.set_xlim(-0.5, columns - 0.5)
        panel.set_ylim(rows - 0.5, -0.5)
        panel.set_xticks(range(columns), [str(c + 1) for c in range(columns)])
        panel.set_yticks(range(rows), [str(r + 1) for r in range(rows)])
        panel.set_title(title, fontsize=9.5, color=INK, loc="left")
        panel.set_xlabel("column")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    axes[0].set_ylabel("row")
    figure.subplots_adjust(
        left=0.06, right=0.99, top=1 - 0.3 / figure.get_figheight(), bottom=0.46 / figure.get_figheight(), wspace=0.1
    )
    return svg_text(figure)


def exploration(report: Mapping[str, Any]) -> str | None:
    """Share of choices that were exploration, by position."""
    facts = report.get("positions")
    if not facts or "explored_card" not in facts:
        return None
    figure, axes = svg_figure(8.4, 2.2, 2)
    for panel, key, what in zip(axes, ("explored_shelf", "explored_card"), ("row", "column"), strict=True):
        values = [v if v is not None else math.nan for v in facts[key]]
        panel.bar(range(1, len(values) + 1), values, 0.66, color=SERIES[1], linewidth=0)
        panel.set_xlabel(what)
        panel.set_xticks(range(1, len(values) + 1))
        panel.set_ylim(0, max([v for v in values if finite(v)], default=0.0) * 1.15 or 1.0)
        panel.set_title("shelves explored" if what == "row" else "cards explored", fontsize=9.5, color=INK, loc="left")
        panel.grid(axis="y", color=FAINT, lw=0.3, alpha=0.5)
    figure.subplots_adjust(left=0.07, right=0.99, top=0.88, bottom=0.22, wspace=0.16)
    return svg_text(figure)


def svg_figure(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    """A figure in the report's style and its axes (one, or an array of `panels`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0.0)
    axes = figure.subplots(1, panels)
    for panel in [axes] if panels == 1 else axes:
        panel.patch.set_alpha(0.0)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(FAINT)
        panel.tick_params(colors=INK, labelsize=8.5, length=0)
        for label in (panel.xaxis.label, panel.yaxis.label):
            label.set_color(INK)
            label.set_fontsize(8.5)
    return figure, axes


def svg_text(figure: Any) -> str:
    """The figure as SVG text with colours that the page sets."""
    text = svg_of(figure, transparent=True)
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # several figures stand on a page
    for colour, variable in _CSS.items():
        text = text.replace(colour, variable)
    return text.replace("'DejaVu Sans', 'Bitstream Vera Sans'", "inherit, 'DejaVu Sans'")


def svg_of(figure: Any, **how: Any) -> str:
    """The figure as SVG text: with a fixed salt and no date, the same figure is the same bytes."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bart"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, **how)
    return out.getvalue()


def _limit(policies: Sequence[Mapping[str, Any]]) -> float:
    """Right end of the axis: what the main estimates and the truth need; longer intervals end in an arrow."""
    ends: list[float] = []
    for policy in policies:
        found = main_estimate(policy)[1]
        end = found.get("value" if found.get("verdict") == "unusable" else "upper")
        ends += [float(x) for x in (end, policy.get("truth")) if x is not None and finite(x)]
    top = max(ends, default=0.0)
    return 1.15 * top if top > 0 else 1.0


def finite(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def short(name: Any) -> str:
    """The end of a long name."""
    text = str(name)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
