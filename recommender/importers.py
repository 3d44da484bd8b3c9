"""The importers of listening events by their short name; they live in `recommender.events.importers`."""

from __future__ import annotations

from recommender.events.importers import IMPORTERS, Importer, load_events

__all__ = ["IMPORTERS", "Importer", "load_events"]
