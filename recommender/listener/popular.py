"""A listener model that knows nobody: one vector for all, of what is popular; for where nothing personal ranks better.

Sessions are counted all the same, so that a state says when its listener was last here, as those of other models do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bart.types import Context, Floats, Floats32
from recommender.listener.model import HEADER, Session, save_config, session_columns, write_header
from recommender.sessions.table import SessionColumns


class PopularListener:
    """vector: [d] unit, the mean of item vectors by popularity."""

    name = "popularity"
    state_size = HEADER
    sources: tuple[str, ...] = ("",)

    def __init__(self, vector: Floats32) -> None:
        self.vector = np.asarray(vector, dtype=np.float32)
        self.dimension = len(self.vector)

    def initial(self, account_age_d: Floats) -> Floats32:
        return np.zeros((len(account_age_d), HEADER), dtype=np.float32)

    def predict(self, state: Floats32, context: Context, at: datetime | None = None) -> Floats32:  # noqa: ARG002
        return self.vector.copy()

    def advance(self, state: Floats32, session: Session) -> Floats32:
        after: Floats32 = self.advance_many(state[None], session_columns(session, self.sources))[0]
        return after

    def advance_many(self, state: Floats32, session: SessionColumns) -> Floats32:
        out = np.empty_like(state)
        write_header(out, session.ended_s, state[:, 2].astype(np.int64) + 1)
        return out

    def save(self, directory: Path) -> None:
        save_config(directory, {"name": self.name, "vector": [float(x) for x in self.vector]})

    @classmethod
    def load(cls, directory: Path, config: Mapping[str, Any]) -> PopularListener:  # noqa: ARG003
        return cls(np.array(config["vector"], dtype=np.float32))
