"""What travels over the wire: strict, bounded, and closed to unknown fields."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

MAX_ROWS = 50
MAX_COLUMNS = 100
MAX_EVENTS = 500
MAX_PLAYS = 500
MAX_PICKS = 50
MAX_SHELVES = 100
MAX_CANDIDATES = 5000
MAX_BLOCKED = 5000  # names or ids of one list of preferences
_EARLIEST, _LATEST = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (2000, 2200))


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())  # walks the file system: milliseconds


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _known_zone(value: str) -> str:
    if value not in _zones():
        raise ValueError("expected an IANA time zone such as Europe/Stockholm")
    return value


def _plausible(value: datetime) -> datetime:
    # Beyond a few centuries conversions overflow, and no clock is off by that much.
    try:
        fits = _EARLIEST <= value < _LATEST
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError("expected a time between the years 2000 and 2200")
    return value


Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")]
Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f]*$")]
Country = Annotated[str, Field(pattern=r"^([A-Z]{2})?$", description="ISO 3166-1 code, or empty where unknown")]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_known_zone)]
Locale = Annotated[str, Field(max_length=35, pattern=r"^([A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*)?$")]
Time = Annotated[AwareDatetime, AfterValidator(_plausible)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Wire(BaseModel):
    """Strict: a number is no string, and what is not named here is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class VisitFields(Wire):
    """Who asks for a page, where and on what."""

    user_id: Id
    device: Word = Field("mobile", description="mobile, desktop, speaker, web and tablet are told apart")
    surface: Word = Field("default", description="chooses the exploration rate")
    country: Country = ""
    tz: Zone | None = Field(None, description="the listener's zone; without it no title speaks of the time of day")
    locale: Locale = Field("", description="BCP 47 tag such as sv-SE; taken and not used: titles are English only")
    explicit_allowed: bool = True
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    columns: Annotated[int, Field(ge=1, le=MAX_COLUMNS)] | None = None
    idempotency_key: Id | None = Field(None, description="a retry with the same key gets the same page, logged once")
    seed: Annotated[int, Field(ge=0, lt=2**62)] | None = Field(None, description="administrators only; marks the page")
    at: Time | None = Field(None, description="administrators only; marks the page")
    shadow: bool = Field(
        False, description="decide and log, while the caller shows a page of its own: never learnt from"
    )

    @property
    def by_hand(self) -> bool:
        """Whether seed or time are set, as administrators may."""
        return self.seed is not None or self.at is not None

    @property
    def forced(self) -> bool:
        """Whether the page is not what a listener saw by the policy's own draw."""
        return self.by_hand or self.shadow

    def utc_offset_min(self, at: datetime) -> int:
        """Minutes that the listener's clock is ahead of UTC at this moment; 0 where the zone is not known."""
        return utc_offset_min(self.tz or "UTC", at)


class Onboarding(Wire):
    """What a new listener picked."""

    items: Annotated[list[Id], Field(max_length=MAX_PICKS)] = Field(default_factory=list)
    artists: Annotated[list[Id], Field(max_length=MAX_PICKS)] = Field(default_factory=list)
    genres: Annotated[list[Id], Field(max_length=MAX_PICKS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> Onboarding:
        if not (self.items or self.artists or self.genres):
            raise ValueError("expected at least one item, artist or genre")
        return self


class HomeRequest(VisitFields):
    """A visit to the home page."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": "u000123", "device": "mobile", "tz": "Europe/Stockholm", "rows": 6, "columns": 6}]
        },
    )

    onboarding: Onboarding | None = Field(None, description="picks of a listener who has not listened yet")


class GivenShelf(Wire):
    """A shelf that the caller brings."""

    title: Text
    items: Annotated[list[Id], Field(min_length=1, max_length=1000)]
    scores: list[Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]] | None = Field(
        None, description="one an item, the higher the better; without them the reward model scores"
    )
    rule: Word = Field("custom", description="category of the explanation; the reward model learns it")
    explanation: Text = ""

    @model_validator(mode="after")
    def _one_score_an_item(self) -> GivenShelf:
        if self.scores is not None and len(self.scores) != len(self.items):
            raise ValueError(f"scores has {len(self.scores)} entries; expected {len(self.items)}, one an item")
        if len(set(self.items)) != len(self.items):
            raise ValueError("items repeats an id; expected each once in a shelf")
        return self


class RankRequest(VisitFields):
    """A visit whose shelves the caller has found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u000123",
                    "shelves": [{"title": "Fresh", "rule": "fresh", "items": ["t1", "t2"], "scores": [0.4, 0.2]}],
                }
            ]
        },
    )

    shelves: Annotated[list[GivenShelf], Field(min_length=1, max_length=MAX_SHELVES)]
    query: (
        Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$")] | None
    ) = Field(
        None, description="the one shelf answers this query: its order and scores are features of the reward model"
    )

    @model_validator(mode="after")
    def _bounded(self) -> RankRequest:
        if self.query is not None:
            if len(self.shelves) != 1 or self.shelves[0].scores is None:
                raise ValueError("query goes with one shelf, its results in the caller's order with scores")
            if self.rows not in (None, 1):
                raise ValueError(f"rows is {self.rows}; expected none, or 1: results are one row")
        if sum(len(shelf.items) for shelf in self.shelves) > MAX_CANDIDATES:
            raise ValueError(f"shelves hold more than {MAX_CANDIDATES} items; expected {MAX_CANDIDATES} at most")
        if len({shelf.scores is None for shelf in self.shelves}) > 1:
            raise ValueError("shelves have scores in part; expected them for all or none")
        return self


