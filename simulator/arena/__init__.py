"""A frozen benchmark of page-level evaluation: seeded logs with known truths, and a table of whoever enters it."""

from __future__ import annotations

from simulator.arena.entries import Answer, Entry
from simulator.arena.logs import Log, Target, arena_log
from simulator.arena.tasks import LOGGING, TARGETS, VERSION, WORLDS

__all__ = ["LOGGING", "TARGETS", "VERSION", "WORLDS", "Answer", "Entry", "Log", "Target", "arena_log"]
