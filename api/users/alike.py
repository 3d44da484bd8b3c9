"""Who is alike: the listener's vector as of now against those of everybody, as `bart users encode` wrote them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from api.run.clock import text_of, utc_now
from api.wire.problems import ProblemError
from bart.errors import DataError, SchemaMismatch

if TYPE_CHECKING:
    from api.run.runs import OpenRun
    from api.service.service import HomeService
    from recommender.users.vectors import UserVectors


class Alike:
    """Keeps the vectors of the batch that serves, read once and again when their file is another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[str, int, UserVectors] | None = None

    def of(self, service: HomeService, user_id: str, limit: int) -> dict[str, Any]:
        """The listeners most alike to one, by cosine. Raises ProblemError for one of whom nothing is known (404), and
        where the batch has no user vectors (409)."""
        run = service.run  # once: a batch that is activated meanwhile serves the next request
        if run.store.get(user_id) is None:
            raise ProblemError(404, "Not found", f"nothing is known of a listener {user_id!r:.80}")
        try:
            own = run.store.user_vector(user_id, utc_now().timestamp())
            every, made_ns = self._everybody(run)
            near = every.nearest(own, limit) if own.vector.any() else []
        except (SchemaMismatch, DataError) as error:
            raise ProblemError(409, "No user vectors", str(error)) from error
        return {
            "user_id": user_id,
            "batch_id": run.bundle.batch_id,
            "encoded_at": text_of(made_ns / 1e9),
            "listeners": len(every),
            "similar": [{"user_id": user, "cosine": round(cosine, 4)} for user, cosine in near],
        }

    def _everybody(self, run: OpenRun) -> tuple[UserVectors, int]:
        from recommender.users.vectors import UserVectors

        batch_id = run.bundle.batch_id
        path = run.paths.user_vectors(batch_id)
        if not path.is_file():
            raise DataError(
                f"no vectors of batch {batch_id} are written; expected bart users encode {path.parent.parent}"
            )
        written_ns = path.stat().st_mtime_ns
        with self._lock:
            if self._kept is None or self._kept[:2] != (batch_id, written_ns):
                self._kept = (batch_id, written_ns, UserVectors.load(path, batch_id))
            return self._kept[2], written_ns
