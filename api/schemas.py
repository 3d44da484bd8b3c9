"""What travels over the wire: strict, bounded, and closed to unknown fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")]
MAX_EVENTS = 500


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HomeRequest(Wire):
    """Who asks for a page, where and on what."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"user_id": "u000123", "device": "mobile", "tz": "Europe/Stockholm", "rows": 6, "columns": 6}]
        },
    )

    user_id: Id
    device: Word = "mobile"
    surface: Word = "default"
    country: Annotated[str, Field(pattern=r"^([A-Z]{2})?$")] = ""
    tz: Annotated[str, Field(max_length=64)] = "UTC"
    explicit_allowed: bool = True
    rows: Annotated[int, Field(ge=1, le=50)] | None = None
    columns: Annotated[int, Field(ge=1, le=100)] | None = None

    @field_validator("tz")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("expected an IANA time zone such as Europe/Stockholm")
        return value

    def utc_offset_min(self, at: datetime) -> int:
        """Minutes that the listener's clock is ahead of UTC at this moment."""
        offset = at.astimezone(ZoneInfo(self.tz)).utcoffset()
        return 0 if offset is None else round(offset.total_seconds() / 60)


class FeedbackItem(Wire):
    """One report about one card, or (without row and column) about the page."""

    event_id: Annotated[str, Field(min_length=1, max_length=256)]
    occurred_at: datetime | None = None
    row: Annotated[int, Field(ge=0, lt=50)] | None = None
    column: Annotated[int, Field(ge=0, lt=100)] | None = None
    displayed: bool | None = None
    seen: bool | None = None
    listened_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    skipped: bool | None = None
    saved: bool | None = None


class FeedbackRequest(Wire):
    """What a client reports about one page; any order, any number of times."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "request_id": "3f1c2a9e5b7d4c60a1e2f3b4c5d6e7f8",
                    "events": [{"event_id": "1", "row": 0, "column": 2, "seen": True, "listened_s": 41.5}],
                }
            ]
        },
    )

    request_id: Id
    events: Annotated[list[FeedbackItem], Field(min_length=1, max_length=MAX_EVENTS)]


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
