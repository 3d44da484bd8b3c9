"""The report as one HTML page that asks nothing of any other server: styles and plots stand inside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bart.ope.report import plots as report_plots
from bart.ope.report.comparison import comparison_facts, p_value, percent, signed, span
from bart.ope.report.estimand import CHOICES, PAGES, beyond_verdict
from bart.ope.report.text import (
    MEANING,
    MOST_COLUMNS,
    NAMES,
    UNIT,
    estimator_names,
    interval,
    main_estimate,
    number,
    tail_of,
)

_PLOTS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], str | None]]] = {
    "estimates": (
        "Estimates",
        "Dots are values with their intervals; the line across is the truth where it is known. Pale: unusable.",
        report_plots.estimates,
    ),
    "weights": (
        "How much of the log carries each estimate",
        "Importance weights make few decisions count for many. The effective sample size says how few are left.",
        report_plots.weights,
    ),
    "positions": (
        "Reward by position",
        "Evaluated pages only: open, forced and never displayed ones are left out.",
        report_plots.positions,
    ),
    "exploration": (
        "Explore share",
        "Share of choices that only exploration made. Without exploration nothing here could be evaluated.",
        report_plots.exploration,
    ),
}


_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_HEAD = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
_CELL = re.compile(r"<td([^>]*)>")
_SUBJECT = {"pages": "home pages", "choices": "single choices", "slates": "slates"}


def render(report: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bart.ope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, interval=interval, count=_count, capitalize_first=_capitalised)
    environment.filters.update(signed=signed, percent=percent, span=span, p=p_value)
    names = estimator_names(report)
    drawn = [(title, words, draw(report)) for title, words, draw in (_PLOTS[name] for name in plots)]
    page = environment.get_template("page.html").render(
        report=report,
        names=[(name, NAMES.get(name, name.replace("_", " "))) for name in names],
        meanings=_meanings(report, names),
        unit=report.get("unit") or UNIT,
        subject=_SUBJECT.get(str(report.get("kind") or "pages"), "logged decisions"),
        warnings=list(report.get("warnings") or ()),
        scope=_scope(report),
        beyond=beyond_verdict(report),
        left_out=", ".join(f"{_count(n)} {why}" for why, n in (report.get("left_out") or {}).items() if n),
        policies=[_policy(policy, report.get("warnings") or ()) for policy in report["policies"]],
        headline=_headline(report),
        known=any(policy.get("truth") is not None for policy in report["policies"]),
        plots=[(title, words, svg) for title, words, svg in drawn if svg is not None],
        facts=_facts(report),
        by_card=[(head, report[key]) for head, key in (("shelf", "shelves"), ("type", "types")) if report.get(key)],
        configuration=_flat(report.get("configuration") or {}),
        most_columns=MOST_COLUMNS,
        **comparison_facts(report),
    )
    return _TABLE.sub(lambda found: _with_heads(found[0]), page)


def _with_heads(table: str) -> str:
    """A table whose cells name their columns, for screens on which a row stands as lines of its own."""
    first, *rows = table.split("</tr>")
    heads = _HEAD.findall(first)

    def told(row: str) -> str:
        names = iter(heads)
        return _CELL.sub(lambda cell: f'<td data-head="{next(names, "")}"{cell[1]}>', row)

    return "</tr>".join([first, *(told(row) for row in rows)])


def _scope(report: Mapping[str, Any]) -> list[str]:
    """What the values are values of, whether the log is adaptive, and what else the report says of itself."""
    kind, note = str(report.get("kind") or "pages"), str(report.get("note") or "")
    own = PAGES if kind == "pages" else CHOICES
    found = [note if own in note else f"{own} {note}".strip(), (report.get("adaptive") or {}).get("line") or ""]
    return [words for words in found if words]


def _meanings(report: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str]]:
    """What each estimator is: by the report's own words, else by those for pages."""
    own = report.get("meanings") or MEANING
    return [(NAMES.get(name, name.replace("_", " ")), str(own[name])) for name in names if name in own]


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _policy(policy: Mapping[str, Any], said: Sequence[str] = ()) -> dict[str, Any]:
    """What the page shows of a policy; said: warnings that stand above already."""
    name, main = main_estimate(policy)
    notes = {NAMES.get(key, key): list(found.get("warnings") or ()) for key, found in policy["estimates"].items()}
    return {
        "name": str(policy["name"]),
        "truth": policy.get("truth"),
        "truth_error": policy.get("truth_error"),
        "main": main,
        "main_name": NAMES.get(name, name),
        "verdict": str(main.get("verdict") or "weak"),
        "tail": tail_of(policy, main),
        "tails": {key: tail_of(policy, found) for key, found in policy["estimates"].items()},
        "estimates": policy["estimates"],
        "notes": {key: value for key, value in notes.items() if value},
        "reason": next((words for words in main.get("warnings") or () if words not in said), ""),
    }


def _headline(report: Mapping[str, Any]) -> tuple[str, str]:
    """The worst news first: overall verdict and a sentence."""
    verdicts = [str(main_estimate(policy)[1].get("verdict") or "weak") for policy in report["policies"]]
    n = len(verdicts)
    conclusive, unusable = verdicts.count("conclusive"), verdicts.count("unusable")
    if conclusive == n:
        return (
            "conclusive",
            f"The log supports a conclusion on all {n} policies." if n > 1 else "The log supports a conclusion.",
        )
    if unusable == n:
        return (
            "unusable",
            "The log does not support a conclusion on any policy: too few pages are like those they would show.",
        )
    return "weak", (
        f"The log supports a conclusion on {conclusive} of {n} policies; {unusable} cannot be judged from it."
        if n > 1
        else "The log supports an estimate, but no firm conclusion."
    )


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    log, replay = report["log"], report["replay"]
    out = [("seed", str(report["seed"]))]
    out += [
        (str(key), _count(value) if float(value).is_integer() else number(value))
        for key, value in log.items()
        if isinstance(value, int | float)
    ]
    if replay:
        out.append(("propensities replayed", f"{_count(replay['checked'])}, {_count(replay['mismatches'])} differ"))
    for key in ("evaluated_pages", "trained_pages"):
        if report.get(key) is not None:
            out.append((key.replace("_", " "), _count(report[key])))
    for key in ("batch_id", "model_id"):
        if report.get(key):
            out.append((key.replace("_id", ""), str(report[key])))
    return out


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else "–"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    if not isinstance(value, Mapping):
        return [(prefix, "–" if value is None else str(value))]
    return [entry for key, item in value.items() for entry in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
