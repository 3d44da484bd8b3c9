"""Pictures of a listener evaluation: Table 2 as bars and Figures 1, 2, 3 and 5 of the CoSeRNN paper, as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bart.types import Floats
from recommender.listener.memories import DAY_PARTS

_INK, _BAR, _PAPER = "#333333", "#3b6ea5", "#b0b0b0"
_DEVICE_BAR, _FILL = "#c98a3c", "#dbe6f1"  # devices stand apart from parts of the day
_SERIES = (_BAR, "#b0b0b0", "#c98a3c", "#6a9a5b")  # of metrics side by side
_LABELS = {"mrr@50": "MRR@50", "map@100": "mAP@100", "recall@10@100": "recall@10 (100)", "cosine": "cosine"}


def draw_all(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what `found` has results for; returns the files written.

    found: table2, and where they were made figure1, figure2a, figure2b, figure3, figure5, paper.
    """
    jobs: list[tuple[str, str, Callable[[Any, Any], Any]]] = [
        ("table2", "table2.svg", lambda plt, x: _table2(plt, x, found.get("paper") or {})),
        ("figure1", "figure1.svg", _figure1),
        ("figure2a", "figure2a.svg", _figure2a),
        ("figure2b", "figure2b.svg", _figure2b),
        ("figure3", "figure3.svg", _figure3),
        ("figure5", "figure5.svg", _figure5),
    ]
    written = []
    for key, name, draw in jobs:
        if found.get(key):
            path = folder / name
            _save(draw, found[key], path)
            written.append(path)
    return written


