"""The evaluation report: report.json, a self-contained report.html and a table for the terminal.

A report is a plain dictionary of saved rows:

    {"seed", "policies": [{"name", "truth", "truth_error", "estimates": {"ips": {"value", "lower", "upper", "verdict",
    ...}, "snips", "dm", "dr", ...}}], "log": {"pages", "seen", "streams"}, "replay": {"checked", "mismatches"}}

Other keys may stand beside them; `unit` says what values are, `warnings` hold for the whole log and come first,
`meanings` explain estimators by name, `left_out` counts what was not evaluated by reason; `configuration` and `note`
are shown, and so are `shelves` and `types` (see `shelf_facts`); `positions` (see `position_facts`) and a policy's
`weights` (see `weight_histogram`) are plotted. Nothing is estimated here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bart.ope.report.html import render
from bart.ope.report.shelves import shelf_facts
from bart.ope.report.text import (
    MOST_COLUMNS,
    NAMES,
    UNIT,
    estimator_names,
    interval,
    main_estimate,
    number,
    plain,
    tail_of,
)
from bart.types import ItemTable, PageBatch

if TYPE_CHECKING:
    from rich.table import Table

PLOTS = ("estimates", "weights", "positions", "exploration")
_VERDICT_STYLE = {"conclusive": "green", "weak": "yellow", "unusable": "red"}


def write_report(
    report: Mapping[str, Any],
    directory: str | Path,
    *,
    pages: PageBatch | None = None,
    items: ItemTable | None = None,
    plots: Sequence[str] = PLOTS,
) -> Path:
    """Writes report.json and report.html into a directory and returns the path of the latter.

    Without jinja2 or matplotlib (the extra `plots`) there is report.json only, and its path is returned.

    pages: the log, from which facts by position and by shelf are added; items: of its rows, for facts by type. plots:
    which of `PLOTS` to draw. Both files are written beside and renamed. Raises ValueError for a report without policies
    or an unknown plot.
    """
    unknown = [name for name in plots if name not in PLOTS]
    if unknown:
        raise ValueError(f"plots has {unknown[0]!r}; expected some of {', '.join(PLOTS)}")
    check(report)
    full = dict(report)
    if pages is not None:
        full |= {"positions": position_facts(pages), **shelf_facts(pages, items)}
    folder = Path(directory)
    table, page = folder / "report.json", folder / "report.html"
    _replace(table, json.dumps(plain(full), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    try:
        text = render(full, plots)
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "matplotlib"):
            raise
        page.unlink(missing_ok=True)  # that of an earlier report
        return table
    _replace(page, text)
    return page


def check(report: Mapping[str, Any]) -> None:
    """Raises ValueError where a report lacks what every report has."""
    for key in ("seed", "policies", "log", "replay"):
        if key not in report:
            raise ValueError(f"report has no {key!r}; expected seed, policies, log and replay")
    if not report["policies"]:
        raise ValueError("report['policies'] is empty; expected at least one policy")
    for i, policy in enumerate(report["policies"]):
        if not policy.get("estimates"):
            raise ValueError(f"report['policies'][{i}] has no estimates; expected at least one")


def position_facts(pages: PageBatch) -> dict[str, Any]:
    """What a log shows by position: seen, reward a seen card, and the share of choices that were exploration.

    seen, reward: [rows][columns]; explored_shelf [rows], explored_card [columns]; None where no card ever stood.
    Open, forced and never displayed pages are left out.
    """
    sums: dict[str, Any] = {}
    add_positions(sums, pages)
    return position_shares(sums)


def add_positions(sums: dict[str, Any], pages: PageBatch) -> None:
    """Adds the counts behind `position_facts` of some pages to those of earlier ones (pages of the same size)."""
    usable = pages.closed & pages.displayed & ~pages.forced
    shown = (pages.card >= 0) & usable[:, None, None]
    seen = pages.seen & shown
    rows_shown = (pages.row_shelf >= 0) & usable[:, None]
    size = np.zeros((len(pages), int(pages.shelf.max(initial=0)) + 1), dtype=np.int64)
    page = np.repeat(np.arange(len(pages)), np.diff(pages.offset))
    drawn = pages.shelf >= 0
    np.add.at(size, (page[drawn], pages.shelf[drawn]), 1)
    in_row = np.take_along_axis(size, np.maximum(pages.row_shelf, 0), axis=1)  # [b, rows]
    left = np.maximum(in_row[:, :, None] - np.arange(shown.shape[2]), 1)
    shelves_left = np.maximum((size > 0).sum(axis=1)[:, None] - np.arange(rows_shown.shape[1]), 1)
    # A choice at exactly its exploring probability cannot have been the greedy one, whose own comes on top.
    with np.errstate(invalid="ignore"):
        card = pages.card_propensity <= pages.card_epsilon[:, None, :] / left * (1 + 1e-9)
        shelf = pages.shelf_propensity <= pages.shelf_epsilon / shelves_left * (1 + 1e-9)
    free = shown & ~pages.pinned
    for key, part, whole in (
        ("seen", seen.sum(axis=0), shown.sum(axis=0)),
        ("reward", np.where(seen, pages.reward, 0.0).sum(axis=0), seen.sum(axis=0)),
        ("explored_shelf", (shelf & rows_shown).sum(axis=0), rows_shown.sum(axis=0)),
        ("explored_card", (card & free).sum(axis=(0, 1)), free.sum(axis=(0, 1))),
    ):
        before = sums.get(key, (0, 0))
        sums[key] = (before[0] + part, before[1] + whole)


def position_shares(sums: Mapping[str, Any]) -> dict[str, Any]:
    """The facts from counts that `add_positions` made."""
    return {key: _share(part, whole) for key, (part, whole) in sums.items()}


def terminal_table(report: Mapping[str, Any]) -> Table:
    """Policies by estimators with intervals, verdict first, beside the simulator's truth where it is known (rich)."""
    from rich.text import Text

    check(report)
    names = estimator_names(report)
    known = any(policy.get("truth") is not None for policy in report["policies"])
    if len(names) > MOST_COLUMNS:
        return _long_table(report, names)
    table = _titled(report)
    table.add_column("verdict", no_wrap=True, min_width=10)
    table.add_column("policy", overflow="fold", min_width=12)
    if known:
        table.add_column("truth", justify="right")
    for name in names:
        table.add_column(NAMES.get(name, name), justify="right")
    for policy in report["policies"]:
        verdict = str(main_estimate(policy)[1].get("verdict", ""))
        cells: list[str | Text] = [Text(verdict, style=_VERDICT_STYLE.get(verdict, "")), str(policy["name"])]
        if known:
            cells.append(number(policy.get("truth")))
        for name in names:
            estimate = policy["estimates"].get(name)
            if estimate is None:
                cells.append("")
                continue
            text = Text(number(estimate.get("value")))
            text.append(f"\n{interval(estimate)}", style="dim")
            if estimate.get("verdict") == "unusable":
                text.stylize("dim")
            cells.append(text)
        table.add_row(*cells)
    return table


