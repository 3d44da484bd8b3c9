"""The time, where nobody hands a clock in."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def stamp() -> str:
    """The time as it stands in manifests."""
    return utc_now().isoformat(timespec="seconds")
