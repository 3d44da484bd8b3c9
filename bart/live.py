"""A ranker whose model is replaced while it serves, in one process: what `bart.learning.online` publishes goes live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bart.home import HomeRanker
from bart.learning.online import Publication
from bart.types import Context, Decision, Listener


class LiveRanker:
    """A ranker whose model can be replaced while other threads decide pages: what a process serves by itself.

    (The service publishes bundles instead, which all of its processes take up in the same way.)
    """

    def __init__(self, ranker: HomeRanker) -> None:
        self._ranker = ranker

    @property
    def ranker(self) -> HomeRanker:
        """The ranker of this moment: one scorer, and the model id that names it."""
        return self._ranker

    def rank(
        self, request_id: str, listener: Listener, context: Context, rows: int, columns: int, seed: int, **options: Any
    ) -> Decision:
        """`HomeRanker.rank` by the ranker of this moment."""
        return self._ranker.rank(request_id, listener, context, rows, columns, seed, **options)

    def publish(self, publication: Publication) -> None:
        """Puts a new model in place by one assignment."""
        model_id = publication.model.content_id()[:16]
        self._ranker = replace(self._ranker, scorer=publication.scorer, model_id=model_id)
