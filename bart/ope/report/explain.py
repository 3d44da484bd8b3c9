"""A report in plain words: what each verdict rests on, and what would change it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bart.ope.report.estimand import beyond_verdict
from bart.ope.report.text import interval, main_estimate, number, tail_of

# what a reason says: how it begins or what it holds, and what would change it
REMEDIES: tuple[tuple[str, str], ...] = (
    (r"it learnt from", "evaluate on later pages alone (--since, at the moment that is named)"),
    (r"left out for a reason that may depend", "log these rows with their reward; a log of all decisions is a sample"),
    (r"drawn without any exploration|propensity 1", "explore: an epsilon of a few percent gives the log a random part"),
    (r"do not say how", "serve with a version that records how scores were moved (bart log version 3), and wait"),
    (r"share items|policy of its own", "read cascade_ips (--estimator cascade_ips), which is exact there"),
    (r"exploration rate of 0 at some position", "explore at these positions too, or compare policies that keep them"),
    (
        r"the log never took",
        "let the logging policy take these actions too, or evaluate a policy that leaves them out as well",
    ),
    (r"not settled", "evaluate fewer pages at once (--since): a log of one block is fitted as it is"),
    (r"not constant", "evaluate one stretch of time (--since), or wait until rewards are steady"),
    (r"rows next to one another are alike", "name the user (--user): rows of one user then hang together"),
    (
        r"weights average|weights add up|reweighted exposure|propensities say",
        "check the recorded propensities (bart log verify), and that every action"
        " that the policy may take can be drawn by the logging policy",
    ),
    (r"effective sample size|choices match", "log more, explore more, or ask for a policy closer to the logging one"),
    (r"pages; .* needed for an interval", "log more pages"),
    (r"the interval is", "log more; how much more is said with the reason"),
    (
        r"beyond the cap|beyond its error: the value is biased",
        "explore more, or read it without a cap (--estimator exposure_dr:cap=inf), which is wider",
    ),
    (
        r"observed exposure|not read in the order",
        "check the seen flags that clients report; sn_independent_ips needs no model of reading",
    ),
    (r"going on depends on streams", "take the reach by draws (Python: estimate(..., reach='draws'))"),
    (r"direct method|model's bias", "read an estimator with weights; a model alone cannot show its own error"),
    (r"largest 1 %|the 1 % of pages", "log more: a few rows carry the estimate"),
    (r"users: an interval|listeners?", "wait for more listeners; pages of the same few tell little"),
    (r"capped or shrunk|were capped", "read one without a cap beside it"),
    (r"drawn independently", "read sn_independent_ips or exposure_dr, which take rankings as they are"),
    (r"hold pins", "evaluate it with the pins that were in force (without --without-pins)"),
    (r"extended to hold it", "log more, or read one whose weights are divided by their sum (snips, sndr)"),
    (r"reward_range", "give --reward-range, the least and the largest reward that is possible"),
    (r"fitted|estimated from the log", "record propensities when choices are made"),
)


def explained(report: Mapping[str, Any]) -> Iterator[str]:
    """Lines of text, without an end of line."""
    for words in report.get("warnings") or ():
        yield f"Of the whole log: {words}."
        yield from _remedy(words)
    level = float(report.get("level") or 0.95)
    for policy in report["policies"]:
        name, found = main_estimate(policy)
        yield (
            f"{policy['name']}: {number(found.get('value'))} ({interval(found)} at {level:.0%}) by"
            f" {name}, {found['verdict']}."
        )
        told = [words for words in found.get("warnings") or () if words not in (report.get("warnings") or ())]
        if found["verdict"] == "conclusive" and not told:
            yield "  Nothing stands against it in this log."
        for words in told:
            yield f"  - {words}."
            yield from (f"  {line}" for line in _remedy(words))
        k = tail_of(policy, found)
        if k is not None and k > 0.7:
            yield (
                f"  The tail of its weights has Pareto's k {k:.2f}, beyond .7: a few rows carry it, whatever the"
                " effective sample size says."
            )
        factor = (policy.get("sensitivity") or {}).get("factor")
        if factor is not None:
            yield (
                f"  Recorded propensities would have to be wrong by a factor of {factor:.2f} before it might be no"
                " different from the logging policy."
            )
    for row in (report.get("selection") or {}).get("versus_baseline") or ():
        yield _difference(row)
    for words in (beyond_verdict(report), (report.get("adaptive") or {}).get("line"), report.get("note")):
        if words:
            yield str(words)


def _difference(row: Mapping[str, Any]) -> str:
    gap = f"{row['value']:+.4g} ({row['lower']:+.4g} to {row['upper']:+.4g})"
    ends = {
        "better": "so it is told to be better.",
        "worse": "so it is told to be worse.",
        "undecided": f"which does not tell them apart; {_more(row)}.",
        "unusable": "and one of the two estimates cannot be used.",
    }
    return f"{row['policy']} against {row['against']}: {gap}, {ends.get(row['decision'], row['decision'])}"


def _more(row: Mapping[str, Any]) -> str:
    """How much more of the same would tell a difference of this size apart."""
    half, gap = (row["upper"] - row["lower"]) / 2, abs(row["value"])
    if not gap or half <= gap:
        return "more of the same log would"
    return f"if it is of this size, a log {(half / gap) ** 2:,.1f} times as long would"


def _remedy(words: str) -> Iterator[str]:
    for pattern, remedy in REMEDIES:
        if re.search(pattern, words):
            yield f"  What would change it: {remedy}."
            return
