"""Whether a report shows what a pipeline requires of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bart.ope.report.text import main_estimate, reason_of

REQUIREMENTS = ("conclusive", "better")


def lacking(report: Mapping[str, Any], requirement: str) -> str:
    """What the report lacks, in words; "" where it shows it.

    requirement: "conclusive", every policy's verdict; "better", every other policy than the baseline is told to be
    better than it, too. Raises ValueError for another one.
    """
    if requirement not in REQUIREMENTS:
        raise ValueError(f"requirement is {requirement!r}; expected {' or '.join(REQUIREMENTS)}")
    for policy in report["policies"]:
        verdict = main_estimate(policy)[1].get("verdict")
        if verdict != "conclusive":
            return f"{policy['name']} is {verdict}: {reason_of(policy) or 'no reason is given'}"
    if requirement == "conclusive":
        return ""
    against = (report.get("selection") or {}).get("versus_baseline") or []
    if not against:
        return "no policy was compared with another"
    for row in against:
        if row["decision"] != "better":
            return f"{row['policy']} is {row['decision']} against {row['against']}"
    return ""