def _long_table(report: Mapping[str, Any], names: Sequence[str]) -> Table:
    """A line an estimate, for more estimators than fit side by side."""
    from rich.text import Text

    table = _titled(report)
    for column in ("verdict", "policy", "estimator"):
        table.add_column(column, overflow="fold", no_wrap=column == "verdict")
    for column in ("truth", "value", "interval", "effective n", "Pareto k", "largest weight"):
        if column != "truth" or any(policy.get("truth") is not None for policy in report["policies"]):
            table.add_column(column, justify="right")
    known = len(table.columns) == 9
    for policy in report["policies"]:
        first = True
        for name in names:
            found = policy["estimates"].get(name)
            if found is None:
                continue
            verdict = str(found.get("verdict", ""))
            truth = [number(policy.get("truth")) if first else ""] if known else []
            table.add_row(
                Text(verdict, style=_VERDICT_STYLE.get(verdict, "")),
                str(policy["name"]) if first else "",
                NAMES.get(name, name),
                *truth,
                number(found.get("value")),
                interval(found),
                f"{found['effective_sample_size']:,.0f}" if found.get("effective_sample_size") is not None else "–",
                number(tail_of(policy, found)),
                f"{found['max_weight']:,.1f}" if found.get("max_weight") is not None else "–",
            )
            first = False
    return table


def _titled(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    unit = str(report.get("unit") or UNIT)
    return Table(title=unit[:1].upper() + unit[1:], title_justify="left", title_style="bold", box=None, pad_edge=False)


def _share(part: np.ndarray, whole: np.ndarray) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return plain(np.where(whole > 0, part / whole, np.nan))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
