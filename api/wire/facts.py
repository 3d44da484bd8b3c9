"""What is noted of a request while it is answered, for the line that the log of requests writes of it."""

from __future__ import annotations

from starlette.types import Scope

FACTS = "bart.facts"  # in the scope of a request that is logged


def note(scope: Scope, **facts: str) -> None:
    """Adds to the line of a request: `route` where FastAPI does not know it, `caller`, `user_id`, `error`.

    Nothing where no log is kept.
    """
    known = scope.get(FACTS)
    if known is not None:
        known.update(facts)
