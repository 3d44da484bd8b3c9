"""What a listener asks for: told, changed, and carried out where it asks that nothing be kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from api.upkeep.listener_admin import erase_listener
from api.wire.problems import ProblemError
from api.wire.schemas import PreferencesRequest
from bart.errors import StoreError

if TYPE_CHECKING:
    from api.service.service import HomeService
    from bart.types import Wishes
    from recommender.states.preferences import Preferences

LISTS = ("blocked_artists", "blocked_items", "not_interested", "followed_artists")


def preferences_document(service: HomeService, user_id: str) -> dict[str, Any]:
    """What a listener asks for; the defaults for who never did."""
    return _told(service, user_id, service.run.store.wishes(user_id))


def put_preferences(service: HomeService, user_id: str, body: PreferencesRequest, at: datetime) -> dict[str, Any]:
    """Changes what the body names, the rest stays; holds for every page that is asked for from now on.

    Who is not profiled from now on is erased but for these wishes; `erased` is the receipt. Raises ProblemError (422)
    for artists to follow of a listener who is not profiled.
    """
    given: dict[str, Any] = body.model_dump(exclude_unset=True, exclude_none=True)
    before = service.run.store.wishes(user_id)

    def change(wishes: Wishes) -> Wishes:
        after = replace(wishes, **given)
        if after.profiled:
            return after
        if given.get("followed_artists"):
            detail = "followed_artists: expected none of a listener who is not profiled"
            raise ProblemError(422, "The request is not what was expected", detail)
        return replace(after, followed_artists=frozenset())

    after = preferences_of(service).change(user_id, change)
    receipt = None
    if before.profiled and not after.profiled:
        receipt = erase_listener(service, user_id, at, wishes=False)
    return {**_told(service, user_id, after), "erased": receipt}


def preferences_of(service: HomeService) -> Preferences:
    """Where the service's listeners' wishes are kept."""
    found = service.run.store.preferences
    if found is None:
        raise StoreError("the run was opened without preferences")
    return found


def _told(service: HomeService, user_id: str, wishes: Wishes) -> dict[str, Any]:
    """unknown: what the batch that serves does not hold, and another one may."""
    items = service.run.items
    artists = (wishes.blocked_artists | wishes.followed_artists) - items.artists.index.keys()
    unknown = sorted(artists) + sorted(item for item in wishes.hidden_items if item not in items.row_of)
    lists = {name: sorted(getattr(wishes, name)) for name in LISTS}
    return {"user_id": user_id, **lists, "explicit": wishes.explicit, "mode": wishes.mode, "unknown": unknown}
