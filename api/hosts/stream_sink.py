"""The sending end of the transport: decisions and feedback of one host into a Redis stream, or onto its own disk.

What was acknowledged is either in the stream (XADD succeeded: as durable as the server's append-only file, which with
`appendfsync always` is on the disk by then) or in the spool of this host, from where it is sent on in order, marked
`spooled`, when the server answers again. The receiving end is `api.hosts.stream_consumer`.

Keys: NAME:log the stream; NAME:decision:REQUEST the record of a page for an hour, by which retries on any host find
it; NAME:events:REQUEST event ids for as long.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from api.hosts.spool import Parcel, Spool
from api.run.loops import Loop
from bart.directories import exclusive
from bart.errors import BundleError, FeedbackError, LogError, StoreError
from bart.log.decision_log import read_events
from bart.log.outcomes.merge import check_on_page
from bart.log.record.feedback import FeedbackEvent, FeedbackResult, Rejection
from bart.log.record.record import CHECKSUM_BYTES, decode, encode, to_us
from bart.types import Decision

KEEP_S = 3600  # how long a retry finds its page, on any host
AWAY_S = 1.0  # a server that did not answer is not asked again for so long
FORWARD_EVERY_S = 0.5
_AT_ONCE = 200

_log = logging.getLogger("bart.stream")

# Known already: its record is returned and nothing is sent, so that sending again after a lost answer sends once.
_SEND_DECISION = """
local known = redis.call('GET', KEYS[2])
if known then return known end
redis.call('XADD', KEYS[1], '*', 'kind', 'decision', 'request_id', ARGV[1], 'checksum', ARGV[2], 'body', ARGV[3],
           'marks', ARGV[4])
redis.call('SET', KEYS[2], ARGV[2] .. ARGV[3], 'EX', ARGV[5])
return false
"""
_SEND_FEEDBACK = """
redis.call('XADD', KEYS[1], '*', 'kind', 'feedback', 'request_id', ARGV[1], 'checksum', '', 'body', ARGV[2],
           'marks', ARGV[3])