def _save(draw: Callable[[Any, Any], Any], data: Any, path: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bart", "font.size": 9}):
        figure = draw(_new, data)
        FigureCanvasSVG(figure)
        beside = path.with_name(path.name + ".new")
        figure.savefig(beside, format="svg", bbox_inches="tight", metadata={"Date": None})
    beside.replace(path)


def _new(columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_axisbelow(True)
        ax.tick_params(colors=_INK)
    figure.set_layout_engine("tight")
    return figure, axes


def _table2(new: Any, table: Mapping[str, Mapping[str, float | None]], paper: Mapping[str, Any]) -> Any:
    """Cosine, open MRR and literal mAP by model; the paper's cosine as a mark."""
    names = list(table)
    columns = (("cosine", "cosine"), ("open_mrr", "open MRR"), ("literal_map@100", "literal mAP@100"))
    figure, axes = new(len(columns), 10.5, 0.6 + 0.28 * len(names))
    y = np.arange(len(names))
    for ax, (metric, label) in zip(axes, columns, strict=True):
        ax.barh(y, [table[name][metric] or 0.0 for name in names], color=_BAR, height=0.65)
        for row, name in enumerate(names):
            if metric in paper.get(name, {}):
                ax.plot([paper[name][metric]] * 2, [row - 0.4, row + 0.4], color=_INK, lw=1.5)
        ax.set_yticks(y, names if ax is axes[0] else [""] * len(names))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(label + (" (line: the paper's)" if metric == "cosine" and paper else ""), fontsize=9)
    return figure


def _places(names: list[str]) -> Floats:
    """Where contexts stand: parts of the day, a gap, then devices."""
    device = np.array([name not in DAY_PARTS for name in names])
    return np.arange(len(names)) + 0.8 * device


def _by_context(ax: Any, names: list[str]) -> None:
    ax.set_xticks(_places(names), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.grid(axis="y", color="#e6e6e6", lw=0.6)


def _figure1(new: Any, data: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Any:
    """Shares of sessions and of listeners by context."""
    names = [name for parts in data.values() for name in parts]
    values = [value for parts in data.values() for value in parts.values()]
    colours = [_BAR if name in DAY_PARTS else _DEVICE_BAR for name in names]
    figure, axes = new(2, 9, 3.2)
    labels = (("sessions", "% of sessions"), ("listeners", "% of listeners with a session there"))
    for ax, (key, label) in zip(axes, labels, strict=True):
        heights = [100 * value[key] for value in values]
        for bar, height in zip(ax.bar(_places(names), heights, color=colours), heights, strict=True):
            said = f"{height:.0f}" if height >= 1 else f"{height:.1f}"
            ax.annotate(said, (bar.get_x() + bar.get_width() / 2, height), ha="center", va="bottom", fontsize=7)
        _by_context(ax, names)
        ax.set_title(label, fontsize=9)
    return figure


def _figure2a(new: Any, data: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Any:
    """Cosine of two tracks heard in the same context."""
    boxes = [
        {"label": name, "whislo": q["q05"], "q1": q["q25"], "med": q["median"], "q3": q["q75"], "whishi": q["q95"]}
        for parts in data.values()
        for name, q in parts.items()
    ]
    names = [str(box["label"]) for box in boxes]
    figure, axes = new(1, 6.5, 3.2)
    axes[0].axhline(0, color=_PAPER, lw=0.8)
    axes[0].bxp(
        boxes, positions=_places(names), widths=0.6, showfliers=False, patch_artist=True, manage_ticks=False,
        boxprops={"facecolor": _FILL, "edgecolor": _BAR}, medianprops={"color": _INK},
        whiskerprops={"color": _BAR}, capprops={"color": _BAR},
    )  # fmt: skip
    _by_context(axes[0], names)
    axes[0].set_title("cosine of two tracks heard in a context (5, 25, 50, 75, 95 %)", fontsize=9)
    return figure


def _figure2b(new: Any, data: list[Mapping[str, float]]) -> Any:
    """Skip rate against similarity to the listener's average."""
    figure, axes = new(2, 8, 2.8)
    least = [entry["least"] for entry in data]
    for ax, key in zip(axes, ("correlation", "slope"), strict=True):
        ax.axhline(0, color=_PAPER, lw=0.8)
        ax.plot(least, [entry[key] for entry in data], "o-", color=_BAR)
        ax.grid(axis="y", color="#e6e6e6", lw=0.6)
        ax.set_xlabel("sessions with at least so many skips")
        ax.set_title(f"skip rate by similarity to the past: {key}", fontsize=9)
    return figure


def _figure3(new: Any, data: Mapping[str, Mapping[str, Any]]) -> Any:
    """Context of the nearest other session, beyond chance, in percentage points; one scale for all panels."""
    figure, axes = new(len(data), 5.0 * len(data), 4.2)
    excess = {kind: 100 * np.array(found["excess"]) for kind, found in data.items()}
    limit = max((float(np.abs(values).max()) for values in excess.values()), default=0.0) or 1.0
    titles = {"time": "part of the day", "device": "device"}
    for ax, (kind, found) in zip(axes, data.items(), strict=True):
        image = ax.imshow(excess[kind], cmap="RdBu_r", vmin=-limit, vmax=limit)
        for (row, column), value in np.ndenumerate(excess[kind]):
            colour = "white" if abs(value) > 0.6 * limit else _INK
            said = "0" if abs(value) < 0.5 else f"{value:+.0f}"
            ax.text(column, row, said, ha="center", va="center", color=colour, fontsize=8)
        ticks = range(len(found["contexts"]))
        ax.set_xticks(ticks, found["contexts"], rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(ticks, found["contexts"])
        ax.set_xlabel("context of the nearest session")
        ax.set_ylabel("context of the session")
        ax.set_title(f"{titles.get(kind, kind)}, points above chance", fontsize=9)
        figure.colorbar(image, ax=ax, shrink=0.7)
    return figure


def _figure5(new: Any, data: Mapping[str, Mapping[str, float | None]]) -> Any:
    """Improvement of CoSeRNN over JODIE by context."""
    names = list(data)
    metrics = list(next(iter(data.values())))
    figure, axes = new(1, 9, 3.4)
    width = 0.8 / len(metrics)
    for i, metric in enumerate(metrics):
        heights = [np.nan if value is None else value for value in (data[name][metric] for name in names)]
        place = _places(names) + (i + 0.5) * width - 0.4
        axes[0].bar(place, heights, width, label=_LABELS.get(metric, metric), color=_SERIES[i % len(_SERIES)])
    axes[0].axhline(0, color=_INK, lw=0.8)
    _by_context(axes[0], names)
    axes[0].set_ylabel("% over JODIE")
    axes[0].legend(fontsize=8, ncols=len(metrics), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure
