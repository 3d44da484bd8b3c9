"""Listening cut into sessions, and what a session is as numbers."""

from __future__ import annotations

from recommender.sessions.sessions import cut_sessions
from recommender.sessions.table import SessionColumns, Sessions, TimeSplit, time_split, unit

__all__ = ["SessionColumns", "Sessions", "TimeSplit", "cut_sessions", "time_split", "unit"]
