"""What the values of a report are values of, and what a verdict on them does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bart.ope.report.text import main_estimate

LATER = (0.04, 0.34)  # what carry-over took from a better policy within two weeks (python -m benchmarks carry_over)

NEXT_PAGE = (
    "Values are those of the next page for listeners in the state in which the logging policy left them: what resting"
    " cards, fatigue, listener vectors and exploration rates carry over from page to page under another policy is not"
    " in them."
)
CANDIDATES = (
    "A ranking of the logged candidates only: what other candidates would have earned is not in the log. So taking a"
    " source of candidates away can be estimated, adding one cannot."
)
PAGES = f"{CANDIDATES} {NEXT_PAGE} Every policy keeps the rules of the log."
CHOICES = (
    "What actions outside the logging policy's support would have earned is not in the log: taking actions away can be"
    " estimated, adding one cannot. Values are those of the next choice in the state in which the logging policy left"
    " its users; what another policy would carry over is not in them."
)


def beyond_verdict(report: Mapping[str, Any]) -> str:
    """What "conclusive" does not say, where some interval is narrower than what carry-over may take; "" elsewhere."""
    narrow = [
        (one["upper"] - one["lower"]) / 2 / one["value"]
        for policy in report["policies"]
        if policy["name"] != "logging" and (one := main_estimate(policy)[1])["verdict"] == "conclusive"
        if all(one.get(key) is not None for key in ("value", "lower", "upper")) and one["value"] > 0
    ]
    narrow = [share for share in narrow if share < LATER[1]]
    if not narrow:
        return ""
    what = "page" if str(report.get("kind") or "pages") == "pages" else "choice"
    return (
        f"Conclusive speaks of the next {what} alone. Intervals here are ± {min(narrow):.0%} of the value; in"
        f" simulated worlds with carry-over a better policy was worth {LATER[0]:.0%} to {LATER[1]:.0%} less after two"
        " weeks of its own. What a policy is worth once it has served for a while, an experiment tells."
    )