local new = 0
for i = 5, #ARGV do new = new + redis.call('SADD', KEYS[2], ARGV[i]) end
redis.call('EXPIRE', KEYS[2], ARGV[4])
return new
"""


class StreamSink:
    """A `bart.types.DecisionSink`, and a sink of feedback. Threads may share it.

    client: of `recommender.states.redis_store.connect`. spool: where to keep what cannot be sent. name: what all keys
    begin with. marks: gives the marks of the decision that this thread appends, see `bart.log.store.marks`.
    """

    def __init__(
        self,
        client: Any,
        spool: Spool,
        name: str = "bart",
        *,
        keep_s: int = KEEP_S,
        marks: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.spool = spool
        self._client = client
        self._name = name
        self._stream = f"{name}:log"
        self._keep_s = keep_s
        self._marks = marks
        self._away_until = 0.0
        self._send_decision = client.register_script(_SEND_DECISION)
        self._send_feedback = client.register_script(_SEND_FEEDBACK)
        self.loop = Loop("spool", self._forward_where_any, FORWARD_EVERY_S)

    def append(self, decision: Decision) -> None:
        """Takes one decision; it is in the stream or in the spool when this returns.

        The same decision again is taken as the retry that it is. Raises LogError for a request id that is known with
        another decision.
        """
        encoded = encode(decision)
        parcel = Parcel("decision", encoded.request_id, encoded.checksum, encoded.record, tuple(self._marks()))
        try:
            known = self._reach(lambda: self._send(parcel))
        except StoreError:
            self.spool.put(parcel)
            return
        if known is not None:
            raise LogError(f"request {parcel.request_id!r} is known already, with another decision")

    def feedback(
        self, request_id: str, events: Sequence[FeedbackEvent | Mapping[str, Any]], received_at: datetime
    ) -> FeedbackResult:
        """Takes what a client reported about one page; it is in the stream or in the spool when this returns.

        What the log makes of it (late, conflicting, for an unknown page) shows there alone: here an event is accepted
        or repeated, by the event ids of the last hour. Events that are malformed, or off a page that is still known,
        are rejected.
        """
        good, rejected = read_events(events)
        page = self.get(request_id) if good else None
        if page is not None:
            for index, event in list(good.items()):
                try:
                    check_on_page(event, page.page.shown)
                except FeedbackError as error:
                    del good[index]
                    rejected.append(Rejection(index, event.event_id, str(error)))
        rejected.sort(key=lambda r: r.index)
        if not good:
            return FeedbackResult(rejected=tuple(rejected))
        parcel = Parcel("feedback", request_id, b"", report_bytes(list(good.values()), received_at))
        names = [event.event_id for event in good.values()]
        try:
            new = self._reach(lambda: self._send_report(parcel, names))
        except StoreError:
            self.spool.put(parcel)
            new = len(good)
        return FeedbackResult(accepted=new, repeated=len(good) - new, rejected=tuple(rejected))

    def get(self, request_id: str) -> Decision | None:
        """A decision of the last hour by any host, or one that waits here; None otherwise."""
        try:
            value = self._reach(lambda: self._client.get(self._key(request_id)))
        except StoreError:
            value = None
        if value is not None:
            return decode(value[CHECKSUM_BYTES:], value[:CHECKSUM_BYTES])
        waiting = self.spool.decision(request_id)
        return None if waiting is None else decode(waiting.body, waiting.checksum)

    def forget(self, request_ids: list[str]) -> None:
        """Removes what is kept of the given pages besides the log, here and in the server."""
        self.spool.forget(request_ids)
        for request_id in request_ids:
            self._reach(
                lambda request_id=request_id: self._client.delete(  # type: ignore[misc]
                    self._key(request_id), f"{self._name}:events:{request_id}"
                )
            )

    def forward(self) -> int:
        """Sends on what waits, the oldest first, and says how much; stops where the server does not answer.

        A process that is killed after sending and before removing sends again: the receiving end takes it once.
        """
        sent = 0
        with exclusive(self.spool.path.with_name(".spool.lock"), "another process sends on"):
            while waiting := self.spool.oldest(_AT_ONCE):
                for seq, parcel in waiting:
                    later = Parcel(
                        parcel.kind, parcel.request_id, parcel.checksum, parcel.body, (*parcel.marks, "spooled")
                    )
                    try:
                        if parcel.kind == "feedback":
                            self._reach(lambda later=later: self._send_report(later, []))  # type: ignore[misc]
                        elif self._reach(lambda later=later: self._send(later)) is not None:  # type: ignore[misc]
                            self._reach(lambda later=later: self._refuse(later))  # type: ignore[misc]
                    except StoreError:
                        return sent
                    self.spool.remove(seq)
                    sent += 1
                self.loop.heart.beat()
        return sent

    def start(self) -> None:
        """Begins to send on from a thread of its own, until `close`."""
        self.loop.start()

    def close(self) -> None:
        """Ends sending on; what waits stays on the disk."""
        self.loop.stop()
        self.spool.close()

    # ------------------------------------------------------------------------------------------------------ machinery

    def _send(self, parcel: Parcel) -> bytes | None:
        """None where it is in the stream; else the other decision that is there under its request id."""
        keys = [self._stream, self._key(parcel.request_id)]
        given = [parcel.request_id, parcel.checksum, parcel.body, ",".join(parcel.marks), self._keep_s]
        known: bytes | None = self._send_decision(keys=keys, args=given)
        return None if known is None or known[:CHECKSUM_BYTES] == parcel.checksum else known

    def _send_report(self, parcel: Parcel, event_ids: list[str]) -> int:
        keys = [self._stream, f"{self._name}:events:{parcel.request_id}"]
        given = [parcel.request_id, parcel.body, ",".join(parcel.marks), self._keep_s, *event_ids]
        return int(self._send_feedback(keys=keys, args=given))

    def _refuse(self, parcel: Parcel) -> None:
        """Two hosts decided for the same request id while the server was away: the later one is kept apart."""
        _log.error("request %r: another host decided for it; kept in %s:refused", parcel.request_id, self._stream)
        fields = {
            "reason": "another decision of this request id came first", "kind": parcel.kind, "body": parcel.body,
            "request_id": parcel.request_id, "checksum": parcel.checksum, "marks": ",".join(parcel.marks),
        }  # fmt: skip
        self._client.xadd(f"{self._stream}:refused", fields)

    def _reach(self, work: Callable[[], Any]) -> Any:
        from redis.exceptions import RedisError

        if time.monotonic() < self._away_until:
            raise StoreError("the Redis server did not answer a moment ago")
        try:
            return work()
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_S
            raise StoreError(f"the Redis server does not take it: {error}") from error

    def _key(self, request_id: str) -> str:
        return f"{self._name}:decision:{request_id}"

    def _forward_where_any(self) -> None:
        if len(self.spool):
            try:
                self.forward()
            except BundleError:
                return  # another process of this host is at it


def report_bytes(events: Sequence[FeedbackEvent], received_at: datetime) -> bytes:
    """A report as it travels."""
    return json.dumps({"at": to_us(received_at), "events": [[e.event_id, e.content] for e in events]}).encode()


def read_report(body: bytes) -> tuple[list[FeedbackEvent], int]:
    """The events of a report and when it was received, microseconds. Raises ValueError for other bytes."""
    try:
        found = json.loads(body)
        return [FeedbackEvent.of_content(name, tuple(content)) for name, content in found["events"]], int(found["at"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"the report cannot be read: {error}") from None
