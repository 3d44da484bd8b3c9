"""How many reports are taken: of one page, and for pages that nobody knows.

What is beyond is refused event by event, with the reason; what was taken before goes on being answered as repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from api.run.settings import LimitSettings
from bart.log.decision_log import DecisionLog
from bart.log.outcomes.outcomes import count_quarantined, count_reported

LOOK_S = 2.0  # at all that waits


class ReportLimits:
    """The limits of one log. refused: told which limit refused how many events."""

    def __init__(self, log: DecisionLog, limits: LimitSettings, refused: Callable[[str, int], None]) -> None:
        self._log, self._limits, self._refused = log, limits, refused
        self._looked_at, self._full = float("-inf"), False

    def reason(self, request_id: str, fresh: Collection[str]) -> str:
        """Why fresh events of a page are not taken; empty where they are."""
        if not fresh:
            return ""
        most = self._limits.reports
        with self._log.reading() as connection:
            known, count = count_reported(connection, request_id, most + 1)
            if not known and time.monotonic() - self._looked_at >= LOOK_S:
                self._full = count_quarantined(connection, self._limits.quarantine) >= self._limits.quarantine
                self._looked_at = time.monotonic()
        if count + len(fresh) > most:
            self._refused("reports", len(fresh))
            return f"{count} events of this page are known; expected at most {most}"
        if not known and self._full:
            self._refused("quarantine", len(fresh))
            return f"{self._limits.quarantine} events or more wait for pages that are not known; expected fewer"
        return ""
