"""The time, where nobody hands a clock in."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def stamp() -> str:
    """The time as it stands in manifests."""
    return utc_now().isoformat(timespec="seconds")


def text_of(second: float) -> str:
    """A moment, seconds since 1970, as text."""
    return datetime.fromtimestamp(second, tz=timezone.utc).isoformat(timespec="seconds")
