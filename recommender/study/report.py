"""What a listener evaluation leaves behind: table2.json (models only), run.json (everything else), tables as text.

table2.json is exactly {model: {metric: value}}; seeds, sizes, times, p-values, contexts, ablations and figures stand in
run.json. A value is null where a metric applies to no test session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recommender.study.paper_tables import PAPER_METRICS, PAPER_TABLE_2, PAPER_TABLE_3, PAPER_TABLE_4

TABLE_FILE, RUN_FILE, TEXT_FILE = "table2.json", "run.json", "tables.md"


def write_results(folder: Path, table2: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Writes the three files, each beside and then in place."""
    text = tables_as_text(table2, run)
    for name, content in (
        (TABLE_FILE, json.dumps(table2, indent=1)),
        (RUN_FILE, json.dumps(run, indent=1)),
        (TEXT_FILE, text),
    ):
        beside = folder / f"{name}.new"
        beside.write_text(content + "\n", encoding="utf-8")
        beside.replace(folder / name)


def tables_as_text(table2: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Tables 2 to 4 in Markdown, the paper's figures in brackets, with sizes and p-values."""
    sizes = run["sizes"]
    parts = [
        f"Seed {run['seed']}; {sizes['listeners']:,} listeners, {sizes['sessions']:,} sessions, of these "
        f"{sizes['training_sessions']:,} to train on, {sizes['validation_sessions']:,} to validate on and "
        f"{sizes['test_sessions']:,} tested, of {sizes['test_listeners']:,} listeners; {run['vectors_from']}; "
        f"hidden {run['hidden']}. Networks are means over {run['configuration']['seeds']} trainings, their learning"
        " rates chosen on the validation sessions alone.",
        *(["Events:\n\n" + "\n".join(f"- {line}" for line in run["events"])] if run.get("events") else []),
        _table2(table2),
        f"repeats_map@100 without any vector: {_cell(run['repeats_without_vector'], None)}",
        _gains(table2),
    ]
    if run["p_values"]:
        parts.append(_p_values(run["p_values"]))
    for key, title, paper in (
        ("table3", "Input features (Table 3)", PAPER_TABLE_3),
        ("table4", "Session encoding (Table 4)", PAPER_TABLE_4),
    ):
        if run.get(key):
            metrics = ("cosine", "map@100", "recall@10@100")
            parts.append(f"{title}\n\n" + _markdown(run[key], metrics, paper))
            parts.append(_p_values(run["ablation_p_values"][key], "the whole model"))
    return "\n\n".join(parts)


def _table2(table2: Mapping[str, Any]) -> str:
    metrics = (*PAPER_METRICS, "open_mrr", "literal_map@100", "repeats_map@100")
    return "Table 2, in brackets the paper's figures\n\n" + _markdown(table2, metrics, PAPER_TABLE_2)


def _gains(table2: Mapping[str, Any]) -> str:
    """Relative gain in cosine over the two plain averages."""
    lines = []
    for name in ("CoSeRNN", "CoSeRNN+"):
        over = [
            f"{100 * (table2[name]['cosine'] / table2[other]['cosine'] - 1):+.2f} % over {other}"
            for other in ("Avg, any cxt", "EMA", "JODIE")
            if name in table2 and other in table2 and table2[other]["cosine"]
        ]
        if over:
            lines.append(f"{name}, cosine: {', '.join(over)}")
    return "\n".join(lines)


def _p_values(p_values: Mapping[str, Mapping[str, float | None]], against: str = "CoSeRNN") -> str:
    metrics = ("cosine", "mrr@20", "map@100", "open_mrr", "literal_map@100", "repeats_map@100")
    rows = "\n".join(
        f"| {name} | " + " | ".join("-" if p[m] is None else f"{p[m]:.1g}" for m in metrics) + " |"
        for name, p in p_values.items()
    )
    head = f"| against {against} | {' | '.join(metrics)} |\n|{'---|' * (len(metrics) + 1)}"
    return f"P-values, two-sided, over listeners and trainings\n\n{head}\n{rows}"


def _markdown(
    table: Mapping[str, Mapping[str, float | None]], metrics: Sequence[str], paper: Mapping[str, Mapping[str, float]]
) -> str:
    head = f"| | {' | '.join(metrics)} |\n|{'---|' * (len(metrics) + 1)}"
    rows = [
        f"| {name} | " + " | ".join(_cell(values[m], paper.get(name, {}).get(m)) for m in metrics) + " |"
        for name, values in table.items()
    ]
    return "\n".join([head, *rows])


def _cell(value: float | None, published: float | None) -> str:
    said = "-" if value is None else f"{value:.4f}"
    return said if published is None else f"{said} ({published:.4f})"
