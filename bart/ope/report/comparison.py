"""What a report says of its policies against each other: sections of the HTML page, tables for the terminal.

Reads the keys that `bart.ope.comparison.comparison` describes; a report without them has no such section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bart.ope.report.comparison_plots import exposure_plot, selection_plot
from bart.ope.report.text import number

if TYPE_CHECKING:
    from rich.table import Table

_STYLE = {"better": "green", "worse": "red", "undecided": "yellow", "unusable": "red"}


def comparison_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What templates/comparison.html shows; `compared` is False where the report compares nothing."""
    return {
        "compared": any(
            report.get(key) for key in ("selection", "slices", "rewards", "exposure", "cost_of_exploration")
        ),
        "selection": report.get("selection"),
        "against": _against(report),
        "plot": selection_plot(report),
        "dimensions": _dimensions(report.get("slices") or ()),
        "rewards": report.get("rewards") or (),
        "exposure": [
            (_TITLES.get(kind, kind.replace("_", " ")), _share_table(rows), exposure_plot(rows))
            for kind, rows in (report.get("exposure") or {}).items()
            if rows
        ],
        "cost": report.get("cost_of_exploration"),
        "elimination": report.get("elimination"),
    }


def comparison_tables(report: Mapping[str, Any]) -> list[Table]:
    """Differences to the baseline with P(best), and one line on the cost of exploration, for the terminal (rich)."""
    from rich.table import Table
    from rich.text import Text

    selection = report.get("selection")
    out: list[Table] = []
    if selection and len(selection["policies"]) > 1:
        table = Table(
            title=f"Against {selection['baseline']}",
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
        )
        table.add_column("decision", no_wrap=True, min_width=10)
        table.add_column("policy", overflow="fold", min_width=12)
        for name in ("difference", "interval", "adjusted p", "P(best)"):
            table.add_column(name, justify="right")
        best = {policy["name"]: policy["p_best"] for policy in selection["policies"]}
        for row in selection["versus_baseline"]:
            decision = str(row["decision"])
            table.add_row(
                Text(decision, style=_STYLE.get(decision, "")),
                str(row["policy"]),
                signed(row["value"]),
                span(row),
                p_value(row["adjusted_p"]),
                percent(best.get(row["policy"])),
            )
        table.add_row("", str(selection["baseline"]), "", "", "", percent(best.get(selection["baseline"])))
        out.append(table)
    elimination = report.get("elimination")
    if elimination:
        table = Table(title="At every look", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for name in ("policy", "may be the best", "out at", "behind", "by at least"):
            table.add_column(name)
        for row in elimination["standings"]:
            left = row["eliminated_at"]
            told = ("yes", "", "", "") if left is None else ("no", f"{left:,}", str(row["by"]), number(row["behind"]))
            table.add_row(str(row["policy"]), *told)
        out.append(table)
    cost = report.get("cost_of_exploration")
    if cost:
        table = Table(title="Exploration", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for name in ("verdict", "greedy minus logging", "interval", "of the logging reward"):
            table.add_column(name, justify="left" if name == "verdict" else "right")
        table.add_row(str(cost["verdict"]), signed(cost["value"]), span(cost), percent(cost["relative"]))
        out.append(table)
    return out


def signed(value: Any) -> str:
    """A difference, its sign always written."""
    text = number(value)
    return text if value is None or text.startswith(("-", "–")) else f"+{text}"


def percent(value: Any) -> str:
    """A share; a dash where nothing is known."""
    return "–" if value is None else f"{100 * float(value):.1f} %"


def span(row: Mapping[str, Any]) -> str:
    """The interval of a difference in words."""
    return f"{signed(row.get('lower'))} to {signed(row.get('upper'))}"


def p_value(value: Any) -> str:
    return "–" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


_TITLES = {"popularity": "By popularity of the item", "artist_age": "By years since the artist's first release"}


def _against(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Differences to the baseline with P(best), the likeliest best first."""
    selection = report.get("selection")
    if not selection:
        return []
    best = {policy["name"]: policy["p_best"] for policy in selection["policies"]}
    rows = [{**row, "p_best": best.get(row["policy"])} for row in selection["versus_baseline"]]
    return sorted(rows, key=lambda row: -(row["p_best"] or 0.0))


def _dimensions(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[tuple[str, int, list[Any]]]]]:
    """(dimension, policies, [(slice, pages, the row of each policy)]) for a table a dimension."""
    out = []
    for dimension in dict.fromkeys(row["dimension"] for row in rows):
        own = [row for row in rows if row["dimension"] == dimension]
        policies = list(dict.fromkeys(row["policy"] for row in own))
        found = {(row["slice"], row["policy"]): row for row in own}
        lines = []
        for name in dict.fromkeys(row["slice"] for row in own):
            there = [found.get((name, policy)) for policy in policies]
            size = next(row.get("pages", row.get("n", 0)) for row in there if row is not None)
            lines.append((str(name), int(size), there))
        out.append((str(dimension), policies, lines))
    return out


def _share_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, list[Any]]]]:
    groups = list(dict.fromkeys(share["group"] for row in rows for share in row["shares"]))
    lines = []
    for row in rows:
        found = {share["group"]: share for share in row["shares"]}
        lines.append((str(row["policy"]), [found.get(group) for group in groups]))
    return [str(group) for group in groups], lines
