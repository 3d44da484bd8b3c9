"""The report as one HTML page that asks nothing of any other server: styles and plots stand inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bart.ope.report import plots as report_plots
from bart.ope.report.comparison import comparison_html
from bart.ope.report.text import MEANING, MOST_COLUMNS, NAMES, UNIT, estimator_names, interval, main_estimate, number

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


_SUBJECT = {"pages": "home pages", "choices": "single choices", "slates": "slates"}
_PAGES_ONLY = "A ranking of the logged candidates only: what other candidates would have earned is not in the log."


def render(report: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, interval=interval, count=_count, capitalize_first=_capitalised)
    names = estimator_names(report)
    drawn = [(title, words, draw(report)) for title, words, draw in (_PLOTS[name] for name in plots)]
    return environment.from_string(_PAGE).render(
        report=report,
        names=[(name, NAMES.get(name, name.replace("_", " "))) for name in names],
        meanings=_meanings(report, names),
        unit=report.get("unit") or UNIT,
        subject=_SUBJECT.get(str(report.get("kind") or "pages"), "logged decisions"),
        warnings=list(report.get("warnings") or ()),
        scope=_PAGES_ONLY if str(report.get("kind") or "pages") == "pages" else "",
        left_out=", ".join(f"{_count(n)} {why}" for why, n in (report.get("left_out") or {}).items() if n),
        policies=[_policy(policy, report.get("warnings") or ()) for policy in report["policies"]],
        headline=_headline(report),
        known=any(policy.get("truth") is not None for policy in report["policies"]),
        plots=[(title, words, svg) for title, words, svg in drawn if svg is not None],
        facts=_facts(report),
        configuration=_flat(report.get("configuration") or {}),
        note=note if "logged candidates" not in (note := str(report.get("note") or "")) else "",
        comparison=comparison_html(report),
        style=_STYLE,
        most_columns=MOST_COLUMNS,
    )


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


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --quiet: #5b6270; --faint: #b9bfca; --line: #e4e7ec;
  --surface: #ffffff; --ground: #f6f7f9; --good: #17803d; --fair: #a15c00; --bad: #b3261e;
  --series-0: #2f5fd0; --series-1: #d0602f; --series-2: #1f8a70; --series-3: #8a4fc4; --series-4: #b08800;
  --series-5: #55606e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --quiet: #9aa2b1; --faint: #4a5160; --line: #2b303a;
  --surface: #171a20; --ground: #0f1115; --good: #4cc37a; --fair: #e0a13c; --bad: #f2756b;
  --series-0: #7ea2ff; --series-1: #ff9a6b; --series-2: #58c9aa; --series-3: #c39af0; --series-4: #e2c255;
  --series-5: #a6b0be; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 2px; }
p { margin: 0 0 12px; } .quiet { color: var(--quiet); }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
  margin-top: 18px; }
.banner { border-left: 5px solid var(--tone); } .banner strong { color: var(--tone); font-size: 18px; }
.conclusive { --tone: var(--good); } .weak { --tone: var(--fair); } .unusable { --tone: var(--bad); }
.chip { display: inline-block; color: var(--tone); border: 1px solid currentColor; border-radius: 99px;
  padding: 0 9px; font-size: 12px; font-weight: 600; line-height: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 9px 10px; border-top: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
th { font-size: 12px; font-weight: 600; color: var(--quiet); border-top: 0; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } td:nth-child(2) { white-space: normal; min-width: 150px; }
td small { display: block; color: var(--quiet); font-size: 12px; } td.off { opacity: .45; }
th.words, td.words { text-align: left; }
td.lead { font-weight: 600; } td.lead small { font-weight: 400; }
svg { width: 100%; height: auto; display: block; margin-top: 8px; }
dl.facts { display: flex; flex-wrap: wrap; gap: 10px 34px; margin: 14px 0 0; } dl.facts div { min-width: 90px; }
dt { font-size: 12px; color: var(--quiet); } dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--quiet); }
ul { margin: 6px 0 12px; padding-left: 20px; } li { margin: 2px 0; }
.settings { columns: 2 300px; font: 12px/1.7 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.settings div { break-inside: avoid; overflow-wrap: anywhere; } .settings span { color: var(--quiet); }
@media print { body { background: none; } section { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Off-policy evaluation</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>What other policies would have earned</h1>
<p class="quiet">Off-policy evaluation of {{ subject }}; values are {{ unit }}.</p>
{% for words in warnings %}
<section class="banner unusable"><b>{{ words | capitalize_first }}.</b></section>
{% endfor %}

<section class="banner {{ headline[0] }}">
<strong>{{ headline[0] | capitalize }}</strong>
<p>{{ headline[1] }}</p>
<div class="scroll"><table>
<tr><th>verdict</th><th>policy</th><th>value</th><th>interval</th>{% if known %}<th>truth</th>{% endif %}</tr>
{% for policy in policies %}
<tr class="{{ policy.verdict }}">
<td><span class="chip">{{ policy.verdict }}</span></td>
<td>{{ policy.name }}{% if policy.reason %}<small>{{ policy.reason }}</small>{% endif %}</td>
<td class="lead">{{ policy.main.value | number }}</td>
<td>{{ policy.main | interval }}</td>
{% if known %}<td>{{ policy.truth | number }}</td>{% endif %}
</tr>
{% endfor %}
</table></div>
<dl class="facts">
{% for name, value in facts %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
</section>

<section>
<h2>Policies by estimators</h2>
<p class="quiet">Value above, interval below; pale where the log cannot support the estimate.
{% if known %}The truth is the simulator's, with its own standard error.{% endif %}</p>
{% if names | length > most_columns %}
<div class="scroll"><table>
<tr><th>verdict</th><th>policy</th><th class="words">estimator</th>{% if known %}<th>truth</th>{% endif %}
<th>value</th><th>interval</th><th>effective n</th><th>largest weight</th></tr>
{% for policy in policies %}{% for key, name in names %}
{% set found = policy.estimates.get(key) %}
{% if found %}
<tr class="{{ found.verdict }}">
<td><span class="chip">{{ found.verdict }}</span></td><td>{{ policy.name }}</td><td class="words">{{ name }}</td>
{% if known %}<td>{{ policy.truth | number }}</td>{% endif %}
<td class="lead {{ 'off' if found.verdict == 'unusable' }}">{{ found.value | number }}</td>
<td>{{ found | interval }}</td>
<td>{{ found.effective_sample_size | count }}</td><td>{{ found.max_weight | number }}</td>
</tr>
{% endif %}
{% endfor %}{% endfor %}
</table></div>
{% else %}
<div class="scroll"><table>
<tr><th>verdict</th><th>policy</th>{% if known %}<th>truth</th>{% endif %}
{% for key, name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for policy in policies %}
<tr class="{{ policy.verdict }}">
<td><span class="chip">{{ policy.verdict }}</span></td><td>{{ policy.name }}</td>
{% if known %}
<td>{{ policy.truth | number }}
{% if policy.truth_error is not none %}<small>± {{ policy.truth_error | number }}</small>{% endif %}</td>
{% endif %}
{% for key, name in names %}
{% set found = policy.estimates.get(key) %}
{% if found %}
<td class="{{ 'lead' if loop.first }} {{ 'off' if found.verdict == 'unusable' }}">
{{ found.value | number }}<small>{{ found | interval }}</small></td>
{% else %}<td></td>{% endif %}
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% endif %}
{% if meanings %}
<details><summary>What the estimators are</summary>
<ul>{% for name, meaning in meanings %}<li><b>{{ name }}</b>: {{ meaning }}.</li>{% endfor %}</ul></details>
{% endif %}
<details><summary>Every warning</summary>
{% for policy in policies %}{% if policy.notes %}
<p><b>{{ policy.name }}</b></p>
<ul>
{% for name, notes in policy.notes.items() %}{% for note in notes %}
<li>{{ name }}: {{ note }}</li>
{% endfor %}{% endfor %}
</ul>
{% endif %}{% endfor %}
</details>
</section>

{% for title, words, svg in plots %}
<section>
<h2>{{ title }}</h2>
<p class="quiet">{{ words }}</p>
{{ svg | safe }}
</section>
{% endfor %}

{{ comparison | safe }}
<section>
<h2>Scope and settings</h2>
<p class="quiet">{% if scope %}{{ scope }} {% endif %}{{ note }}</p>
{% if left_out %}
<p class="quiet">Left out: {{ left_out }}.</p>
{% endif %}
{% if configuration %}
<details><summary>Configuration</summary>
<div class="settings">
{% for name, value in configuration %}
<div><span>{{ name }}</span> {{ value }}</div>
{% endfor %}
</div></details>
{% endif %}
</section>
</main>
</body>
</html>
"""
