"""Logs of policies that learnt: which models served, and which policies learnt from the very pages they are judged on.

A policy is worth less than the pages say that it learnt from: what they hold by chance, it learnt as if it were so
(python -m benchmarks adaptive_logs). No interval allows for that; pages that came later do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bart.log.outcomes.models import ServedModels, served_models
from bart.ope.verdict.choices import worse

if TYPE_CHECKING:
    from api.evaluate.policies import PagePolicy
    from bart.ope.engine.sums import Statistics
    from bart.ope.records.estimate import Estimate
    from bart.types import PageBatch

FEW = 0.05  # of the pages: what a policy learnt from those moves its value by less than a tenth of its interval
TAUGHT = "taught by: "
MODEL = "model_id"  # column of a table that names the model of each row


def adaptive_facts(log: Path, since: datetime | None = None, run: Path | None = None) -> dict[str, Any]:
    """Which models served the pages of an export, for a report. run: whose history says how they came."""
    return served_models(log, since).as_dict(changes(run or log.parent))


def adaptive_choices(path: Path, kind: str, models: Mapping[str, int]) -> dict[str, Any]:
    """The same of a log of choices. models: rows by model, where the reader counts them; of a table by its column
    `model_id`, if it has one."""
    from bart.ope.inputs.files import column_names

    if kind == "table" and MODEL in column_names(path):
        models = _models_of(path)
    found = ServedModels()
    for model, rows in models.items():
        found.add("", "", model, rows)
    return found.as_dict(unit="rows")


def _models_of(path: Path) -> Counter[str]:
    import pyarrow.compute as pc

    from bart.ope.inputs.files import record_batches

    out: Counter[str] = Counter()
    for batch, _ in record_batches(path, [MODEL]):
        for row in pc.value_counts(batch.column(0)).to_pylist():
            out["" if row["values"] is None else str(row["values"])] += row["counts"]
    return out


def changes(run: Path) -> dict[str, int]:
    """How often a model came by online learning and by `bart retrain` in a run; {} for what is no run."""
    from api.run.versions import Versions

    if not (run / "bundles").is_dir():
        return {}
    why = Counter(line.why for line in Versions(run).history())
    return {name: why[name] for name in ("online learning", "bart retrain") if why[name]}


def put_taught(out: Statistics, pages: PageBatch, policies: Sequence[PagePolicy]) -> None:
    """Adds, for each policy that learnt, how many of the evaluated pages it learnt from."""
    usable = pages.closed & pages.displayed & ~pages.forced
    out.put("evaluated", usable.sum())
    for policy in policies:
        if policy.taught_until_s is not None:
            out.put(f"{TAUGHT}{policy.name}", (usable & (pages.at_s < policy.taught_until_s)).sum())


def taught(sums: Statistics, policies: Sequence[PagePolicy]) -> dict[str, str]:
    """What to say of each policy that learnt from more than a few of the pages it is judged on."""
    out, whole = {}, sums.total("evaluated")
    for policy in policies:
        until_s = policy.taught_until_s
        count = sums.total(f"{TAUGHT}{policy.name}") if until_s is not None else 0
        if until_s is not None and whole and count > FEW * whole:
            moment = datetime.fromtimestamp(until_s, tz=timezone.utc).isoformat(timespec="seconds")
            out[policy.name] = (
                f"it learnt from {count / whole:.0%} of the pages that it is judged on, so its value is too high by"
                f" what it took from chance; --since {moment} leaves them out"
            )
    return out


def doubted(rows: Mapping[str, Mapping[str, Estimate]], learnt: Mapping[str, str]) -> dict[str, Mapping[str, Estimate]]:
    """The estimates, those of policies that learnt from these pages at most weak, with the reason first."""
    out = dict(rows)
    for name, words in learnt.items():
        out[name] = {
            kind: replace(one, verdict=worse(one.verdict, "weak"), warnings=(words, *one.warnings))
            for kind, one in rows[name].items()
        }
    return out


def undecided(compared: dict[str, Any], learnt: Mapping[str, str]) -> dict[str, Any]:
    """The comparison, in which a policy that learnt from these pages is nowhere told to be better."""
    selection = compared.get("selection")
    if not selection or not learnt:
        return compared
    for row in (*selection["versus_baseline"], *selection["pairwise"]):
        favoured = row["policy"] if row["decision"] == "better" else row["against"]
        if row["decision"] in ("better", "worse") and favoured in learnt:
            row["decision"] = "undecided"
    names = ", ".join(learnt)
    selection["warnings"] = [
        *selection["warnings"], f"learnt from these pages, so not told to be better, and P(best) is too high: {names}"
    ]  # fmt: skip
    return compared
