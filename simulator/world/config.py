"""The configuration of a world: sizes, strengths, and a switch for each effect."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np

ZONES = (
    ("US", "America/New_York"), ("GB", "Europe/London"), ("DE", "Europe/Berlin"), ("BR", "America/Sao_Paulo"),
    ("MX", "America/Mexico_City"), ("FR", "Europe/Paris"), ("SE", "Europe/Stockholm"), ("ES", "Europe/Madrid"),
    ("IT", "Europe/Rome"), ("AU", "Australia/Sydney"), ("JP", "Asia/Tokyo"), ("IN", "Asia/Kolkata"),
)  # fmt: skip


HIDDEN_TERMS = ("quality", "explanation", "interest", "popularity_mismatch", "tired", "overplayed", "shown_again")


@dataclass(frozen=True, slots=True)
class AppealConfig:
    """Strengths in logits. Calibrated so that a page of 6 x 6 earns about one stream from a poor policy."""

    level: float = -4.55
    match: float = 3.4
    popularity: float = 0.7
    quality: float = 0.35
    explanation: float = 0.5
    interest: float = 3.0  # on what the closest interest exceeds `near` by
    near: float = 0.35
    popularity_mismatch: float = 2.5  # on the squared difference from the wished popularity
    tired_share: float = 0.15  # of (listener, artist, week)
    tired: float = 1.3
    overplayed: float = 0.8  # for the biggest hit and an account of five years
    shown_again: float = 0.35  # for each earlier showing without a stream
    container: float = -0.85  # of an album, a playlist, a show or an episode: it asks for more time than a track
    habit: float = 3.7  # of what one comes back to, at its part of the day
    habit_elsewhen: float = 1.8  # at other times


@dataclass(frozen=True, slots=True)
class Effects:
    """Switches, one an effect; off means that the effect does not exist, while all random draws stay the same.

    On listening: common_context (all listeners move alike with hour and device), own_context (each in a way of their
    own), drift (taste moves over weeks), persistence (a session resembles the last ones), mood (autoregressive noise),
    repeats (known tracks come again). On albums, playlists and shows, where a world has them: habitual (some are come
    back to, at a part of the day), non_habitual (others are tried as well). On the home page: explanation (who takes
    which reason for a shelf), fatigue (artists one is tired of, hits heard too often, cards shown again and again),
    curved_taste (taste is not linear).
    """

    common_context: bool = True
    own_context: bool = True
    drift: bool = True
    persistence: bool = True
    mood: bool = True
    repeats: bool = True
    explanation: bool = True
    fatigue: bool = True
    curved_taste: bool = True
    habitual: bool = True
    non_habitual: bool = True

    @classmethod
    def without(cls, names: Iterable[str]) -> Effects:
        """All effects but the named ones; "context" and "sequence" name all of their kind (`EFFECT_GROUPS`).

        Raises ValueError for a name that is no effect.
        """
        known = [f.name for f in fields(cls)]
        off = [part for name in names for part in EFFECT_GROUPS.get(name, (name,))]
        for name in off:
            if name not in known:
                raise ValueError(f"effect {name!r} is unknown; expected one of {', '.join([*EFFECT_GROUPS, *known])}")
        return cls(**dict.fromkeys(off, False))


EFFECT_GROUPS = {
    "context": ("common_context", "own_context"),
    "sequence": ("drift", "persistence", "mood", "repeats"),
}


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """Albums, playlists and shows of a world, and how they are listened to.

    shows: how many, with `episodes` each; playlists: those that are cards, of the world's. album_tracks: mean length;
    every track stands in an album. Each listener comes back to two shows, an album and a playlist, each on a share
    `habit_share` of days in its part of the day; tries: shows that are no habit, sessions a day.
    """

    shows: int = 300
    playlists: int = 300
    episodes: int = 36
    album_tracks: float = 8.0
    habit_share: float = 0.5
    tries: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("shows", 20), ("playlists", 1), ("episodes", 2), ("album_tracks", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not 0 <= self.habit_share <= 1 or self.tries < 0:
            raise ValueError(f"habit_share {self.habit_share}, tries {self.tries}; expected a share, and 0 or more")

    @classmethod
    def beside(cls, tracks: int) -> ContainerConfig:
        """As many as go with so many tracks."""
        return cls(shows=max(20, tracks // 100), playlists=max(20, tracks // 100))


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Sizes and strengths; the defaults are calibrated to the published figures (docs/worlds.md).

    start: first day, UTC midnight. days: of listening; visit_days: of home-page visits after them.
    sessions_per_day: mean over listeners. The strengths (drift_strength and so on) are lengths of the offsets beside a
    taste of length 1. sharpness: how closely a session keeps to its target. containers: albums, playlists and shows,
    none by default; tracks, listeners and what they play of music stay the same with them.
    """

    n_tracks: int = 30_000
    n_listeners: int = 1_000
    days: int = 60
    visit_days: int = 14
    start: dt.datetime = dt.datetime(2025, 1, 6, tzinfo=dt.timezone.utc)  # a Monday
    n_playlists: int = 0  # 0: two for three tracks
    playlist_length: float = 36.0  # before repeated draws are dropped
    playlist_sharpness: float = 14.0
    dimension: int = 40
    n_genres: int = 24
    n_clusters: int = 240
    cluster_spread: float = 0.9
    tracks_per_artist: int = 8
    artist_spread: float = 0.5
    track_spread: float = 0.35
    zipf_exponent: float = 0.9
    zipf_offset: float = 8.0
    new_release_share: float = 0.03
    n_interests: int = 4
    sessions_per_day: float = 3.67
    rate_shape: float = 2.5
    session_length: float = 10.0
    new_listener_share: float = 0.06
    sharpness: float = 16.0
    drift_strength: float = 0.9
    common_context_strength: float = 1.6
    own_context_strength: float = 0.3
    persistence_strength: float = 0.8
    mood_strength: float = 0.6
    surprise_strength: float = 0.5  # of a session, unforeseeable
    mass: float = 0.5  # how much big clusters draw: 0 not at all, 1 as a draw by popularity alone
    skip_level: float = -0.45  # logit
    skip_slope: float = 2.2
    effects: Effects = field(default_factory=Effects)
    appeal: AppealConfig = field(default_factory=AppealConfig)
    countries: tuple[str, ...] = tuple(c for c, _ in ZONES)
    zones: tuple[str, ...] = tuple(z for _, z in ZONES)
    containers: ContainerConfig | None = None

    def __post_init__(self) -> None:
        for name in ("n_tracks", "n_listeners", "days", "dimension", "n_genres", "n_clusters", "tracks_per_artist"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.n_playlists < 0 or self.visit_days < 0:
            raise ValueError("n_playlists and visit_days must be at least 0")
        if self.n_interests < 2:
            raise ValueError(f"n_interests is {self.n_interests}; expected at least 2")
        if self.playlist_length < 8 or self.session_length < 1:
            raise ValueError("playlist_length must be at least 8 and session_length at least 1")
        if self.start.tzinfo is None or self.start.astimezone(dt.timezone.utc).time() != dt.time(0):
            raise ValueError(f"start is {self.start.isoformat()}; expected midnight UTC, with its time zone")
        if len(self.countries) != len(self.zones) or not self.zones:
            raise ValueError(
                f"{len(self.countries)} countries and {len(self.zones)} zones; expected one zone a country"
            )
        if self.n_playlists == 0:
            object.__setattr__(self, "n_playlists", max(1, round(self.n_tracks * 2 / 3)))

    @property
    def end(self) -> dt.datetime:
        """When listening ends and visits begin."""
        return self.start + dt.timedelta(days=self.days)


def with_hidden(config: WorldConfig, strength: float) -> WorldConfig:
    """The same configuration with the terms of the appeal that no feature of the product expresses, times `strength`.

    These are the hidden quality of a track, who takes which explanation, fatigue, and what is not linear in taste.
    """
    if not 0 <= strength < np.inf:
        raise ValueError(f"strength is {strength}; expected 0 (none) or more, 1 for the world as it is")
    terms = {name: strength * getattr(config.appeal, name) for name in HIDDEN_TERMS}
    return replace(config, appeal=replace(config.appeal, **terms))
