"""What is kept of one listener, shown to an administrator and erased for good."""

from __future__ import annotations

import hmac
import logging
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from api.hosts.shared import StreamedLog
from api.run.clock import text_of
from api.upkeep.held import bundles_that_hold
from bart.errors import LogError
from bart.log.care.erasure import erase_user
from bart.log.record.record import to_us
from recommender.users.vectors import forget_vector

if TYPE_CHECKING:
    from api.service.service import HomeService
    from bart.types import Ints, Strings


_log = logging.getLogger("bart.service")


def listener_document(service: HomeService, user_id: str) -> dict[str, Any] | None:
    """State and traits of one listener of the batch that serves, and how many pages are logged; None for nobody."""
    row = service.run.store.get(user_id)
    with service.log.reading() as connection:
        query = "SELECT count(*), max(decided_us) FROM decision WHERE user_id = ?"
        pages, latest_us = connection.execute(query, (user_id,)).fetchone()
    if row is None and pages == 0:
        return None
    document: dict[str, Any] = {
        "user_id": user_id,
        "batch_id": service.run.bundle.batch_id,
        "pages": pages,
        "latest_page_at": None if latest_us is None else text_of(latest_us / 1e6),
        "state": None,
    }
    if row is not None:
        name = service.run.items.item_id
        document["state"] = {
            "known": row.known,
            "made_at": None if row.made_at_s is None else text_of(row.made_at_s),
            "diversity": row.diversity,
            "exploration_success": row.exploration_success,
            "recent": _ids(name, row.recent),
            "favourite": _ids(name, row.favourite),
            "rested": _ids(name, row.rested),
            "blocked_artists": sorted(row.blocked_artists),
            "numbers": len(row.state),
        }
    return document


def erase_listener(service: HomeService, user_id: str, erased_at: datetime, *, wishes: bool = True) -> dict[str, Any]:
    """Removes a listener's states and user vectors (of all batches), sessions, wishes, pages, feedback, quarantine and
    exported rows.

    wishes: where not, they stay: of who asked that nothing be kept. Returns the receipt: what was removed (with what
    was removed within the hour before, whose receipt may have been lost), the bundles that learnt from the listener and
    what drops that (`held_by`), and a code that only this run can have made. compacted: False where another process
    held a file, so that deleted bytes are in it until housekeeping has rebuilt it. An unknown listener is not an error:
    nothing is found, and the receipt says so. Pages of the listener that wait to be recorded are refused. The listening
    events that a bundle was built from are the user's own file and are not touched; no later build or retraining of
    this run reads what the listener did before the erasure.
    """
    held_by = bundles_that_hold(service, user_id)
    exports = [service.run.paths.log_export] if service.run.paths.log_export.is_dir() else []
    if isinstance(service.log, StreamedLog):  # copies on their way to the log
        with service.log.reading() as connection:
            mine = connection.execute("SELECT request_id FROM decision WHERE user_id = ?", (user_id,)).fetchall()
        service.log.sink.forget([request_id for (request_id,) in mine])
    erase_user(service.log, user_id, erased_at, exports, compact=False)
    states, sessions = service.run.store.forget(user_id), service.listening.sessions.forget(user_id)
    for path in service.run.paths.user_vector_files():
        forget_vector(path, user_id)
    removed = service.log.count_erased(user_id, erased_at, states=states, sessions=sessions)
    preferences = service.run.store.preferences
    gone = 0 if preferences is None else preferences.erase(user_id, to_us(erased_at), wishes=wishes)
    receipt = {
        "user_id": user_id,
        "erased_at": erased_at.isoformat(timespec="microseconds"),
        **removed,
        "preferences": gone,
        "held_by": held_by,
        "compacted": _compacted(service),
    }
    return {**receipt, "code": receipt_code(receipt, service.key)}


def _compacted(service: HomeService) -> bool:
    try:
        service.log.compact()
    except LogError as error:
        _log.warning("%s", error)
        return False
    return True


def receipt_code(receipt: dict[str, Any], key: bytes) -> str:
    """What proves that a receipt is of the run with this key and was not altered."""
    content = {name: value for name, value in receipt.items() if name != "code"}
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), key=key, digest_size=16).hexdigest()


def is_genuine(receipt: dict[str, Any], key: bytes) -> bool:
    """Whether a receipt was written by the run with this key."""
    return hmac.compare_digest(str(receipt.get("code", "")), receipt_code(receipt, key))


def _ids(name: Strings, row: Ints) -> list[str]:
    """Ids of rows; without those of items that came with another table, whose publication was rolled back."""
    ids: list[str] = name[row[row < len(name)]].tolist()
    return ids