class FeedbackItem(Wire):
    """One report about one card, or (without row and column) about the page."""

    event_id: Id
    occurred_at: Time | None = None
    row: Annotated[int, Field(ge=0, lt=MAX_ROWS)] | None = None
    column: Annotated[int, Field(ge=0, lt=MAX_COLUMNS)] | None = None
    displayed: bool | None = None
    seen: bool | None = None
    listened_s: Seconds | None = None
    skipped: bool | None = None
    saved: bool | None = None
    not_interested: bool | None = Field(
        None, description="of a card, which was seen then: true hides it from the listener from now on, false no more"
    )

    def logged(self) -> dict[str, Any]:
        """The event as the decision log keeps it."""
        told = self.model_dump(exclude={"not_interested"})
        return {**told, "seen": True} if self.not_interested is not None and self.seen is None else told


class FeedbackRequest(Wire):
    """What a client reports about one page; any order, any number of times."""

    model_config = ConfigDict(
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


class Play(Wire):
    """One track that was played; without `skipped` it counts as played to the end."""

    item_id: Id
    started_at: Time | None = None
    listened_s: Seconds | None = None
    skipped: bool | None = None
    container_id: Id | None = Field(None, description="the playlist, album, artist or show that it was played from")


class SessionRequest(Wire):
    """A listening session so far, or (final) as a whole: all plays of it, in order, each time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u000123",
                    "session_id": "s1",
                    "final": False,
                    "plays": [{"item_id": "t1", "listened_s": 190.0}, {"item_id": "t2", "skipped": True}],
                }
            ]
        },
    )

    user_id: Id
    session_id: Id
    final: bool
    device: Word = "mobile"
    tz: Zone = "UTC"
    started_at: Time | None = Field(None, description="of the session; else of the first play, else now")
    plays: Annotated[list[Play], Field(min_length=1, max_length=MAX_PLAYS)]


class PreferencesRequest(Wire):
    """What a listener asks for; what is not named stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"blocked_artists": ["The Holy Ravens"], "explicit": False}]}
    )

    blocked_artists: Annotated[list[Id], Field(max_length=MAX_BLOCKED)] | None = Field(
        None, description="names; neither their items nor shelves that name them are shown"
    )
    blocked_items: Annotated[list[Id], Field(max_length=MAX_BLOCKED)] | None = None
    not_interested: Annotated[list[Id], Field(max_length=MAX_BLOCKED)] | None = Field(
        None, description="items that were told off on a card; hidden as blocked ones are"
    )
    followed_artists: Annotated[list[Id], Field(max_length=MAX_BLOCKED)] | None = None
    explicit: bool | None = Field(None, description="false: no explicit item, whatever a visit allows")
    mode: Literal["personalised", "no_experiments", "not_profiled"] | None = Field(
        None,
        description="no_experiments: no arm and no exploration; not_profiled: neither, pages by popularity and context"
        " alone, and what was kept of the listener is erased at once",
    )


class ModelRequest(Wire):
    """Which bundle to serve: one by its name, or the one before."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"activate": "20261122T051200Z-0123abcd", "why": "better by 3 %"}]}
    )

    activate: Id | None = Field(None, description="name of a bundle of this run, never a path")
    rollback: bool = False
    why: Text = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> ModelRequest:
        if (self.activate is None) is not self.rollback:
            raise ValueError("expected either the name of a bundle to activate or rollback")
        return self


class ControlRequest(Wire):
    """A switch to throw."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"switch": "explore", "state": "off", "why": "a release"}]}
    )

    switch: Literal["explore", "learning", "fallback"]
    state: Literal["on", "off"]
    why: Text = ""


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def utc_offset_min(tz: str, at: datetime) -> int:
    """Minutes that clocks in a zone are ahead of UTC at a moment."""
    offset = at.astimezone(_zone(tz)).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() / 60)


def schema_components(*others: type[Wire]) -> dict[str, Any]:
    """JSON schemas of all requests (and others), by name, for the OpenAPI document."""
    from pydantic.json_schema import models_json_schema

    models: tuple[type[BaseModel], ...] = (
        HomeRequest,
        RankRequest,
        FeedbackRequest,
        SessionRequest,
        PreferencesRequest,
        ModelRequest,
        ControlRequest,
        *others,
        Problem,
    )
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Any] = found["$defs"]
    return definitions
