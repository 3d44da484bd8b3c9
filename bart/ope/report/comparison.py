"""What a report says of its policies against each other: sections of the HTML page, tables for the terminal.

Reads the keys that `bart.ope.comparison.comparison` describes; a report without them has no such section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bart.ope.report.comparison_plots import exposure_plot, selection_plot
from bart.ope.report.text import UNIT, number

if TYPE_CHECKING:
    from rich.table import Table

_STYLE = {"better": "green", "worse": "red", "undecided": "yellow", "unusable": "red"}


def comparison_html(report: Mapping[str, Any]) -> str:
    """The sections as HTML text, empty where the report compares nothing."""
    if not any(report.get(key) for key in ("selection", "slices", "rewards", "exposure", "cost_of_exploration")):
        return ""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, signed=signed, percent=percent, span=span, p=_p)
    return environment.from_string(_SECTIONS).render(
        selection=report.get("selection"),
        against=_against(report),
        plot=selection_plot(report),
        dimensions=_dimensions(report.get("slices") or ()),
        rewards=report.get("rewards") or (),
        exposure=[
            (_TITLES.get(kind, kind.replace("_", " ")), _share_table(rows), exposure_plot(rows))
            for kind, rows in (report.get("exposure") or {}).items()
            if rows
        ],
        cost=report.get("cost_of_exploration"),
        unit=report.get("unit") or UNIT,
    )


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
                _p(row["adjusted_p"]),
                percent(best.get(row["policy"])),
            )
        table.add_row("", str(selection["baseline"]), "", "", "", percent(best.get(selection["baseline"])))
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


def _p(value: Any) -> str:
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


_SECTIONS = """
{% if selection and against %}
<section id="selection">
<h2>Which policy is best</h2>
<p class="quiet">Paired differences to {{ selection.baseline }} on the same {{ "{:,}".format(selection.n) }} rows, with
{{ selection.level | percent }} intervals. A difference is called better or worse where its p-value, adjusted for the
number of comparisons ({{ selection.adjustment.replace("_", " ") }}, {{ selection.false_discovery | percent }}), says
so. P(best) is the probability to be the best of all policies here.</p>
{% for note in selection.warnings %}<p class="quiet">{{ note }}</p>{% endfor %}
<div class="scroll"><table>
<tr><th>decision</th><th>policy</th><th>difference</th><th>interval</th><th>adjusted p</th><th>P(best)</th></tr>
{% for row in against %}
<tr class="{{ {'better': 'conclusive', 'undecided': 'weak'}.get(row.decision, 'unusable') }}">
<td><span class="chip">{{ row.decision }}</span></td><td>{{ row.policy }}</td>
<td class="lead">{{ row.value | signed }}</td><td>{{ row | span }}</td><td>{{ row.adjusted_p | p }}</td>
<td>{{ row.p_best | percent }}</td></tr>
{% endfor %}
</table></div>
{% if plot %}{{ plot | safe }}{% endif %}
</section>
{% endif %}
{% if cost %}
<section id="cost_of_exploration" class="{{ cost.verdict }}">
<h2>Cost of exploration</h2>
<p class="quiet">The logging policy without its exploration minus the logging policy, paired, {{ unit }}.</p>
<p><span class="chip">{{ cost.verdict }}</span> <strong>{{ cost.value | signed }}</strong>
({{ cost | span }}), {{ cost.relative | percent }} of what was earned.</p>
</section>
{% endif %}
{% if dimensions %}
<section id="slices">
<h2>Slices</h2>
<p class="quiet">Value above, interval below, {{ unit }}; a star marks a difference to the baseline that stands after
adjusting for all slices. Pale: too little of the log is like that policy there.</p>
{% for dimension, policies, lines in dimensions %}
<div class="scroll"><table>
<tr><th>{{ dimension }}</th><th>size</th>{% for policy in policies %}<th>{{ policy }}</th>{% endfor %}</tr>
{% for name, size, found in lines %}
<tr><td>{{ name }}</td><td>{{ "{:,}".format(size) }}</td>
{% for row in found %}
{% if row %}
<td class="{{ 'off' if row.verdict == 'unusable' }}">{{ row.value | number }}
{%- if row.difference and row.difference.told_apart %}*{% endif %}
<small>{{ row.lower | number }} to {{ row.upper | number }}</small></td>
{% else %}<td></td>{% endif %}
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% endfor %}
</section>
{% endif %}
{% if rewards %}
<section id="rewards">
<h2>Several rewards</h2>
<p class="quiet">Expected sum a decision, all from one set of weights.</p>
<div class="scroll"><table>
<tr><th>reward</th><th>policy</th><th>value</th><th>interval</th><th>difference</th><th>interval</th></tr>
{% for row in rewards %}
<tr><td>{{ row.reward }}</td><td>{{ row.policy }}</td><td class="{{ 'off' if row.verdict == 'unusable' }}">
{{ row.value | number }}</td><td>{{ row.lower | number }} to {{ row.upper | number }}</td>
{% if row.difference %}
<td>{{ row.difference.value | signed }}{{ "*" if row.difference.told_apart }}</td><td>{{ row.difference | span }}</td>
{% else %}<td></td><td></td>{% endif %}
</tr>
{% endfor %}
</table></div>
</section>
{% endif %}
{% if exposure %}
<section id="exposure">
<h2>Who gets seen</h2>
<p class="quiet">Share of the expected exposure: how probable a candidate is in each slot, times how often a card in
that slot is seen.</p>
{% for title, table, svg in exposure %}
<p><b>{{ title }}</b></p>
<div class="scroll"><table>
<tr><th>policy</th>{% for group in table[0] %}<th>{{ group }}</th>{% endfor %}</tr>
{% for policy, shares in table[1] %}
<tr><td>{{ policy }}</td>
{% for share in shares %}
<td>{% if share %}{{ share.value | percent }}<small>{{ share.lower | percent }} to {{ share.upper | percent }}</small>
{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% if svg %}{{ svg | safe }}{% endif %}
{% endfor %}
</section>
{% endif %}
"""
