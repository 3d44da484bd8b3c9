"""Which bundles learnt from a listener, and what drops that: part of the receipt of an erasure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from api.run.versions import Versions
from bart.bundle import open_bundle
from bart.errors import BundleError

if TYPE_CHECKING:
    from api.service.service import HomeService

DROPPED_BY = {
    "weights": "bart retrain: after an erasure it learns anew, from the log without the listener",
    "rates": "bart retrain --vectors rebuild: it reads the events without the listener",
    "bundles": "bart retrain, when retrain.keep newer ones are kept",
}


def bundles_that_hold(service: HomeService, user_id: str) -> dict[str, Any]:
    """The bundles of the run that may hold something of a listener, before the erasure, and what drops it.

    weights: of the reward model, where it learnt from pages that came after the listener's first one. rates: vectors,
    popularity and tables of a batch that knows the listener. Both are sums over many listeners, from which nobody is
    read; but they would be others without this one.
    """
    with service.log.reading() as connection:
        query = "SELECT min(decided_us) FROM decision WHERE user_id = ?"
        (first_us,) = connection.execute(query, (user_id,)).fetchone()
    first = None if first_us is None else datetime.fromtimestamp(first_us / 1e6, tz=timezone.utc)
    known, versions, found = service.run.store.batches_of(user_id), Versions(service.run.paths.root), []
    for version in versions.list():
        try:
            bundle = open_bundle(versions.path(version.name))
        except BundleError:  # damaged: it can serve nobody
            continue
        weights = first is not None and bundle.taught_until_s is not None and bundle.made_at > first
        rates = bundle.batch_id in known
        if weights or rates:
            found.append({"bundle": version.name, "active": version.active, "weights": weights, "rates": rates})
    return {"bundles": found, "dropped_by": DROPPED_BY if found else {}}
